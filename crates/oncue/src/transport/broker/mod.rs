//! Topics on a broker: what the contract needs and a broker lacks, written once.
//!
//! A broker gives partitions that are appended to and read by offset: that is [`Broker`], and all that a transport has to
//! implement. Everything else (attempts, parked retries, dead letters, delays, keyed state, which events are settled) is
//! kept beside the events as the records of the embedded log, in a *ledger* per subscription and partition: a partition
//! of its own on the same broker. Who serves a subscription's partition holds the lease of its ledger, rebuilds the
//! state from it, reads the topic from the lowest unsettled event on, and appends each outcome to it before the event
//! is given up. An append says what it follows, so that whoever lost a lease writes nothing more. Processes that serve the
//! same subscription divide its partitions among them.

mod checkpoint;
mod consumer;
mod control;
mod group;
mod inspect;
mod known;
mod lease;
mod ledger;
mod members;
mod pause;
mod settle;
mod share;
mod stale;
mod subscribe;
mod tail;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{FutureExt as _, select};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use self::{group::Group, ledger::Ledger, members::Members};
use super::{
    BoxFuture, Capabilities, Control, ControlError, EventRef, Inspect, InspectError, Position, Publish, PublishError,
    Published, SettleError, Settled, SubscribeError, Subscribed, SubscriptionSpec, Tail, TopicControl, Transport,
};
use crate::{
    clock::{Clock, Timestamp},
    event::{Envelope, MAX_HOPS, is_topic_name},
};

/// What a broker has to give. Offsets grow within a partition; some may be missing.
pub trait Broker: Send + Sync + 'static {
    /// The URL, without secrets.
    fn url(&self) -> String;

    /// What it can do by itself.
    fn capabilities(&self) -> Capabilities;

    /// Where its work is done: what is asked of it does not depend on who asks.
    fn runtime(&self) -> &tokio::runtime::Handle;

    /// A topic, made if it does not exist: how many partitions it has.
    fn topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u16, BrokerError>>;

    /// Somebody here reads a topic from now on: when this returns, [`heard`](Self::heard) knows what is there, and goes on to
    /// hear of it. Before, it need not: whoever only publishes does not pay for hearing.
    fn follow<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), BrokerError>> {
        let _ = topic;
        std::future::ready(Ok(())).boxed()
    }

    /// Every topic that there is, with its partitions.
    fn topics(&self) -> BoxFuture<'_, Result<Vec<(String, u16)>, BrokerError>>;

    /// How far a partition of a topic reaches.
    fn extent<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<Extent, BrokerError>>;

    /// An offset that no event of a partition which is there now has reached, and all later ones will have.
    fn end<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<u64, BrokerError>> {
        async move { Ok(self.extent(topic, partition).await?.next) }.boxed()
    }

    /// Appends events, each to its partition, and gives their positions once the broker has confirmed all of them.
    fn publish<'a>(
        &'a self,
        topic: &'a str,
        events: &'a [(u16, Envelope)],
    ) -> BoxFuture<'a, Result<Vec<Published>, BrokerError>>;

    /// Reads events of one partition, or of all, from an offset on: those that are there, in order.
    fn events<'a>(
        &'a self,
        topic: &'a str,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Position, Envelope)>, BrokerError>>;

    /// The offset of the first event of a partition that was published at a time or later; nothing if there is none.
    fn since<'a>(
        &'a self,
        topic: &'a str,
        partition: u16,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, BrokerError>>;

    /// Appends to a ledger if its last record stands at the offset `after` (0: it has none), and gives the new record's.
    ///
    /// The error is [`BrokerError::Moved`] if something else stands there: nothing was appended.
    fn append<'a>(
        &'a self,
        ledger: &'a LedgerName,
        record: Bytes,
        after: u64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>>;

    /// Reads records of a ledger from an offset on: those that are there, in order.
    fn records<'a>(
        &'a self,
        ledger: &'a LedgerName,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, Bytes)>, BrokerError>>;

    /// The records of a ledger before an offset are of no use any more, and may go.
    fn purge<'a>(&'a self, ledger: &'a LedgerName, before: u64) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Every ledger that there is.
    fn ledgers(&self) -> BoxFuture<'_, Result<Vec<LedgerName>, BrokerError>>;

    /// The offset after the last event of a partition that is known to be there, as far as it was heard of.
    fn heard(&self, topic: &str, partition: u16) -> u64;

    /// As [`events`](Self::events) of a partition, if all that there is from that offset on is at hand: then nobody has to be
    /// asked.
    fn recent(&self, topic: &str, partition: u16, from: u64, limit: usize) -> Option<Vec<(Position, Envelope)>> {
        let _ = (topic, partition, from, limit);
        None
    }

    /// How many partitions take turns in the offsets of a topic: then an event's offset, divided by this, leaves its
    /// partition. `1` where they do not, and offsets say which of two events of different partitions came first; elsewhere,
    /// it is when they were published.
    fn turns(&self, topic: &str) -> u16 {
        let _ = topic;
        1
    }

    /// Changes whenever an event or a record is heard of, of this process or another.
    fn growth(&self) -> watch::Receiver<u64>;

    /// Everything that was confirmed stays; nothing more is taken.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Whose ledger, and of which partition of its topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LedgerName {
    /// The subscription's id.
    pub subscription: String,
    /// The topic's partition.
    pub partition: u16,
}

