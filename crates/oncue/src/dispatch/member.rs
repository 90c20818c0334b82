//! A handler as the dispatcher runs it.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use super::run::RunId;
use crate::{
    handler::ErasedHandler,
    policy::Policy,
    transport::{Members, OnDeadLetter},
};

/// A handler with what the dispatcher needs to know of it.
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) policy: Arc<dyn Policy>,
    /// Calls at once, at most.
    pub(crate) concurrency: usize,
    pub(crate) timeout: Option<Duration>,
    /// It takes `Keyed`.
    pub(crate) keyed: bool,
    pub(crate) on_dead_letter: OnDeadLetter,
    /// Members that must have acked an event before this one may handle it.
    pub(crate) after: Members,
    /// Calls under way.
    pub(crate) running: usize,
    /// Runs that wait for a place.
    pub(crate) queue: VecDeque<RunId>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).field("running", &self.running).finish_non_exhaustive()
    }
}
