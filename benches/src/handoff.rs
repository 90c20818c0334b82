//! Row 1c: handing events to a handler that runs elsewhere, through a queue.

use std::hint::black_box;

use oncue::Envelope;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    events,
    load::{self, BATCH, Load},
    measure::{Plan, Result, Sample, Stopwatch},
    report::{Row, Target},
};

/// What the channel holds: as much as the dispatcher's window.
const QUEUED: usize = 4096;
/// Batches of one round: memory topics keep what was published.
const BATCHES: u64 = 2000;

async fn through_bus(seconds: f64) -> Result<f64> {
    let load = Load::new(seconds, 1)?.at_most(BATCHES);
    let bus = load::started("memory:", &load).await?;
    let rate = load::handled(&bus, &load).await?;
    bus.shutdown().await?;
    Ok(rate)
}

async fn through_channel(seconds: f64) -> Result<f64> {
    let (sender, mut receiver) = mpsc::channel::<Envelope>(QUEUED);
    let batch = events::many(BATCH)?;
    let watch = Stopwatch::start();
    let producer = tokio::spawn(async move {
        let mut batches = 0;
        while watch.seconds() < seconds && batches < BATCHES {
            for event in &batch {
                if sender.send(event.clone()).await.is_err() {
                    return;
                }
            }
            batches += 1;
        }
    });
    let consumer = tokio::spawn(async move {
        let (mut count, mut received) = (0_u64, Vec::with_capacity(BATCH));
        while receiver.recv_many(&mut received, BATCH).await > 0 {
            count += received.len() as u64;
            for event in received.drain(..) {
                black_box(event.data().len());
            }
        }
        count
    });
    producer.await?;
    Ok(consumer.await? as f64 / watch.seconds())
}

pub(crate) fn queued(plan: &Plan, runtime: &Runtime) -> Result<Vec<Row>> {
    let rounds = plan.rounds("1c", || {
        let ours = runtime.block_on(through_bus(plan.seconds))?;
        let against = runtime.block_on(through_channel(plan.seconds))?;
        Ok(Sample::of(ours, against))
    })?;
    let settings = format!(
        "{}, one publisher, two worker threads, at most {} events a round, nothing synced. Ours, per event: encode, copy \
         into the log in memory, checksum, number, handler, settlement, metrics, and a receipt; the event can be read \
         again, retried and asked about. The channel, bounded at {QUEUED}: none of that; it moves a clone.",
        events::PAYLOAD,
        BATCHES * BATCH as u64,
    );
    Ok(vec![Row {
        id: "1c",
        case: "",
        what: "Queued hand-off: `publish_all` in batches of 256 on `memory:` → inline handler → settled",
        against: "tokio mpsc, `send` each, `recv_many(256)`",
        unit: "events/s",
        target: Target::at_least(2.0),
        settings,
        rounds,
    }])
}
