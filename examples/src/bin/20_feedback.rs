//! A filter that learns from what happens later: an order is lost if it is canceled, and the cancellation says so. What
//! was handled waits for it, in bounded memory, and the log knows all of it after a restart.

use std::time::Duration;

use oncue::{filter, prelude::*};

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "order.created", key = order)]
struct OrderCreated {
    order: String,
    region: String,
}

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(type = "order.canceled", key = order)]
struct OrderCanceled {
    order: String,
}

/// Nothing goes wrong here: whether it was in vain is told later.
#[handler(
    filter = filter::learned()
        .features(["region"])
        .label(filter::feedback(["order.canceled"], Duration::from_secs(3_600)))
        .threshold(0.9)
)]
async fn ship(_order: OrderCreated) {}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let app = App::open("memory:").await?.on(ship).start().await?;
    for number in 0..300 {
        let region = ["north", "south", "west"][number % 3].to_owned();
        app.publish(OrderCreated { order: format!("o-{number}"), region }).await?;
    }
    app.idle().await?;
    // All that went north is sent back.
    for number in (0..300).step_by(3) {
        app.publish(OrderCanceled { order: format!("o-{number}") }).await?;
    }

    let known = app.inspect().feedback("ship").expect("it learns by feedback");
    println!("canceled: {}, may still be: {}", known.came, known.waiting);
    assert_eq!((known.came, known.stayed_out, known.waiting), (100, 0, 200));
    // Before the hour is over only one outcome is known: nothing proves anything, and nothing is held back.
    let learned = app.inspect().learned("ship").expect("it learned");
    assert_eq!(learned.progress().verdict(), filter::Verdict::OneOutcome);
    assert_eq!(app.inspect().subscriptions()[0].dead, 0);
    app.shutdown().await
}
