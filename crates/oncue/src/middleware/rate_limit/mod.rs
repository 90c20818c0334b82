//! At most so many calls in a time.

mod buckets;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;

use self::buckets::{Buckets, Rate};
use crate::{
    clock::Clock,
    handler::{Invocation, Layer, Next, Outcome},
};

/// Keys that [`by_key`](RateLimit::by_key) keeps apart at once. A key counts until its events could come as fast as those
/// of a new one; if so many count, calls of other keys wait until one does not.
pub const MAX_KEYS: usize = 100_000;

/// Calls that fall due within this time pass at once, unless a burst is given: timers are not more exact.
const AT_ONCE: Duration = Duration::from_millis(10);

/// At most `calls` calls per `per`, evenly spaced, of all handlers that have this layer or a clone of it; what comes faster
/// waits. For what counts calls: an interface with a quota, a mail server.
///
/// ```
/// use std::time::Duration;
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.paid", key = order_id)]
/// # struct OrderPaid { order_id: String }
///
/// #[handler(layer = middleware::rate_limit(100, Duration::from_secs(60)).burst(10))]
/// async fn send_mail(order: OrderPaid) {}
/// # assert!(send_mail.into_registration().problems().is_empty());
/// ```
///
/// A token bucket: it holds `burst` calls and fills at the rate, so that in *any* window of `per` at most
/// `calls + burst − 1` calls pass. Without [`burst`](RateLimit::burst) it holds what falls due in 10 ms, at least one:
/// up to 199 calls a second, never more than `calls` in any window.
///
/// Time goes by the app's clock. Who waits is served in the order of arrival; a call that is dropped while it waits has
/// taken nothing. A batch is one call.
#[must_use]
pub fn rate_limit(calls: u32, per: Duration) -> RateLimit {
    let interval = buckets::interval(calls, per);
    let due = AT_ONCE.as_nanos() / interval.as_nanos().max(1);
    let burst = u32::try_from(due).unwrap_or(u32::MAX).min(calls).max(1);
    RateLimit::new(Rate { calls, per, burst }, false)
}

/// See [`rate_limit`]. Clones are the same limit; a setter makes another one.
#[derive(Clone, Debug)]
pub struct RateLimit {
    rate: Rate,
    by_key: bool,
    buckets: Arc<Mutex<Buckets>>,
}

impl RateLimit {
    fn new(rate: Rate, by_key: bool) -> Self {
        Self { rate, by_key, buckets: Arc::new(Mutex::new(Buckets::new(rate, MAX_KEYS))) }
    }

    /// How many calls may pass at once after a rest; 1 or more.
    #[must_use]
    pub fn burst(self, burst: u32) -> Self {
        Self::new(Rate { burst, ..self.rate }, self.by_key)
    }

    /// Limits the events of each key by themselves; those without a key together. At most [`MAX_KEYS`] keys at once.
    #[must_use]
    pub fn by_key(self) -> Self {
        Self::new(self.rate, true)
    }

    fn key_of(&self, invocation: &Invocation) -> u64 {
        // Two keys of one hash have one limit: they wait longer than they need, which nobody will see happen.
        invocation.envelope().key_hash().filter(|_| self.by_key).unwrap_or_default()
    }
}

/// Completes when a call of the key may pass.
async fn pass(buckets: &Mutex<Buckets>, key: u64, clock: &Clock) {
    let turn = loop {
        let turn = buckets.lock().turn(key, clock.monotonic());
        match turn {
            Ok(turn) => break turn,
            Err(wait) => clock.sleep(wait).await,
        }
    };
    // One looks at the time for all behind it. Nothing is taken before it may pass: so who goes has nothing to give back.
    let _turn = turn.acquire_owned().await;
    loop {
        let taken = buckets.lock().take(key, clock.monotonic());
        match taken {
            Ok(()) => return,
            Err(wait) => clock.sleep(wait).await,
        }
    }
}

impl Layer for RateLimit {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let (buckets, key) = (Arc::clone(&self.buckets), self.key_of(&invocation));
        async move {
            pass(&buckets, key, &invocation.binding().clock).await;
            next.run(invocation).await
        }
        .boxed()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Rate { calls, per, burst } = self.rate;
        if calls == 0 {
            problems.push("its rate limit of 0 calls would never let one pass: give 1 or more".to_owned());
        }
        if per.is_zero() {
            problems.push("its rate limit is per no time at all: give a longer one".to_owned());
        }
        if burst == 0 {
            problems
                .push("its rate limit has a burst of 0, which would never let a call pass: give 1 or more".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests;
