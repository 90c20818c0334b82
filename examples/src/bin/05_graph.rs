//! A graph of handlers: `after` orders those that take the same event, what a handler returns leads to the next ones.

use std::sync::{Arc, Mutex};

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", key = order_id)]
struct OrderPaid {
    order_id: String,
}

type Steps = Arc<Mutex<Vec<&'static str>>>;

fn step(steps: &Steps, name: &'static str) {
    println!("{name}");
    steps.lock().expect("no panic").push(name);
}

#[handler]
async fn reserve(_: OrderCreated, State(steps): State<Steps>) {
    tokio::task::yield_now().await;
    step(&steps, "reserve");
}

/// What it returns is published atomically with its acknowledgement.
#[handler]
async fn charge(order: OrderCreated, State(steps): State<Steps>) -> OrderPaid {
    step(&steps, "charge");
    OrderPaid { order_id: order.order_id }
}

#[handler]
async fn ship(_: OrderPaid, State(steps): State<Steps>) {
    step(&steps, "ship");
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let steps = Steps::default();
    let app = App::open("memory:").await?.state(steps.clone()).on(reserve).on(charge.after(reserve)).on(ship);
    let app = app.start().await?;
    app.publish(OrderCreated { order_id: "o-1".into() }).await?;
    app.idle().await?;
    assert_eq!(*steps.lock().expect("no panic"), ["reserve", "charge", "ship"]);
    app.shutdown().await?;

    // A circle is an error at start.
    let circle = App::open("memory:").await?.state(steps).on(reserve.after(charge)).on(charge.after(reserve));
    println!("{}", circle.start().await.expect_err("nobody could begin"));
    Ok(())
}
