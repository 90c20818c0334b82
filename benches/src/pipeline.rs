//! Rows 3a to 3c: publishing, handling and acknowledging, all durable.

use std::path::Path;

use futures_util::{FutureExt as _, StreamExt as _, future, stream::FuturesUnordered};
use oncue::{
    App, Bus, Timestamp,
    transport::{
        Action, Attempt, Consumer, Delivered, Limit, MemberSpec, OnDeadLetter, Ordered, Settlement, Start,
        SubscriptionSpec,
    },
};
use tokio::runtime::Runtime;

use crate::{
    durable, events,
    load::{self, BATCH, Load},
    measure::{Plan, Result, Sample, Stopwatch},
    raw::{self, Raw},
    report::{Row, Target},
};

/// Batches that are being published at a time.
const PUBLISHERS: usize = 16;

fn url(directory: &Path) -> String {
    format!("file:{}", directory.display())
}

/// Publishing and nothing else: events per second.
async fn published(directory: &Path, seconds: f64) -> Result<f64> {
    let at = directory.join("alone");
    let bus = App::open(&url(&at)).await?.start().await?;
    let load = Load::new(seconds, PUBLISHERS)?;
    let watch = Stopwatch::start();
    let rate = load.publish(&bus, false).await? as f64 / watch.seconds();
    bus.shutdown().await?;
    drop(bus);
    raw::remove(&at)?;
    Ok(rate)
}

/// Publishing, and a handler through with all of it: events per second.
async fn handled(directory: &Path, seconds: f64) -> Result<f64> {
    let at = directory.join("handled");
    let load = Load::new(seconds, PUBLISHERS)?;
    let bus = load::started(&url(&at), &load).await?;
    let rate = load::handled(&bus, &load).await?;
    bus.shutdown().await?;
    drop(bus);
    raw::remove(&at)?;
    Ok(rate)
}

const ALONE: &str = "durable publish alone, the same way, nobody subscribed";

fn how() -> String {
    format!(
        "{}, no key, {PUBLISHERS} publishers with batches of {BATCH}, two worker threads; fdatasync",
        events::PAYLOAD
    )
}

/// 3a: the whole way through the bus.
pub(crate) fn batched(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let rounds = plan.rounds("3a", || {
        let ours = runtime.block_on(handled(directory, plan.seconds))?;
        let against = runtime.block_on(published(directory, plan.seconds))?;
        Ok(Sample::of(ours, against))
    })?;
    let settings = format!(
        "{} before publishing is acknowledged and before an event counts as settled. One inline handler; its progress is \
         written in batches. Both sides through `Bus::publish_all`.",
        how()
    );
    let what = "Publish → handle → durable position, batched, through the bus";
    let target = Target::at_least(0.85);
    Ok(vec![Row { id: "3a", case: "", what, against: ALONE, unit: "events/s", target, settings, rounds }])
}

/// Deliveries that may wait to be settled: what is settled is picked from them at random.
const POOL: usize = 4096;
/// Settle batches on their way at a time.
const SETTLING: usize = 4;

/// Settles every event by itself, in random order.
struct OutOfOrder {
    consumer: Box<dyn Consumer>,
    arrived: Vec<Delivered>,
    pool: Vec<Settlement>,
    settling: FuturesUnordered<future::BoxFuture<'static, Result<u64>>>,
    now: Timestamp,
    acked: u64,
}

impl OutOfOrder {
    fn new(consumer: Box<dyn Consumer>, now: Timestamp) -> Self {
        Self { consumer, arrived: Vec::new(), pool: Vec::new(), settling: FuturesUnordered::new(), now, acked: 0 }
    }

    fn take_in(&mut self) {
        for delivered in self.arrived.drain(..) {
            std::hint::black_box(delivered.envelope.data().len());
            self.pool.push(Settlement {
                position: delivered.position,
                member: 0,
                action: Action::Ack,
                attempt: Attempt { number: 1, class: None, read: self.now, ended: self.now },
                error: None,
                written: None,
            });
        }
    }

    /// Sends as many random ones on their way as may be, but keeps `keep` to pick from.
    fn settle(&mut self, keep: usize) {
        while self.pool.len() > keep && self.settling.len() < SETTLING {
            let count = BATCH.min(self.pool.len());
            let picked = (0..count).map(|_| self.pool.swap_remove(fastrand::usize(..self.pool.len()))).collect();
            let settled = self.consumer.settle(picked);
            self.settling.push(async move { Ok(settled.await.map(|()| count as u64)?) }.boxed());
        }
    }

