//! Ways that events go, each walked by so many on one thread: what is counted (callgrind) and, for rows 10a to 10c, timed.
//!
//! To be counted, a way is walked in a process of its own, by so many events and by twice as many: the difference is what
//! the events cost, without what happens once.

use std::{
    any::Any,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use oncue::{
    App, Bus, Envelope, Event, filter,
    handler::{HandlerExt as _, Order as Handed, Registration, Start},
    middleware, policy,
};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Runtime, sync::Notify};

use crate::{
    dispatch, events,
    load::BATCH,
    measure::{Result, Stopwatch},
};

/// Nothing goes: retention runs beside on a thread of its own, and would be counted or not as it comes.
const URL: &str = "memory:?retention=forever";

/// What events carry: two integers, so that decoding allocates nothing.
pub(crate) const BODY: &[u8] = br#"{"id":1000000,"quantity":37}"#;
const HANDLER: &str = "bench";

/// Counts what was handled, and tells who waits for the last.
#[derive(Clone)]
pub(crate) struct Latch(Arc<(AtomicU64, Notify)>);

impl Latch {
    pub(crate) fn of(events: u64) -> Self {
        Self(Arc::new((AtomicU64::new(events), Notify::new())))
    }

    /// One more is handled.
    pub(crate) fn arrived(&self) {
        if self.0.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.1.notify_one();
        }
    }

    /// Waits until all are.
    pub(crate) async fn drained(&self) {
        while self.0.0.load(Ordering::Acquire) > 0 {
            self.0.1.notified().await;
        }
    }
}

/// What walking a way gives: how long its last part took, and what may be dropped only after that.
pub(crate) struct Walked {
    pub(crate) seconds: f64,
    _kept: Box<dyn Any>,
}

impl Walked {
    pub(crate) fn new(watch: Stopwatch, kept: impl Any) -> Self {
        Self { seconds: watch.seconds(), _kept: Box::new(kept) }
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "bench")]
struct Order {
    id: u64,
    quantity: u32,
}

fn one() -> Result<Envelope> {
    Ok(Envelope::builder(events::TYPE).content_type("application/json").data(BODY).build()?)
}

/// What takes the event's bytes as they are.
fn raw(latch: &Latch) -> Registration {
    let latch = latch.clone();
    let handler = move |event: Envelope| {
        let latch = latch.clone();
        async move {
            black_box(event.data()[0]);
            latch.arrived();
        }
    };
    handler.named(HANDLER).types([events::TYPE])
}

/// Whose retries are computed.
fn retry_optimal(latch: &Latch) -> Registration {
    raw(latch).retry(policy::optimal())
}

/// Around which an adaptive limit stands.
fn limited(latch: &Latch) -> Registration {
    raw(latch).layer(middleware::adaptive_limit("bench"))
}

/// Whose events are learned from, and never held back.
fn filtered(latch: &Latch) -> Registration {
    raw(latch).filter(filter::learned())
}

/// Which is handed events by their priorities.
fn by_priority(latch: &Latch) -> Registration {
    raw(latch).order(Handed::Priority)
}

/// The same, by priorities that are learned.
fn by_learned_priority(latch: &Latch) -> Registration {
    by_priority(latch).priority(policy::learned_priority())
}

/// What takes the event decoded.
fn json(latch: &Latch) -> Registration {
    let latch = latch.clone();
    let handler = move |order: Order| {
        let latch = latch.clone();
        async move {
            black_box((order.id, order.quantity));
            latch.arrived();
        }
    };
    handler.named(HANDLER)
}

/// Publishes so many events in batches, to nobody or to a handler that does not run meanwhile: there is one thread.
async fn fill(bus: &Bus, events: u64) -> Result<()> {
    let batch = (0..BATCH).map(|_| one()).collect::<Result<Vec<_>>>()?;
    for _ in 0..events / BATCH as u64 {
        bus.publish_all(events::TOPIC, batch.clone(), None).await?;
    }
    Ok(())
}

