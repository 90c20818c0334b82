//! What both sides are measured by: the same loops around a few things that a client does.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Notify, task::JoinSet};

use super::{BATCH, PUBLISHERS, Place};
use crate::measure::{CpuWatch, Result, Stopwatch};

/// One way to publish and to handle.
pub(super) trait Client: Clone + Send + Sync + 'static {
    fn open(place: Place) -> impl Future<Output = Result<Self>> + Send;

    /// Publishes so many events, and waits until all of them are confirmed.
    fn publish(&self, count: usize) -> impl Future<Output = Result<()>> + Send;

    /// Handles what waits and what comes, in order, and acknowledges each, until that is over and the last
    /// acknowledgement was taken.
    fn handle(&self, handled: Handled) -> impl Future<Output = Result<()>> + Send;

    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// Events per second, and the processor's microseconds for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) rate: f64,
    pub(super) cpu: f64,
}

#[derive(Clone, Copy)]
struct Meter(Stopwatch, CpuWatch);

impl Meter {
    fn start() -> Self {
        Self(Stopwatch::start(), CpuWatch::start())
    }

    fn of(self, events: u64) -> Cost {
        let events = events as f64;
        Cost { rate: events / self.0.seconds(), cpu: self.1.micros() / events }
    }
}

/// What one side of a round gives.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) published: Cost,
    pub(super) handled: Cost,
    /// Of single events, in microseconds.
    pub(super) times: Vec<f64>,
}

/// Counts what is handled, and tells who waits.
#[derive(Clone)]
pub(super) struct Handled(Arc<Counts>);

struct Counts {
    wanted: u64,
    seen: AtomicU64,
    more: Notify,
    /// Since the first one.
    meter: OnceLock<Meter>,
    cost: OnceLock<Cost>,
}

impl Handled {
    fn of(wanted: u64) -> Self {
        Self(Arc::new(Counts {
            wanted,
            seen: AtomicU64::new(0),
            more: Notify::new(),
            meter: OnceLock::new(),
            cost: OnceLock::new(),
        }))
    }

    /// One more; whether it was the last.
    pub(super) fn arrived(&self) -> bool {
        self.0.meter.get_or_init(Meter::start);
        let seen = self.0.seen.fetch_add(1, Ordering::AcqRel) + 1;
        if self.0.wanted == u64::MAX || seen == self.0.wanted {
            self.0.more.notify_one();
        }
        seen >= self.0.wanted
    }

    async fn reach(&self, count: u64) {
        while self.0.seen.load(Ordering::Acquire) < count {
            self.0.more.notified().await;
        }
    }

    /// Waits until all are handled. One at a time may wait: without an end this is never over, and takes nothing from who
    /// waits for the next.
    pub(super) async fn all(&self) {
        if self.0.wanted == u64::MAX {
            std::future::pending::<()>().await;
        }
        self.reach(self.0.wanted).await;
    }

    /// What comes now is not measured any more.
    pub(super) fn finish(&self) {
        self.cost();
    }

    fn cost(&self) -> Cost {
        let measured = || self.0.meter.get().map(|meter| meter.of(self.0.wanted)).unwrap_or_default();
        *self.0.cost.get_or_init(measured)
    }
}

/// Publishes for so many seconds; how many events.
async fn publish<C: Client>(client: &C, seconds: f64) -> Result<(u64, Cost)> {
    let meter = Meter::start();
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let client = client.clone();
        publishers.spawn(async move {
            let mut count = 0;
            while meter.0.seconds() < seconds {
                client.publish(BATCH).await?;
                count += BATCH as u64;
            }
            Result::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = publishers.join_next().await {
        count += ended??;
    }
    Ok((count, meter.of(count)))
}

/// Publishes one event after the other, each when the one before was handled.
async fn one_by_one<C: Client>(client: &C, seconds: f64) -> Result<Vec<f64>> {
    /// What is made when it is first needed is there then.
    const WARM: u64 = 20;
    let handled = Handled::of(u64::MAX);
    let (handling, handler) = (client.clone(), handled.clone());
    let mut handling = tokio::spawn(async move { handling.handle(handler).await });
    let (mut times, mut count, mut total) = (Vec::new(), 0, Stopwatch::start());
    while total.seconds() < seconds || count <= WARM {
        let watch = Stopwatch::start();
        client.publish(1).await?;
        count += 1;
        tokio::select! {
            () = handled.reach(count) => {}
            ended = &mut handling => {
                ended??;
                return Err("a handler ended by itself".into());
            }
        }
        if count > WARM {
            times.push(watch.micros());
        } else {
            total = Stopwatch::start();
        }
    }
    handling.abort();
    Ok(times)
}

/// One side of a round, at two places: one for throughput, one for single events.
pub(super) async fn measure<C: Client>([many, one]: [Place; 2], seconds: f64) -> Result<Measured> {
    let measuring = async move {
        let client = C::open(many).await?;
        let (count, published) = publish(&client, seconds).await?;
        let handled = Handled::of(count);
        client.handle(handled.clone()).await?;
        let handled = handled.cost();
        client.close().await?;
        let client = C::open(one).await?;
        let times = one_by_one(&client, seconds / 2.0).await?;
        client.close().await?;
        Result::Ok(Measured { published, handled, times })
    };
    // On a worker, as a handler's or a server's task would be.
    tokio::spawn(measuring).await?
}
