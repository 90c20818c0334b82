//! Extractors: the arguments of a handler after the event.

mod context;
mod delivery;
mod headers;
mod keyed;
mod state;

pub use context::{Context, EmitError};
pub use delivery::Attempt;
pub use headers::Headers;
pub use keyed::{Keyed, KeyedProbe, KeyedState};
pub use state::State;

use super::{Invocation, Outcome, StateMap};
use crate::policy::ErrorClass;

/// An argument of a handler after the event: taken from the [`Invocation`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "after the event a handler takes `State<T>`, `Keyed<T>`, `Context`, `Headers`, `Position`, `Envelope` or `Attempt`; a value of your app is taken as `State<{Self}>`"
)]
pub trait Extract: Sized + Send + 'static {
    /// Whether it reads or writes the handler's state of the event's key, which is then loaded before the call.
    const KEYED: bool = false;

    /// Whether events can be emitted by it.
    const EMITTING: bool = false;

    /// Whether it is of the one event that is handled, so that a batch handler cannot take it.
    const PER_EVENT: bool = true;

    /// The argument.
    ///
    /// # Errors
    /// Why it cannot be had; the handler is then not called.
    fn extract(invocation: &Invocation) -> Result<Self, Rejection>;

    /// Whether the app has what it needs, asked once at start.
    ///
    /// # Errors
    /// What is missing.
    fn check(states: &StateMap) -> Result<(), String> {
        let _ = states;
        Ok(())
    }
}

/// Why an argument cannot be had: the outcome of a call that did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    class: ErrorClass,
    error: String,
}

impl Rejection {
    /// A rejection of this class: a dead letter at once if no retry can help, else a failed attempt.
    pub fn new(class: ErrorClass, error: impl Into<String>) -> Self {
        Self { class, error: error.into() }
    }
}

impl From<Rejection> for Outcome {
    fn from(Rejection { class, error }: Rejection) -> Self {
        if class.is_retryable() { Self::Fail { class, error } } else { Self::Reject { class, error } }
    }
}

/// All arguments after the event.
pub trait Arguments: Sized + Send + 'static {
    /// Whether one of them is keyed.
    const KEYED: bool;
    /// Whether one of them can emit.
    const EMITTING: bool;
    /// Whether one of them is of one event.
    const PER_EVENT: bool;

    /// The arguments.
    ///
    /// # Errors
    /// Why one cannot be had.
    fn extract(invocation: &Invocation) -> Result<Self, Rejection>;

    /// Whether the app has what they need.
    ///
    /// # Errors
    /// All that is missing.
    fn check(states: &StateMap) -> Result<(), String>;
}

macro_rules! arguments {
    ($($argument:ident),*) => {
        impl<$($argument: Extract),*> Arguments for ($($argument,)*) {
            const KEYED: bool = false $(|| $argument::KEYED)*;
            const EMITTING: bool = false $(|| $argument::EMITTING)*;
            const PER_EVENT: bool = false $(|| $argument::PER_EVENT)*;

            #[inline]
            #[allow(unused_variables, clippy::unused_unit, reason = "no arguments")]
            fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
                Ok(($($argument::extract(invocation)?,)*))
            }

            #[allow(unused_variables, reason = "no arguments")]
            fn check(states: &StateMap) -> Result<(), String> {
                super::private::all([$($argument::check(states)),*])
            }
        }
    };
}

arguments!();
arguments!(A);
arguments!(A, B);
arguments!(A, B, C);
arguments!(A, B, C, D);
arguments!(A, B, C, D, E);
arguments!(A, B, C, D, E, F);
