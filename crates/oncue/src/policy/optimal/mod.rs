//! The retry policy that is computed: a decision process whose probabilities are counted from recorded attempts.

mod attempts;
mod costs;
mod dependency;
mod explain;
mod health;
mod learned;
mod model;
mod odds;
mod outlook;
mod pace;
mod survival;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use self::model::Moves;
pub use self::{
    attempts::Attempts,
    costs::{Costs, CostsError},
    explain::{AgeSeen, ClassExplained, Explanation, StateValue, Step},
    odds::Odds,
    survival::{Cell, Survival},
};
pub(crate) use self::{
    attempts::{Tried, Trouble},
    dependency::Dependency,
    health::{Entry, Pass, Verdict},
    learned::Learned,
    model::Unsolved,
};
use super::{DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_DELAY, Decision, Failure, Policy};

/// The name by which [`optimal`] is there without anybody having named it.
pub const OPTIMAL: &str = "optimal";

/// How much of each delay of [`optimal`] is random.
pub const DEFAULT_OPTIMAL_JITTER: f64 = 0.1;

/// Delays that cost least, by what is known of how long trouble lasts; that is counted from the subscription's recorded
/// attempts, and followed as it changes. Until something is known, delays grow as those of
/// [`exponential`](super::exponential).
///
/// While what its handler calls is down, events are parked and one at a time tries. docs/policies.md says how all of it is
/// computed.
///
/// ```
/// use std::time::Duration;
/// use oncue::policy::{self, Costs};
///
/// let policy = policy::optimal()
///     .costs(Costs { success: 0.0, attempt: 0.5, delay_per_s: 0.01, loss: 500.0 })
///     .deadline(Duration::from_secs(3600))
///     .dependency("bank");
/// assert_eq!(policy.check(), Ok(()));
/// ```
#[must_use]
pub fn optimal() -> Optimal {
    Optimal {
        costs: Costs::default(),
        max_attempts: DEFAULT_MAX_ATTEMPTS,
        max_delay: DEFAULT_MAX_DELAY,
        deadline: None,
        jitter: DEFAULT_OPTIMAL_JITTER,
        dependency: None,
        unlearned: OnceLock::new(),
    }
}

/// See [`optimal`].
#[derive(Clone, Debug)]
pub struct Optimal {
    costs: Costs,
    max_attempts: u32,
    max_delay: Duration,
    deadline: Option<Duration>,
    jitter: f64,
    dependency: Option<String>,
    /// What it does where nothing was counted.
    unlearned: OnceLock<Option<Arc<Moves>>>,
}

impl PartialEq for Optimal {
    fn eq(&self, other: &Self) -> bool {
        let all =
            |one: &Self| (one.costs, one.max_attempts, one.max_delay, one.deadline, one.jitter, one.dependency.clone());
        all(self) == all(other)
    }
}

impl Optimal {
    fn with(mut self, set: impl FnOnce(&mut Self)) -> Self {
        set(&mut self);
        self.unlearned = OnceLock::new();
        self
    }

    /// What success, attempts, delay and loss are worth to each other. Costs that make no sense are told at the start.
    #[must_use]
    pub fn costs(self, costs: Costs) -> Self {
        self.with(|policy| policy.costs = costs)
    }

    /// Most attempts, the first one included; zero counts as one, as the first has been made.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.with(|policy| policy.max_attempts = attempts)
    }

    /// The longest delay.
    #[must_use]
    pub fn max_delay(self, delay: Duration) -> Self {
        self.with(|policy| policy.max_delay = delay)
    }

    /// How old an event may get (since it was published): no attempt is planned to start later than that, and an event that
    /// waits for a dependency that is down is a dead letter then.
    #[must_use]
    pub fn deadline(self, age: Duration) -> Self {
        self.with(|policy| policy.deadline = Some(age))
    }

    /// How much of each delay is random, 0 to 1, as [`Exponential::jitter`](super::Exponential::jitter) has it.
    #[must_use]
    pub fn jitter(self, share: f64) -> Self {
        self.with(|policy| policy.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) })
    }

    /// What its handler calls and that may be down. Subscriptions of an app that name the same share what is known of it; one
    /// that names none has one of its own. Give those that share one the same costs.
    #[must_use]
    pub fn dependency(self, name: impl Into<String>) -> Self {
        self.with(|policy| policy.dependency = Some(name.into()))
    }

    /// Whether its costs make sense.
    ///
    /// # Errors
    /// They do not: what would follow.
    pub fn check(&self) -> Result<(), CostsError> {
        self.costs.check()
    }

    /// The dependency of a subscription.
    pub(crate) fn dependency_of<'a>(&'a self, subscription: &'a str) -> &'a str {
        self.dependency.as_deref().unwrap_or(subscription)
    }

    pub(crate) fn max_age(&self) -> Option<Duration> {
        self.deadline
    }
}

impl Policy for Optimal {
    /// As for a subscription of which nothing is known.
    fn decide(&self, failure: &Failure<'_>) -> Decision {
        let solved = || self.solve_events(&Attempts::default()).ok().map(|solved| Arc::new(solved.moves));
        self.follow(self.unlearned.get_or_init(solved).as_deref(), failure)
    }

    fn problems(&self) -> Vec<String> {
        self.check().err().map(|error| error.to_string()).into_iter().collect()
    }

    fn computed(&self) -> Option<&Optimal> {
        Some(self)
    }
}
