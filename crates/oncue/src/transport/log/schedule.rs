//! Events that are not due yet.
//!
//! The earliest are held, by time and place. Of the others it is only known where they stand in the log: when most of
//! those that are held have come due, they are looked for there. So a year of reminders takes as much memory as a day of
//! them, and nothing that is due now waits behind them.

use std::collections::BTreeSet;

use super::hand::Place;
use crate::clock::Timestamp;

pub(in crate::transport) struct Schedule {
    /// Most that are held.
    limit: usize,
    held: BTreeSet<(Timestamp, Place)>,
    beyond: Option<Beyond>,
}

/// The events that are not held: all those of these offsets that are due at a time or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct Beyond {
    pub(in crate::transport) due: Timestamp,
    pub(in crate::transport) from: u64,
    pub(in crate::transport) to: u64,
}

impl Schedule {
    pub(in crate::transport) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), held: BTreeSet::new(), beyond: None }
    }

    /// An event is due at a time that is yet to come.
    pub(in crate::transport) fn add(&mut self, due: Timestamp, place: Place) {
        if self.beyond.is_some_and(|beyond| beyond.due <= due) {
            self.leave_out(due, place);
            return;
        }
        self.held.insert((due, place));
        if self.held.len() > self.limit
            && let Some((due, place)) = self.held.pop_last()
        {
            self.leave_out(due, place);
        }
    }

    fn leave_out(&mut self, due: Timestamp, Place { offset, .. }: Place) {
        let known = self.beyond.unwrap_or(Beyond { due, from: offset, to: offset + 1 });
        self.beyond =
            Some(Beyond { due: known.due.min(due), from: known.from.min(offset), to: known.to.max(offset + 1) });
    }

    /// Forgets events that are gone, all of them below `first`.
    pub(super) fn forget(&mut self, first: u64, is_gone: impl Fn(u64) -> bool) {
        self.held.retain(|(_, place)| !is_gone(place.offset));
        self.beyond = self.beyond.map(|beyond| Beyond { from: beyond.from.max(first), ..beyond });
        self.beyond = self.beyond.filter(|beyond| beyond.from < beyond.to);
    }

    /// The next event whose time has come.
    pub(in crate::transport) fn pop_due(&mut self, now: Timestamp) -> Option<Place> {
        let (due, _) = self.held.first()?;
        if *due > now { None } else { self.held.pop_first().map(|(_, place)| place) }
    }

    /// Where to look for more, if there is room for many.
    pub(in crate::transport) fn look_beyond(&mut self) -> Option<Beyond> {
        if self.held.len() > self.limit / 2 { None } else { self.beyond.take() }
    }

    /// When the next event is due.
    pub(in crate::transport) fn next(&self) -> Option<Timestamp> {
        self.held.first().map(|(due, _)| *due).or(self.beyond.map(|beyond| beyond.due))
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.beyond.is_none()
    }

    /// The offsets of those held whose time has come.
    pub(in crate::transport) fn due_by(&self, now: Timestamp) -> impl Iterator<Item = u64> {
        self.held.iter().take_while(move |(due, _)| *due <= now).map(|(_, place)| place.offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A log of events with their times, a limit, and when they are looked at: each comes at its time, whatever the
        /// limit, and no more than that are held.
        #[test]
        fn each_comes_at_its_time_however_few_are_held(
            times in proptest::collection::vec(1_i64..50, 0..60),
            limit in 1_usize..8,
            steps in proptest::collection::vec(1_i64..9, 20),
        ) {
            let mut schedule = Schedule::new(limit);
            let at = Timestamp::from_micros;
            for (offset, due) in times.iter().enumerate() {
                schedule.add(at(*due), Place::unranked(offset as u64));
            }
            let (mut came, mut now) = (vec![false; times.len()], 0);
            for step in steps {
                now += step;
                loop {
                    prop_assert!(schedule.held.len() <= limit);
                    while let Some(place) = schedule.pop_due(at(now)) {
                        let index = usize::try_from(place.offset).unwrap();
                        prop_assert!(times[index] <= now && !std::mem::replace(&mut came[index], true));
                    }
                    let Some(beyond) = schedule.look_beyond() else { break };
                    for offset in beyond.from..beyond.to {
                        let index = usize::try_from(offset).unwrap();
                        if at(times[index]) >= beyond.due && !came[index] {
                            schedule.add(at(times[index]), Place::unranked(offset));
                        }
                    }
                    if schedule.next().is_none_or(|next| next > at(now)) {
                        break;
                    }
                }
                for (index, due) in times.iter().enumerate() {
                    prop_assert_eq!(came[index], *due <= now, "event {} is due at {}, now is {}", index, due, now);
                }
            }
            prop_assert_eq!(schedule.is_empty(), came.iter().all(|came| *came));
        }
    }
}
