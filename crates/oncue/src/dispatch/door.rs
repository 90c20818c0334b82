//! What stands before a handler with an admission policy.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};

use crate::{
    clock::Clock,
    handler::{Invocation, Layer, Next, Outcome},
    policy::{Arrived, ErrorClass, Intake, Shed},
    transport::{Backlog, Transport},
};

/// Stands outside of all other layers but a learned filter: what is shed takes part in nothing else.
pub(crate) struct Door {
    intake: Arc<Intake>,
    transport: Arc<dyn Transport>,
    warned: Once,
}

impl Door {
    pub(crate) fn new(intake: Arc<Intake>, transport: Arc<dyn Transport>) -> Self {
        Self { intake, transport, warned: Once::new() }
    }

    /// Whether an event may be handled. Once it was tried, or is tried anew by somebody's wish, it is tried to the end.
    fn decide(&self, invocation: &Invocation, clock: &Clock) -> Result<(), Shed> {
        let (event, position) = (invocation.envelope(), invocation.position());
        let backlog = self.transport.inspect().backlog(invocation.subscription(), position);
        let Some(Backlog { end, .. }) = backlog.filter(|backlog| invocation.attempt() == 1 && !backlog.redriven) else {
            if backlog.is_none() {
                self.warned.call_once(|| {
                    tracing::warn!(
                        subscription = invocation.subscription(),
                        "its transport does not tell how many events wait, so that its admission policy sheds none"
                    );
                });
            }
            self.intake.pass();
            return Ok(());
        };
        let arrived = Arrived {
            event_type: event.event_type(),
            offset: position.offset(),
            age: clock.now().since(event.published()),
            end,
            now: clock.monotonic(),
        };
        let decided = self.intake.decide(&arrived);
        if self.intake.is_stale(arrived.now) {
            let intake = Arc::clone(&self.intake);
            // Beside all else, since it may take milliseconds. Nobody waits for it.
            drop(tokio::task::spawn_blocking(move || intake.compute()));
        }
        decided
    }
}

impl Layer for Door {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let clock = invocation.binding().clock.clone();
        if let Err(shed) = self.decide(&invocation, &clock) {
            let outcome = Outcome::Reject { class: ErrorClass::Shed, error: shed.to_string() };
            return std::future::ready(outcome).boxed();
        }
        let mut passage = Passage { intake: Arc::clone(&self.intake), took: None };
        let began = clock.monotonic();
        async move {
            let outcome = next.run(invocation).await;
            passage.end(clock.monotonic().saturating_sub(began));
            outcome
        }
        .boxed()
    }
}

/// A call that was let through: it is known when it ends, however it ends.
struct Passage {
    intake: Arc<Intake>,
    took: Option<Duration>,
}

impl Passage {
    fn end(&mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.intake.ended(self.took);
    }
}
