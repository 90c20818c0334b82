//! What stands before a handler whose filter is learned.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};

use crate::{
    filter::LearnedFilter,
    handler::{Invocation, Layer, Next, Outcome},
    policy::ErrorClass,
    transport::Transport,
};

/// Stands outside of all other layers: what is held back takes part in nothing else.
pub(crate) struct Sieve {
    pub(crate) filter: LearnedFilter,
    pub(crate) transport: Arc<dyn Transport>,
}

impl Sieve {
    /// Why an event is not handled. Once one was tried it is tried to the end.
    fn held_back(&self, invocation: &Invocation) -> Option<String> {
        if invocation.attempt() > 1 {
            return None;
        }
        let event = invocation.envelope();
        let features = self.filter.lessons().features_of(event);
        let inspect = self.transport.inspect();
        let estimate = inspect.estimate(invocation.subscription(), invocation.position(), &features)?;
        self.filter.verdict(event, estimate)
    }
}

impl Layer for Sieve {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        match self.held_back(&invocation) {
            Some(error) => std::future::ready(Outcome::Reject { class: ErrorClass::Filtered, error }).boxed(),
            None => next.run(invocation).boxed(),
        }
    }
}
