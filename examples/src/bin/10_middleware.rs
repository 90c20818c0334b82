//! Layers around handlers: while the bank is down, a circuit breaker holds calls back. No attempt is wasted on it, nothing
//! becomes a dead letter, and afterwards all goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{sync::Arc, time::Duration};

use oncue::{handler::BreakerState, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: u32,
}

/// Counts its calls; the first four find it down.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicU32>);

#[handler(concurrency = 4, retry = policy::fixed(Duration::ZERO))]
async fn charge(_order: OrderCreated, State(bank): State<Bank>) -> Result<(), &'static str> {
    if bank.0.fetch_add(1, Ordering::SeqCst) < 4 { Err("the bank is down") } else { Ok(()) }
}

#[handler]
async fn invoice(_order: OrderCreated) {}

#[tokio::main]
async fn main() -> oncue::Result<()> {
    // Three failures in a row open it; after 20 ms, one call tries.
    let breaker = middleware::circuit_breaker("bank").window(3).minimum(3).failure_share(1.0);
    let breaker = breaker.open_for(Duration::from_millis(20));
    let mut watch = breaker.watch();
    tokio::spawn(async move {
        while watch.changed().await.is_ok() {
            println!("the breaker is {}", *watch.borrow());
        }
    });

    // What both use bears eight calls at once. Inside of the breaker: so a call that waits there takes no place here.
    let database = middleware::concurrency_limit(8);
    let charge = charge.layer(breaker).layer(database.clone());
    let invoice = invoice.layer(middleware::rate_limit(1_000, Duration::from_secs(1))).layer(database);
    let bank = Bank::default();
    let app = App::open("memory:").await?.state(bank.clone()).on(charge).on(invoice).start().await?;
    for order_id in 0..20 {
        app.publish(OrderCreated { order_id }).await?;
    }
    app.idle().await?;

    let subscriptions = app.inspect().subscriptions();
    let stats = &subscriptions.iter().find(|known| known.id == "charge").expect("it is served").stats;
    assert_eq!((stats.acked, stats.retried, stats.dead), (20, 4, 0));
    assert_eq!(bank.0.load(Ordering::SeqCst), 24, "three opened it, one found the bank still down");
    assert_eq!(app.breakers()[0].state(), BreakerState::Closed);
    app.shutdown().await
}
