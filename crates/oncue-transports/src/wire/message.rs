//! What a client and a node say to each other: `docs/wire.md`, as types.
//!
//! Every message of a client is answered by one of the node. What takes its time (the next events, an outcome) says how
//! long it may wait, and is asked again: so the same messages go over whatever carries a question and its answer.

use bytes::Bytes;
use oncue::{
    Envelope,
    transport::{
        Capabilities, ConsumeError, Control, ControlError, DeadLetter, Delivered, EventHandling, EventRef,
        InspectError, Limit, Position, Publish, PublishError, Published, SettleError, Settled, Settlement, SourceState,
        StorageInfo, SubscribeError, SubscriptionInfo, SubscriptionSpec, TopicControl, TopicInfo,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the protocol. A node answers clients of its own version alone.
pub const VERSION: u32 = 1;
/// Most bytes of one message: what a node's limit for one event (8 MiB) needs, several times.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// One end of a subscription or a tail: chosen by the client at random, so that asking again is no second one.
pub type Session = u128;

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Who the node is.
    Hello {
        /// The client's version.
        version: u32,
    },
    /// Append events. Asked again, what was appended already is a duplicate.
    Append(Publish),
    /// Attach to a subscription.
    Subscribe {
        /// For this attachment.
        session: Session,
        /// The subscription.
        spec: SubscriptionSpec,
    },
    /// Credit: hand out so much.
    Next {
        /// Whose.
        session: Session,
        /// At most so much.
        limit: Limit,
        /// The number of the last answer that came; with another one, the node gives that answer again.
        last: u64,
        /// Milliseconds to wait for a first event.
        wait: u64,
    },
    /// Settle deliveries. Asked again, it is done once.
    Settle {
        /// Whose.
        session: Session,
        /// The batch's number in its session, from 1.
        number: u64,
        /// Batches below this number are answered: their answers need not be kept.
        answered: u64,
        /// What became of them.
        batch: Vec<Settlement>,
    },
    /// A keyed state.
    State {
        /// Whose.
        session: Session,
        /// Which member's.
        member: usize,
        /// Of the events in which partition.
        partition: u16,
        /// Of which key.
        key: String,
    },
    /// Sessions go on, though nothing else is asked of them.
    Extend {
        /// Which.
        sessions: Vec<Session>,
    },
    /// The end of a session: what is not settled goes to others.
    Leave {
        /// Which.
        session: Session,
    },
    /// Do something to a subscription.
    Control {
        /// Which.
        subscription: String,
        /// What.
        control: Control,
    },
    /// Do something to topics.
    Topics(TopicControl),
    /// Follow a topic.
    Tail {
        /// For this reader.
        session: Session,
        /// Which topic.
        topic: String,
    },
    /// The next events of a tail; as [`Next`](Self::Next).
    Follow {
        /// Whose.
        session: Session,
        /// At most so many.
        limit: usize,
        /// The number of the last answer that came.
        last: u64,
        /// Milliseconds to wait.
        wait: u64,
    },
    /// How an event ends for a subscription.
    Outcome {
        /// The event.
        event: EventRef,
        /// Which subscription.
        subscription: String,
        /// Milliseconds to wait.
        wait: u64,
    },
    /// Whether anything was settled since.
    Progress {
        /// The count that the client knows.
        seen: u64,
        /// Milliseconds to wait for another one.
        wait: u64,
    },
    /// Something that is known.
    Inspect(Question),
}

/// What is asked of [`Inspect`](oncue::transport::Inspect); each is the method of that name. Lists come in pages: `skip` is
/// how many of them came already. While the node does not know one of the `sessions`, something is unsettled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the methods of `Inspect` say it")]
pub enum Question {
    Subscriptions,
    Unsettled { sessions: Vec<Session> },
    DeadLetters { subscription: String, skip: usize },
    States { subscription: String, skip: usize },
    Browse { topic: String, from: u64, limit: usize },
    Settled { event: EventRef, subscription: String },
    Source { id: String },
    Remembered { subscription: String },
    Topics,
    OldestUnsettled { subscription: String },
    Handling { topic: String, position: Position },
    Storage,
    GivenUp,
}

/// What a node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the answer to the request or the question of that name")]
pub enum Reply {
    Hello { capabilities: Capabilities, lease: u64 },
    Appended(Vec<Published>),
    Subscribed { created: Vec<Option<u64>> },
    Delivered { number: u64, events: Vec<Delivered> },
    Settled { given: u64 },
    Followed { number: u64, events: Vec<(Position, Envelope)> },
    State(Option<Bytes>),
    Outcome(Option<Settled>),
    Progress(u64),
    Done,
    Subscriptions(Vec<SubscriptionInfo>),
    Count(u64),
    DeadLetters(Page<DeadLetter>),
    States(Page<(String, Bytes)>),
    Events(Page<(Position, Envelope)>),
    Source(SourceState),
    Remembered(Option<Bytes>),
    Topics(Vec<TopicInfo>),
    Oldest(Option<(Position, Envelope)>),
    Handling(Vec<EventHandling>),
    Storage(StorageInfo),
}

/// A part of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// There is more.
    pub more: bool,
}

