//! How a source fails.

use std::{any::Any, error::Error, fmt};

use thiserror::Error;

use crate::policy::ErrorClass;

/// An error of a source, with the kind of failure it is.
///
/// Any error becomes one by `?`, as a transient failure: the source is asked again, with growing delays. After a permanent
/// one it is not. It does not implement [`Error`] itself, so that every error can be converted into it.
pub struct SourceError {
    class: ErrorClass,
    error: Box<dyn Error + Send + Sync>,
}

impl SourceError {
    /// An error of a kind of failure: those that another attempt can help are followed by one.
    pub fn new(class: ErrorClass, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, error: error.into() }
    }

    /// May succeed when tried again.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorClass::Transient, error)
    }

    /// Will fail again however often it is tried: the source stops.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorClass::Permanent, error)
    }

    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(ErrorClass::Panic, format!("panicked: {}", text.unwrap_or("(no message)")))
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for SourceError {
    fn from(error: E) -> Self {
        Self::transient(error)
    }
}

impl fmt::Display for SourceError {
    /// The error, and what caused it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.error.to_string();
        f.write_str(&told)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors say their cause themselves.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
            }
            (told, cause) = (text, error.source());
        }
        Ok(())
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceError").field(&self.class).field(&self.error).finish()
    }
}

/// A source gave up; the app goes on without it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("source `{id}` stopped: {error}")]
pub struct SourceFailed {
    /// The source.
    pub id: String,
    /// Its last error.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_transient_and_says_its_cause_once() {
        #[derive(Debug, Error)]
        #[error("cannot read the feed")]
        struct Feed(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u32>().unwrap_err();
        let error = SourceError::from(Feed(cause.clone()));
        assert_eq!(error.class(), ErrorClass::Transient);
        assert_eq!(error.to_string(), format!("cannot read the feed: {cause}"));
        assert!(error.error().downcast_ref::<Feed>().is_some());
        assert_eq!(SourceError::permanent("no").class(), ErrorClass::Permanent);
    }
}
