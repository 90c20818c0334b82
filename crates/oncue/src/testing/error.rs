//! What a test meets besides what it asserts.

use std::{fmt, time::Duration};

use thiserror::Error;

use super::MOST_CALLS;
use crate::{clock::NotPaused, error::Error as AppError};

/// Why a test cannot go on. For a test to return: what it prints is the whole message.
#[derive(Error)]
pub enum TestError {
    /// The runtime's time goes on by itself.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// What the app met.
    #[error(transparent)]
    App(#[from] AppError),
    /// A handler is called for one event without end.
    #[error(
        "handler `{handler}` was called {MOST_CALLS} times for {event}, and would be again: let its policy give up, or \
         what it waits for happen\n{seen}"
    )]
    Endless {
        /// The handler.
        handler: String,
        /// The event: its type, its key and its data.
        event: String,
        /// All that was seen.
        seen: String,
    },
    /// Handlers are not through with what was published.
    #[error("not idle after {limit:?}:{}\n{seen}", lines(unfinished))]
    NotIdle {
        /// For how long time went on.
        limit: Duration,
        /// The handlers, each with an event and what it waits for.
        unfinished: Vec<String>,
        /// All that was seen.
        seen: String,
    },
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}

/// As it is shown: a test prints the error that it returns by this.
impl fmt::Debug for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of a test.
pub type Result<T = (), E = TestError> = std::result::Result<T, E>;
