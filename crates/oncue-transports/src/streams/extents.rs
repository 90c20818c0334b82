//! How far the partitions of a topic reach, and how many events they have: counted once, and on from there.

use oncue::transport::{Position, broker::Extent};

#[derive(Default)]
pub(super) struct Extents {
    /// The first event of the topic that was counted.
    first: u64,
    /// Everything before was counted.
    pub(super) next: u64,
    partitions: Vec<Option<Extent>>,
}

impl Extents {
    /// Counting goes on, where the first event is still the one that it was.
    pub(super) fn begin(&mut self, first: u64, partitions: u16) {
        if self.first != first || self.partitions.is_empty() {
            *self = Self { first, next: first, partitions: vec![None; usize::from(partitions)] };
        }
    }

    pub(super) fn count(&mut self, position: Position) {
        let offset = position.offset();
        self.next = offset + 1;
        if let Some(known) = self.partitions.get_mut(usize::from(position.partition())) {
            let extent = known.get_or_insert(Extent { first: offset, next: offset, events: 0 });
            extent.next = offset + 1;
            extent.events += 1;
        }
    }

    pub(super) fn of(&self, partition: u16) -> Extent {
        let known = self.partitions.get(usize::from(partition)).copied().flatten();
        known.unwrap_or(Extent { first: 0, next: 0, events: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_goes_on_until_the_first_one_is_gone() {
        let mut extents = Extents::default();
        extents.begin(0, 2);
        assert_eq!(extents.of(0), Extent { first: 0, next: 0, events: 0 });
        for (partition, offset) in [(0, 3), (1, 4), (1, 7)] {
            extents.count(Position::new(partition, offset, 0));
        }
        extents.begin(0, 2);
        assert_eq!(extents.next, 8);
        assert_eq!(extents.of(1), Extent { first: 4, next: 8, events: 2 });
        extents.begin(4, 2);
        assert_eq!((extents.next, extents.of(1).events), (4, 0));
    }
}
