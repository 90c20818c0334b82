//! What can go wrong on a transport, per operation.

use thiserror::Error;

/// A transport cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The URL's scheme names no transport of this build.
    #[error("`{url}`: no transport `{scheme}` in this build; known are `file:PATH` and `memory:`")]
    UnknownScheme {
        /// The URL, without secrets.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// The URL is malformed or has an unknown option.
    #[error("`{url}`: {reason}")]
    Url {
        /// The URL, without secrets.
        url: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The URL's scheme is known, and was left out of this build.
    #[error("`{url}`: this build has no `{scheme}`: build it with `--features {feature}`{needs}")]
    NotBuilt {
        /// The URL, without secrets.
        url: String,
        /// Its scheme.
        scheme: String,
        /// The cargo feature that brings it.
        feature: &'static str,
        /// What has to be installed to build that, beyond a Rust toolchain and a C compiler; or nothing.
        needs: &'static str,
    },
    /// The broker or the node cannot be reached.
    #[error("`{url}`: {reason}")]
    Broker {
        /// The URL, without secrets.
        url: String,
        /// What went wrong, and what may help.
        reason: String,
    },
    /// The broker does not let this account in, or does not give it the rights that are needed; or the node is of another
    /// version.
    #[error("`{url}`: {reason}")]
    Refused {
        /// The URL, without secrets.
        url: String,
        /// What it refuses, and what to do.
        reason: String,
    },
    /// The directory cannot be used: busy, foreign or unreadable.
    #[error(transparent)]
    Directory(#[from] oncue_log::storage::LockError),
    /// The log in it cannot be opened.
    #[error(transparent)]
    Log(#[from] oncue_log::OpenError),
    /// The URL says another window for duplicates than the log has, and that cannot be written down.
    #[error("the window for duplicates cannot be changed: {0}")]
    Window(PublishError),
}

/// Events could not be published. Nothing of the batch is written, where the transport publishes atomically.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum PublishError {
    /// The event itself is not acceptable.
    #[error("event {index} of the batch: {reason}")]
    Invalid {
        /// Which event of the batch, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
    /// The topic's name is not acceptable.
    #[error("topic `{0}`: a name is 1 to 200 letters, digits, `.`, `_` or `-`")]
    TopicName(String),
    /// The batch is larger than the transport takes at once.
    #[error("a batch of {bytes} bytes: the limit is {limit}; publish in smaller batches")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The log holds as much as its URL allows, and its subscriptions are not through with it.
    #[error(
        "the log holds its limit of {limit} bytes (`max_bytes`) of events that a subscription still wants, or that none has taken yet: publish again when they are settled, or raise the limit"
    )]
    Full {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The storage failed, now or before; nothing more is accepted, what was acknowledged stays readable.
    #[error("the log accepts no more writes: {0}")]
    Fenced(String),
    /// Where the topic lies cannot be reached. Whether the events were appended is not known.
    #[error("{0}; whether it was appended is not known: publish again with the same ids, it counts once")]
    Unreachable(String),
    /// Where the topic lies, whoever publishes may not. No event is at fault, and all are taken once the right is given.
    #[error("{0}")]
    Refused(String),
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}

/// A subscription cannot be made or attached.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum SubscribeError {
    /// It is served already, with another filter, order or dead letter rule.
    #[error(
        "subscription `{0}` is served already, with other options: instances that share its events have the same; give a handler of another kind another id"
    )]
    Busy(String),
    /// It belongs to another topic.
    #[error(
        "subscription `{id}` is on topic `{existing}`, not `{wanted}`: give the handler another id, or the old topic"
    )]
    OtherTopic {
        /// The subscription.
        id: String,
        /// The topic it is on.
        existing: String,
        /// The topic asked for.
        wanted: String,
    },
    /// The subscription could not be recorded.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Something cannot be done to a subscription. Nothing of it is.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum ControlError {
    /// No such subscription.
    #[error("there is no subscription `{0}`: `oncue ls subscriptions` and `bus.inspect().subscriptions()` list them")]
    UnknownSubscription(String),
    /// No dead letter of it stands there.
    #[error(
        "subscription `{subscription}` has no dead letter at {position}: list them, one may have been resolved meanwhile"
    )]
    NoDeadLetter {
        /// The subscription.
        subscription: String,
        /// The position asked for.
        position: super::Position,
    },
    /// It is served.
    #[error("subscription `{0}` is being served: stop its handler first, or ask the app that runs it")]
    Served(String),
    /// An edited event is another event.
    #[error("an edited event keeps its {what}: it is `{expected}`, not `{found}`")]
    OtherEvent {
        /// The attribute.
        what: std::borrow::Cow<'static, str>,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// What the topic keeps is not said here.
    #[error("what topic `{0}` keeps is set on its broker: say it there")]
    OfBroker(String),
    /// The dead letters cannot be read.
    #[error("cannot read: {0}")]
    Storage(String),
    /// It could not be recorded.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Events cannot be read.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum ConsumeError {
    /// The storage is damaged or failed.
    #[error("cannot read: {0}")]
    Storage(String),
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}

/// Outcomes could not be made durable; their events will be delivered again.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum SettleError {
    /// The storage failed, now or before.
    #[error("the log accepts no more writes: {0}")]
    Fenced(String),
    /// One settlement is larger than can be written at once.
    #[error("a settlement of {bytes} bytes: the limit is {limit}; emit less from one event")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Some of these events, or what waits behind them, are another process's to handle by now. What became of those that are
    /// not is durable.
    #[error("the lease was lost: another process handles these events")]
    LeaseLost,
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}

/// Something asked for is not there or not readable.
#[derive(Debug, Error, Clone, serde::Serialize, serde::Deserialize)]
pub enum InspectError {
    /// No such subscription.
    #[error("there is no subscription `{0}`: `oncue ls subscriptions` and `bus.inspect().subscriptions()` list them")]
    UnknownSubscription(String),
    /// The subscription does not take such events, or not from as far back.
    #[error(
        "subscription `{subscription}` does not take this `{event_type}` from topic `{topic}` (its type, its filter, or \
         where it begins): there is no outcome to wait for"
    )]
    NotTaken {
        /// The subscription.
        subscription: String,
        /// The event's type.
        event_type: String,
        /// The topic it was published to.
        topic: String,
    },
    /// No such topic.
    #[error("there is no topic `{0}`")]
    UnknownTopic(String),
    /// No such event.
    #[error("topic `{topic}` has no such event at {position}; it may be that it is not kept any more")]
    UnknownEvent {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        position: super::Position,
    },
    /// The storage is damaged or failed.
    #[error("cannot read: {0}")]
    Storage(String),
    /// The transport is closed.
    #[error("the transport is closed")]
    Closed,
}
