//! The retry policies that come with Oncue: delays that grow, stay, are listed, or none at all.

use std::time::Duration;

use super::{Decision, ErrorClass, Failure, Policy};

/// The first delay of [`exponential`].
pub const DEFAULT_INITIAL: Duration = Duration::from_millis(100);
/// What each delay of [`exponential`] is multiplied by.
pub const DEFAULT_FACTOR: f64 = 2.0;
/// The longest delay of [`exponential`].
pub const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(5 * 60);
/// Most attempts of [`exponential`] and [`fixed`], the first one included.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 10;
/// How much of each delay of [`exponential`] is random: events that failed together come back spread out.
pub const DEFAULT_JITTER: f64 = 0.5;

/// Delays that grow from 100 ms by a factor of 2 up to 5 minutes, half of each at random, 10 attempts in all.
///
/// The right choice when nothing is known about the other side.
///
/// ```
/// use std::time::Duration;
/// let policy = oncue::policy::exponential().initial(Duration::from_secs(1)).max_attempts(5);
/// # let _ = policy;
/// ```
#[must_use]
pub fn exponential() -> Exponential {
    Exponential {
        initial: DEFAULT_INITIAL,
        factor: DEFAULT_FACTOR,
        max_delay: DEFAULT_MAX_DELAY,
        limits: Limits { max_attempts: DEFAULT_MAX_ATTEMPTS, deadline: None, jitter: DEFAULT_JITTER },
    }
}

/// The same delay before each attempt, exactly (no jitter unless asked for), 10 attempts in all.
#[must_use]
pub fn fixed(delay: Duration) -> Fixed {
    Fixed { delay, limits: Limits { max_attempts: DEFAULT_MAX_ATTEMPTS, deadline: None, jitter: 0.0 } }
}

/// These delays, in order and exactly; after the last one's attempt, give up. With
/// [`max_attempts`](List::max_attempts) above that, the last delay repeats.
#[must_use]
pub fn list(delays: impl IntoIterator<Item = Duration>) -> List {
    let delays: Vec<_> = delays.into_iter().collect();
    let max_attempts = u32::try_from(delays.len()).unwrap_or(u32::MAX).saturating_add(1);
    List { delays, limits: Limits { max_attempts, deadline: None, jitter: 0.0 } }
}

/// No second attempt: what fails is a dead letter at once.
#[must_use]
pub fn never() -> Never {
    Never
}

/// See [`exponential`].
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    initial: Duration,
    factor: f64,
    max_delay: Duration,
    limits: Limits,
}

/// See [`fixed`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fixed {
    delay: Duration,
    limits: Limits,
}

/// See [`list`].
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    delays: Vec<Duration>,
    limits: Limits,
}

/// See [`never()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Never;

/// What bounds every backoff, whatever its delays.
#[derive(Clone, Debug, PartialEq)]
struct Limits {
    max_attempts: u32,
    deadline: Option<Duration>,
    jitter: f64,
}

macro_rules! limit_setters {
    ($($policy:ident)*) => {
        $(impl $policy {
            /// Most attempts, the first one included; zero counts as one, as the first has been made.
            #[must_use]
            pub fn max_attempts(mut self, attempts: u32) -> Self {
                self.limits.max_attempts = attempts;
                self
            }

            /// How old an event may get (since it was published): no attempt is planned to start later than that.
            #[must_use]
            pub fn deadline(mut self, age: Duration) -> Self {
                self.limits.deadline = Some(age);
                self
            }

            /// How much of each delay is random, 0 to 1: with `j`, a delay of `d` becomes one between `d·(1 − j)` and
            /// `d`. 0 is exact, 1 is "full jitter". Outside of 0 to 1 the nearer end is taken; not a number is 0.
            #[must_use]
            pub fn jitter(mut self, share: f64) -> Self {
                self.limits.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
                self
            }
        })*
    };
}

limit_setters! { Exponential Fixed List }

impl Exponential {
    /// The delay after the first failed attempt.
    #[must_use]
    pub fn initial(mut self, delay: Duration) -> Self {
        self.initial = delay;
        self
    }

    /// What each further delay is multiplied by. Below 1, or not a number, counts as 1: delays never shrink.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// The longest delay; holds for throttled attempts too.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The delay after `attempt` failed, with its random part, `random` being uniform in [0, 1): for whoever waits for
    /// something to come back, however long that takes.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        jittered(self.delay_after(attempt), self.limits.jitter, random)
    }

    /// The delay after `attempt` failed, before doubling and jitter.
    fn delay_after(&self, attempt: u32) -> Duration {
        if self.initial.is_zero() {
            return Duration::ZERO;
        }
        let growth = self.factor.powf(f64::from(attempt.saturating_sub(1)));
        // Past what a Duration holds (or infinite) is an error here, and the cap below.
        let delay = Duration::try_from_secs_f64(self.initial.as_secs_f64() * growth).unwrap_or(Duration::MAX);
        delay.min(self.max_delay)
    }
}

impl Limits {
    /// The decision for a delay of `delay`, which is never made longer than `cap`.
    fn decide(&self, failure: &Failure<'_>, delay: Duration, cap: Duration) -> Decision {
        if !failure.class.is_retryable() || failure.attempt >= self.max_attempts {
            return Decision::DeadLetter;
        }
        let asked_for_rest = failure.class == ErrorClass::Throttled;
        let delay = if asked_for_rest { delay.saturating_mul(2) } else { delay }.min(cap);
        let delay = jittered(delay, self.jitter, failure.random);
        match self.deadline {
            Some(deadline) if failure.age.saturating_add(delay) > deadline => Decision::DeadLetter,
            _ => Decision::Retry(delay),
        }
    }
}

/// `delay` less a random part of at most its `share`.
fn jittered(delay: Duration, share: f64, random: f64) -> Duration {
    let random = if random.is_nan() { 0.0 } else { random.clamp(0.0, 1.0) };
    let kept = 1.0 - share * random;
    if kept >= 1.0 {
        return delay; // exact: the way through f64 rounds
    }
    Duration::try_from_secs_f64(delay.as_secs_f64() * kept).unwrap_or(delay).min(delay)
}

impl Policy for Exponential {
    fn decide(&self, failure: &Failure<'_>) -> Decision {
        self.limits.decide(failure, self.delay_after(failure.attempt), self.max_delay)
    }
}

impl Policy for Fixed {
    fn decide(&self, failure: &Failure<'_>) -> Decision {
        self.limits.decide(failure, self.delay, Duration::MAX)
    }
}

impl Policy for List {
    fn decide(&self, failure: &Failure<'_>) -> Decision {
        let index = usize::try_from(failure.attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        match self.delays.get(index).or(self.delays.last()) {
            Some(delay) => self.limits.decide(failure, *delay, Duration::MAX),
            None => Decision::DeadLetter,
        }
    }
}

impl Policy for Never {
    fn decide(&self, _: &Failure<'_>) -> Decision {
        Decision::DeadLetter
    }
}

#[cfg(test)]
#[path = "backoff_tests.rs"]
mod tests;
