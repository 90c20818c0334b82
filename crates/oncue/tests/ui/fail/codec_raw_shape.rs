use oncue::prelude::*;

#[derive(Event)]
#[event(type = "image.stored", codec = raw)]
struct Fields {
    name: String,
    bytes: Vec<u8>,
}

#[derive(Event)]
#[event(type = "image.moved", codec = raw)]
struct Two(Vec<u8>, Vec<u8>);

#[derive(Event)]
#[event(type = "image.lost", codec = raw)]
struct Unit;

#[derive(Event)]
#[event(codec = raw)]
enum Images {
    #[event(type = "image.shown")]
    Shown,
}

fn main() {}
