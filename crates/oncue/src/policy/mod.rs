//! What follows a failed attempt. A policy decides; somebody else waits.

mod admission;
mod backoff;
mod optimal;
mod plan;
mod priority;
mod route;

use std::{fmt, time::Duration};

pub use admission::{Admission, AdmissionState, admission};
pub(crate) use admission::{Arrived, Intake, Shed};
pub use backoff::{
    DEFAULT_FACTOR, DEFAULT_INITIAL, DEFAULT_JITTER, DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_DELAY, Exponential, Fixed, List,
    Never, exponential, fixed, list, never,
};
pub use optimal::{
    AgeSeen, Attempts, Cell, ClassExplained, Costs, CostsError, DEFAULT_OPTIMAL_JITTER, Explanation, OPTIMAL, Odds,
    Optimal, StateValue, Step, Survival, optimal,
};
pub(crate) use optimal::{Dependency, Entry, Learned, Pass, Tried, Trouble, Unsolved, Verdict};
pub use plan::{Plan, PlannedAttempt, plan};
pub use priority::{LearnedPriority, Ranker, learned_priority};
pub(crate) use route::{Choice, Routed};
pub use route::{
    DEFAULT_ROUTE_DELAY_PER_S, DEFAULT_ROUTE_EXPLORE, LearnedRoute, MAX_ROUTE_ARMS, RouteArm, RouteAsked,
    RouteComparison, Router,
};

/// What kind of failure it was: what a policy, the settle record and the decision model tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ErrorClass {
    /// May succeed when tried again. What an error is unless it says otherwise.
    Transient = 1,
    /// The other side asks to be called less often.
    Throttled = 2,
    /// Will fail again however often it is tried.
    Permanent = 3,
    /// The payload does not fit the handler's event type.
    Malformed = 4,
    /// The handler took longer than its timeout.
    Timeout = 5,
    /// The handler panicked.
    Panic = 6,
    /// The handler did not run: a [learned filter](crate::filter::LearnedFilter) held the event back.
    Filtered = 7,
    /// The handler did not run: an [admission policy](admission()) shed the event.
    Shed = 8,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Transient,
        Self::Throttled,
        Self::Permanent,
        Self::Malformed,
        Self::Timeout,
        Self::Panic,
        Self::Filtered,
        Self::Shed,
    ];

    /// Whether another attempt can help.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Permanent | Self::Malformed | Self::Filtered | Self::Shed)
    }

    /// The class that a settle record stores as `code`.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u8 == code)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Permanent => "permanent",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Filtered => "filtered",
            Self::Shed => "shed",
        })
    }
}

/// A failed attempt, as a policy sees it.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    /// Which attempt failed: 1 is the first.
    pub attempt: u32,
    /// What kind of failure.
    pub class: ErrorClass,
    /// The error's text.
    pub error: &'a str,
    /// Time since the event was published.
    pub age: Duration,
    /// Time since its first attempt failed, without outages of what its handler calls; zero when the first fails.
    pub failing_for: Duration,
    /// Uniform in [0, 1): for jitter, so that a policy itself stays a function.
    pub random: f64,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this delay; zero is at once.
    Retry(Duration),
    /// Give up: keep the event as a dead letter.
    DeadLetter,
}

/// Decides what follows a failed attempt. A value: it never waits, never reads a clock, keeps no state of its own.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// The decision for this failure.
    fn decide(&self, failure: &Failure<'_>) -> Decision;

    /// What is wrong with its settings, each with the fix: told at the start, with all else that is wrong.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// The policy, if it is one that is [computed](optimal()): each subscription is given its own, of its own attempts.
    fn computed(&self) -> Option<&Optimal> {
        None
    }
}
