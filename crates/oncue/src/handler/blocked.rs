//! What keeps a handler from going on, though nothing is wrong with its events.

use tokio::sync::watch;

use crate::clock::Timestamp;

/// Why a handler waits in the middle of its work: for what it writes to, as a [bridge](crate::bridge) does.
///
/// A handler that can be in such a state tells it ([`ErasedHandler::blocked`](super::ErasedHandler::blocked)); health and
/// alerts show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Since when.
    pub since: Timestamp,
    /// Whether waiting alone does not help: it was answered, and somebody has to change something, as to give a right.
    /// Otherwise it could not be reached.
    pub refused: bool,
    /// What happened, to which thing, and what to do.
    pub reason: String,
}

/// Tells whether a handler waits so, and each change of that.
pub type BlockedHandle = watch::Receiver<Option<Blocked>>;
