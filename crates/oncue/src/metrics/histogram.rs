//! How long things took: counts per logarithmic bucket, of bounded size and bounded error.

use crate::codec::{Malformed, Reader, Writer};

/// Bits of a value that are kept below its leading one.
const PRECISION_BITS: u32 = 6;
/// Buckets per power of two.
const STEPS: u64 = 1 << PRECISION_BITS;
/// Values below this have a bucket of their own.
const EXACT: u64 = 2 * STEPS;
/// Buckets of all values of 64 bits.
const MAX_BUCKETS: usize = EXACT as usize + (63 - PRECISION_BITS as usize) * STEPS as usize;

/// The largest relative error of [`Histogram::percentile`]: a bucket is at most 1/64 of its values wide, and its
/// middle stands for it.
pub const MAX_RELATIVE_ERROR: f64 = 1.0 / EXACT as f64;

/// Counts of values (microseconds here), each kept to within [`MAX_RELATIVE_ERROR`].
///
/// The buckets of `HdrHistogram` with its numbers fixed: a value keeps its 7 highest bits. That makes it total (no
/// range to choose, no error to handle) and small: it grows with the largest value, to 14 KiB at an hour and 30 KiB at
/// the most, and is stored as the buckets that hold anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket by index; as long as the highest one in use.
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.add(bucket_of(value), 1);
        self.max = self.max.max(value);
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.reserve_exact(bucket + 1 - self.counts.len());
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.used() {
            self.add(bucket, count);
        }
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value, exact; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value below or at which the share `q` (0 to 1, outside of it the nearer end) of all values lies; within
    /// [`MAX_RELATIVE_ERROR`], and never above the largest. None if nothing was counted or `q` is not a number.
    #[must_use]
    pub fn percentile(&self, q: f64) -> Option<u64> {
        if self.total == 0 || q.is_nan() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rank above 2^53 may be off by one in 2^53")]
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and the total")]
        let rank = ((self.total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, self.total);
        if rank == self.total {
            return Some(self.max);
        }
        let mut seen: u64 = 0;
        for (bucket, count) in self.used() {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return Some(middle_of(bucket).min(self.max));
            }
        }
        Some(self.max)
    }

    /// The buckets that hold anything, lowest first.
    fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// Appends: largest value, number of buckets in use, then for each how many indexes it is above the one before and
    /// its count, all as varints.
    pub(super) fn encode(&self, out: &mut Writer) {
        out.varint(self.max);
        out.varint(self.used().count() as u64);
        let mut before = 0;
        for (bucket, count) in self.used() {
            out.varint((bucket - before) as u64);
            out.varint(count);
            before = bucket;
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let max = from.varint()?;
        let used = from.varint()?;
        let mut histogram = Self::default();
        let mut bucket = 0_usize;
        for index in 0..used {
            let step = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
            bucket = bucket.saturating_add(step);
            let count = from.varint()?;
            // What is damaged must not make us allocate, nor count a bucket twice.
            if bucket >= MAX_BUCKETS || count == 0 || (step == 0 && index > 0) {
                return Err(Malformed("a histogram is damaged"));
            }
            histogram.add(bucket, count);
        }
        let highest = histogram.counts.len().saturating_sub(1);
        if highest != bucket_of(max) || (histogram.total == 0 && max != 0) {
            return Err(Malformed("a histogram is damaged"));
        }
        histogram.max = max;
        Ok(histogram)
    }
}

/// The bucket of a value: small values their own, larger ones by their highest bits.
#[expect(clippy::cast_possible_truncation, reason = "below MAX_BUCKETS")]
fn bucket_of(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let shift = value.ilog2() - PRECISION_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The middle of a bucket's values.
fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let lowest = (bucket - shift * STEPS) << shift;
    lowest + ((1 << shift) - 1) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_join_without_gap_and_end_where_64_bits_end() {
        assert_eq!(bucket_of(u64::MAX), MAX_BUCKETS - 1);
        for bucket in 0..MAX_BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
        for value in 1..100_000 {
            assert!((0..=1).contains(&(bucket_of(value) - bucket_of(value - 1))), "{value}");
        }
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles_and_full_ones_have_exact_ends() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.percentile(0.0), Some(0));
        assert_eq!(histogram.percentile(7.0), Some(u64::MAX));
        assert_eq!(histogram.percentile(f64::NAN), None);
    }

    #[test]
    fn memory_is_small() {
        let mut histogram = Histogram::default();
        for (value, kib) in [(3_600_000_000, 14), (u64::MAX, 30)] {
            histogram.record(value);
            assert!(histogram.counts.capacity() * size_of::<u64>() <= kib * 1_024, "at {value}");
        }
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_its_error_of_the_exact_one(
            values in proptest::collection::vec(prop_oneof![0_u64..300, 0_u64..4_000_000_000, any::<u64>()], 1..300),
            q in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
            let exact = sorted[rank - 1];
            let error = histogram.percentile(q).unwrap().abs_diff(exact);
            prop_assert!(error as f64 <= exact as f64 * MAX_RELATIVE_ERROR, "off by {} at {}", error, exact);
        }

        #[test]
        fn merging_is_counting_both(
            one in proptest::collection::vec(any::<u64>(), 0..50),
            other in proptest::collection::vec(0_u64..10_000, 0..50),
        ) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record(*value));
                histogram
            };
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }
    }
}
