use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler]
async fn charge(order: OrderCreated) -> u32 {
    order.order_id.len() as u32
}

fn main() {}
