use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler(timeout = "30 parsecs")]
async fn far(_: OrderCreated) {}

#[handler(start = "now")]
async fn now(_: OrderCreated) {}

#[handler(concurrency = 0)]
async fn never(_: OrderCreated) {}

#[handler(inline)]
async fn inline(_: OrderCreated) {}

fn main() {}
