//! What is wanted of what was appended: the rest is garbage.

use std::collections::HashMap;
use std::ops::Range;

use crate::record::{KIND_EVENT, KIND_STATE, Lsn, Step, TopicId};

/// What its owner still wants of a log. More than is wanted may be in here, never less.
///
/// Topic definitions and checkpoints need not be: the newest checkpoint restates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Topics of which only some events are wanted: the offsets of these, ascending, none twice. Of a topic that is not here,
    /// everything is that was not dropped ([`Log::drop_events`](crate::Log::drop_events)).
    pub events: HashMap<TopicId, Vec<Range<u64>>>,
    /// The lsns of the state records that are wanted, ascending. What the newest checkpoint restates is not, unless it says
    /// where to find it.
    pub states: Vec<Lsn>,
    /// State records from this lsn on are all wanted: they came after this was put together. The default, 0, wants all of
    /// them.
    pub upto: Lsn,
}

impl Wanted {
    /// How many of a topic's offsets in a range are wanted.
    pub(crate) fn count(&self, topic: u32, range: Range<u64>) -> u64 {
        let length = |range: Range<u64>| range.end.saturating_sub(range.start);
        let Some(wanted) = self.events.get(&TopicId(topic)) else { return length(range) };
        let from = wanted.partition_point(|known| known.end <= range.start);
        let within = wanted[from..].iter().take_while(|known| known.start < range.end);
        within.map(|known| length(known.start.max(range.start)..known.end.min(range.end))).sum()
    }

    /// How many state records in a range are wanted.
    pub(crate) fn states(&self, range: Range<Lsn>) -> u64 {
        let below = |lsn: Lsn| self.states.partition_point(|known| *known < lsn) as u64;
        let (start, end) = (range.start.min(self.upto), range.end.min(self.upto));
        below(end) - below(start) + range.end.saturating_sub(range.start.max(self.upto))
    }

    /// Whether a record is wanted; `first` is its topic's first offset.
    pub(crate) fn has(&self, step: &Step, first: u64) -> bool {
        let offset = step.header.offset;
        match step.header.kind {
            KIND_EVENT => offset >= first && self.count(step.header.topic, offset..offset + 1) > 0,
            KIND_STATE.. => step.lsn >= self.upto || self.states.binary_search(&step.lsn).is_ok(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_wanted_in_a_range() {
        let events = HashMap::from([(TopicId(1), vec![2..4, 6..7, 10..20]), (TopicId(2), Vec::new())]);
        let wanted = Wanted { events, states: vec![3, 5, 9], upto: 12 };
        assert_eq!([0..2, 0..3, 3..7, 5..6, 19..30, 0..30].map(|range| wanted.count(1, range)), [0, 1, 2, 0, 1, 13]);
        assert_eq!((wanted.count(2, 0..9), wanted.count(3, 4..9)), (0, 5));
        assert_eq!([0..3, 3..4, 4..10, 9..15, 20..22].map(|range| wanted.states(range)), [0, 1, 2, 4, 2]);
    }
}
