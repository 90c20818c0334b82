//! Typed events: an enum has an event type per variant, and a handler of the enum takes them all, in order per key.

use std::sync::{Arc, Mutex};

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
    total_cents: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", key = order_id)]
struct OrderPaid {
    order_id: String,
}

/// Adds no layer: on the wire each variant is the event that it wraps.
#[derive(Event)]
enum OrderEvent {
    Created(OrderCreated),
    Paid(OrderPaid),
    #[event(type = "orders.closed")]
    Closed,
}

type Seen = Arc<Mutex<Vec<String>>>;

#[handler]
async fn follow(event: OrderEvent, State(seen): State<Seen>) {
    let text = match event {
        OrderEvent::Created(order) => format!("{} created, {} cents", order.order_id, order.total_cents),
        OrderEvent::Paid(order) => format!("{} paid", order.order_id),
        OrderEvent::Closed => "closed".to_owned(),
    };
    println!("{text}");
    seen.lock().expect("no panic").push(text);
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    assert_eq!(OrderEvent::TYPES, ["order.created", "order.paid", "orders.closed"]);
    let seen = Seen::default();
    let app = App::open("memory:").await?.state(seen.clone()).on(follow).start().await?;
    // As a struct or as a variant: the same event.
    app.publish(OrderCreated { order_id: "o-1".into(), total_cents: 4_200 }).await?;
    app.publish(OrderEvent::Paid(OrderPaid { order_id: "o-1".into() })).await?;
    app.idle().await?;
    app.publish(OrderEvent::Closed).await?;
    app.idle().await?;
    assert_eq!(*seen.lock().expect("no panic"), ["o-1 created, 4200 cents", "o-1 paid", "closed"]);
    app.shutdown().await
}
