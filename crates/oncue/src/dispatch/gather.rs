//! Gathering events into batches.

use std::{collections::VecDeque, time::Duration};

use super::run::RunId;
use crate::{
    clock::{Clock, Sleep},
    handler::BatchLimits,
};

/// The batch that grows.
pub(crate) struct Gather {
    limits: BatchLimits,
    /// Events that are to be handled, oldest first, each with the time at which it waits for no more; more than a batch if
    /// all places are taken.
    events: VecDeque<(RunId, Duration)>,
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
        self.events.push_back((run, clock.monotonic().saturating_add(self.limits.wait)));
        if self.events.len() == 1 {
            self.await_more(clock);
        }
    }

    /// The next batch, if it is complete or has waited long enough.
    pub(crate) fn take(&mut self, clock: &Clock) -> Option<Vec<RunId>> {
        let complete = self.events.len() >= self.limits.size;
        if self.events.is_empty() || !(complete || self.over) {
            return None;
        }
        let batch = self.events.drain(..self.limits.size.min(self.events.len())).map(|(run, _)| run).collect();
        self.await_more(clock);
        Some(batch)
    }

    /// The oldest event waits for more, for what is left of its time.
    fn await_more(&mut self, clock: &Clock) {
        let now = clock.monotonic();
        let until = self.events.front().map(|(_, until)| *until);
        self.over = until.is_some_and(|until| until <= now);
        self.wait = until.filter(|until| *until > now).map(|until| clock.sleep(until - now));
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

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn a_batch_is_called_when_it_is_full_or_its_oldest_event_has_waited() {
        let time = ManualClock::new(Timestamp::from_micros(0));
        let (clock, wait) = (time.clock(), Duration::from_millis(10));
        let mut gather = Some(Gather::new(BatchLimits { size: 2, wait }));
        let add = |gather: &mut Option<Gather>, run| gather.as_mut().unwrap().add(run, &clock);
        let take = |gather: &mut Option<Gather>| gather.as_mut().unwrap().take(&clock);
        add(&mut gather, 1);
        assert_eq!(take(&mut gather), None);
        time.advance(wait / 2);
        add(&mut gather, 2);
        add(&mut gather, 3);
        assert_eq!(take(&mut gather), Some(vec![1, 2]));
        assert_eq!(take(&mut gather), None, "what is left behind a full batch waits for more, as long as any");
        time.advance(wait / 2);
        assert!(over(&mut gather).now_or_never().is_none(), "half of its time is left");
        time.advance(wait / 2);
        assert!(over(&mut gather).now_or_never().is_some());
        assert_eq!((take(&mut gather), take(&mut gather)), (Some(vec![3]), None));
    }
}
