//! ADWIN: a window over numbers in [0, 1] that is as long as their mean does not change (Bifet and Gavaldà, *Learning from
//! Time-Changing Data with Adaptive Windowing*, SDM 2007; ADWIN2, in logarithmic memory).

use std::collections::VecDeque;

use crate::state::{Reader, StateError, Writer};

/// How often at most it sees a change where there is none, per check.
pub const DEFAULT_DELTA: f64 = 0.002;
/// Buckets of a size, before the two oldest become one of the next.
const BUCKETS: usize = 5;
/// Sizes that there are: no window outlives them.
const LEVELS: usize = 40;
/// It looks for a change once in so many numbers.
const EVERY: u64 = 32;
/// Each part of the window has more than so many numbers.
const SHORTEST: f64 = 5.0;

/// The mean changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The mean of what was dropped from the window, and what is kept.
    pub before: f64,
    /// The mean of what is kept.
    pub after: f64,
}

/// Numbers of a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    sum: f64,
    /// The sum of squared differences from their mean.
    squares: f64,
}

/// The window.
#[derive(Clone, Debug, PartialEq)]
pub struct Adwin {
    delta: f64,
    /// By size 2ⁱ, each oldest first.
    levels: Vec<VecDeque<Bucket>>,
    seen: u64,
}

impl Default for Adwin {
    fn default() -> Self {
        Self::new(DEFAULT_DELTA)
    }
}

impl Adwin {
    /// `delta` in (0, 1): the smaller, the surer a change must be.
    #[must_use]
    pub fn new(delta: f64) -> Self {
        let delta = if delta > 0.0 && delta < 1.0 { delta } else { DEFAULT_DELTA };
        Self { delta, levels: Vec::new(), seen: 0 }
    }

