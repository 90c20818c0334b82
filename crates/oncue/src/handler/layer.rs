//! What stands around a handler's calls.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::{BreakerHandle, Invocation, LimitHandle, Outcome};

/// Something around every call of a handler: a limit, a breaker, a log. It runs what is inside by [`Next::run`], at most
/// once, and gives an outcome: that one, or its own.
///
/// A closure is one too:
///
/// ```
/// use oncue::{handler::{Invocation, Next}, prelude::*};
///
/// let log = |invocation: Invocation, next: Next| async move {
///     println!("{} begins", invocation.envelope().event_type());
///     next.run(invocation).await
/// };
/// let audit = (|event: &Envelope| println!("{event:?}")).named("audit").types(["order.created"]).layer(log);
/// assert!(audit.problems().is_empty());
/// ```
///
/// The handler's own timeout is counted inside of all layers: waiting in a layer is no part of an attempt. A layer that
/// stands around a batch handler is given the first event of each batch, and what it returns instead of running the
/// batch is the outcome of all its events.
///
/// A call may be dropped at any `await` of a layer. While its handler has not been called, that happens when the handler
/// is paused, unsubscribed, configured or shut down: nothing is lost by it, no attempt is used up, and the event is
/// delivered again when the handler is served again. So what a layer holds for a call, it gives back when it is dropped.
///
/// What comes with Oncue is in [`middleware`](crate::middleware).
pub trait Layer: Send + Sync + 'static {
    /// Wraps one call.
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome>;

    /// What is wrong with the layer's settings, each with the fix: told at the start, with all else that is wrong.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// The circuit breakers in it: for health and alerts, which list those of all handlers.
    fn breakers(&self) -> Vec<BreakerHandle> {
        Vec::new()
    }

    /// The adaptive limits in it: what [`Bus::limits`](crate::Bus::limits) lists.
    fn limits(&self) -> Vec<LimitHandle> {
        Vec::new()
    }
}

impl<F, Called> Layer for F
where
    F: Fn(Invocation, Next) -> Called + Send + Sync + 'static,
    Called: Future<Output = Outcome> + Send + 'static,
{
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        Box::pin(self(invocation, next))
    }
}

/// The layers around a handler, outermost first.
pub type Layers = Arc<[Arc<dyn Layer>]>;

type Innermost = Box<dyn FnOnce(Invocation) -> BoxFuture<'static, Outcome> + Send>;

/// What is inside of a layer: the next one, and in the end the handler.
pub struct Next {
    layers: Layers,
    /// The layer that runs next.
    at: usize,
    handler: Innermost,
}

impl Next {
    pub(crate) fn new(
        layers: Layers,
        handler: impl FnOnce(Invocation) -> BoxFuture<'static, Outcome> + Send + 'static,
    ) -> Self {
        Self { layers, at: 0, handler: Box::new(handler) }
    }

    /// With other layers between here and the handler.
    pub(crate) fn through(self, layers: Layers) -> Self {
        Self { layers, at: 0, ..self }
    }

    /// Runs what is inside.
    #[must_use]
    pub fn run(mut self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let Some(layer) = self.layers.get(self.at).cloned() else { return (self.handler)(invocation) };
        self.at += 1;
        layer.call(invocation, self)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("layers", &(self.layers.len() - self.at)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::event::Envelope;

    #[test]
    fn layers_run_from_the_outermost_to_the_handler_and_back() {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let layer = |name: &'static str| {
            let log = Arc::clone(&log);
            let layer = move |invocation: Invocation, next: Next| {
                let log = Arc::clone(&log);
                async move {
                    log.lock().push(format!("{name} in"));
                    let outcome = next.run(invocation).await;
                    log.lock().push(format!("{name} out"));
                    outcome
                }
            };
            Arc::new(layer) as Arc<dyn Layer>
        };
        let handler_log = Arc::clone(&log);
        let next = Next::new([layer("outer"), layer("inner")].into(), move |_| {
            handler_log.lock().push("handler".into());
            async { Outcome::Ack }.boxed()
        });
        let outcome = next.run(Invocation::for_test(Envelope::blank())).now_or_never();
        assert_eq!(outcome, Some(Outcome::Ack));
        assert_eq!(*log.lock(), ["outer in", "inner in", "handler", "inner out", "outer out"]);
    }

    #[test]
    fn a_layer_may_answer_by_itself() {
        let busy = |_: Invocation, _: Next| async { Outcome::Defer(std::time::Duration::from_secs(1)) };
        let next = Next::new([Arc::new(busy) as Arc<dyn Layer>].into(), |_| unreachable!("the layer does not run it"));
        let outcome = next.run(Invocation::for_test(Envelope::blank())).now_or_never();
        assert_eq!(outcome, Some(Outcome::Defer(std::time::Duration::from_secs(1))));
    }
}
