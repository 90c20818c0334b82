//! As many calls at once as what is called bears, learned from how long they take.

mod gradient;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::gradient::{Bounds, Gradient, Told};
use crate::{
    clock::Clock,
    handler::{Invocation, Layer, LimitHandle, LimitState, Next, Outcome},
    policy::ErrorClass,
};

/// With how many calls at once an adaptive limit begins, unless it is told otherwise.
pub const DEFAULT_INITIAL_LIMIT: usize = 4;
/// Most calls at once that an adaptive limit lets pass, unless it is told otherwise.
pub const DEFAULT_MAX_LIMIT: usize = 200;
/// How much longer than without load calls may take, unless an adaptive limit is told otherwise.
pub const DEFAULT_TOLERANCE: f64 = 1.25;

/// An adaptive concurrency limit: at most as many calls at once, of all handlers that have this layer or a clone of it, as
/// what they call bears. `name` says what that is.
///
/// Where more calls run at once than the other side works on, they wait there: each takes longer, and not one more is done. A
/// fixed [`concurrency_limit`](super::concurrency_limit) has to be guessed, and guessed again when the other side changes.
/// This one compares how long calls take (w) with how long they take without load (w₀), and follows:
///
/// ```text
/// L ← L + 0.2 (g·L + √L − L),   g = τ·w₀/w, within [⅕, 1]
/// ```
///
/// It rests where L = τ·K + √L, if K is the most calls that do not make each other wait: a short queue stands before the
/// other side, so that it never has nothing to do. A look takes 50 calls, or 2 L if that is more. Every 40 looks, and when
/// it has halved, the limit is halved while 50 calls are measured: so long calls take without load.
///
/// Calls count that were acknowledged. Those that were throttled or took too long make the limit smaller, by a fifth a look; other failures say nothing of how busy
/// the other side is (for those there is the [circuit breaker](super::circuit_breaker)). Put it innermost: what is measured is all that is inside, and the handler itself.
///
/// ```
/// use oncue::prelude::*;
///
/// let bank = middleware::adaptive_limit("bank").min(2).max(64);
/// let charge = (|event: &Envelope| println!("charge {event:?}")).named("charge").types(["order.created"]);
/// let refund = (|event: &Envelope| println!("refund {event:?}")).named("refund").types(["order.cancelled"]);
/// let (charge, refund) = (charge.concurrency(64).layer(bank.clone()), refund.concurrency(64).layer(bank.clone()));
/// assert_eq!(bank.state().limit, 4);
/// # assert!(charge.problems().is_empty() && refund.problems().is_empty());
/// ```
///
/// A handler's own `concurrency` still holds: give it as much as the limit may become. What the limit is and why is in
/// [`state`](AdaptiveLimit::state), [`watch`](AdaptiveLimit::watch), [`Bus::limits`](crate::Bus::limits) and, on the level
/// `debug`, in the log. It is not kept over a restart: it learns within some hundred calls.
#[must_use]
pub fn adaptive_limit(name: impl Into<Arc<str>>) -> AdaptiveLimit {
    let bounds =
        Bounds { initial: DEFAULT_INITIAL_LIMIT, min: 1, max: DEFAULT_MAX_LIMIT, tolerance: DEFAULT_TOLERANCE };
    AdaptiveLimit::new(name.into(), bounds)
}

/// See [`adaptive_limit`]. Clones are the same limit; a setter makes another one.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    bounds: Bounds,
    learned: Mutex<Learned>,
    places: Arc<Semaphore>,
    /// What is to be seen of it.
    shown: watch::Sender<LimitState>,
}

#[derive(Debug)]
struct Learned {
    gradient: Gradient,
    /// Places that there are: more than the limit while calls run that came under a larger one.
    places: usize,
    running: usize,
}

impl AdaptiveLimit {
    fn new(name: Arc<str>, bounds: Bounds) -> Self {
        let gradient = Gradient::new(bounds);
        let (places, shown) = (gradient.limit().min(Semaphore::MAX_PERMITS), watch::Sender::new(gradient.state()));
        let learned = Mutex::new(Learned { gradient, places, running: 0 });
        Self(Arc::new(Shared { name, bounds, learned, places: Arc::new(Semaphore::new(places)), shown }))
    }

    fn with(self, set: impl FnOnce(&mut Bounds)) -> Self {
        let mut bounds = self.0.bounds;
        set(&mut bounds);
        Self::new(Arc::clone(&self.0.name), bounds)
    }

    /// How many calls at once it begins with; 1 or more. Better too few: it grows by about a tenth of its way a look, and what is measured under load
    /// is not what calls take without.
    #[must_use]
    pub fn initial(self, calls: usize) -> Self {
        self.with(|bounds| bounds.initial = calls)
    }

