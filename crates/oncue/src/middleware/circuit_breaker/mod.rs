//! No calls to what is down.

mod machine;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::machine::{Entry, Limits, Machine, State, Verdict};
use crate::{
    clock::Clock,
    handler::{BreakerHandle, BreakerState, Invocation, Layer, Next, Outcome},
    policy::ErrorClass,
};

/// How many calls a breaker looks back on, unless it is told otherwise.
pub const DEFAULT_WINDOW: usize = 20;
/// How many calls there must be before a breaker opens, unless it is told otherwise.
pub const DEFAULT_MINIMUM: usize = 10;
/// The share of failures that opens a breaker, unless it is told otherwise.
pub const DEFAULT_FAILURE_SHARE: f64 = 0.5;
/// How long a breaker stays open, unless it is told otherwise.
pub const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(30);
/// Most calls that a breaker can look back on.
pub const MAX_WINDOW: usize = 100_000;

/// Holds calls back while what they need is down. `name` says what that is: it is what logs, health and alerts call it.
///
/// It opens when of the last 20 calls at least half failed, and there were 10 or more. While it is open, calls wait in it:
/// no attempt is used up, nothing is written, no dead letter is made, and their places stay taken, so that the backlog
/// waits where it is safe, in the log. After 30 s it is half-open: one call tries, the others wait for what becomes of it.
/// If it works, the breaker closes and all go on, in their order; if it fails, it opens again.
///
/// ```
/// use std::time::Duration;
/// use oncue::{handler::BreakerState, prelude::*};
///
/// let bank = middleware::circuit_breaker("bank").window(50).minimum(10).open_for(Duration::from_secs(10));
/// let charge = (|event: &Envelope| println!("charge {event:?}")).named("charge").types(["order.created"]);
/// let refund = (|event: &Envelope| println!("refund {event:?}")).named("refund").types(["order.cancelled"]);
/// let (charge, refund) = (charge.layer(bank.clone()), refund.layer(bank.clone()));
/// assert_eq!(bank.state(), BreakerState::Closed);
/// # assert!(charge.problems().is_empty() && refund.problems().is_empty());
/// ```
///
/// Failures are attempts that failed in a way that may be the fault of what is down: transient, throttled, a timeout, a
/// panic ([`counts`](CircuitBreaker::counts)). What is the event's own fault (permanent, malformed, rejected) says that
/// the other side works; what is put off says nothing. So many failures in a row are a window of that many, with a share
/// of 1: `.window(5).minimum(5).failure_share(1.0)`.
///
/// It opens and closes visibly: in the log (a warning, then an information), in [`state`](CircuitBreaker::state), in
/// [`watch`](CircuitBreaker::watch), and in [`Bus::breakers`](crate::Bus::breakers). Put it outside of limits that other
/// handlers share: a call that waits in it holds what is around it.
#[must_use]
pub fn circuit_breaker(name: impl Into<Arc<str>>) -> CircuitBreaker {
    let limits = Limits {
        window: DEFAULT_WINDOW,
        minimum: DEFAULT_MINIMUM,
        share: DEFAULT_FAILURE_SHARE,
        open_for: DEFAULT_OPEN_FOR,
        probes: 1,
    };
    let counts = ErrorClass::ALL.into_iter().filter(|class| class.is_retryable()).collect();
    CircuitBreaker::new(name.into(), Settings { limits, counts, defers: false })
}

/// See [`circuit_breaker`]. Clones are the same breaker; a setter makes another one.
#[derive(Clone, Debug)]
pub struct CircuitBreaker(Arc<Shared>);

#[derive(Clone, Debug)]
struct Settings {
    limits: Limits,
    /// The classes of failures that say that something is down.
    counts: Vec<ErrorClass>,
    /// Whether it gives events back while it is open.
    defers: bool,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    settings: Settings,
    machine: Mutex<Machine>,
    /// Wakes the calls that wait.
    changed: Notify,
    /// What is to be seen of it.
    shown: watch::Sender<BreakerState>,
}

impl CircuitBreaker {
    fn new(name: Arc<str>, settings: Settings) -> Self {
        let machine = Mutex::new(Machine::new(settings.limits));
        let shown = watch::Sender::new(BreakerState::Closed);
        Self(Arc::new(Shared { name, settings, machine, changed: Notify::new(), shown }))
    }

    fn with(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.0.settings.clone();
        set(&mut settings);
        Self::new(Arc::clone(&self.0.name), settings)
    }

    /// How many calls it looks back on; 1 to [`MAX_WINDOW`].
    #[must_use]
    pub fn window(self, calls: usize) -> Self {
        self.with(|settings| settings.limits.window = calls)
    }

    /// How many calls there must be before it opens; 1 or more, and no more than the window has.
    #[must_use]
    pub fn minimum(self, calls: usize) -> Self {
        self.with(|settings| settings.limits.minimum = calls)
    }

    /// The share of failures that opens it; above 0, up to 1.
    #[must_use]
    pub fn failure_share(self, share: f64) -> Self {
        self.with(|settings| settings.limits.share = share)
    }

    /// How long it stays open before a call may try, by the app's clock.
    #[must_use]
    pub fn open_for(self, time: Duration) -> Self {
        self.with(|settings| settings.limits.open_for = time)
    }

    /// How many calls try while it is half-open; 1 or more. It closes when all of them worked.
    #[must_use]
    pub fn probes(self, calls: usize) -> Self {
        self.with(|settings| settings.limits.probes = calls)
    }

