//! Per-key order: what is in flight for a key, and what waits for it.

use std::collections::VecDeque;

use super::run::RunId;
use crate::{number_map::NumberMap, transport::Ordered};

/// The keys in flight.
pub(crate) struct Lanes {
    ordered: Ordered,
    /// The next event of a key starts once the last one is handled, and need not be settled.
    pipelined: bool,
    by_key: NumberMap<Lane>,
    closed: bool,
}

/// One key in flight.
#[derive(Default)]
struct Lane {
    /// Events of the key that run: one, or all those of a batch.
    running: usize,
    /// The batch that they are in is called: no more can join it.
    called: bool,
    /// Events of the key that wait for those that run.
    waiting: VecDeque<RunId>,
    /// One that ran failed and is being parked: everything behind it goes back to the transport.
    parking: bool,
}

/// What becomes of an event that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its key is free.
    Start,
    /// It waits behind another event of its key.
    Wait,
    /// Its key is being parked.
    GiveBack,
}

impl Lanes {
    pub(crate) fn new(ordered: Ordered, pipelined: bool) -> Self {
        Self { ordered, pipelined, by_key: NumberMap::default(), closed: false }
    }

    /// Whether an event that is handled need not be settled before the next one of its key starts.
    pub(crate) fn is_pipelined(&self) -> bool {
        self.pipelined
    }

    /// Whether a failed event holds its key.
    pub(crate) fn is_strict(&self) -> bool {
        self.ordered == Ordered::Strict
    }

    /// `joins`: a batch is being gathered, and more events of a key may join those in it.
    pub(crate) fn enter(&mut self, key: Option<u64>, run: RunId, joins: bool) -> Entry {
        let Some(key) = key else { return Entry::Start };
        match self.by_key.get_mut(&key) {
            Some(lane) if lane.parking => Entry::GiveBack,
            Some(lane) if joins && !lane.called && lane.waiting.is_empty() => {
                lane.running += 1;
                Entry::Start
            }
            Some(lane) => {
                lane.waiting.push_back(run);
                Entry::Wait
            }
            None => {
                self.by_key.insert(key, Lane { running: 1, ..Lane::default() });
                Entry::Start
            }
        }
    }

    /// The batch that an event of the key is in is called.
    pub(crate) fn call(&mut self, key: Option<u64>) {
        if let Some(lane) = key.and_then(|key| self.by_key.get_mut(&key)) {
            lane.called = true;
        }
    }

    /// Another event that waits for the key, where more than one may run.
    pub(crate) fn join(&mut self, key: Option<u64>) -> Option<RunId> {
        let lane = self.by_key.get_mut(&key?)?;
        let next = lane.waiting.pop_front()?;
        lane.running += 1;
        Some(next)
    }

    /// The event that ran will be tried again later. With strict order the key waits for it: what waited in the lane
    /// is to be given back.
    pub(crate) fn park(&mut self, key: Option<u64>) -> VecDeque<RunId> {
        match key.and_then(|key| self.by_key.get_mut(&key)) {
            Some(lane) if self.ordered == Ordered::Strict => {
                lane.parking = true;
                std::mem::take(&mut lane.waiting)
            }
            _ => VecDeque::new(),
        }
    }

    /// An event that ran is through: the next one of its key, if one waits and none runs.
    pub(crate) fn leave(&mut self, key: Option<u64>) -> Option<RunId> {
        let key = key?;
        let lane = self.by_key.get_mut(&key)?;
        lane.running -= 1;
        if lane.running > 0 {
            return None;
        }
        match lane.waiting.pop_front().filter(|_| !self.closed) {
            Some(next) => {
                (lane.running, lane.called) = (1, false);
                Some(next)
            }
            None => {
                self.by_key.remove(&key);
                None
            }
        }
    }

    /// Nothing starts any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_runs_one_event_at_a_time_in_order() {
        let mut lanes = Lanes::new(Ordered::Strict, false);
        assert_eq!(lanes.enter(Some(7), 1, false), Entry::Start);
        assert_eq!(lanes.enter(Some(7), 2, false), Entry::Wait);
        assert_eq!(lanes.enter(Some(7), 3, false), Entry::Wait);
        assert_eq!(lanes.enter(Some(8), 4, false), Entry::Start, "another key");
        assert_eq!(lanes.enter(None, 5, false), Entry::Start, "no key, no order");
        assert_eq!((lanes.leave(Some(7)), lanes.leave(Some(7)), lanes.leave(Some(7))), (Some(2), Some(3), None));
        assert_eq!(lanes.enter(Some(7), 6, false), Entry::Start, "the lane is gone");
    }

    #[test]
    fn a_parked_key_gives_back_all_that_waits_and_all_that_comes_until_it_left() {
        let mut lanes = Lanes::new(Ordered::Strict, false);
        for run in 1..=3 {
            lanes.enter(Some(7), run, false);
        }
        assert_eq!(lanes.park(Some(7)), [2, 3]);
        assert_eq!(lanes.enter(Some(7), 4, false), Entry::GiveBack);
        assert_eq!(lanes.leave(Some(7)), None);
        assert_eq!(lanes.enter(Some(7), 5, false), Entry::Start);
    }

    #[test]
    fn relaxed_order_lets_later_events_pass() {
        let mut lanes = Lanes::new(Ordered::Relaxed, false);
        lanes.enter(Some(7), 1, false);
        lanes.enter(Some(7), 2, false);
        assert!(lanes.park(Some(7)).is_empty());
        assert_eq!(lanes.leave(Some(7)), Some(2));
    }

    #[test]
    fn events_of_a_key_join_a_batch_until_it_is_called() {
        let mut lanes = Lanes::new(Ordered::Strict, false);
        assert_eq!(lanes.enter(Some(7), 1, true), Entry::Start);
        assert_eq!(lanes.enter(Some(7), 2, true), Entry::Start);
        lanes.call(Some(7));
        assert_eq!(lanes.enter(Some(7), 3, true), Entry::Wait);
        assert_eq!(lanes.enter(Some(7), 4, true), Entry::Wait);
        assert_eq!((lanes.leave(Some(7)), lanes.leave(Some(7))), (None, Some(3)), "when both are settled");
        assert_eq!((lanes.join(Some(7)), lanes.join(Some(7))), (Some(4), None));
    }

    #[test]
    fn an_event_that_could_join_passes_none_that_could_not() {
        let mut lanes = Lanes::new(Ordered::Strict, false);
        assert_eq!(lanes.enter(Some(7), 1, true), Entry::Start);
        assert_eq!(lanes.enter(Some(7), 2, false), Entry::Wait, "the batch was full");
        assert_eq!(lanes.enter(Some(7), 3, true), Entry::Wait, "there is room again");
    }
}
