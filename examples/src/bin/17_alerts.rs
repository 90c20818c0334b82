//! The app tells what somebody should know: a dead letter becomes an alert, which a handler takes like any event; when it is
//! resolved, the alert is over.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use oncue::{
    alert::{Alert, AlertKind, Alerts},
    prelude::*,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

type Repaired = Arc<AtomicBool>;
type Pager = Arc<Mutex<Vec<(AlertKind, String)>>>;

#[handler(retry = policy::never())]
async fn charge(_: OrderCreated, State(repaired): State<Repaired>) -> Result<(), &'static str> {
    if repaired.load(Ordering::SeqCst) { Ok(()) } else { Err("no such account") }
}

#[handler]
async fn page(alert: Alert, State(pager): State<Pager>) {
    println!("{} {}: {}", alert.kind, alert.status, alert.text);
    pager.lock().expect("no panic").push((alert.kind, alert.subject));
}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    let (repaired, pager) = (Repaired::default(), Pager::default());
    let app = App::open("memory:").await?.state(repaired.clone()).state(pager.clone()).on(charge).on(page);
    let app = app.alerts(Alerts::default()).start().await?;
    app.publish(OrderCreated { order_id: "o-1".into() }).await?;
    app.idle().await?;
    app.check_alerts().await;
    app.idle().await?;
    assert_eq!(*pager.lock().expect("no panic"), [(AlertKind::DeadLetter, "charge".to_owned())]);
    println!("health: {}", app.health().status);

    // Somebody looks, mends what is broken, and has it handled again.
    repaired.store(true, Ordering::SeqCst);
    let letters = app.dead_letters("charge");
    for letter in letters.list()? {
        println!("{}: {}", letter.position, letter.history[0].error);
        letters.redrive(letter.position).await?;
    }
    app.idle().await?;
    assert!(letters.list()?.is_empty());
    app.shutdown().await
}
