//! The gate before a handler whose policy is computed: while what it calls is down, calls wait here and one at a time tries;
//! while it turns calls away, they go one after the other.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};

use crate::{
    clock::Clock,
    handler::{Invocation, Layer, Next, Outcome},
    policy::{Dependency, Entry, ErrorClass, Pass, Verdict},
};

/// Stands outside of all other layers: a call that waits holds nothing but its place and its key. Nothing is written of it,
/// and no attempt is used up.
pub(crate) struct Gate {
    pub(crate) dependency: Arc<Dependency>,
    /// How old an event may get here.
    pub(crate) deadline: Option<Duration>,
}

impl Layer for Gate {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let (dependency, deadline) = (Arc::clone(&self.dependency), self.deadline);
        async move {
            let clock = invocation.binding().clock.clone();
            let Some(pass) = enter(&dependency, deadline, &invocation, &clock).await else {
                let name = dependency.name();
                let error = format!(
                    "its deadline passed while `{name}`, which its handler calls, was down or had too much to do"
                );
                return Outcome::Reject { class: ErrorClass::Transient, error };
            };
            let first = invocation.attempt() == 1;
            let mut passage = Passage { dependency, pass, first, clock, verdict: Verdict::Unknown };
            let outcome = next.run(invocation).await;
            passage.verdict = judge(&outcome);
            drop(passage);
            outcome
        }
        .boxed()
    }
}

/// Completes when the call may go; with nothing when its event is too old first.
async fn enter(
    dependency: &Dependency,
    deadline: Option<Duration>,
    invocation: &Invocation,
    clock: &Clock,
) -> Option<Pass> {
    if let Entry::Pass(pass) = dependency.come(clock.monotonic()) {
        return Some(pass);
    }
    let _waiting = dependency.wait();
    let goes = async {
        let _turn = dependency.turn().await;
        loop {
            // Before the look, so that no change after it is missed.
            let changed = dependency.changed();
            match dependency.enter(clock.monotonic()) {
                Entry::Pass(pass) => return pass,
                Entry::Later(until) => {
                    tokio::select! {
                        () = clock.sleep(until) => {}
                        () = changed => {}
                    }
                }
                Entry::Others => changed.await,
            }
        }
    };
    let Some(deadline) = deadline else { return Some(goes.await) };
    let left = deadline.saturating_sub(clock.now().since(invocation.envelope().published()));
    tokio::select! {
        biased;
        () = clock.sleep(left) => None,
        pass = goes => Some(pass),
    }
}

/// What an outcome tells of what was called: whatever is the event's own fault says that it works.
fn judge(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Fail { class: ErrorClass::Throttled, .. } => Verdict::Throttled,
        Outcome::Fail { class, .. } if class.is_retryable() => Verdict::Fails,
        Outcome::Ack | Outcome::Fail { .. } | Outcome::Reject { .. } => Verdict::Works,
        Outcome::Defer(_) => Verdict::Unknown,
    }
}

/// A call that went: what it tells is told when it ends, however it ends.
struct Passage {
    dependency: Arc<Dependency>,
    pass: Pass,
    first: bool,
    clock: Clock,
    verdict: Verdict,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.dependency.leave(self.pass, self.verdict, self.first, self.clock.monotonic());
    }
}
