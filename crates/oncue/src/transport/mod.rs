//! What carries a topic: the two traits that a transport implements, and the embedded log that is the default.

pub mod broker;
mod error;
mod inspect;
mod log;
mod position;
mod retention;
mod settle;
mod shown;
mod subscription;

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

pub use error::{ConsumeError, ControlError, InspectError, OpenError, PublishError, SettleError, SubscribeError};
pub use inspect::{
    Backlog, DeadLetter, EventHandling, FailedAttempt, Inspect, RecordedAttempt, Stage, StorageInfo, SubscriptionInfo,
    TopicInfo,
};
#[cfg(any(test, fuzzing))]
pub(crate) use log::fuzz;
pub use log::{LogTransport, LogUrl, maintenance};
/// Why a directory cannot be used, as [`OpenError::Directory`] tells.
pub use oncue_log::storage::LockError;
pub use position::Position;
pub use retention::{Retention, RetentionFrom};
pub(crate) use retention::{age as retention_age, bytes as retention_bytes};
pub use settle::{Action, Attempt, Delivered, RouteChoice, Settlement, StateChange, Written};
pub use shown::without_secrets;
pub use subscription::{
    Control, MAX_MEMBERS, MemberSpec, Members, OnDeadLetter, Order, Ordered, Resolution, Start, SubscriptionSpec,
    TopicControl,
};

use crate::event::Envelope;

/// A boxed future: one per batch, so its allocation does not count per event.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries topics. Object-safe; everything goes in batches.
pub trait Transport: Send + Sync + 'static {
    /// The URL, without secrets.
    fn url(&self) -> String;

    /// What it can do by itself.
    fn capabilities(&self) -> Capabilities;

    /// Makes events as durable as the topic promises, then gives their positions, in order.
    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>>;

    /// Publishes one event if there is nothing to wait for: its topic's name, shared, and where it stands. Nothing if
    /// there is, or if it cannot tell: then [`publish`](Self::publish) does it, and nothing has been published yet.
    fn publish_now(&self, topic: &str, event: &Envelope) -> Option<Result<(Arc<str>, Published), PublishError>> {
        let _ = (topic, event);
        None
    }

    /// Attaches to a subscription, making it if it is new. Attached several times with one spec, the instances share its
    /// events.
    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>>;

    /// Does something to a subscription from outside; completes when that is durable.
    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Does something to topics; completes when that is durable.
    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>>;

    /// What is to be done beside all else, as dropping what is too old. It never completes: whoever drives the transport polls
    /// it, and drops it before closing.
    fn upkeep(&self) -> BoxFuture<'_, ()>;

    /// What is published to a topic from now on, for this process alone: nothing is remembered of it.
    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>>;

    /// Completes when `subscription` is through with the event.
    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>>;

    /// Completes at the next progress of a subscription after this call: something was settled or passed by, or nobody
    /// serves it any more.
    fn progress(&self) -> BoxFuture<'_, ()>;

    /// What the transport knows, for people and reports.
    fn inspect(&self) -> &dyn Inspect;

    /// Makes everything durable and takes nothing more. Idempotent. What it holds on to (a directory) is free once the
    /// transport itself is dropped.
    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>>;
}

/// One subscription's end of a transport.
pub trait Consumer: Send {
    /// Waits for events and appends them to `out`, at most `limit`. Cancel-safe: dropping the future loses nothing.
    ///
    /// Within a partition events come in order. An event whose key waits for a retry is not handed out before that
    /// (strict order); when the waiting is over, the retried one comes first and then those behind it, in order.
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>>;

    /// Settles deliveries. The future completes when it is durable; the settling itself does not depend on the future
    /// being polled. Settling what is settled already changes nothing.
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>>;

    /// The keyed state of `key` for a member, as of its last settled event. The partition is that of the event: a topic that
    /// others publish to may have its keys in other ones than [`partition_of`](crate::event::partition_of) says.
    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>>;
}

