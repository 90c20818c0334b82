use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

struct Paid;

#[handler(emits(Paid))]
async fn charge(_: OrderCreated) {}

fn main() {}
