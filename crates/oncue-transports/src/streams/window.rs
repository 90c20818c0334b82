//! What was read last of a topic that is behind: its partitions stand in one stream, which is read once for all of them. Where
//! they are far apart, or what waited is read again, more than one part of it is read on.

use std::collections::VecDeque;

use oncue::{Envelope, transport::Position};

/// Bytes that are kept of a topic, and of each of its parts, however many those are; and what is read at once.
const KEPT_BYTES: usize = 16 << 20;
const LEAST_BYTES: usize = 2 << 20;
const AT_ONCE_BYTES: usize = KEPT_BYTES / 16;
/// Bytes of an event, beside its data.
pub(super) const EVENT_BYTES: usize = 256;

/// Parts of a topic, the one that is read first, the one that was not read for the longest time last.
pub(super) struct Windows {
    parts: VecDeque<Window>,
    bytes: usize,
    kept_bytes: usize,
}

/// A part of a topic: everything from one offset to another.
struct Window {
    from: u64,
    next: u64,
    events: VecDeque<(Position, Envelope)>,
    /// Where reading it began, and how far each partition reaches in what was read since.
    begin: u64,
    reaches: Vec<u64>,
}

impl Window {
    fn new(from: u64) -> Self {
        Self { from, next: from, events: VecDeque::new(), begin: from, reaches: Vec::new() }
    }
}

impl Windows {
    /// Of a stream that is one of so many of its topic.
    pub(super) fn of(streams: usize) -> Self {
        Self { parts: VecDeque::new(), bytes: 0, kept_bytes: (KEPT_BYTES / streams).max(LEAST_BYTES) }
    }

    /// Reads the part that has an offset, or a new one that begins there.
    pub(super) fn move_to(&mut self, offset: u64) {
        let parts = self.parts.iter().enumerate();
        let having = parts.filter(|(_, part)| (part.from..=part.next).contains(&offset));
        let furthest = having.max_by_key(|(_, part)| part.next).map(|(index, _)| index);
        let part = furthest.and_then(|index| self.parts.remove(index));
        self.parts.push_front(part.unwrap_or_else(|| Window::new(offset)));
    }

    /// What is read next.
    pub(super) fn next(&self) -> u64 {
        self.parts.front().map_or(0, |part| part.next)
    }

    /// The next event, after which the oldest ones may go.
    pub(super) fn push(&mut self, position: Position, event: Envelope) {
        let Some(part) = self.parts.front_mut() else { return };
        self.bytes += bytes(&event);
        let partition = usize::from(position.partition());
        if part.reaches.len() <= partition {
            part.reaches.resize(partition + 1, part.begin);
        }
        part.reaches[partition] = position.offset() + 1;
        part.events.push_back((position, event));
        while self.bytes > self.kept_bytes
            && let Some(last) = self.parts.back_mut()
        {
            match last.events.pop_front() {
                Some((gone, event)) => {
                    self.bytes -= bytes(&event);
                    last.from = gone.offset() + 1;
                }
                None => drop(self.parts.pop_back()),
            }
        }
    }

    /// There is nothing more before an offset.
    pub(super) fn reach(&mut self, next: u64) {
        if let Some(part) = self.parts.front_mut() {
            part.next = part.next.max(next);
        }
    }

    /// Before which a partition has all that it has of what was read.
    pub(super) fn reaches(&self, partition: u16) -> u64 {
        let Some(part) = self.parts.front() else { return 0 };
        part.reaches.get(usize::from(partition)).copied().unwrap_or(part.begin)
    }

    /// Adds to `found` what it has of a partition, or of all, up to a limit; from `from` on, which is in it or next.
    pub(super) fn find(&self, partition: Option<u16>, from: u64, limit: usize, found: &mut Vec<(Position, Envelope)>) {
        let Some(part) = self.parts.front() else { return };
        let first = part.events.partition_point(|(position, _)| position.offset() < from);
        let events = part.events.range(first..);
        let events = events.filter(|(position, _)| partition.is_none_or(|partition| partition == position.partition()));
        found.extend(events.take(limit - found.len()).cloned());
    }
}

fn bytes(event: &Envelope) -> usize {
    event.data().len() + EVENT_BYTES
}

/// Counts what is read at once.
#[derive(Default)]
pub(super) struct AtOnce(usize);

impl AtOnce {
    /// Whether it is enough with one more.
    pub(super) fn is_full_with(&mut self, event: &Envelope) -> bool {
        self.0 += bytes(event);
        self.0 >= AT_ONCE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads events from an offset on, each of the partition that its offset says.
    fn read(windows: &mut Windows, from: u64, events: u64, bytes: usize) {
        windows.move_to(from);
        for offset in from..from + events {
            let event = Envelope::builder("a").data(vec![0; bytes]).build().unwrap();
            windows.push(Position::new(u16::from(offset % 2 == 1), offset, 0), event);
            windows.reach(offset + 1);
        }
    }

    fn offsets(windows: &Windows, partition: Option<u16>, from: u64, limit: usize) -> Vec<u64> {
        let mut found = Vec::new();
        windows.find(partition, from, limit, &mut found);
        found.iter().map(|(position, _)| position.offset()).collect()
    }

    #[test]
    fn each_partition_finds_its_own() {
        let mut windows = Windows::of(1);
        read(&mut windows, 10, 6, 1);
        assert_eq!(offsets(&windows, Some(0), 10, 9), [10, 12, 14]);
        assert_eq!(offsets(&windows, Some(1), 12, 9), [13, 15]);
        assert_eq!(offsets(&windows, None, 11, 2), [11, 12]);
        assert_eq!(offsets(&windows, None, windows.next(), 2), [0; 0]);
        assert_eq!([windows.reaches(0), windows.reaches(1), windows.reaches(2)], [15, 16, 10]);
    }

    #[test]
    fn what_is_elsewhere_begins_anew_and_what_was_read_stays() {
        let mut windows = Windows::of(1);
        read(&mut windows, 10, 6, 1);
        windows.move_to(16);
        assert_eq!(offsets(&windows, None, 10, 1), [10], "it goes on");
        windows.move_to(17);
        assert_eq!((windows.next(), offsets(&windows, None, 0, 1).len()), (17, 0), "it begins anew");
        read(&mut windows, 17, 2, 1);
        windows.move_to(12);
        assert_eq!((windows.next(), offsets(&windows, None, 12, 9)), (16, vec![12, 13, 14, 15]), "it is still there");
        read(&mut windows, 16, 2, 1);
        windows.move_to(17);
        assert_eq!(windows.next(), 19, "of two that have it, the one that has more after it");
    }

    #[test]
    fn its_bytes_are_bounded_by_leaving_out_what_was_not_read_for_long_and_is_oldest() {
        let mut windows = Windows::of(1);
        read(&mut windows, 10, 20, 1 << 20);
        assert!(windows.bytes <= KEPT_BYTES && offsets(&windows, None, 0, 99) == (15..30).collect::<Vec<_>>());
        windows.move_to(10);
        assert_eq!(windows.next(), 10, "the oldest ones are not there");
        read(&mut windows, 10, 5, 1 << 20);
        assert!(windows.bytes <= KEPT_BYTES);
        windows.move_to(20);
        assert_eq!(offsets(&windows, None, 0, 1), [20], "so much of the other part went");
        read(&mut windows, 30, 20, 1 << 20);
        assert!(windows.bytes <= KEPT_BYTES && windows.parts.len() == 1, "the other part is gone");
    }
}
