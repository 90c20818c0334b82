//! Two kinds of state: `State<T>`, a value of the app, and `Keyed<T>`, the handler's own value for the event's key, written
//! atomically with the acknowledgement.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use oncue::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", key = customer)]
struct OrderPaid {
    customer: String,
    cents: u64,
}

/// A connection, a pool, a client: whatever handlers share. It is cloned for each call.
#[derive(Clone, Default)]
struct Till(Arc<AtomicU64>);

#[handler]
async fn take(order: OrderPaid, State(till): State<Till>, mut spent: Keyed<u64>) {
    till.0.fetch_add(order.cents, Ordering::Relaxed);
    *spent += order.cents;
    println!("{} has spent {} cents", order.customer, *spent);
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let till = Till::default();
    let app = App::open("memory:").await?.state(till.clone()).on(take).start().await?;
    for (customer, cents) in [("ada", 300), ("bob", 50), ("ada", 700)] {
        app.publish(OrderPaid { customer: customer.into(), cents }).await?;
    }
    app.idle().await?;
    assert_eq!(till.0.load(Ordering::Relaxed), 1_050);
    let mut spent = app.inspect().states("take")?;
    spent.sort();
    assert_eq!(spent, [("ada".to_owned(), "1000".into()), ("bob".to_owned(), "50".into())]);
    app.shutdown().await?;

    // A value that is missing is an error at start, with the handler's name and line.
    let error = App::open("memory:").await?.on(take).start().await.expect_err("there is no till");
    println!("{error}");
    assert!(error.to_string().contains("`take`") && error.to_string().contains("03_state.rs"));
    Ok(())
}
