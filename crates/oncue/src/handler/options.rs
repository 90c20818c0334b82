//! How a handler is served: what its annotation, the code that registers it or the configuration says.

use std::{borrow::Cow, fmt, panic, sync::Arc, time::Duration};

use super::BatchLimits;
use crate::{
    filter::{Filter, LearnedFilter},
    policy::{Admission, LearnedPriority, LearnedRoute, Policy},
    transport::{OnDeadLetter, Order, Ordered, Start},
};

/// How many events of one handler are in flight at once, unless it says otherwise.
pub const DEFAULT_CONCURRENCY: usize = 16;

/// How a handler is served.
#[derive(Clone, Debug)]
pub struct HandlerOptions {
    /// What follows a failure; nothing given = the app's default policy.
    pub retry: Option<Retry>,
    /// Most events in flight at once, of different keys.
    pub concurrency: usize,
    /// Longest that one attempt may take.
    pub timeout: Option<Duration>,
    /// Whether a plain function runs where it is called, instead of on the blocking pool: for those that never block.
    pub inline: bool,
    /// How strictly order is kept within a key.
    pub ordered: Ordered,
    /// Whether the next event of a key starts once the handler has acknowledged the last one, while that is made durable.
    pub pipelined: bool,
    /// What it takes of its event types; nothing = all.
    pub filter: Option<Filter>,
    /// What it learns of its events' ends, and what it holds back for that; nothing = nothing.
    pub learned: Option<LearnedFilter>,
    /// Whether its events are handled when more come than can be; nothing = all are.
    pub admission: Option<Admission>,
    /// Which of the waiting events is next.
    pub order: Order,
    /// How priorities are learned, where the order is by priority; nothing = events say theirs.
    pub priority: Option<LearnedPriority>,
    /// How it learns which of its handlers is given an event, of a [route](super::route).
    pub route: Option<LearnedRoute>,
    /// What a dead letter does to later events of its key.
    pub on_dead_letter: OnDeadLetter,
    /// Where a new subscription begins.
    pub start: Start,
    /// How events are gathered, for a batch handler; nothing for one that handles one at a time.
    pub batch: Option<BatchLimits>,
    /// Whether it begins paused.
    pub paused: bool,
}

impl Default for HandlerOptions {
    fn default() -> Self {
        Self {
            retry: None,
            concurrency: DEFAULT_CONCURRENCY,
            timeout: None,
            inline: false,
            ordered: Ordered::default(),
            pipelined: false,
            filter: None,
            learned: None,
            admission: None,
            order: Order::default(),
            priority: None,
            route: None,
            on_dead_letter: OnDeadLetter::default(),
            start: Start::default(),
            batch: None,
            paused: false,
        }
    }
}

/// A filter: one that is said, or one that is learned. A handler may have one of each.
#[derive(Clone, Debug)]
pub enum Filtering {
    /// By attributes.
    Said(Filter),
    /// By what became of events before.
    Learned(LearnedFilter),
}

impl From<Filter> for Filtering {
    fn from(filter: Filter) -> Self {
        Self::Said(filter)
    }
}

impl From<LearnedFilter> for Filtering {
    fn from(filter: LearnedFilter) -> Self {
        Self::Learned(filter)
    }
}

/// A retry policy, or the name of one in the configuration.
#[derive(Clone, Debug)]
pub enum Retry {
    /// The policy itself.
    Policy(Arc<dyn Policy>),
    /// A policy of the configuration; one that is not there is an error at start.
    Named(String),
}

#[diagnostic::do_not_recommend]
impl<P: Policy> From<P> for Retry {
    fn from(policy: P) -> Self {
        Self::Policy(Arc::new(policy))
    }
}

impl From<Arc<dyn Policy>> for Retry {
    fn from(policy: Arc<dyn Policy>) -> Self {
        Self::Policy(policy)
    }
}

impl From<&str> for Retry {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<String> for Retry {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

/// Where a handler was registered: what a message about it points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The source or configuration file.
    pub file: Cow<'static, str>,
    /// The line, 1 is the first.
    pub line: u32,
}

impl Location {
    /// The line of the code that calls this (of its caller, inside a `#[track_caller]` function).
    #[must_use]
    #[track_caller]
    pub fn caller() -> Self {
        let caller = panic::Location::caller();
        Self { file: Cow::Borrowed(caller.file()), line: caller.line() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
