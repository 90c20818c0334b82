//! The errors of the whole: what starting and running an app can meet.

use std::fmt;

use thiserror::Error;

use crate::{
    config::ConfigError,
    dispatch::DispatchError,
    event::{EnvelopeError, InvalidEvent},
    graph::GraphError,
    source::{CronError, SourceFailed},
    transport::{ControlError, InspectError, OpenError, PublishError, SettleError, SubscribeError},
};

mod ask;

pub use ask::{LeaseError, RequestError};

/// Anything that an app can meet, for `main` to return. Each operation has an error of its own too.
///
/// Its `Debug` is its text: a `main` that returns it says to people what happened and what to do.
#[derive(Error)]
pub enum Error {
    /// The transport cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The app cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A value cannot be published as an event.
    #[error("cannot be published: {0}")]
    Invalid(#[from] InvalidEvent),
    /// Events could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A handler stopped.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// A source gave up.
    #[error(transparent)]
    Source(#[from] SourceFailed),
    /// A schedule cannot be made.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// Something asked for is not there or not readable.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Something cannot be done to a subscription.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A request has no reply.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A pulled event cannot be settled.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Closing failed: what was acknowledged is safe, what was not is not.
    #[error("closing: {0}")]
    Close(#[from] SettleError),
}

impl From<EnvelopeError> for Error {
    fn from(error: EnvelopeError) -> Self {
        Self::Invalid(error.into())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of most of what an app does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why handlers cannot be served, at the start of an app or when they change at run time.
#[derive(Debug, Error)]
pub enum StartError {
    /// Handlers that cannot be served, each with its name, its place and the fix.
    #[error("{}", problems.join("\n"))]
    Handlers {
        /// One text each.
        problems: Vec<String>,
    },
    /// The handlers do not form a graph that can be run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The app is shut down.
    #[error("the app is shut down: its handlers cannot change any more")]
    Closed,
    /// A subscription cannot be attached.
    #[error("handler `{handler}`: {error}")]
    Subscribe {
        /// The handler.
        handler: String,
        /// Why.
        error: SubscribeError,
    },
}
