use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Default)]
struct Total(u64);

#[handler]
async fn count(order: OrderCreated, mut total: Keyed<Total>) {
    total.0 += 1;
    drop(order);
}

fn main() {}
