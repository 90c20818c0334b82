//! What a subscription missed: events that its topic dropped before it was through with them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::codec::{Malformed, Reader, Writer};

/// Ranges of missed events that are told apart from those that were handled: the newest.
pub(super) const MAX_RANGES: usize = 1_000;

/// How many events were missed, and which of the newest offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    events: u64,
    /// From an offset to another, without that; ascending.
    ranges: VecDeque<(u64, u64)>,
}

/// What one subscription misses when its topic drops events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    pub(crate) subscription: u32,
    pub(crate) events: u64,
    /// The newest of them, as in [`Missed`].
    pub(crate) ranges: Vec<(u64, u64)>,
}

impl Missed {
    /// How many events were missed.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn add(&mut self, gap: &Gap) {
        self.events = self.events.saturating_add(gap.events);
        for range in &gap.ranges {
            match self.ranges.back_mut() {
                Some(last) if last.1 == range.0 => last.1 = range.1,
                _ => self.ranges.push_back(*range),
            }
        }
        while self.ranges.len() > MAX_RANGES {
            self.ranges.pop_front();
        }
    }

    fn find(&self, offset: u64) -> Option<usize> {
        let behind = self.ranges.partition_point(|(from, _)| *from <= offset);
        behind.checked_sub(1).filter(|at| offset < self.ranges[*at].1)
    }

    /// Whether the event is known to have been missed.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.find(offset).is_some()
    }

    /// An event was under way when it was dropped, and is through now: it was not missed. False if it is none of them.
    pub(super) fn take_back(&mut self, offset: u64) -> bool {
        let Some(at) = self.find(offset) else { return false };
        let (from, to) = self.ranges[at];
        self.events = self.events.saturating_sub(1);
        self.ranges[at].1 = offset;
        if offset + 1 < to {
            self.ranges.insert(at + 1, (offset + 1, to));
        }
        if from == offset {
            self.ranges.remove(at);
        }
        true
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.varint(self.events);
        out.varint(self.ranges.len() as u64);
        for (from, to) in &self.ranges {
            out.varint(*from);
            out.varint(*to);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let events = from.varint()?;
        let count = from.count(2)?;
        let ranges: VecDeque<_> =
            (0..count).map(|_| Ok((from.varint()?, from.varint()?))).collect::<Result<_, Malformed>>()?;
        let ascend = ranges.iter().zip(ranges.iter().skip(1)).all(|(one, next)| one.1 <= next.0);
        if !ascend || ranges.iter().any(|(from, to)| from >= to) {
            return Err(Malformed("missed events are out of order"));
        }
        Ok(Self { events, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(events: u64, ranges: &[(u64, u64)]) -> Gap {
        Gap { subscription: 0, events, ranges: ranges.to_vec() }
    }

    #[test]
    fn what_was_under_way_is_taken_back_once() {
        let mut missed = Missed::default();
        missed.add(&gap(5, &[(2, 5), (8, 10)]));
        missed.add(&gap(2, &[(10, 12)]));
        assert_eq!((missed.events(), missed.ranges.len()), (7, 2));
        assert!(missed.take_back(3) && !missed.take_back(3) && !missed.take_back(6) && !missed.take_back(12));
        assert!(missed.take_back(2) && missed.take_back(11) && missed.take_back(4));
        assert_eq!((missed.events(), missed.ranges.iter().copied().collect::<Vec<_>>()), (3, vec![(8, 11)]));
        let mut out = Writer::default();
        missed.encode(&mut out);
        assert_eq!(Missed::decode(&mut Reader::new(out.as_slice())).unwrap(), missed);
    }

    #[test]
    fn only_the_newest_are_told_apart_and_all_are_counted() {
        let mut missed = Missed::default();
        for number in 0..2 * MAX_RANGES as u64 {
            missed.add(&gap(1, &[(number * 2, number * 2 + 1)]));
        }
        assert_eq!((missed.events(), missed.ranges.len()), (2 * MAX_RANGES as u64, MAX_RANGES));
        assert!(!missed.contains(0) && missed.contains(4 * MAX_RANGES as u64 - 2));
    }
}