/// Reads a topic as it grows, without a subscription: for replies and for those who watch.
pub trait Tail: Send {
    /// Waits for events and appends them to `out`, at most `limit`. Cancel-safe.
    fn next<'a>(
        &'a mut self,
        limit: usize,
        out: &'a mut Vec<(Position, Envelope)>,
    ) -> BoxFuture<'a, Result<(), ConsumeError>>;
}

/// The answer to [`Transport::subscribe`].
pub struct Subscribed {
    /// Hands out the events.
    pub consumer: Box<dyn Consumer>,
    /// Per member: how many earlier events will be delivered, if the subscription was made just now.
    pub created: Vec<Option<u64>>,
}

/// How much [`Consumer::next`] may hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// Events.
    pub events: usize,
    /// Bytes; at least one event is handed out, however large.
    pub bytes: usize,
}

/// Events to publish to one topic, all or nothing where the transport can.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Publish {
    /// The topic; made if it does not exist.
    pub topic: Arc<str>,
    /// The events.
    pub events: Vec<Envelope>,
    /// The place of a source with state, written with the events: read back by [`Inspect::source`].
    pub source: Option<SourceMark>,
}

/// How far a source with state has come.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceMark {
    /// The source's id.
    pub id: String,
    /// Its place, in its own words.
    pub place: String,
}

/// What is known of a source with state.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceState {
    /// Its place, in its own words.
    pub place: String,
    /// Events accepted from it.
    pub accepted: u64,
    /// Events that were duplicates.
    pub duplicates: u64,
}

/// One published event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// Where it stands; of a duplicate: where the first one stands.
    pub position: Position,
    /// Whether the same `source` and `id` had been published within the deduplication window.
    pub duplicate: bool,
}

/// A published event, however a transport finds it: by its position, or by its source and id.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct EventRef {
    /// The topic that it was published to.
    pub topic: Arc<str>,
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub envelope: Envelope,
}

/// Where an event stands, to be written down: by it another process, or this one later, learns what became of the event.
///
/// As JSON: `{"topic":"events","position":"3-120@0","id":"o-1-created"}`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventAddress {
    /// The topic that it was published to.
    pub topic: String,
    /// Where it stands there.
    pub position: Position,
    /// Its id: another log has another event at the same position.
    pub id: String,
}

/// How an event ended for a subscription.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// Handled.
    Acked,
    /// Not handled: it comes after a handler that gave up on the event.
    Skipped,
    /// Not handled: its time to live was over.
    Expired,
    /// Not handled: its topic dropped it before.
    Missed,
    /// Kept as a dead letter, for this reason.
    DeadLettered {
        /// The last error.
        error: String,
    },
}

/// What a transport can do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// Acknowledged events survive the process.
    pub durable: bool,
    /// A batch is published as a whole or not at all.
    pub atomic_publish: bool,
    /// A settle batch is durable as a whole or not at all.
    pub atomic_settle: bool,
    /// Recognises what was published twice.
    pub deduplicates: bool,
    /// New subscriptions can begin in the past.
    pub history: bool,
    /// Largest payload, in bytes.
    pub max_event_bytes: usize,
}

/// Opens the transport of a URL: `memory:` or `file:PATH`.
///
/// # Errors
/// An unknown scheme, or what opening the log met.
pub fn open(url: &str, clock: crate::clock::Clock) -> Result<Arc<dyn Transport>, OpenError> {
    Ok(Arc::new(LogTransport::open(&url.parse()?, clock)?))
}

/// Looks at the topics of a URL without taking part: `file:PATH`, also while another process serves it. Takes no lock
/// and writes nothing.
///
/// What it shows is what stood there when it was called, and no change since: call it again for that. Whether a
/// subscription is attached it cannot know.
///
/// # Errors
/// An unknown scheme, or a log in memory, which only its own process can look at; a directory that is not there or
/// holds no log; a damaged log. Where the writer drops old segments faster than they can be read, the error says so:
/// call again.
pub fn inspect(url: &str, clock: &crate::clock::Clock) -> Result<Arc<dyn Inspect>, OpenError> {
    LogTransport::snapshot(&url.parse()?, clock)
}
