//! Publishing batches through the bus for a while, as several publishers, with a bound on what is not handled yet.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncue::{App, Bus, Envelope, EventOutcome, Receipt, handler::HandlerExt as _};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    events,
    measure::{Result, Stopwatch},
};

/// Events of one batch.
pub(crate) const BATCH: usize = 256;
/// Batches that may be published and not handled: what is kept in memory for readers holds more.
const BACKLOG: usize = 128;
/// The id of the handler.
pub(crate) const HANDLER: &str = "bench";
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is published, and how.
#[derive(Clone)]
pub(crate) struct Load {
    batch: Arc<Vec<Envelope>>,
    publishers: usize,
    seconds: f64,
    at_most: u64,
    /// One permit per batch that may be published. Returned when it is handled, or at once where nobody handles.
    pub(crate) backlog: Arc<Semaphore>,
}

impl Load {
    pub(crate) fn new(seconds: f64, publishers: usize) -> Result<Self> {
        let batch = Arc::new(events::many(BATCH)?);
        Ok(Self { batch, publishers, seconds, at_most: u64::MAX, backlog: Arc::new(Semaphore::new(BACKLOG)) })
    }

    /// Publishes no more batches than this.
    pub(crate) fn at_most(self, batches: u64) -> Self {
        Self { at_most: batches, ..self }
    }

    /// Publishes until the time is over; the number of events.
    pub(crate) async fn publish(&self, bus: &Bus, handled_elsewhere: bool) -> Result<u64> {
        let watch = Stopwatch::start();
        let begun = Arc::new(AtomicU64::new(0));
        let mut publishers = JoinSet::new();
        for _ in 0..self.publishers {
            let (load, bus, begun) = (self.clone(), bus.clone(), Arc::clone(&begun));
            publishers.spawn(async move {
                let mut batches = 0;
                while watch.seconds() < load.seconds && begun.fetch_add(1, Ordering::Relaxed) < load.at_most {
                    let permit = load.backlog.acquire().await?;
                    if handled_elsewhere {
                        permit.forget();
                    }
                    bus.publish_all(events::TOPIC, load.batch.to_vec(), None).await?;
                    batches += 1;
                }
                Result::Ok(batches)
            });
        }
        let mut batches = 0;
        while let Some(ended) = publishers.join_next().await {
            batches += ended??;
        }
        Ok(batches * BATCH as u64)
    }
}

/// An app with one inline handler, which counts and gives permits back.
pub(crate) async fn started(url: &str, load: &Load) -> Result<Bus> {
    let (backlog, handled) = (Arc::clone(&load.backlog), Arc::new(AtomicU64::new(0)));
    let handler = move |event: &Envelope| {
        black_box(event.data().len());
        if (handled.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(BATCH as u64) {
            backlog.add_permits(1);
        }
    };
    let handler = handler.named(HANDLER).types([events::TYPE]).topic(events::TOPIC).inline();
    Ok(App::open(url).await?.on(handler).start().await?)
}

/// Publishes, and waits until all of it is settled; events per second.
pub(crate) async fn handled(bus: &Bus, load: &Load) -> Result<f64> {
    let watch = Stopwatch::start();
    let count = load.publish(bus, true).await?;
    // Settling goes on in order: once the last event's outcome is durable, all are.
    let last = bus.publish_to(events::TOPIC, events::one()?).await?;
    acked(&last).await?;
    Ok(count as f64 / watch.seconds())
}

/// Waits until the handler's acknowledgement is durable.
pub(crate) async fn acked(receipt: &Receipt) -> Result<()> {
    match receipt.outcome_of(HANDLER, LONGEST_WAIT).await? {
        EventOutcome::Acked => Ok(()),
        other => Err(format!("an event of a benchmark ended as {other:?}").into()),
    }
}