async fn published_in_batches(events: u64) -> Result<Walked> {
    let bus = App::open(URL).await?.start().await?;
    let watch = Stopwatch::start();
    fill(&bus, events).await?;
    Ok(Walked::new(watch, bus))
}

/// Dispatches what waits, and settles it: published just now, or before the handler was there, so that it reads the log.
async fn drained(events: u64, late: bool, handler: fn(&Latch) -> Registration) -> Result<Walked> {
    let bus = App::open(URL).await?.start().await?;
    let latch = Latch::of(events);
    let registration = handler(&latch).topic(events::TOPIC).start(Start::Earliest);
    if !late {
        bus.subscribe(registration.clone()).await?;
        bus.idle().await?;
    }
    fill(&bus, events).await?;
    let watch = Stopwatch::start();
    if late {
        bus.subscribe(registration).await?;
    }
    latch.drained().await;
    Ok(Walked::new(watch, bus))
}

/// Publishes one by one, to a handler that does not run meanwhile: there is one thread.
async fn published(events: u64) -> Result<Walked> {
    let bus = App::open(URL).await?.on(raw(&Latch::of(events)).topic(events::TOPIC)).start().await?;
    bus.idle().await?;
    let event = one()?;
    let watch = Stopwatch::start();
    for _ in 0..events {
        black_box(bus.publish_to(events::TOPIC, event.clone()).await?);
    }
    Ok(Walked::new(watch, bus))
}

/// A way that can be walked.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// The way that this one begins with: its cost is taken off.
    pub(crate) after: Option<&'static str>,
    walk: fn(&Runtime, u64) -> Result<Walked>,
}

/// From memory to a handler, by what registers it; publishing, which comes first, is taken off.
macro_rules! dispatched {
    ($name:literal, $handler:expr) => {
        Way::after("publish in batches", $name, |runtime, events| runtime.block_on(drained(events, false, $handler)))
    };
}

/// Ours.
pub(crate) const WAYS: &[Way] = &[
    Way::alone("call inline", |_, events| dispatch::walk_inline(events)),
    Way::alone("call async", |_, events| dispatch::walk_async(events)),
    Way::alone("publish in batches", |runtime, events| runtime.block_on(published_in_batches(events))),
    Way::alone("publish", |runtime, events| runtime.block_on(published(events))),
    dispatched!("dispatch", raw),
    dispatched!("dispatch and decode", json),
    dispatched!("retry optimal", retry_optimal),
    dispatched!("adaptive limit", limited),
    dispatched!("learned filter", filtered),
    dispatched!("by priority", by_priority),
    dispatched!("by learned priority", by_learned_priority),
    Way::after("publish in batches", "catch up", |runtime, events| runtime.block_on(drained(events, true, raw))),
];

/// What ours are compared with.
#[cfg(feature = "rivals")]
pub(crate) const OTHERS: &[Way] = crate::rivals::ruststream::WAYS;
#[cfg(not(feature = "rivals"))]
pub(crate) const OTHERS: &[Way] = &[];

impl Way {
    pub(crate) const fn alone(name: &'static str, walk: fn(&Runtime, u64) -> Result<Walked>) -> Self {
        Self { name, after: None, walk }
    }

    pub(crate) const fn after(
        before: &'static str,
        name: &'static str,
        walk: fn(&Runtime, u64) -> Result<Walked>,
    ) -> Self {
        Self { name, after: Some(before), walk }
    }

    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        let mut all = WAYS.iter().chain(OTHERS);
        all.find(|way| way.name == name).ok_or_else(|| format!("there is no way `{name}`").into())
    }

    /// Walks it on one thread: one order of execution. How long its last part took, in seconds.
    #[cfg_attr(not(feature = "rivals"), expect(dead_code, reason = "who has something to compare with, times"))]
    pub(crate) fn timed(&self, events: u64) -> Result<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((self.walk)(&runtime, events)?.seconds)
    }

    /// Walks it, and ends the process: giving back what is left would be counted too.
    pub(crate) fn walk_and_exit(&self, events: u64) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _kept = (self.walk)(&runtime, events)?;
        std::process::exit(0)
    }
}
