use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Clone)]
struct Bank;

async fn charge(order: OrderCreated, bank: Bank) {
    drop((order, bank));
}

fn on<M>(handler: impl oncue::handler::IntoRegistration<M>) {
    let _ = handler.into_registration();
}

fn main() {
    on(charge);
}
