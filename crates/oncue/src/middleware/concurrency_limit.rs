//! At most so many calls at once, of all handlers together.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::Semaphore;

use crate::handler::{Invocation, Layer, Next, Outcome};

/// At most `calls` calls at once, of all handlers that have this layer or a clone of it.
///
/// A handler's own `concurrency` bounds that handler alone. This is for what several of them use: a pool of connections,
/// a service, the processors.
///
/// ```
/// use oncue::prelude::*;
///
/// let database = middleware::concurrency_limit(4);
/// let store = (|event: &Envelope| println!("store {event:?}")).named("store").types(["order.created"]);
/// let index = (|event: &Envelope| println!("index {event:?}")).named("index").types(["order.created"]);
/// let (store, index) = (store.layer(database.clone()), index.layer(database.clone()));
/// assert_eq!(database.free(), 4);
/// # assert!(store.problems().is_empty() && index.problems().is_empty());
/// ```
///
/// Who waits is served in the order of arrival, and who goes leaves its place to the next. A batch is one call. Handlers
/// that have two such limits have them in the same order, or each may hold what the other waits for.
#[must_use]
pub fn concurrency_limit(calls: usize) -> ConcurrencyLimit {
    ConcurrencyLimit { calls, places: Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))) }
}

/// See [`concurrency_limit`]. Clones are the same limit.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    calls: usize,
    places: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// How many calls more could start now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }
}

impl Layer for ConcurrencyLimit {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let places = Arc::clone(&self.places);
        async move {
            // Only a closed semaphore has none to give, and nothing closes this one.
            let _place = places.acquire_owned().await;
            next.run(invocation).await
        }
        .boxed()
    }

    fn problems(&self) -> Vec<String> {
        let none = "its concurrency limit of 0 would never let a call pass: give 1 or more";
        if self.calls == 0 { vec![none.to_owned()] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::tests::{Calls, Polled};

    #[test]
    fn as_many_calls_run_as_there_are_places_and_the_others_wait_in_their_order() {
        let (limit, calls) = (concurrency_limit(2), Calls::default());
        let mut polled: Vec<Polled> = (0..4).map(|name| calls.pending(&limit.clone(), name)).collect();
        assert!(polled.iter_mut().all(|call| call.poll().is_none()));
        assert_eq!((calls.running(), limit.free()), (vec![0, 1], 0));
        calls.finish(1);
        assert_eq!(polled[1].poll(), Some(Outcome::Ack));
        assert_eq!(polled[3].poll(), None);
        assert_eq!(calls.running(), [0], "the third is before the fourth, whoever is polled first");
        assert_eq!(polled[2].poll(), None);
        assert_eq!(calls.running(), [0, 2]);
    }

    #[test]
    fn a_call_that_is_dropped_leaves_its_place_whether_it_waits_or_runs() {
        let (limit, calls) = (concurrency_limit(1), Calls::default());
        let mut polled: Vec<Polled> = (0..3).map(|name| calls.pending(&limit, name)).collect();
        assert!(polled.iter_mut().all(|call| call.poll().is_none()));
        drop(polled.remove(1));
        drop(polled.remove(0));
        assert_eq!(polled[0].poll(), None);
        assert_eq!(calls.running(), [2]);
        drop(polled);
        assert_eq!(limit.free(), 1);
    }

    #[test]
    fn a_place_is_free_again_after_every_outcome_and_after_a_panic() {
        let (limit, calls) = (concurrency_limit(1), Calls::default());
        for outcome in [Outcome::Ack, Outcome::Defer(std::time::Duration::ZERO)] {
            assert_eq!(calls.ready(&limit, outcome.clone()).poll(), Some(outcome));
        }
        let broken = calls.panicking(&limit);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| { broken }.poll())).is_err());
        assert_eq!(limit.free(), 1);
    }

    #[test]
    fn a_limit_of_nothing_is_a_problem() {
        assert!(concurrency_limit(0).problems()[0].contains("give 1 or more"));
        assert!(concurrency_limit(usize::MAX).problems().is_empty());
    }
}
