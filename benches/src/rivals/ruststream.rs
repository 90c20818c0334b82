//! `RustStream` on its memory broker: the other side of rows 10a to 10c.

use std::{convert::Infallible, hint::black_box};

use ruststream::{
    OutgoingMessage,
    memory::{MemoryPublisher, prelude::*},
};
use serde::Deserialize as SerdeDeserialize;

use crate::{
    measure::{Result, Stopwatch},
    walk::{BODY, Latch, Walked, Way},
};

const TOPIC: &str = "bench";

/// The bytes as they are.
#[derive(Deserialized)]
struct Raw<'a>(&'a [u8]);

#[derive(SerdeDeserialize)]
struct Order {
    id: u64,
    quantity: u32,
}

#[subscriber("bench")]
async fn raw(data: &Raw<'_>, context: &mut Context<'_, (), Latch>) -> HandlerOutcome {
    black_box(data.0[0]);
    context.state().arrived();
    HandlerOutcome::ack()
}

#[subscriber("bench")]
async fn json(order: &Order, context: &mut Context<'_, (), Latch>) -> HandlerOutcome {
    black_box((order.id, order.quantity));
    context.state().arrived();
    HandlerOutcome::ack()
}

/// A service that runs, what it counts on, and its publisher.
macro_rules! started {
    ($handler:ident, $events:expr) => {{
        let (latch, broker) = (Latch::of($events), MemoryBroker::new());
        let state = latch.clone();
        let app = RustStream::new(AppInfo::new("bench", "0.0.0"))
            .on_startup(async move |()| Ok::<_, Infallible>(state))
            .with_broker(broker.clone(), |broker| {
                broker.include($handler);
            });
        (app.start().await?, latch, broker.publisher())
    }};
}

/// Publishes one by one. The service does not run meanwhile: there is one thread.
async fn fill(publisher: &MemoryPublisher, events: u64) -> Result<()> {
    for _ in 0..events {
        publisher.publish(OutgoingMessage::new(TOPIC, BODY), None).await?;
    }
    Ok(())
}

async fn published(events: u64) -> Result<Walked> {
    let (running, _latch, publisher) = started!(raw, events);
    let watch = Stopwatch::start();
    fill(&publisher, events).await?;
    Ok(Walked::new(watch, (running, publisher)))
}

async fn drained_raw(events: u64) -> Result<Walked> {
    let (running, latch, publisher) = started!(raw, events);
    fill(&publisher, events).await?;
    let watch = Stopwatch::start();
    latch.drained().await;
    Ok(Walked::new(watch, running))
}

async fn drained_json(events: u64) -> Result<Walked> {
    let (running, latch, publisher) = started!(json, events);
    fill(&publisher, events).await?;
    let watch = Stopwatch::start();
    latch.drained().await;
    Ok(Walked::new(watch, running))
}

/// Theirs, named as ours with theirs before.
pub(crate) const WAYS: &[Way] = &[
    Way::alone("ruststream publish", |runtime, events| runtime.block_on(published(events))),
    Way::after("ruststream publish", "ruststream dispatch", |runtime, events| runtime.block_on(drained_raw(events))),
    Way::after("ruststream publish", "ruststream dispatch and decode", |runtime, events| {
        runtime.block_on(drained_json(events))
    }),
];
