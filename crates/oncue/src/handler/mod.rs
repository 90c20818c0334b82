//! Handlers: what processes events.

mod invocation;

pub use invocation::{Effects, Invocation, StateChange, StateMap};

use crate::policy::ErrorClass;

/// What a handler made of an event. What it emitted and what it wrote to its state is in the invocation's [`Effects`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ack,
    /// Failed; the retry policy decides what follows.
    Fail {
        /// What kind of failure.
        class: ErrorClass,
        /// The error's text, with its causes.
        error: String,
    },
    /// Failed for good: a dead letter at once, whatever the policy.
    Reject {
        /// Why.
        error: String,
    },
    /// Not yet: deliver it again after this delay; counts as no attempt.
    Defer(std::time::Duration),
}

/// What calling a handler gives.
pub enum Call {
    /// It ran to its end.
    Done(Outcome),
    /// To be polled.
    Future(std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// Blocks: to be run on the blocking pool.
    Blocking(Box<dyn FnOnce() -> Outcome + Send>),
}

/// A handler behind the door: every form of handler becomes this.
pub trait ErasedHandler: Send + Sync + 'static {
    /// Decodes the event, extracts the arguments and calls.
    fn call(&self, invocation: &Invocation) -> Call;
}
