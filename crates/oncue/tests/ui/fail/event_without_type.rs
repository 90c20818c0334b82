use oncue::prelude::*;

#[derive(Event)]
struct Nameless;

#[derive(Event)]
#[event(type = "a b")]
struct Spaced;

#[derive(Event)]
#[event(type = "a", keys = id)]
struct Misspelt;

#[derive(Event)]
#[event(type = "generic")]
struct Generic<T>(T);

fn main() {}
