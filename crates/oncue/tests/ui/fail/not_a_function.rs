use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler]
struct Charge;

#[handler]
async fn nothing() {}

struct Till;

impl Till {
    #[handler]
    async fn charge(&self, _: OrderCreated) {}
}

fn main() {}
