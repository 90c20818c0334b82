//! What a transport tells of itself: to people, reports and tools.

use bytes::Bytes;

use super::{
    Attempt, EventAddress, EventRef, InspectError, Position, Retention, RetentionFrom, RouteChoice, Settled,
    SourceState,
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    filter::{Estimate, Features, FeedbackCounts, Filter, Learner},
    metrics::HandlerStats,
    policy::{Attempts, ErrorClass, Ranker, RouteAsked, Router},
};

/// What a transport knows. Reads only.
pub trait Inspect: Send + Sync {
    /// Every subscription, served or not.
    fn subscriptions(&self) -> Vec<SubscriptionInfo>;

    /// Events that the subscriptions served by this process are not through with, or whose end is not durable yet: zero =
    /// idle.
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

    /// Reads up to `limit` events of a topic from an offset on, in order.
    ///
    /// # Errors
    /// Unknown topic; unreadable storage.
    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError>;

    /// The event at an address.
    ///
    /// # Errors
    /// Unknown topic; no such event there, or not any more; unreadable storage.
    fn event(&self, address: &EventAddress) -> Result<EventRef, InspectError> {
        let EventAddress { topic, position, id } = address;
        let found = self.browse(topic, position.offset(), 1)?.pop();
        match found.filter(|(at, event)| at == position && event.id() == id) {
            Some((position, envelope)) => Ok(EventRef { topic: topic.as_str().into(), position, envelope }),
            None => Err(InspectError::UnknownEvent { topic: topic.clone(), position: *position }),
        }
    }

    /// How an event ended for a subscription; nothing while it is not through with it.
    ///
    /// # Errors
    /// There is no such subscription, or it does not take this event; unreadable storage.
    fn settled(&self, event: &EventRef, subscription: &str) -> Result<Option<Settled>, InspectError>;

    /// The attempts of a subscription, counted. None of one that is not known, and where the transport does not count.
    fn attempts(&self, subscription: &str) -> Option<Attempts> {
        let _ = subscription;
        None
    }

    /// Every attempt of a subscription that is still recorded, in the order of their ends: what was answered, and when.
    /// Reads all that is kept, and holds all attempts in memory. An empty list where the transport does not record them.
    ///
    /// # Errors
    /// Unknown subscription; unreadable storage.
    fn recorded(&self, subscription: &str) -> Result<Vec<RecordedAttempt>, InspectError> {
        let _ = subscription;
        Ok(Vec::new())
    }

    /// What was learned of a subscription's events. None of one that learns nothing, and where the transport does not learn.
    fn learned(&self, subscription: &str) -> Option<Learner> {
        let _ = subscription;
        None
    }

    /// What became of a subscription's events that wait, or waited, for feedback. None of one that does not learn by
    /// feedback, and where the transport does not learn.
    fn feedback(&self, subscription: &str) -> Option<FeedbackCounts> {
        let _ = subscription;
        None
    }

    /// What was learned of how urgent a subscription's events are. None of one whose priorities are not learned, and where the
    /// transport does not learn.
    fn ranker(&self, subscription: &str) -> Option<Ranker> {
        let _ = subscription;
        None
    }

    /// What was learned says of an event that is about to be handled. Nothing where [`learned`](Self::learned) tells
    /// nothing, and of a dead letter that is handled again. Cheap: it is asked for each event of a handler whose filter is
    /// learned.
    fn estimate(&self, subscription: &str, position: Position, features: &Features) -> Option<Estimate> {
        let _ = (subscription, position, features);
        None
    }

    /// What was learned of the handlers of a subscription. None of one that has no learned route, or has given no event to any
    /// yet, and where the transport does not learn.
    fn router(&self, subscription: &str) -> Option<Router> {
        let _ = subscription;
        None
    }

    /// Which of its handlers a subscription gives an event to. Nothing of one that has no learned route, where the transport
    /// does not learn, and where none of its handlers can be called. Cheap: it is asked for each attempt.
    fn route(&self, subscription: &str, asked: &RouteAsked<'_>) -> Option<RouteChoice> {
        let _ = (subscription, asked);
        None
    }

    /// What stands behind an event that a subscription is about to handle. Nothing where that is not known.
    /// Cheap: it is asked for each event of a handler with an [admission policy](crate::policy::admission).
    fn backlog(&self, subscription: &str, position: Position) -> Option<Backlog> {
        let _ = (subscription, position);
        None
    }

