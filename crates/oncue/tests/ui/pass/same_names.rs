#![deny(warnings)]

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

/// An event.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
pub struct OrderCreated {
    order_id: String,
}

pub mod charge {
    pub const LIMIT: usize = 9;
}

mod core {}
mod std {}

pub struct Registration;
pub struct Annotated;
pub struct Meta;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "arguments")]
pub struct Arguments {
    meta: u8,
}

#[handler]
async fn call(arguments: &Arguments, event: Envelope) {
    let meta = arguments.meta;
    drop((meta, event));
}

/// Charges, and stays public and documented.
#[handler(retry = "bank")]
pub async fn charge(order: OrderCreated, _: Context) -> Result<(), HandlerError> {
    let charge = order.order_id.len();
    if charge > charge::LIMIT {
        return Err(HandlerError::reject("too long"));
    }
    Ok(())
}

#[handler]
async fn never_returns_ok(_: OrderCreated) -> Result<(), HandlerError> {
    Err(HandlerError::permanent("never"))
}

#[handler]
async fn panics(_: OrderCreated) {
    panic!("a test")
}

#[handler]
fn r#match(_: &OrderCreated) {}

fn main() {
    let charge = charge.into_registration();
    assert_eq!((charge.id.as_str(), r#match.into_registration().id.as_str()), ("charge", "match"));
    let _ = call.into_registration();
    let _ = (never_returns_ok.into_registration(), panics.into_registration());
}
