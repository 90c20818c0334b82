//! What was read last of a topic that is behind: its partitions stand in one stream, which is read once for all of them.

use std::collections::VecDeque;

use oncue::{Envelope, transport::Position};

/// Bytes that are kept, and what is read at once.
const WINDOW_BYTES: usize = 8 << 20;
const AT_ONCE_BYTES: usize = WINDOW_BYTES / 8;
/// Bytes of an event, beside its data.
pub(super) const EVENT_BYTES: usize = 256;

/// A part of a topic: everything from one offset to another.
#[derive(Default)]
pub(super) struct Window {
    from: u64,
    next: u64,
    events: VecDeque<(Position, Envelope)>,
    bytes: usize,
}

impl Window {
    /// Begins anew at an offset that is elsewhere.
    pub(super) fn move_to(&mut self, offset: u64) {
        if !(self.from..=self.next).contains(&offset) {
            *self = Self { from: offset, next: offset, ..Self::default() };
        }
    }

    /// What is read next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The next event, after which the oldest ones may go.
    pub(super) fn push(&mut self, position: Position, event: Envelope) {
        self.bytes += event.data().len() + EVENT_BYTES;
        self.events.push_back((position, event));
        while self.bytes > WINDOW_BYTES {
            let Some((gone, event)) = self.events.pop_front() else { break };
            self.bytes -= event.data().len() + EVENT_BYTES;
            self.from = gone.offset() + 1;
        }
    }

    /// There is nothing more before an offset.
    pub(super) fn reach(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Adds to `found` what it has of a partition, or of all, up to a limit; from `from` on, which is in it or next.
    pub(super) fn find(&self, partition: Option<u16>, from: u64, limit: usize, found: &mut Vec<(Position, Envelope)>) {
        let first = self.events.partition_point(|(position, _)| position.offset() < from);
        let events = self.events.range(first..);
        let events = events.filter(|(position, _)| partition.is_none_or(|partition| partition == position.partition()));
        found.extend(events.take(limit - found.len()).cloned());
    }
}

/// Counts what is read at once.
#[derive(Default)]
pub(super) struct AtOnce(usize);

impl AtOnce {
    /// Whether it is enough with one more.
    pub(super) fn is_full_with(&mut self, event: &Envelope) -> bool {
        self.0 += event.data().len() + EVENT_BYTES;
        self.0 >= AT_ONCE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(events: u64, bytes: usize) -> Window {
        let mut window = Window::default();
        window.move_to(10);
        for offset in 10..10 + events {
            let event = Envelope::builder("a").data(vec![0; bytes]).build().unwrap();
            window.push(Position::new(u16::from(offset % 2 == 1), offset, 0), event);
            window.reach(offset + 1);
        }
        window
    }

    fn offsets(window: &Window, partition: Option<u16>, from: u64, limit: usize) -> Vec<u64> {
        let mut found = Vec::new();
        window.find(partition, from, limit, &mut found);
        found.iter().map(|(position, _)| position.offset()).collect()
    }

    #[test]
    fn each_partition_finds_its_own() {
        let window = window(6, 1);
        assert_eq!(offsets(&window, Some(0), 10, 9), [10, 12, 14]);
        assert_eq!(offsets(&window, Some(1), 12, 9), [13, 15]);
        assert_eq!(offsets(&window, None, 11, 2), [11, 12]);
        assert_eq!(offsets(&window, None, window.next(), 2), [0; 0]);
    }

    #[test]
    fn what_is_elsewhere_begins_anew_and_what_is_next_does_not() {
        let mut window = window(6, 1);
        window.move_to(16);
        assert_eq!(offsets(&window, None, 10, 1), [10]);
        window.move_to(17);
        assert_eq!((window.next(), offsets(&window, None, 0, 1).len()), (17, 0));
    }

    #[test]
    fn its_bytes_are_bounded_by_leaving_out_the_oldest() {
        let mut window = window(20, 1 << 20);
        assert!(window.bytes <= WINDOW_BYTES && window.events.len() < 9);
        assert_eq!(window.from, window.events.front().unwrap().0.offset());
        window.move_to(10);
        assert_eq!(window.events.len(), 0, "the oldest ones are not in it");
    }
}
