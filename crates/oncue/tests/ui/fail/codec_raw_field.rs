use oncue::prelude::*;

#[derive(Event)]
#[event(type = "image.stored", codec = raw)]
struct ImageStored(Vec<u16>);

fn main() {}
