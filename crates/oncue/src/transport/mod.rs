//! What carries a topic: the two traits that a transport implements, and the embedded log that is the default.

mod error;
mod log;
mod position;
mod settle;
mod subscription;

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

pub use error::{ConsumeError, ControlError, InspectError, OpenError, PublishError, SettleError, SubscribeError};
pub use log::{LogTransport, LogUrl};
pub use position::Position;
pub use settle::{Action, Attempt, Delivered, Settlement, StateChange};
pub use subscription::{
    Control, MAX_MEMBERS, MemberSpec, Members, OnDeadLetter, Order, Ordered, Resolution, Start, SubscriptionSpec,
};

use crate::{clock::Timestamp, event::Envelope, filter::Filter, metrics::HandlerStats, policy::ErrorClass};

/// A boxed future: one per batch, so its allocation does not count per event.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries topics. Object-safe; everything goes in batches.
pub trait Transport: Send + Sync + 'static {
    /// The URL, without secrets.
    fn url(&self) -> String;

    /// What it can do by itself.
    fn capabilities(&self) -> Capabilities;

    /// Makes events as durable as the topic promises, then gives their positions, in order.
    fn publish(&self, batch: Publish) -> BoxFuture<'_, Result<Vec<Published>, PublishError>>;

    /// Attaches to a subscription, making it if it is new. Attached several times with one spec, the instances share its
    /// events.
    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>>;

    /// Does something to a subscription from outside; completes when that is durable.
    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>>;

    /// What is published to a topic from now on, for this process alone: nothing is remembered of it.
    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>>;

    /// Completes when `subscription` is through with the event.
    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>>;

    /// Completes at the next progress of a subscription after this call: something was settled or passed by.
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

    /// The keyed state of `key` for a member, as of its last settled event.
    fn state(&self, member: usize, key: &str) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>>;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Events.
    pub events: usize,
    /// Bytes; at least one event is handed out, however large.
    pub bytes: usize,
}

/// Events to publish to one topic, all or nothing where the transport can.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic; made if it does not exist.
    pub topic: String,
    /// The events.
    pub events: Vec<Envelope>,
    /// The place of a source with state, written with the events: read back by [`Inspect::source`].
    pub source: Option<SourceMark>,
}

/// How far a source with state has come.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it stands; of a duplicate: where the first one stands.
    pub position: Position,
    /// Whether the same `source` and `id` had been published within the deduplication window.
    pub duplicate: bool,
}

/// A published event, however a transport finds it: by its position, or by its source and id.
#[derive(Clone, Debug)]
pub struct EventRef {
    /// The topic that it was published to.
    pub topic: Arc<str>,
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub envelope: Envelope,
}

/// How an event ended for a subscription.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// Handled.
    Acked,
    /// Not handled: it comes after a handler that gave up on the event.
    Skipped,
    /// Not handled: its time to live was over.
    Expired,
    /// Kept as a dead letter, for this reason.
    DeadLettered {
        /// The last error.
        error: String,
    },
}

/// What a transport can do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a transport knows. Reads only.
pub trait Inspect: Send + Sync {
    /// Every subscription, served or not.
    fn subscriptions(&self) -> Vec<SubscriptionInfo>;

    /// Events that the subscriptions served by this process are not through with: zero = idle.
    fn unsettled(&self) -> u64;

    /// Dead letters of a subscription, oldest first.
    ///
    /// # Errors
    /// Unknown subscription; unreadable storage.
    fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>, InspectError>;

    /// The keyed states of a subscription, in no order.
    ///
    /// # Errors
    /// Unknown subscription; unreadable storage.
    fn states(&self, subscription: &str) -> Result<Vec<(String, Bytes)>, InspectError>;

    /// Reads up to `limit` events of a topic from an offset on, in order. Those that were dropped are passed by.
    ///
    /// # Errors
    /// Unknown topic; unreadable storage.
    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError>;

    /// How far a source with state has come.
    fn source(&self, id: &str) -> SourceState;

    /// What is remembered about a subscription; see [`Control::Remember`].
    fn remembered(&self, subscription: &str) -> Option<Bytes>;

    /// How much is stored and may still be, and whether anything is taken at all.
    fn storage(&self) -> StorageInfo;

    /// Dead letters so far, of all subscriptions, also those that were resolved. Cheap: it is asked at every progress.
    fn given_up(&self) -> u64;
}

/// The storage of a transport, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StorageInfo {
    /// What it takes, in bytes: whole segments, also where they are not full yet.
    pub bytes: u64,
    /// What the place where it lies can still take, in bytes; nothing if the transport does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Publishing is refused beyond so many bytes; nothing if there is no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Why nothing is written any more, if a write failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fenced: Option<String>,
    /// It was closed.
    pub closed: bool,
}

/// A subscription as people see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SubscriptionInfo {
    /// Its id.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// The event types it takes; empty = every type.
    pub types: Vec<String>,
    /// What it takes of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The event types it may emit.
    pub emits: Vec<String>,
    /// The handlers it comes after.
    pub after: Vec<String>,
    /// Whether a handler of this process serves it; a durable subscription that nobody serves is *detached*.
    pub attached: bool,
    /// Events of the topic that it has not looked at or not settled (an upper bound: its filter is not applied).
    pub lag: u64,
    /// Events that wait for a retry.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that later events of their key wait for.
    pub holding: u64,
    /// Keys whose later events wait for one of theirs: for its retry, or because it is a dead letter.
    pub parked_keys: u64,
    /// So much waits behind parked keys that nothing new is read until some of them are through.
    pub full: bool,
    /// Since when the oldest event waits that it should be through with: when it was published or, if it was not to be
    /// delivered before a time, that time. Nothing if there is none. What a dead letter holds does not count, nor what is
    /// handled again after one.
    pub oldest: Option<Timestamp>,
    /// Events handed out and not settled.
    pub in_flight: u64,
    /// Counts and times.
    pub stats: HandlerStats,
    /// The same by event type.
    pub by_type: Vec<(String, HandlerStats)>,
}

/// A failed attempt of a dead letter's history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FailedAttempt {
    /// Which attempt.
    pub number: u32,
    /// How it failed.
    pub class: ErrorClass,
    /// When it began.
    pub read: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The error's text.
    pub error: String,
}

/// An event that a subscription gave up on.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where the event stands.
    pub position: Position,
    /// The event, bytes and attributes as published, or as last edited.
    pub envelope: Envelope,
    /// Later events of its key wait for it.
    pub holds: bool,
    /// Every failed attempt, oldest first.
    pub history: Vec<FailedAttempt>,
}

/// Opens the transport of a URL: `memory:` or `file:PATH`.
///
/// # Errors
/// An unknown scheme, or what opening the log met.
pub fn open(url: &str, clock: crate::clock::Clock) -> Result<Arc<dyn Transport>, OpenError> {
    Ok(Arc::new(LogTransport::open(&url.parse()?, clock)?))
}