    /// Which failures say that something is down, instead of all that may go away by themselves.
    #[must_use]
    pub fn counts(self, classes: impl IntoIterator<Item = ErrorClass>) -> Self {
        self.with(|settings| settings.counts = classes.into_iter().collect())
    }

    /// While it is open, gives events back until it may be tried, as [`Outcome::Defer`]: their keys wait, and their places
    /// are free for events that do not need what is down. Each is written to the log then, and counts as no attempt. Calls
    /// still wait for those that try.
    #[must_use]
    pub fn defer(self) -> Self {
        self.with(|settings| settings.defers = true)
    }

    /// What it is now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        *self.0.shown.borrow()
    }

    /// Tells each change from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BreakerState> {
        self.0.shown.subscribe()
    }

    /// To look at, without being able to stand around anything.
    #[must_use]
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle::new(Arc::clone(&self.0.name), self.0.shown.subscribe())
    }
}

impl Layer for CircuitBreaker {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let shared = Arc::clone(&self.0);
        async move {
            let mut passage = match shared.enter(&invocation.binding().clock).await {
                Ok(passage) => passage,
                Err(left) => return Outcome::Defer(left),
            };
            let outcome = next.run(invocation).await;
            passage.verdict = passage.breaker.settings.judge(&outcome);
            outcome
        }
        .boxed()
    }

    fn problems(&self) -> Vec<String> {
        let Limits { window, minimum, share, open_for, probes } = self.0.settings.limits;
        let wrong = [
            (window == 0 || window > MAX_WINDOW)
                .then(|| format!("it cannot look back on {window} calls: give 1 to {MAX_WINDOW}")),
            (minimum == 0 || minimum > window)
                .then(|| format!("a minimum of {minimum} calls in a window of {window}: give 1 to {window}")),
            (!(share > 0.0 && share <= 1.0)).then(|| format!("a failure share of {share}: give one above 0, up to 1")),
            open_for.is_zero().then(|| "it would be open for no time at all: give a longer one".to_owned()),
            (probes == 0).then(|| "with 0 probes it would never close again: give 1 or more".to_owned()),
            self.0
                .settings
                .counts
                .is_empty()
                .then(|| "no failure counts, so it would never open: name a class".to_owned()),
        ];
        wrong.into_iter().flatten().map(|wrong| format!("its circuit breaker `{}`: {wrong}", self.0.name)).collect()
    }

    fn breakers(&self) -> Vec<BreakerHandle> {
        vec![self.handle()]
    }
}

impl Settings {
    fn judge(&self, outcome: &Outcome) -> Verdict {
        match outcome {
            Outcome::Fail { class, .. } if self.counts.contains(class) => Verdict::Fails,
            Outcome::Ack | Outcome::Fail { .. } | Outcome::Reject { .. } => Verdict::Works,
            Outcome::Defer(_) => Verdict::Unknown,
        }
    }
}

/// A call that passed: what it tells is told when it ends, however it ends.
struct Passage {
    breaker: Arc<Shared>,
    term: u64,
    clock: Clock,
    verdict: Verdict,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.breaker.leave(self.term, self.verdict, &self.clock);
    }
}

impl Shared {
    /// Completes when a call may pass, or with the time that is left until then if it is not to wait for that.
    async fn enter(self: &Arc<Self>, clock: &Clock) -> Result<Passage, Duration> {
        loop {
            // Before the look, so that no change after it is missed.
            let changed = self.changed.notified();
            let entry = self.change(clock, |machine, now| machine.enter(now));
            match entry {
                Entry::Pass(term) => {
                    let (breaker, clock) = (Arc::clone(self), clock.clone());
                    return Ok(Passage { breaker, term, clock, verdict: Verdict::Unknown });
                }
                Entry::Later(left) if self.settings.defers => return Err(left),
                Entry::Later(left) => {
                    tokio::select! {
                        () = clock.sleep(left) => {}
                        () = changed => {}
                    }
                }
                Entry::Others => changed.await,
            }
        }
    }

    fn leave(&self, term: u64, verdict: Verdict, clock: &Clock) {
        self.change(clock, |machine, now| machine.leave(term, verdict, now));
        if verdict == Verdict::Unknown {
            // Maybe it tried: another one can, now.
            self.changed.notify_waiters();
        }
    }

    /// Does something to the machine, and tells if that changed its state.
    fn change<T>(&self, clock: &Clock, work: impl FnOnce(&mut Machine, Duration) -> T) -> T {
        let mut machine = self.machine.lock();
        let before = machine.term();
        let done = work(&mut machine, clock.monotonic());
        if machine.term() == before {
            return done;
        }
        let state = match machine.state() {
            State::Closed(_) => BreakerState::Closed,
            State::Open(_) => BreakerState::Open { until: clock.now().after(self.settings.limits.open_for) },
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        };
        // Under the lock, so that states are shown in their order.
        self.shown.send_replace(state);
        drop(machine);
        self.changed.notify_waiters();
        match state {
            BreakerState::Closed => {
                tracing::info!(breaker = &*self.name, "the circuit breaker is closed: calls pass again");
            }
            BreakerState::Open { until } => tracing::warn!(breaker = &*self.name, %until,
                "the circuit breaker is open: too many calls failed, and those that come wait"),
            BreakerState::HalfOpen => {
                tracing::debug!(breaker = &*self.name, "the circuit breaker is half-open: a call tries");
            }
        }
        done
    }
}

#[cfg(test)]
mod tests;
