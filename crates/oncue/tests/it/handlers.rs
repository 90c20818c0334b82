//! Handlers from the outside: every form, called as the dispatcher calls them.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use oncue::{
    handler::{Call, Invocation, StateMap},
    prelude::*,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
    cents: u64,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.paid", key = order_id, topic = "payments")]
struct OrderPaid {
    order_id: String,
}

#[derive(Clone)]
struct Bank(&'static str);

#[handler(retry = "bank", concurrency = 8, timeout = "30s")]
async fn charge(order: OrderCreated, State(bank): State<Bank>) -> Result<OrderPaid, HandlerError> {
    if order.cents == 0 {
        return Err(HandlerError::permanent(bank.0));
    }
    Ok(OrderPaid { order_id: order.order_id })
}

#[handler]
async fn by_reference(order: &OrderCreated, mut total: Keyed<u64>, context: Context) {
    *total += order.cents;
    let _ = context.attempt();
}

#[handler(inline, on = ["a", "b"])]
fn raw(event: &Envelope) {
    let _ = event.id();
}

async fn free(order: OrderCreated) -> Option<OrderPaid> {
    Some(OrderPaid { order_id: order.order_id })
}

async fn free_ref(order: &OrderCreated, _: Context) -> Option<OrderPaid> {
    Some(OrderPaid { order_id: order.order_id.clone() })
}

fn plain(_: OrderCreated) {}
fn plain_ref(_: &OrderCreated, _: Context) -> Result<(), std::io::Error> {
    Ok(())
}

#[test]
fn all_register() {
    for registration in [
        charge.into_registration(),
        by_reference.into_registration(),
        raw.into_registration(),
        free.into_registration(),
        free_ref.into_registration(),
        plain.into_registration(),
        plain_ref.into_registration(),
        (|_: OrderCreated| async {}).named("closure"),
        (|_: &Envelope| {}).named("closure2").types(["a"]),
        free.after(charge),
    ] {
        println!("{registration:?}");
        assert_eq!(registration.problems(), [""; 0]);
    }
}