    /// How far a source with state has come.
    fn source(&self, id: &str) -> SourceState;

    /// What is remembered about a subscription; see [`Control::Remember`](super::Control::Remember).
    fn remembered(&self, subscription: &str) -> Option<Bytes>;

    /// Every topic, in the order they were made.
    fn topics(&self) -> Vec<TopicInfo>;

    /// The oldest event that a subscription takes and is not through with.
    ///
    /// # Errors
    /// Unknown subscription; unreadable storage.
    fn oldest_unsettled(&self, subscription: &str) -> Result<Option<(Position, Envelope)>, InspectError>;

    /// How an event stands with each subscription that takes it. May read all that was written since the event.
    ///
    /// # Errors
    /// Unknown topic or no event at this position; unreadable storage.
    fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError>;

    /// How much is stored and may still be, and whether anything is taken at all.
    fn storage(&self) -> StorageInfo;

    /// Dead letters so far, of all subscriptions, also those that were resolved. Cheap: it is asked at every progress.
    fn given_up(&self) -> u64;
}

/// The storage of a transport, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// What stands behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The offset that the next event of its topic gets.
    pub end: u64,
    /// The event is a dead letter that is handled again.
    pub redriven: bool,
}

/// A topic as people see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u16,
    /// The offset of the oldest event that is kept; the next one's if none is.
    pub first_offset: u64,
    /// The offset that the next event gets.
    pub next_offset: u64,
    /// What it keeps, as far as Oncue drops what it holds: on a broker, all ([`RetentionFrom::Broker`]).
    pub retention: Retention,
    /// Who says so.
    pub retention_from: RetentionFrom,
}

impl TopicInfo {
    /// How many events are kept.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.next_offset.saturating_sub(self.first_offset)
    }
}

/// How an event stands with one subscription.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventHandling {
    /// The subscription.
    pub subscription: String,
    /// How far it is.
    pub stage: Stage,
    /// Attempts that ended.
    pub attempts: u32,
    /// When the handler was given the event for the last attempt that ended (rᵢ). None before one ended, and where the
    /// log does not tell.
    pub read: Option<Timestamp>,
    /// When that attempt ended.
    pub ended: Option<Timestamp>,
    /// When the next attempt is due, if one is to come.
    pub due: Option<Timestamp>,
    /// Failed attempts, oldest first.
    pub failed: Vec<FailedAttempt>,
}

/// How far a subscription is with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// No attempt has ended.
    Pending,
    /// Failed or put off, and to be tried again.
    Retrying,
    /// Handled.
    Settled,
    /// Through with it unhandled: it comes after a handler that gave up.
    Skipped,
    /// Through with it unhandled: its time to live was over.
    Expired,
    /// Given up on, and kept as a dead letter.
    Dead,
}

/// A subscription as people see it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
    /// Events of the topic that it has not looked at or not settled, and those that are to be handled again (an upper
    /// bound: of what it has not looked at, neither types nor filter are known).
    pub lag: u64,
    /// Events that wait for a retry.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that later events of their key wait for.
    pub holding: u64,
    /// Keys whose later events wait for one of theirs: for its retry, or because it is a dead letter. Known by the
    /// process that serves it, as is what follows from it.
    pub parked_keys: u64,
    /// So much waits behind parked keys that nothing new is read until some of them are through.
    pub full: bool,
    /// Since when the oldest event waits that it should be through with: when it was published or, if it was not to be
    /// delivered before a time, that time. Nothing if there is none. What a dead letter holds does not count, nor what is
    /// handled again after one.
    pub oldest: Option<Timestamp>,
    /// Events that its topic dropped before it was through with them ([`Retention`]), since it was made or reset. An upper
    /// bound, as [`lag`](Self::lag) is: of those that it had not looked at, neither types nor filter are known. On a broker always 0: what it drops by itself is not told.
    pub missed: u64,
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

/// An attempt that a handler made at an event, as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordedAttempt {
    /// The offset of the event in its topic.
    pub offset: u64,
    /// When the event was published.
    pub published: Timestamp,
    /// Which attempt, when, and how it ended.
    pub attempt: Attempt,
}

/// An event that a subscription gave up on.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
