use oncue::prelude::*;

#[derive(Event)]
enum Untyped {
    Unit,
}

#[derive(Event)]
enum Shaped {
    #[event(type = "a")]
    Struct { id: u32 },
}

#[derive(Event)]
#[event(type = "a")]
enum Typed {}

#[derive(Event)]
enum Twice {
    #[event(type = "a")]
    One,
    #[event(type = "a")]
    Two,
}

fn main() {}