    /// How many numbers the window has.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.parts().map(|(size, _)| size).sum()
    }

    /// Their mean; zero if there are none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let (width, sum) =
            self.parts().fold((0.0, 0.0), |(width, sum), (size, bucket)| (width + size, sum + bucket.sum));
        if width > 0.0 { sum / width } else { 0.0 }
    }

    /// Takes in the next number; one outside of [0, 1] counts as the nearest inside. Tells if the mean changed, which
    /// shortens the window.
    pub fn add(&mut self, value: f64) -> Option<Change> {
        let value = if value.is_nan() { 1.0 } else { value.clamp(0.0, 1.0) };
        self.insert(Bucket { sum: value, squares: 0.0 });
        self.seen += 1;
        if !self.seen.is_multiple_of(EVERY) {
            return None;
        }
        let before = self.mean();
        let mut changed = false;
        while self.is_cut() {
            changed = true;
            let oldest = self.levels.iter_mut().rev().find(|level| !level.is_empty());
            oldest.and_then(VecDeque::pop_front);
        }
        changed.then(|| Change { before, after: self.mean() })
    }

    fn insert(&mut self, bucket: Bucket) {
        let mut bucket = bucket;
        for level in 0..LEVELS {
            if self.levels.len() == level {
                self.levels.push(VecDeque::new());
            }
            let buckets = &mut self.levels[level];
            buckets.push_back(bucket);
            if buckets.len() <= BUCKETS {
                return;
            }
            let (Some(one), Some(two)) = (buckets.pop_front(), buckets.pop_front()) else { return };
            let size = size_of(level);
            let apart = (one.sum - two.sum) / size;
            bucket = Bucket { sum: one.sum + two.sum, squares: one.squares + two.squares + size / 2.0 * apart * apart };
        }
    }

    /// Buckets with their sizes, oldest first.
    fn parts(&self) -> impl Iterator<Item = (f64, &Bucket)> {
        let levels = self.levels.iter().enumerate().rev();
        levels.flat_map(|(level, buckets)| buckets.iter().map(move |bucket| (size_of(level), bucket)))
    }

    /// Whether the window has two parts whose means differ by more than chance.
    fn is_cut(&self) -> bool {
        let (mut width, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (size, bucket) in self.parts() {
            if width > 0.0 {
                let apart = bucket.sum / size - sum / width;
                squares += width * size / (width + size) * apart * apart;
            }
            (width, sum, squares) = (width + size, sum + bucket.sum, squares + bucket.squares);
        }
        if width <= 2.0 * SHORTEST {
            return false;
        }
        let (variance, confidence) = (squares / width, (2.0 * width.ln() / self.delta).ln());
        let (mut first, mut first_sum) = (0.0, 0.0);
        self.parts().any(|(size, bucket)| {
            (first, first_sum) = (first + size, first_sum + bucket.sum);
            let second = width - first;
            if first <= SHORTEST || second <= SHORTEST {
                return false;
            }
            let apart = (first_sum / first - (sum - first_sum) / second).abs();
            let harmonic = 1.0 / (first - SHORTEST + 1.0) + 1.0 / (second - SHORTEST + 1.0);
            apart > (2.0 * harmonic * variance * confidence).sqrt() + 2.0 / 3.0 * confidence * harmonic
        })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.f64(self.delta);
        out.u64(self.seen);
        out.u32(u32::try_from(self.levels.len()).unwrap_or(u32::MAX));
        for level in &self.levels {
            out.u32(u32::try_from(level.len()).unwrap_or(u32::MAX));
            level.iter().for_each(|bucket| out.all(&[bucket.sum, bucket.squares]));
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let (delta, seen) = (from.f64()?, from.u64()?);
        if !(delta > 0.0 && delta < 1.0) {
            return Err(StateError::Malformed("a confidence is not between 0 and 1"));
        }
        let levels = from.count(4)?;
        if levels > LEVELS {
            return Err(StateError::Malformed("a window is too long"));
        }
        let mut adwin = Self { delta, levels: Vec::with_capacity(levels), seen };
        for level in 0..levels {
            let count = from.count(16)?;
            if count > BUCKETS {
                return Err(StateError::Malformed("a window has too many parts"));
            }
            let mut buckets = VecDeque::with_capacity(count);
            for _ in 0..count {
                let bucket = Bucket { sum: from.not_negative()?, squares: from.not_negative()? };
                if bucket.sum > size_of(level) {
                    return Err(StateError::Malformed("a mean is above 1"));
                }
                buckets.push_back(bucket);
            }
            adwin.levels.push(buckets);
        }
        Ok(adwin)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a power of two below 2^40")]
fn size_of(level: usize) -> f64 {
    (1_u64 << level.min(LEVELS)) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coin(random: &mut fastrand::Rng, probability: f64) -> f64 {
        f64::from(u8::from(random.f64() < probability))
    }

    #[test]
    fn a_change_is_seen_soon_and_what_was_before_is_forgotten() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut adwin = Adwin::default();
            (0..2_000).for_each(|_| assert_eq!(adwin.add(coin(&mut random, 0.2)), None, "seed {seed}"));
            let seen = (1..=500).find_map(|after| adwin.add(coin(&mut random, 0.8)).map(|change| (after, change)));
            let (after, change) = seen.expect("a change of 0.6 is seen");
            assert!(after <= 96, "seed {seed}: after {after}");
            assert!(change.after > change.before, "seed {seed}: {change:?}");
            (0..1_000)
                .for_each(|_| assert!(adwin.add(coin(&mut random, 0.8)).is_none_or(|change| change.after >= 0.0)));
            assert!((adwin.mean() - 0.8).abs() < 0.06 && adwin.width() < 1_200.0, "seed {seed}: {adwin:?}");
        }
    }

    #[test]
    fn false_alarms_are_rare() {
        // The bound is δ for each check; measured on 50 × 10,000 fair coins, of 15,600 checks.
        let mut alarms = 0;
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(1_000 + seed);
            let mut adwin = Adwin::default();
            alarms += (0..10_000).filter(|_| adwin.add(coin(&mut random, 0.5)).is_some()).count();
        }
        assert!(alarms <= 31, "{alarms}");
    }

    #[test]
    fn a_long_window_takes_little_memory() {
        let mut adwin = Adwin::default();
        (0..100_000)
            .for_each(|number| assert!(adwin.add(f64::from(number % 2)).is_none_or(|change| change.after >= 0.0)));
        assert_eq!(adwin.width(), 100_000.0);
        assert!((adwin.mean() - 0.5).abs() < 1e-9);
        assert!(adwin.parts().count() <= BUCKETS * 18);
    }

    proptest! {
        #[test]
        fn mean_and_variance_are_those_of_what_it_holds(values in proptest::collection::vec(0.0..1.0_f64, 1..31)) {
            let mut adwin = Adwin::default();
            values.iter().for_each(|value| assert!(adwin.add(*value).is_none_or(|change| change.after >= 0.0)));
            prop_assert_eq!(adwin.width(), values.len() as f64);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!((adwin.mean() - mean).abs() < 1e-12);
            for (size, bucket) in adwin.parts() {
                prop_assert!(bucket.sum <= size && bucket.squares <= size);
            }
        }
    }
}