    /// Runs until `publishing` is over and as many are acked as it says.
    async fn run(mut self, load: Load, publishing: impl Future<Output = Result<u64>>) -> Result<u64> {
        let mut publishing = Box::pin(publishing);
        let (mut total, mut returned) = (u64::MAX, 0);
        while self.acked < total {
            // While events come there are some to pick from; at the end all go.
            self.settle(if total == u64::MAX { POOL / 2 } else { 0 });
            let open = self.pool.len() + self.settling.len() * BATCH;
            let limit = Limit { events: POOL.saturating_sub(open).max(1), bytes: 32 << 20 };
            tokio::select! {
                Some(settled) = self.settling.next(), if !self.settling.is_empty() => {
                    self.acked += settled?;
                    let batches = usize::try_from(self.acked / BATCH as u64)?;
                    load.backlog.add_permits(batches - returned);
                    returned = batches;
                }
                read = self.consumer.next(limit, &mut self.arrived), if open < POOL => {
                    read?;
                    self.take_in();
                }
                published = &mut publishing, if total == u64::MAX => total = published?,
            }
        }
        Ok(self.acked)
    }
}

/// Publishing, and every event acked by itself: events per second.
async fn acked_out_of_order(directory: &Path, seconds: f64) -> Result<f64> {
    let at = directory.join("acked");
    let bus: Bus = App::open(&url(&at)).await?.start().await?;
    let member = MemberSpec {
        id: "bench".to_owned(),
        types: vec![events::TYPE.to_owned()],
        start: Start::Earliest,
        on_dead_letter: OnDeadLetter::Continue,
        ..MemberSpec::default()
    };
    let spec = SubscriptionSpec {
        topic: events::TOPIC.to_owned(),
        members: vec![member],
        ordered: Ordered::Relaxed,
        ..SubscriptionSpec::default()
    };
    let consumer = bus.transport().subscribe(spec).await?.consumer;
    let load = Load::new(seconds, PUBLISHERS)?;
    let watch = Stopwatch::start();
    let publishing = {
        let (load, bus) = (load.clone(), bus.clone());
        tokio::spawn(async move { load.publish(&bus, true).await })
    };
    let now = bus.clock().now();
    let run = OutOfOrder::new(consumer, now).run(load, async move { publishing.await? });
    let rate = tokio::spawn(run).await?? as f64 / watch.seconds();
    bus.shutdown().await?;
    drop(bus);
    raw::remove(&at)?;
    Ok(rate)
}

/// 3b: every event acked by itself.
pub(crate) fn each(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let rounds = plan.rounds("3b", || {
        let ours = runtime.block_on(acked_out_of_order(directory, plan.seconds))?;
        let against = runtime.block_on(published(directory, plan.seconds))?;
        Ok(Sample::of(ours, against))
    })?;
    let settings = format!(
        "{} before publishing and before settling is acknowledged. Each event has an acknowledgement of its own, with its \
         attempt and times; they are picked at random from {} to {POOL} in flight and settled through `Consumer::settle`, \
         {BATCH} a call, {SETTLING} calls at a time.",
        how(),
        POOL / 2
    );
    let what = "Publish → each event acked by itself, out of order";
    let target = Target::at_least(0.5).absolute(1_000_000.0);
    Ok(vec![Row { id: "3b", case: "", what, against: ALONE, unit: "events/s", target, settings, rounds }])
}

/// 3c: one event all the way.
pub(crate) fn one(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let at = directory.join("one");
    let mut raw = Raw::zeroed(directory.join("raw"), 64 << 20)?;
    let event = events::one()?;
    let (frame, ack) = ([3; 104 + 20 + 400], [3; 104 + 20 + 32]);
    let load = Load::new(0.0, 1)?;
    let bus = runtime.block_on(load::started(&url(&at), &load))?;
    let rounds = plan.rounds("3c", || {
        let ours = || {
            let (bus, event) = (bus.clone(), event.clone());
            // On a worker, as a handler's or a server's task would be.
            runtime.block_on(runtime.spawn(async move {
                let watch = Stopwatch::start();
                load::acked(&bus.publish_to(events::TOPIC, event).await?).await?;
                Result::Ok(watch.micros())
            }))?
        };
        durable::in_turns(plan.seconds, ours, || Ok(raw.timed(&frame)? + raw.timed(&ack)?))
    })?;
    runtime.block_on(bus.shutdown())?;
    drop(bus);
    raw::remove(&at)?;
    let settings = format!(
        "{}, one event in flight, p50 of each round; its publishing is synced, then its acknowledgement. Inline handler, two \
         worker threads. The other side checksums, writes and syncs {} and {} bytes, one after the other.",
        events::PAYLOAD,
        frame.len(),
        ack.len()
    );
    Ok(vec![Row {
        id: "3c",
        case: "",
        what: "One event: publish → handle → ack, both durable, p50",
        against: "two pwrites, each with its fdatasync, p50",
        unit: "µs",
        target: Target::at_most(1.2),
        settings,
        rounds,
    }])
}