/// Why a node does not do what it is asked.
#[derive(Clone, Debug, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// Appending failed.
    #[error(transparent)]
    Append(#[from] PublishError),
    /// Attaching failed.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Reading failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Settling failed.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// It cannot be done to the subscription.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It is not known.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The node does not know the session: it was restarted, or heard nothing of it for the length of a lease.
    #[error("the node knows no session {0:032x}: its lease is over, or the node was restarted")]
    UnknownSession(Session),
    /// There are too many sessions.
    #[error("the node has {limit} sessions, which is its limit: close some apps")]
    Sessions {
        /// The limit.
        limit: usize,
    },
    /// The client speaks another version.
    #[error("the node speaks version {node} of the wire, not {client}: use one version of Oncue at both ends")]
    Version {
        /// The node's.
        node: u32,
        /// The client's.
        client: u32,
    },
    /// It is shutting down.
    #[error("the node is shutting down")]
    Closing,
    /// It has no such log.
    #[error("log `{log}`: {reason}")]
    Log {
        /// Its name in the URL.
        log: String,
        /// Why not.
        reason: String,
    },
    /// It is no message.
    #[error("no message of the wire: {0}")]
    Malformed(String),
    /// It is a message that this version does not know.
    #[error("version {VERSION} of the wire knows no message `{0}`")]
    Unknown(String),
    /// It is larger than a message may be.
    #[error("a message of {bytes} bytes: the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The names of all requests.
const REQUESTS: [&str; 15] = [
    "Hello",
    "Append",
    "Subscribe",
    "Next",
    "Settle",
    "State",
    "Extend",
    "Leave",
    "Control",
    "Topics",
    "Tail",
    "Follow",
    "Outcome",
    "Progress",
    "Inspect",
];

/// As it is sent: `MessagePack`, fields by their names.
///
/// # Errors
/// None that a message can meet; what the encoder says.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(message)
}

/// Reads what [`encode`] made.
///
/// # Errors
/// It is no such message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

/// Reads a request.
///
/// # Errors
/// It is none, or none of this version.
pub fn decode_request(bytes: &[u8]) -> Result<Request, Refusal> {
    decode(bytes).map_err(|error| match name_of(bytes) {
        Some(name) if !REQUESTS.contains(&name.as_str()) => Refusal::Unknown(name),
        _ => Refusal::Malformed(error.to_string()),
    })
}

/// What a message calls itself: a name alone, or the one key of a map.
fn name_of(bytes: &[u8]) -> Option<String> {
    if let Ok(name) = decode::<String>(bytes) {
        return Some(name);
    }
    let fields: std::collections::BTreeMap<String, serde::de::IgnoredAny> = decode(bytes).ok()?;
    (fields.len() == 1).then(|| fields.into_keys().next())?
}