/// How far a partition reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first event that is kept; `next` if there is none.
    pub first: u64,
    /// The offset after that of the last one.
    pub next: u64,
    /// How many are kept.
    pub events: u64,
}

/// What a broker answered, or that it did not.
#[derive(Clone, Debug, Error)]
pub enum BrokerError {
    /// Larger than the broker takes.
    #[error("{bytes} bytes: the broker takes {limit} at most; raise its limit or send less at once")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The broker's limit.
        limit: usize,
    },
    /// The ledger does not end where it was thought to.
    #[error("somebody else wrote to the ledger")]
    Moved,
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
    /// It refused, and would again.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached, or did not answer: it may be asked again, and may have done what was asked.
    #[error("{0}")]
    Failed(String),
}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            BrokerError::Closed => Self::Closed,
            BrokerError::Refused(reason) => Self::Refused(reason),
            BrokerError::Failed(reason) => Self::Unreachable(reason),
            BrokerError::Moved => Self::Fenced(error.to_string()),
        }
    }
}

impl From<BrokerError> for InspectError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Closed => Self::Closed,
            other => Self::Storage(other.to_string()),
        }
    }
}

/// A broker as a transport.
pub struct BrokerTransport {
    inner: Arc<Inner>,
}

/// How long leases may take to be given up.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// The place of a source with state is in the ledger of this name.
const SOURCES: &str = "~sources";

pub(crate) struct Inner {
    broker: Arc<dyn Broker>,
    clock: Clock,
    /// Who this is, among those that hold leases.
    holder: String,
    topics: Mutex<HashMap<String, u16>>,
    ledgers: Mutex<HashMap<LedgerName, Arc<Ledger>>>,
    /// What is served here, by the id of each member.
    served: Mutex<HashMap<String, Weak<Group>>>,
    members: Members,
    /// Whether it tells others what is served here.
    attends: AtomicBool,
    progress: Notify,
    /// Outcomes that came when their lease was gone.
    fenced: AtomicU64,
    closed: AtomicBool,
}

impl BrokerTransport {
    /// A transport on a broker.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, clock: Clock) -> Self {
        let inner = Inner {
            broker,
            clock,
            holder: crate::event::fresh_id(),
            topics: Mutex::default(),
            ledgers: Mutex::default(),
            served: Mutex::default(),
            members: Members::default(),
            attends: AtomicBool::new(false),
            progress: Notify::new(),
            fenced: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Outcomes that were ignored because their lease was lost: another process handles their events again.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.inner.fenced.load(Ordering::Relaxed)
    }
}

