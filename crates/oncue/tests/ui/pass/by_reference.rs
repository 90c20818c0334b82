use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[handler]
async fn typed(order: &OrderCreated, _: Context) -> Option<OrderCreated> {
    std::future::ready(order.order_id.len()).await;
    None
}

#[handler]
async fn with_lifetime<'a>(order: &'a Delivery<OrderCreated>) {
    let id: &'a str = &order.order_id;
    assert!(!id.is_empty());
}

#[handler(on = "a", inline)]
fn raw(event: &Envelope) {
    assert!(!event.id().is_empty());
}

fn main() {
    let all = [typed.into_registration(), with_lifetime.into_registration(), raw.into_registration()];
    assert!(all.iter().all(|registration| registration.problems().is_empty()));
}
