//! Row 11: publish → handle → ack in one process, against libraries that keep events in `SQLite`.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use oncue::{
    App, Bus, Envelope,
    handler::{HandlerExt as _, Registration, Start},
};
use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

use super::{sqlite, watermill::Watermill};
use crate::{
    events,
    load::{self, HANDLER},
    measure::{Plan, Result, Rounds, Sample, Stopwatch},
    raw,
    report::{Row, Target},
};

/// How events are published; the same for both sides.
pub(super) struct Pace {
    pub(super) seconds: f64,
    pub(super) publishers: usize,
    /// Events that one call publishes.
    pub(super) batch: usize,
    /// Most events that are published and not handled.
    pub(super) backlog: usize,
}

/// What waits before the handler starts: ours, theirs. Each so many that it takes a second or so.
const BACKLOG: (u64, u64) = (512_000, 4_000);

/// An async handler that gives room back.
fn handler(room: &Arc<Semaphore>, batch: usize) -> Registration {
    let (room, handled) = (Arc::clone(room), Arc::new(AtomicUsize::new(0)));
    let handler = move |event: Envelope| {
        let (room, handled) = (Arc::clone(&room), Arc::clone(&handled));
        async move {
            black_box(event.data().len());
            if (handled.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(batch) {
                room.add_permits(1);
            }
        }
    };
    handler.named(HANDLER).types([events::TYPE]).topic(events::TOPIC).start(Start::Earliest)
}

/// Ends an app, and removes what it wrote.
async fn end(bus: Bus, directory: Option<&Path>) -> Result<()> {
    bus.shutdown().await?;
    drop(bus);
    directory.map_or(Ok(()), raw::remove)
}

/// Publishes while a handler acknowledges: events per second, until all are acknowledged.
async fn live(url: &str, pace: &Pace) -> Result<(f64, Bus)> {
    let room = Arc::new(Semaphore::new((pace.backlog / pace.batch).max(pace.publishers)));
    let bus = App::open(url).await?.on(handler(&room, pace.batch)).start().await?;
    let batch = Arc::new(events::many(pace.batch)?);
    let (watch, seconds) = (Stopwatch::start(), pace.seconds);
    let mut publishers = JoinSet::new();
    for _ in 0..pace.publishers {
        let (bus, room, batch) = (bus.clone(), Arc::clone(&room), Arc::clone(&batch));
        publishers.spawn(async move {
            let mut count = 0;
            while watch.seconds() < seconds {
                room.acquire().await?.forget();
                bus.publish_all(events::TOPIC, batch.to_vec(), None).await?;
                count += batch.len();
            }
            Result::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = publishers.join_next().await {
        count += ended??;
    }
    // Settling goes on in order: once the last event's outcome is durable, all are.
    load::acked(&bus.publish_to(events::TOPIC, events::one()?).await?).await?;
    Ok((count as f64 / watch.seconds(), bus))
}

async fn live_on_disk(directory: PathBuf, pace: &Pace) -> Result<f64> {
    let (rate, bus) = live(&format!("file:{}", directory.display()), pace).await?;
    end(bus, Some(&directory)).await?;
    Ok(rate)
}

async fn live_in_memory(pace: &Pace) -> Result<f64> {
    let (rate, bus) = live("memory:", pace).await?;
    end(bus, None).await?;
    Ok(rate)
}

/// Handles and acknowledges events that are there: events per second.
async fn from_backlog(directory: PathBuf, count: u64) -> Result<f64> {
    const BATCH: usize = 512;
    let url = format!("file:{}", directory.display());
    let bus = App::open(&url).await?.start().await?;
    let batch = events::many(BATCH)?;
    for _ in 1..count / BATCH as u64 {
        bus.publish_all(events::TOPIC, batch.clone(), None).await?;
    }
    let mut receipts = bus.publish_all(events::TOPIC, batch, None).await?;
    let last = receipts.pop().ok_or("nothing was published")?;
    let watch = Stopwatch::start();
    bus.subscribe(handler(&Arc::new(Semaphore::new(0)), BATCH)).await?;
    load::acked(&last).await?;
    let rate = count as f64 / watch.seconds();
    end(bus, Some(&directory)).await?;
    Ok(rate)
}

/// A directory for one round of the other side; removed after it.
fn of_theirs(directory: &Path, run: impl FnOnce(&Path) -> Result<f64>) -> Result<f64> {
    let at = directory.join("theirs");
    fs::create_dir_all(&at)?;
    let rate = run(&at)?;
    raw::remove(&at)?;
    Ok(rate)
}

fn row(case: &'static str, against: &'static str, ratio: f64, settings: String, rounds: Rounds) -> Row {
    let what = if case == "in memory" {
        "In process: publish → handle → ack"
    } else {
        "Local durable pipeline: publish → handle → ack, nothing acknowledged is lost by kill -9"
    };
    Row { id: "11", case, what, against, unit: "events/s", target: Target::at_least(ratio), settings, rounds }
}

fn how(pace: &Pace) -> String {
    format!(
        "{}, {} publishers, {} events a call, at most {} published and not handled, two worker threads",
        events::PAYLOAD,
        pace.publishers,
        pace.batch,
        pace.backlog
    )
}

const SYNCED: &str = "Ours: `file:`, fdatasync before publishing and before settling count, shared by all that wait.";

fn against_ruststream(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    const AGAINST: &str = "RustStream 0.7.7 with ruststream-sqlx 0.7.1 on SQLite, WAL, synchronous=FULL";
    let pace = Pace { seconds: plan.seconds, publishers: 64, batch: 1, backlog: 4096 };
    let ours = directory.join("ours");
    let live = plan.rounds("11 live", || {
        let our_rate = runtime.block_on(live_on_disk(ours.clone(), &pace))?;
        Ok(Sample::of(our_rate, of_theirs(directory, |at| runtime.block_on(sqlite::live(at, &pace)))?))
    })?;
    let backlog = plan.rounds("11 backlog", || {
        let our_rate = runtime.block_on(from_backlog(ours.clone(), BACKLOG.0))?;
        let theirs = |at: &Path| runtime.block_on(sqlite::from_backlog(at, BACKLOG.1));
        Ok(Sample::of(our_rate, of_theirs(directory, theirs)?))
    })?;
    let theirs = "Theirs: a transaction for each event published and for each acknowledged, a pool of 4 connections.";
    let live_how = format!("{}. {SYNCED} {theirs}", how(&pace));
    let backlog_how =
        format!("{}, {} events wait for ours, {} for theirs. {SYNCED} {theirs}", events::PAYLOAD, BACKLOG.0, BACKLOG.1);
    Ok(vec![
        row("RustStream, live", AGAINST, 20.0, live_how, live),
        row("RustStream, from a backlog", AGAINST, 20.0, backlog_how, backlog),
    ])
}

fn against_watermill(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let pace = Pace { seconds: plan.seconds, publishers: 4, batch: 100, backlog: 32_000 };
    let watermill = Watermill::build(directory);
    let ours = directory.join("ours");
    let (durable, memory) = match &watermill {
        Ok(watermill) => (
            plan.rounds("11 watermill", || {
                let our_rate = runtime.block_on(live_on_disk(ours.clone(), &pace))?;
                Ok(Sample::of(our_rate, of_theirs(directory, |at| watermill.run("sqlite", at, &pace))?))
            })?,
            plan.rounds("11 memory", || {
                let our_rate = runtime.block_on(live_in_memory(&pace))?;
                Ok(Sample::of(our_rate, of_theirs(directory, |at| watermill.run("channel", at, &pace))?))
            })?,
        ),
        Err(why) => (Rounds::skipped(why.clone()), Rounds::skipped(why.clone())),
    };
    let theirs = "Theirs: a process of its own; one transaction a call, which is synced; it reads up to 1,000 at a time, once \
                  in a millisecond, and writes one position when all of them are acknowledged.";
    let against = "Watermill 1.5.1 with watermill-sqlite (wmsqlitezombiezen 0.1.2), WAL, synchronous=FULL";
    Ok(vec![
        row("Watermill", against, 3.0, format!("{}. {SYNCED} {theirs}", how(&pace)), durable),
        row(
            "in memory",
            "Watermill 1.5.1, gochannel, in a process of its own",
            10.0,
            format!("{}, nothing synced. Each side acknowledges event by event.", how(&pace)),
            memory,
        ),
    ])
}

/// 11: against `RustStream` and Watermill.
pub(crate) fn pipelines(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let mut rows = against_ruststream(plan, runtime, directory)?;
    rows.extend(against_watermill(plan, runtime, directory)?);
    Ok(rows)
}
