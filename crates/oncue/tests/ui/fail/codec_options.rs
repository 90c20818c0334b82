use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", codec = "Json")]
struct Quoted {
    order_id: String,
}

#[derive(Event)]
#[event(type = "image.stored", codec = raw, content_type = "png")]
struct ContentType(Vec<u8>);

#[derive(Event)]
enum Variant {
    #[event(type = "image.stored", codec = raw)]
    Stored(Vec<u8>),
}

fn main() {}
