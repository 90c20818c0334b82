//! What an app looks after, and when it says so.

use std::{fmt, sync::Arc, time::Duration};

use super::{AlertKind, TOPIC};

/// When an app alerts; given to [`App::alerts`](crate::App::alerts). The fields can be set one by one:
///
/// ```
/// use std::time::Duration;
/// use oncue::alert::Alerts;
///
/// let alerts = Alerts { lag: Some(10_000), disk_free_below: Some(1 << 30), ..Alerts::default() };
/// assert_eq!(alerts.stuck_after, Some(Duration::from_secs(300)));
/// ```
///
/// Handlers that stopped, and subscriptions that read nothing new because of parked keys, are always alerted.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// A subscription whose oldest event has waited for so long is stuck; one that nobody serves is detached. Counted
    /// while the app runs: what waited while it did not run has this time to be handled. 5 minutes; nothing: never.
    pub stuck_after: Option<Duration>,
    /// So many events that wait for a subscription are too many. Nothing (the default): any number is fine.
    pub lag: Option<u64>,
    /// What a storm of retries is. Nothing: there is none.
    pub retry_storm: Option<RetryStorm>,
    /// Whether dead letters are alerted: at once, unlike all else. They are.
    pub dead_letters: bool,
    /// Fewer free bytes than this, where the transport keeps its events, are too few. Nothing (the default): any number
    /// is fine. With it the app wakes up [`every`](Self::every) so often for ever.
    pub disk_free_below: Option<u64>,
    /// How long after a change it is looked at, at most. 5 seconds. While nothing happens nothing is looked at.
    pub every: Duration,
    /// How long a condition must be gone to count as recovered. 30 seconds.
    pub recover_after: Duration,
    /// The least time between two raises of the same alert. 1 minute. Two instances that raise the same alert within it
    /// raise it once, if it is not more than the transport's window of deduplication.
    pub again_after: Duration,
    /// The least time between two alerts of further dead letters. 15 minutes.
    pub renew_after: Duration,
    /// The topic that alerts are published to: [`TOPIC`], which handlers that take an [`Alert`](super::Alert) read unless
    /// they say otherwise.
    pub topic: String,
    /// What else is looked at.
    pub watched: Vec<Watched>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            stuck_after: Some(Duration::from_secs(300)),
            lag: None,
            retry_storm: Some(RetryStorm::default()),
            dead_letters: true,
            disk_free_below: None,
            every: Duration::from_secs(5),
            recover_after: Duration::from_secs(30),
            again_after: Duration::from_secs(60),
            renew_after: Duration::from_secs(15 * 60),
            topic: TOPIC.to_owned(),
            watched: Vec::new(),
        }
    }
}

/// A storm of retries: of at least so many attempts of a subscription within the window, at least so many percent
/// failed. What a handler defers does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryStorm {
    /// Failed attempts in a hundred.
    pub percent: u64,
    /// Fewer attempts are no storm.
    pub attempts: u64,
    /// The time that is looked back on.
    pub window: Duration,
}

impl Default for RetryStorm {
    /// 50 percent of at least 100 attempts within a minute.
    fn default() -> Self {
        Self { percent: 50, attempts: 100, window: Duration::from_secs(60) }
    }
}

/// Something that is wrong now, with one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is wrong.
    pub kind: AlertKind,
    /// With whom.
    pub subject: String,
    /// How much of it there is, in the unit of the kind.
    pub value: u64,
    /// From where on it is wrong, in the same unit.
    pub threshold: u64,
    /// What happened, in a sentence.
    pub text: String,
}

/// Something with conditions of its own, such as a breaker that is no layer of a handler: asked for those that hold now
/// whenever the app looks. It must answer at once.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use oncue::alert::{AlertKind, Alerts, Condition, Watched};
///
/// let open = Arc::new(AtomicBool::new(false));
/// let breaker = Watched::new(move || {
///     let (subject, text) = ("bank".to_owned(), "the bank is not called: 5 calls in a row failed".to_owned());
///     let condition = Condition { kind: AlertKind::BreakerOpen, subject, value: 5, threshold: 5, text };
///     open.load(Ordering::Relaxed).then_some(condition)
/// });
/// let alerts = Alerts { watched: vec![breaker], ..Alerts::default() };
/// ```
#[derive(Clone)]
pub struct Watched(Arc<dyn Fn() -> Vec<Condition> + Send + Sync>);

impl Watched {
    /// Asks `look` for the conditions that hold.
    pub fn new<C: IntoIterator<Item = Condition>>(look: impl Fn() -> C + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || look().into_iter().collect()))
    }

    /// The conditions that hold now.
    #[must_use]
    pub fn look(&self) -> Vec<Condition> {
        (self.0)()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}
