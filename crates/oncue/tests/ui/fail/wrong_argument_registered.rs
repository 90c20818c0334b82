use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Clone)]
struct Bank;

#[handler]
async fn charge(order: OrderCreated, bank: Bank) {
    drop((order, bank));
}

pub fn serve(app: oncue::App) -> oncue::App {
    app.on(charge)
}

fn main() {}