    /// The least it becomes; 1 or more.
    #[must_use]
    pub fn min(self, calls: usize) -> Self {
        self.with(|bounds| bounds.min = calls)
    }

    /// The most it becomes; no less than the least.
    #[must_use]
    pub fn max(self, calls: usize) -> Self {
        self.with(|bounds| bounds.max = calls)
    }

    /// τ: how much longer than without load calls may take before the limit shrinks; 1 or more. More gives more room to what varies by itself,
    /// and longer queues on the other side.
    #[must_use]
    pub fn tolerance(self, times: f64) -> Self {
        self.with(|bounds| bounds.tolerance = times)
    }

    /// What it is now, and why.
    #[must_use]
    pub fn state(&self) -> LimitState {
        *self.0.shown.borrow()
    }

    /// Tells each decision from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LimitState> {
        self.0.shown.subscribe()
    }

    /// To look at, without being able to stand around anything.
    #[must_use]
    pub fn handle(&self) -> LimitHandle {
        LimitHandle::new(Arc::clone(&self.0.name), self.0.shown.subscribe())
    }
}

impl Layer for AdaptiveLimit {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let shared = Arc::clone(&self.0);
        async move {
            let mut passage = Passage::enter(shared, invocation.binding().clock.clone()).await;
            let outcome = next.run(invocation).await;
            passage.told = judge(&outcome, &passage);
            outcome
        }
        .boxed()
    }

    fn problems(&self) -> Vec<String> {
        let Bounds { initial, min, max, tolerance } = self.0.bounds;
        let wrong = [
            (min == 0).then(|| "a minimum of 0 could stop all calls: give 1 or more".to_owned()),
            (max < min || max > Semaphore::MAX_PERMITS)
                .then(|| format!("a maximum of {max}: give {min} to {}", Semaphore::MAX_PERMITS)),
            (initial < min || initial > max).then(|| format!("it begins with {initial}: give {min} to {max}")),
            (!(tolerance >= 1.0 && tolerance.is_finite()))
                .then(|| format!("a tolerance of {tolerance}: give 1 or more")),
        ];
        wrong.into_iter().flatten().map(|wrong| format!("its adaptive limit `{}`: {wrong}", self.0.name)).collect()
    }

    fn limits(&self) -> Vec<LimitHandle> {
        vec![self.handle()]
    }
}

fn judge(outcome: &Outcome, passage: &Passage) -> Told {
    match outcome {
        Outcome::Ack => Told::Latency(passage.clock.monotonic().saturating_sub(passage.began).as_secs_f64()),
        Outcome::Fail { class: ErrorClass::Throttled | ErrorClass::Timeout, .. } => Told::Overload,
        Outcome::Fail { .. } | Outcome::Reject { .. } | Outcome::Defer(_) => Told::Nothing,
    }
}

/// A call that passed: what it tells is told when it ends, however it ends.
struct Passage {
    limit: Arc<Shared>,
    place: Option<OwnedSemaphorePermit>,
    clock: Clock,
    began: std::time::Duration,
    term: u64,
    told: Told,
}

impl Passage {
    async fn enter(limit: Arc<Shared>, clock: Clock) -> Self {
        // Only a closed semaphore has none to give, and nothing closes this one.
        let place = Arc::clone(&limit.places).acquire_owned().await.ok();
        let term = {
            let mut learned = limit.learned.lock();
            learned.running += 1;
            learned.gradient.term()
        };
        let began = clock.monotonic();
        Self { limit, place, clock, began, term, told: Told::Nothing }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.limit.leave(self.place.take(), self.term, self.told);
    }
}

impl Shared {
    /// A call has ended: learns from it, and hands its place on if it is still one.
    fn leave(&self, place: Option<OwnedSemaphorePermit>, term: u64, told: Told) {
        let mut guard = self.learned.lock();
        let learned = &mut *guard;
        let decided = learned.gradient.ended(term, told, learned.running);
        learned.running = learned.running.saturating_sub(1);
        let limit = learned.gradient.limit();
        if let Some(place) = place.filter(|_| learned.places > limit) {
            place.forget();
            learned.places -= 1;
        }
        if learned.places > limit {
            learned.places -= self.places.forget_permits(learned.places - limit);
        } else {
            self.places.add_permits(limit - learned.places);
            learned.places = limit;
        }
        if !decided {
            return;
        }
        let state = learned.gradient.state();
        // Under the lock, so that states are shown in their order.
        let before = self.shown.send_replace(state);
        drop(guard);
        if state.limit != before.limit {
            tracing::debug!(limit = &*self.name, calls = state.limit, before = before.limit, reason = %state.reason,
                latency = ?state.latency, no_load = ?state.no_load, "the adaptive limit changed");
        }
    }
}

#[cfg(test)]
mod tests;
