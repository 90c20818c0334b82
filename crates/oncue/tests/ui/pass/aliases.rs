use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

type Fallible<T> = Result<T, HandlerError>;
type Shared<T> = State<T>;

/// Shadows the prelude's.
type Option<T> = std::vec::Vec<T>;

#[handler]
async fn charge(order: OrderCreated, State(limit): Shared<u32>) -> Fallible<Option<OrderCreated>> {
    let _: u64 = order.order_id.parse::<u64>()? + u64::from(limit);
    Ok(vec![order])
}

fn main() {
    assert_eq!(charge.into_registration().emits, ["order.created"]);
}
