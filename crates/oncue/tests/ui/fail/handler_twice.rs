use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler(concurrency = 2)]
#[handler(timeout = "3s")]
async fn charge(_: OrderCreated) {}

fn main() {}
