//! An error that says itself what kind of failure it is.

use std::{error::Error, fmt, time::Duration};

use super::{Outcome, returns::with_causes};
use crate::policy::ErrorClass;

/// An error of a handler that says what kind of failure it is.
///
/// Any error becomes one by `?`, as a transient failure; the other kinds are made by name:
///
/// ```
/// use oncue::handler::HandlerError;
///
/// fn parse(amount: &str) -> Result<u64, HandlerError> {
///     if amount.is_empty() {
///         return Err(HandlerError::permanent("an order without an amount"));
///     }
///     Ok(amount.parse()?)
/// }
/// assert_eq!(parse("").unwrap_err().to_string(), "an order without an amount");
/// assert!(parse("x").is_err());
/// ```
///
/// It does not implement [`Error`] itself, so that every error can be converted into it.
pub struct HandlerError(Box<Classed>);

/// What a [`HandlerError`] is as a [`std::error::Error`].
#[derive(Debug)]
pub(crate) struct Classed {
    verdict: Verdict,
    error: Box<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// Nothing was said: a classifying function may say.
    Unclassed,
    Class(ErrorClass),
    Reject,
    Defer(Duration),
}

impl HandlerError {
    fn new(verdict: Verdict, error: Box<dyn Error + Send + Sync>) -> Self {
        Self(Box::new(Classed { verdict, error }))
    }

    /// May succeed when tried again.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Class(ErrorClass::Transient), error.into())
    }

    /// The other side asks to be called less often.
    pub fn throttled(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Class(ErrorClass::Throttled), error.into())
    }

    /// Will fail again however often it is tried; the policy decides, and knows that.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Class(ErrorClass::Permanent), error.into())
    }

    /// A dead letter at once, whatever the policy.
    pub fn reject(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Reject, error.into())
    }

    /// Not a failure: deliver the event again after this delay; counts as no attempt.
    #[must_use]
    pub fn defer(delay: Duration) -> Self {
        Self::new(Verdict::Defer(delay), format!("deferred by {delay:?}").into())
    }
}

impl Classed {
    /// The outcome of a handler that returned this. `class` is what a classifying function said.
    pub(crate) fn outcome(&self, class: Option<ErrorClass>) -> Outcome {
        let error = || with_causes(&*self.error);
        match self.verdict {
            Verdict::Unclassed => Outcome::Fail { class: class.unwrap_or(ErrorClass::Transient), error: error() },
            Verdict::Class(own) => Outcome::Fail { class: class.unwrap_or(own), error: error() },
            Verdict::Reject => Outcome::Reject { class: ErrorClass::Permanent, error: error() },
            Verdict::Defer(delay) => Outcome::Defer(delay),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(Verdict::Unclassed, Box::new(error))
    }
}

impl From<HandlerError> for Box<dyn Error + Send + Sync> {
    fn from(error: HandlerError) -> Self {
        error.0
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerError").field(&self.0.verdict).field(&self.0.error).finish()
    }
}

impl fmt::Display for Classed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for Classed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
