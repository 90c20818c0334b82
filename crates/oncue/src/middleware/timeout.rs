//! A time for a call with all that it waits for.

use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt as _, select};

use crate::{
    handler::{Invocation, Layer, Next, Outcome},
    policy::ErrorClass,
};

/// Most time for a call and all that is inside of this layer. What takes longer is cancelled and has failed, with the class
/// `Timeout`.
///
/// A handler's own `timeout` is another thing: it begins when the handler is called, and
/// [`Context::extend`](crate::handler::extract::Context::extend) makes it longer. This one counts from here, so waiting in
/// the layers inside of it counts too, and nothing extends it. It is for what is of no use later; for a handler that may
/// hang, give the handler a timeout.
///
/// ```
/// use std::time::Duration;
/// use oncue::prelude::*;
///
/// // Five seconds for waiting and handling together; it fails, and is tried again, if it does not get through.
/// let quote = (|event: &Envelope| println!("quote {event:?}")).named("quote").types(["price.changed"]);
/// let quote = quote
///     .layer(middleware::timeout(Duration::from_secs(5)))
///     .layer(middleware::rate_limit(10, Duration::from_secs(1)));
/// # assert!(quote.problems().is_empty());
/// ```
///
/// A plain function cannot be cancelled: its call ends when it returns, and has failed then.
#[must_use]
pub fn timeout(limit: Duration) -> Timeout {
    Timeout { limit }
}

/// See [`timeout()`].
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    limit: Duration,
}

impl Layer for Timeout {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let limit = self.limit;
        async move {
            let over = invocation.binding().clock.sleep(limit);
            match select(next.run(invocation.clone()), over).await {
                Either::Left((outcome, _)) => return outcome,
                Either::Right(((), call)) if invocation.is_blocking() => drop(call.await),
                Either::Right(_) => {}
            }
            let error = format!("took longer than {limit:?}, waiting in layers included");
            Outcome::Fail { class: ErrorClass::Timeout, error }
        }
        .boxed()
    }

    fn problems(&self) -> Vec<String> {
        let none = "its timeout layer gives no time at all, which would fail every call: give a longer one";
        if self.limit.is_zero() { vec![none.to_owned()] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::{
        concurrency_limit,
        tests::{Calls, at_zero},
    };

    const LIMIT: Duration = Duration::from_secs(5);

    fn is_timeout(outcome: Option<Outcome>) -> bool {
        let Some(Outcome::Fail { class: ErrorClass::Timeout, error }) = outcome else { return false };
        error.contains("5s")
    }

    #[test]
    fn what_ends_in_time_stands_and_what_does_not_is_cancelled() {
        let manual = at_zero();
        let (calls, layer) = (Calls::by(&manual), timeout(LIMIT));
        assert_eq!(calls.ready(&layer, Outcome::Ack).poll(), Some(Outcome::Ack));
        let (mut quick, mut slow) = (calls.pending(&layer, 1), calls.pending(&layer, 2));
        assert_eq!((quick.poll(), slow.poll()), (None, None));
        manual.advance(LIMIT - Duration::from_micros(1));
        assert_eq!(slow.poll(), None);
        calls.finish(1);
        manual.advance(Duration::from_micros(1));
        assert_eq!(quick.poll(), Some(Outcome::Ack), "it ended, though nobody looked before the time was over");
        assert!(is_timeout(slow.poll()));
        assert_eq!(calls.running(), [0; 0], "cancelled");
    }

    #[test]
    fn waiting_in_a_layer_inside_counts_and_its_place_in_the_line_is_given_up() {
        let manual = at_zero();
        let (calls, one) = (Calls::by(&manual), concurrency_limit(1));
        let mut holds = calls.pending(&one, 1);
        assert_eq!(holds.poll(), None);
        let mut waits = calls.around(&timeout(LIMIT), &one);
        assert_eq!(waits.poll(), None);
        manual.advance(LIMIT);
        assert!(is_timeout(waits.poll()));
        calls.finish(1);
        assert_eq!(holds.poll(), Some(Outcome::Ack));
        assert_eq!(one.free(), 1);
    }

    #[test]
    fn a_plain_function_is_waited_for_and_has_failed() {
        let manual = at_zero();
        let calls = Calls::by(&manual);
        let mut call = calls.blocking(&timeout(LIMIT));
        assert_eq!(call.poll(), None);
        manual.advance(LIMIT);
        assert_eq!(call.poll(), None, "it cannot be cancelled");
        calls.finish(0);
        assert!(is_timeout(call.poll()));
    }

    #[test]
    fn no_time_is_a_problem() {
        assert!(timeout(Duration::ZERO).problems()[0].contains("give a longer one"));
        assert!(timeout(LIMIT).problems().is_empty());
    }
}
