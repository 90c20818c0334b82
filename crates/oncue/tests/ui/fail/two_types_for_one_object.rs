use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid")]
struct OrderPaid;

struct Till;

impl Handle<OrderCreated> for Till {
    async fn handle(&self, _: OrderCreated, _: Context) {}
}

impl Handle<OrderPaid> for Till {
    async fn handle(&self, _: OrderPaid, _: Context) {}
}

fn main() {
    let _ = Till.into_registration();
}