impl Inner {
    async fn partitions(&self, topic: &str) -> Result<u16, PublishError> {
        if let Some(known) = self.topics.lock().get(topic) {
            return Ok(*known);
        }
        if !is_topic_name(topic) {
            return Err(PublishError::TopicName(topic.to_owned()));
        }
        let partitions = self.broker.topic(topic).await?;
        self.topics.lock().insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    /// Publishes events whose names were checked.
    async fn publish(&self, topic: &str, events: &[Envelope]) -> Result<Vec<Published>, PublishError> {
        if self.is_closed() {
            return Err(PublishError::Closed);
        }
        let partitions = self.partitions(topic).await?;
        let limit = self.broker.capabilities().max_event_bytes;
        for (index, event) in events.iter().enumerate() {
            if event.hops() > MAX_HOPS {
                let hops = event.hops();
                let reason = format!("{hops} emissions in a row (MAX_HOPS is {MAX_HOPS}): a loop of handlers");
                return Err(PublishError::Invalid { index, reason });
            }
            if event.data().len() > limit {
                return Err(PublishError::TooLarge { bytes: event.data().len(), limit });
            }
        }
        let events: Vec<_> = events.iter().map(|event| (event.partition(partitions), event.clone())).collect();
        let published = self.broker.publish(topic, &events).await?;
        self.progress.notify_waiters();
        Ok(published)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A ledger, read as far as it is.
    fn ledger(self: &Arc<Self>, subscription: &str, partition: u16) -> Arc<Ledger> {
        let name = LedgerName { subscription: subscription.to_owned(), partition };
        let mut ledgers = self.ledgers.lock();
        Arc::clone(ledgers.entry(name).or_insert_with_key(|name| Arc::new(Ledger::new(name.clone()))))
    }

    /// Who serves a subscription here.
    fn group(&self, subscription: &str) -> Option<Arc<Group>> {
        self.served.lock().get(subscription)?.upgrade()
    }

    /// Waits for what the broker answers, on whatever thread this is.
    fn wait<T: Send + 'static>(
        &self,
        asking: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.broker.runtime().spawn(async move {
            // Who asked is still there: it waits.
            let _ = answer.send(asking.await);
        });
        answered.recv().unwrap_or(Err(BrokerError::Closed))
    }
}

impl Transport for BrokerTransport {
    fn url(&self) -> String {
        self.inner.broker.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.broker.capabilities()
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        async move {
            let published = self.inner.publish(&batch.topic, &batch.events).await?;
            if let Some(mark) = &batch.source {
                // After its events: a crash in between repeats them, and they are known.
                self.inner.mark(mark, &published).await?;
            }
            Ok(published)
        }
        .boxed()
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        Arc::clone(&self.inner).subscribe(spec).boxed()
    }

    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        Arc::clone(&self.inner).control(subscription.to_owned(), control).boxed()
    }

    /// What a topic keeps is set on its broker, which drops the rest by itself.
    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        let named = match control {
            TopicControl::Declare(topics) => topics.into_keys().next(),
            TopicControl::Set(topic, _) => Some(topic),
            TopicControl::Retain => None,
        };
        std::future::ready(named.map_or(Ok(()), |topic| Err(ControlError::OfBroker(topic)))).boxed()
    }

    fn upkeep(&self) -> BoxFuture<'_, ()> {
        std::future::pending().boxed()
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        tail::tail(Arc::clone(&self.inner), topic.to_owned()).boxed()
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        inspect::outcome(Arc::clone(&self.inner), event.clone(), subscription.to_owned()).boxed()
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        self.inner.progress.notified().boxed()
    }

    fn inspect(&self) -> &dyn Inspect {
        &self.inner
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        async move {
            if self.inner.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            let groups = self.inner.groups();
            let closing = async {
                for group in groups {
                    group.release().await;
                }
                self.inner.leave().await;
                self.inner.broker.close().await;
            };
            // Where the broker cannot be reached, leases end by themselves.
            select(std::pin::pin!(closing), self.inner.clock.sleep(CLOSE_WITHIN)).await;
            Ok(())
        }
        .boxed()
    }
}
