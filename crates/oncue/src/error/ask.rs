//! What asking can meet: for a reply, or for the next events.

use std::time::Duration;

use thiserror::Error;

use crate::{
    event::{CodecError, InvalidEvent},
    handler::extract::EmitError,
    transport::{PublishError, Settled},
};

/// Why a request has no reply.
#[derive(Debug, Error, Clone)]
pub enum RequestError {
    /// No reply came in time. The request may be handled still; a reply that comes later is dropped.
    #[error("no reply to `{event_type}` within {waited:?}: {}", standing(handlers.as_deref()))]
    Timeout {
        /// The request's type.
        event_type: String,
        /// How long the requester waited.
        waited: Duration,
        /// Handlers of this app that take the request, with what has become of it; nothing if it was not published in
        /// that time.
        handlers: Option<Vec<(String, Option<Settled>)>>,
    },
    /// Every handler of this app that takes the request is through with it and gave it up, for one of them this way.
    #[error("handler `{handler}` gave up on the request: {error}")]
    Failed {
        /// The handler.
        handler: String,
        /// The last error.
        error: String,
    },
    /// The request was published before, so that its reply is somebody else's.
    #[error(
        "request `{id}` was published before, with the same source and id: whoever did so gets the reply; give each request an id of its own, or none"
    )]
    Duplicate {
        /// The request's id.
        id: String,
    },
    /// It cannot be published as a request.
    #[error("cannot be published: {0}")]
    Invalid(#[from] InvalidEvent),
    /// It could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The reply is not what was expected.
    #[error("the reply cannot be read: {0}")]
    Decode(#[from] CodecError),
    /// As many requests wait for their replies as may.
    #[error("{limit} requests wait for their replies (MAX_PENDING_REQUESTS): wait for some of them, then ask again")]
    TooMany {
        /// How many may wait.
        limit: usize,
    },
    /// Replies cannot be read.
    #[error("replies cannot be read: {reason}")]
    Replies {
        /// Why.
        reason: String,
    },
    /// The app is shut down.
    #[error("the app is shut down: no reply comes any more")]
    Closed,
}

/// How it stands with a request that has no reply.
fn standing(handlers: Option<&[(String, Option<Settled>)]>) -> String {
    let Some(handlers) = handlers else { return "it was not published in that time".to_owned() };
    if handlers.is_empty() {
        return "no handler of this app takes it; if another process has one, see that it runs".to_owned();
    }
    let each = handlers.iter().map(|(handler, settled)| match settled {
        None => format!("`{handler}` is not through with it"),
        Some(Settled::Acked) => format!("`{handler}` handled it and did not reply in time"),
        Some(Settled::Skipped) => format!("`{handler}` skipped it"),
        Some(Settled::Missed) => format!("for `{handler}` it was dropped by its topic"),
        Some(Settled::Expired) => format!("for `{handler}` it expired"),
        Some(Settled::DeadLettered { error }) => format!("`{handler}` gave up on it ({error})"),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Why a pulled event cannot be settled, or its lease not be extended. The event is not lost.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LeaseError {
    /// There is no such lease, or none any more: the event was settled before, or its time was over.
    #[error(
        "the lease is over: its event was settled before, or took longer than the lease and is delivered again; settle in time, or extend the lease"
    )]
    Over,
    /// The outcome is not known to be durable: the subscription was stopped, or failed.
    #[error("the outcome could not be recorded, as the handler was stopped: its event is delivered again")]
    Lost,
    /// An event cannot be published with the acknowledgement. The lease goes on.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_tells_how_it_stands_with_each_handler() {
        let text = |handlers| {
            let waited = Duration::from_secs(5);
            RequestError::Timeout { event_type: "price.asked".to_owned(), waited, handlers }.to_string()
        };
        assert!(text(None).ends_with("`price.asked` within 5s: it was not published in that time"));
        assert!(text(Some(Vec::new())).contains("no handler of this app takes it"));
        let dead = Settled::DeadLettered { error: "no price".to_owned() };
        let handlers = [("a", None), ("b", Some(Settled::Acked)), ("c", Some(dead))];
        let text = text(Some(handlers.map(|(id, settled)| (id.to_owned(), settled)).to_vec()));
        let expected =
            "`a` is not through with it, `b` handled it and did not reply in time, `c` gave up on it (no price)";
        assert!(text.ends_with(expected), "{text}");
    }
}
