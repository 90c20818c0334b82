//! Gathering events into batches.

use std::collections::VecDeque;

use super::run::RunId;
use crate::{
    clock::{Clock, Sleep},
    handler::BatchLimits,
};

/// The batch that grows.
pub(crate) struct Gather {
    limits: BatchLimits,
    /// Events that are to be handled, oldest first; more than a batch if all places are taken.
    events: VecDeque<RunId>,
    /// Until when the oldest of them waits for more.
    wait: Option<Sleep>,
    /// The oldest has waited long enough.
    over: bool,
}

impl Gather {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self { limits, events: VecDeque::new(), wait: None, over: false }
    }

    /// Whether the batch that is called next takes another event.
    pub(crate) fn has_room(&self) -> bool {
        self.events.len() < self.limits.size
    }

    pub(crate) fn add(&mut self, run: RunId, clock: &Clock) {
        if self.events.is_empty() {
            self.wait = Some(clock.sleep(self.limits.wait));
            self.over = false;
        }
        self.events.push_back(run);
    }

    /// The next batch, if it is complete or has waited long enough. What is left behind it has waited for a place as
    /// long, and waits for nothing more.
    pub(crate) fn take(&mut self) -> Option<Vec<RunId>> {
        let complete = self.events.len() >= self.limits.size;
        if self.events.is_empty() || !(complete || self.over) {
            return None;
        }
        let batch = self.events.drain(..self.limits.size.min(self.events.len())).collect();
        self.wait = None;
        self.over = !self.events.is_empty();
        Some(batch)
    }

    /// Nothing is called any more.
    pub(crate) fn close(&mut self) {
        self.events.clear();
        self.wait = None;
    }
}

/// Completes when the batch that grows has waited long enough.
pub(crate) async fn over(gather: &mut Option<Gather>) {
    let Some(Gather { wait: Some(wait), over, .. }) = gather else { return std::future::pending().await };
    wait.await;
    *over = true;
    if let Some(gather) = gather {
        gather.wait = None;
    }
}
