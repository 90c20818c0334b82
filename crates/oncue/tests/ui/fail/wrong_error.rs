use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Debug)]
struct NoError;

#[handler]
async fn charge(order: OrderCreated) -> Result<(), NoError> {
    drop(order);
    Err(NoError)
}

fn main() {}
