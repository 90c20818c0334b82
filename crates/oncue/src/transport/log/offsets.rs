//! A set of settled offsets that grows from the bottom.

use std::{collections::VecDeque, ops::Range};

use crate::codec::{Malformed, Reader, Writer};

/// Offsets that count: each n-th.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stride {
    /// The first of them, less than `step`.
    pub(crate) first: u16,
    pub(crate) step: u16,
}

impl Stride {
    pub(crate) const ALL: Self = Self { first: 0, step: 1 };

    /// How many of them are below an offset.
    fn below(self, end: u64) -> u64 {
        end.saturating_sub(u64::from(self.first)).div_ceil(u64::from(self.step.max(1)))
    }
}

/// Offsets: all below `low`, and single ones above it, one bit each. A subscription that settles nearly in order needs
/// a few words; one whose oldest event waits while ten million pass takes 1.25 MB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetSet {
    low: u64,
    /// Bits of the offsets from `low` rounded down to a multiple of 64 on.
    words: VecDeque<u64>,
}

impl OffsetSet {
    /// All offsets below `low`.
    pub(crate) fn up_to(low: u64) -> Self {
        let mut set = Self::default();
        set.raise(low);
        set
    }

    /// The lowest offset that is not in the set.
    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    fn word_of(&self, offset: u64) -> usize {
        usize::try_from(offset / 64 - self.low / 64).unwrap_or(usize::MAX)
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        offset < self.low || self.words.get(self.word_of(offset)).is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    /// Adds an offset; false if it was in the set.
    pub(crate) fn insert(&mut self, offset: u64) -> bool {
        if self.contains(offset) {
            return false;
        }
        if offset == self.low && self.words.is_empty() {
            // The common case, in order: nothing but the low end moves.
            self.low += 1;
            return true;
        }
        let word = self.word_of(offset);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (offset % 64);
        self.settle_low();
        true
    }

    /// Adds the offsets from `from` to `to`, without `to`.
    pub(crate) fn insert_range(&mut self, from: u64, to: u64) {
        if from <= self.low {
            self.raise(to);
            return;
        }
        for offset in from..to {
            self.insert(offset);
        }
    }

    /// Adds all offsets below `low`.
    pub(crate) fn raise(&mut self, low: u64) {
        if low <= self.low {
            return;
        }
        let drop = self.word_of(low).min(self.words.len());
        self.words.drain(..drop);
        self.low = low;
        self.settle_low();
    }

    /// Adds all that is in another set.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.raise(other.low);
        let base = other.low / 64 * 64;
        for (nth, word) in (0_u64..).zip(&other.words) {
            for bit in (0..64).filter(|bit| word & (1 << bit) != 0) {
                self.insert(base + nth * 64 + bit);
            }
        }
    }

    /// Moves `low` over what is set from it on, and drops words that lie below it.
    fn settle_low(&mut self) {
        while let Some(word) = self.words.front() {
            let unset = (!word >> (self.low % 64)).trailing_zeros();
            let next_word = (self.low / 64 + 1) * 64;
            let low = self.low + u64::from(unset);
            if low < next_word {
                self.low = low;
                break;
            }
            self.low = next_word;
            self.words.pop_front();
        }
        if self.words.iter().all(|word| *word == 0) {
            self.words.clear();
        }
    }

    /// How many offsets of a stride below `end` are not in the set.
    pub(crate) fn missing_below(&self, end: u64, stride: Stride) -> u64 {
        if stride.step > 1 {
            return self.missing(end).iter().map(|range| stride.below(range.end) - stride.below(range.start)).sum();
        }
        let above: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        // Bits of the first word below `low` may or may not be set: they do not count.
        let below = self.words.front().map_or(0, |word| u64::from((word & ((1 << (self.low % 64)) - 1)).count_ones()));
        end.saturating_sub(self.low).saturating_sub(above - below)
    }

    /// The offsets below `end` that are not in the set, in ranges.
    pub(crate) fn missing(&self, end: u64) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut add = |from: u64, to: u64| match ranges.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ => ranges.push(from..to),
        };
        let base = self.low / 64 * 64;
        for (nth, word) in (0_u64..).zip(&self.words) {
            let first = base + nth * 64;
            for offset in first.max(self.low)..(first + 64).min(end) {
                if word & (1 << (offset % 64)) == 0 {
                    add(offset, offset + 1);
                }
            }
        }
        let behind = (base + self.words.len() as u64 * 64).max(self.low);
        if behind < end {
            add(behind, end);
        }
        ranges
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.low);
        out.varint(self.words.len() as u64);
        for word in &self.words {
            out.u64(*word);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let low = from.varint()?;
        let count = from.count(8)?;
        let words = (0..count).map(|_| from.u64()).collect::<Result<_, _>>()?;
        Ok(Self { low, words })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            steps in proptest::collection::vec((0_u64..400, prop::bool::weighted(0.05), prop::option::weighted(0.1, 0_u64..90)), 0..300),
        ) {
            let mut set = OffsetSet::default();
            let mut model = BTreeSet::new();
            for (offset, raise, range) in steps {
                if let Some(length) = range {
                    set.insert_range(offset, (offset + length).min(450));
                    model.extend(offset..(offset + length).min(450));
                } else if raise {
                    set.raise(offset);
                    model.extend(0..offset);
                } else {
                    prop_assert_eq!(set.insert(offset), model.insert(offset));
                }
                let low = (0..).find(|offset| !model.contains(offset)).unwrap();
                prop_assert_eq!(set.low(), low);
                for offset in 0..450 {
                    prop_assert_eq!(set.contains(offset), model.contains(&offset), "{}", offset);
                }
                for (end, step) in [(450, 1), (450, 3), (311, 7), (2, 5)] {
                    for first in 0..step {
                        let expected = (u64::from(first)..end).step_by(step.into()).filter(|offset| !model.contains(offset));
                        prop_assert_eq!(set.missing_below(end, Stride { first, step }), expected.count() as u64);
                    }
                }
                for end in [0, 77, 450] {
                    let missing: Vec<u64> = set.missing(end).into_iter().flatten().collect();
                    let all: Vec<u64> = (0..end).filter(|offset| !model.contains(offset)).collect();
                    prop_assert_eq!(missing, all);
                }
                let mut out = Writer::default();
                set.encode(&mut out);
                let bytes = out.into_bytes();
                prop_assert_eq!(&OffsetSet::decode(&mut Reader::new(&bytes)).unwrap(), &set);
            }
        }
    }

    proptest! {
        #[test]
        fn merging_adds_what_is_in_either(
            (low, other_low) in (0_u64..300, 0_u64..300),
            offsets in proptest::collection::vec(0_u64..400, 0..60),
            others in proptest::collection::vec(0_u64..400, 0..60),
        ) {
            let of = |low, offsets: &[u64]| {
                let mut set = OffsetSet::up_to(low);
                offsets.iter().for_each(|offset| { set.insert(*offset); });
                set
            };
            let (mut merged, other) = (of(low, &offsets), of(other_low, &others));
            let either: Vec<_> = (0..500).map(|offset| merged.contains(offset) || other.contains(offset)).collect();
            merged.merge(&other);
            prop_assert_eq!((0..500).map(|offset| merged.contains(offset)).collect::<Vec<_>>(), either);
        }
    }

    #[test]
    fn in_order_it_stays_small() {
        let mut set = OffsetSet::default();
        for offset in 0..100_000 {
            set.insert(offset);
            assert!(set.words.len() <= 1);
        }
        assert_eq!(set.low(), 100_000);
    }
}
