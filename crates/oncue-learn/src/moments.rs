//! Mean and variance as numbers come (Welford, *Technometrics* 4, 1962).

use crate::state::{Reader, StateError, Writer};

/// Mean and variance of what was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean: f64,
    /// The sum of squared differences from the mean.
    squares: f64,
}

impl Moments {
    /// Takes in one more. One that is so far off that squares overflow is left out.
    pub fn add(&mut self, value: f64) {
        let from_before = value - self.mean;
        let mean = self.mean + from_before / (self.count + 1.0);
        let squares = self.squares + from_before * (value - mean);
        if squares.is_finite() {
            *self = Self { count: self.count + 1.0, mean, squares };
        }
    }

    /// How many were seen.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Zero before anything was seen.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Of what was seen, as all there is: divided by the count.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count > 0.0 { self.squares / self.count } else { 0.0 }
    }

    /// Standard deviation.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }

    /// In standard deviations from the mean; zero where all were the same.
    #[must_use]
    pub fn standardized(&self, value: f64) -> f64 {
        let deviation = self.deviation();
        let scaled = (value - self.mean) / deviation;
        if deviation > 0.0 && scaled.is_finite() { scaled } else { 0.0 }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.all(&[self.count, self.mean, self.squares]);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(Self { count: from.not_negative()?, mean: from.f64()?, squares: from.not_negative()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_anything_or_variance_nothing_stands_out() {
        let mut moments = Moments::default();
        assert_eq!((moments.mean(), moments.variance(), moments.standardized(3.0)), (0.0, 0.0, 0.0));
        moments.add(5.0);
        assert_eq!((moments.mean(), moments.standardized(7.0)), (5.0, 0.0));
        moments.add(f64::MAX);
        moments.add(-f64::MAX);
        assert!(moments.mean().is_finite() && moments.variance().is_finite());
    }

    proptest! {
        #[test]
        fn it_is_what_two_passes_find(values in proptest::collection::vec(-1e6..1e6_f64, 1..200)) {
            let mut moments = Moments::default();
            values.iter().for_each(|value| moments.add(*value));
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((moments.mean() - mean).abs() <= 1e-9 * (1.0 + mean.abs()));
            prop_assert!((moments.variance() - variance).abs() <= 1e-9 * (1.0 + variance));
        }
    }
}
