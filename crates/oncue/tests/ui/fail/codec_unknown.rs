use oncue::prelude::*;
use serde::{Deserialize, Serialize};

struct Text;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", codec = Text)]
struct OrderCreated {
    order_id: String,
}

fn main() {}
