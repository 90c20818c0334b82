#![deny(warnings)]

use oncue::{handler::Registration, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event)]
#[event(type = "order.paid")]
struct OrderPaid;

struct Till;

impl Handle<OrderCreated, Result<OrderPaid, HandlerError>> for Till {
    async fn handle(&self, order: OrderCreated, _: Context) -> Result<OrderPaid, HandlerError> {
        assert!(!order.order_id.is_empty());
        Ok(OrderPaid)
    }
}

impl Handle<OrderPaid> for Till {
    async fn handle(&self, _: OrderPaid, _: Context) {}
}

fn main() {
    let first = Registration::object::<OrderCreated, _>(Till);
    let second = Registration::object::<OrderPaid, _>(Till).named("second").after_id("Till");
    assert_eq!((first.emits, second.types), (vec!["order.paid".to_owned()], vec!["order.paid".to_owned()]));
}
