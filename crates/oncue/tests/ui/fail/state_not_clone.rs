use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

struct Bank;

#[handler]
async fn charge(order: OrderCreated, State(bank): State<Bank>) {
    drop((order, bank));
}

fn main() {}
