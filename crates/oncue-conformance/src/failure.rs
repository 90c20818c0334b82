//! Why a case failed.

use std::{error::Error, fmt};

/// Why a case failed: what was promised, and what came instead.
///
/// Any error becomes one by `?`. It does not implement [`Error`] itself, so that every error can be converted into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure that says this.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// All failures of the parts of a case, or none: a part that fails does not hide the others.
    ///
    /// # Errors
    /// A part failed.
    pub fn of_parts(parts: impl IntoIterator<Item = (&'static str, Result<(), Self>)>) -> Result<(), Self> {
        let failed = parts.into_iter().filter_map(|(name, part)| part.err().map(|failure| failure.at(name).0));
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() { Ok(()) } else { Err(Self(failed.join("; "))) }
    }

    /// The same failure with where it happened before it.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Returns a [`Failure`] with this text if the condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($text)+)));
        }
    };
}

/// Returns a [`Failure`] that shows both if the first is not the second, which is what the contract promises.
macro_rules! ensure_eq {
    ($got:expr, $promised:expr, $($text:tt)+) => {{
        let (got, promised) = (&$got, &$promised);
        if *got != *promised {
            let what = format!($($text)+);
            return Err($crate::Failure::new(format!("{what}: promised {promised:?}, got {got:?}")));
        }
    }};
}

pub(crate) use {ensure, ensure_eq};
