//! How a value compares with those that came lately.

use crate::state::{Reader, StateError, Writer};

/// So many of the newest values are compared with.
pub const RANKS_KEPT: usize = 512;

/// Fewer say nothing.
const FEWEST: usize = 32;

/// The newest values: of another it is told how many of them are smaller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranks {
    /// At most [`RANKS_KEPT`].
    values: Vec<f64>,
    /// The place of the oldest, once there are so many.
    oldest: usize,
}

impl Ranks {
    /// Takes in one more, in place of the oldest if there are enough. One that is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.values.len() < RANKS_KEPT {
            self.values.push(value);
        } else {
            self.values[self.oldest] = value;
            self.oldest = (self.oldest + 1) % RANKS_KEPT;
        }
    }

    /// The share of the values that are smaller, from 0 to 1; of those that are the same, half are. Nothing before
    /// there are enough to say.
    #[must_use]
    pub fn share_below(&self, value: f64) -> Option<f64> {
        let (smaller, same) = self.values.iter().fold((0.0, 0.0), |(smaller, same), known| {
            (smaller + f64::from(u8::from(*known < value)), same + f64::from(u8::from(*known == value)))
        });
        (self.values.len() >= FEWEST).then(|| (smaller + same / 2.0) / self.values.len() as f64)
    }

    /// Its state, from which it goes on exactly as it would have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_version();
        out.u32(u32::try_from(self.oldest).unwrap_or_default());
        out.u32(u32::try_from(self.values.len()).unwrap_or_default());
        out.all(&self.values);
        out.0
    }

    /// What [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another version wrote it; it is damaged.
    pub fn decode(state: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader::new(state)?;
        let oldest = usize::try_from(from.u32()?).unwrap_or(usize::MAX);
        let count = from.count(8)?;
        let is_full = count == RANKS_KEPT;
        if count > RANKS_KEPT || oldest >= RANKS_KEPT || (oldest > 0 && !is_full) {
            return Err(StateError::Malformed("a place among the newest values is none"));
        }
        let mut values = vec![0.0; count];
        from.fill(&mut values)?;
        from.end()?;
        Ok(Self { values, oldest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_is_that_of_the_newest_and_the_same_are_halved() {
        let mut ranks = Ranks::default();
        for value in 0..31 {
            ranks.add(f64::from(value));
        }
        assert_eq!(ranks.share_below(5.0), None);
        ranks.add(f64::NAN);
        assert_eq!(ranks.share_below(5.0), None, "it is none");
        ranks.add(31.0);
        assert_eq!(ranks.share_below(16.0), Some(16.5 / 32.0));
        assert_eq!((ranks.share_below(-1.0), ranks.share_below(99.0)), (Some(0.0), Some(1.0)));
        (0..RANKS_KEPT).for_each(|_| ranks.add(7.0));
        assert_eq!(ranks.share_below(7.0), Some(0.5), "what was before is forgotten");
    }

    proptest! {
        #[test]
        fn it_goes_on_from_what_was_written(
            before in proptest::collection::vec(-9.0_f64..9.0, 0..1_300),
            after in proptest::collection::vec(-9.0_f64..9.0, 0..600),
        ) {
            let mut ranks = Ranks::default();
            before.iter().for_each(|value| ranks.add(*value));
            let mut restored = Ranks::decode(&ranks.encode()).unwrap();
            for value in after {
                ranks.add(value);
                restored.add(value);
            }
            prop_assert_eq!(ranks, restored);
        }

        #[test]
        fn bytes_that_are_no_state_are_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(first) = bytes.first_mut() {
                *first = crate::STATE_VERSION;
            }
            if let Ok(ranks) = Ranks::decode(&bytes) {
                prop_assert_eq!(ranks.encode(), bytes);
            }
        }
    }
}
