use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "a", key = ordr_id)]
struct NoSuchField {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "b", key = "order_id")]
struct Quoted {
    order_id: String,
}

fn main() {}
