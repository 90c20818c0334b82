use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler(concurency = 8)]
async fn misspelt(order: OrderCreated) {
    drop(order);
}

#[handler(colour = "red")]
async fn unknown(order: OrderCreated) {
    drop(order);
}

fn main() {}
