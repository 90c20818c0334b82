//! What was learned, compared with what needs no learning: each example is estimated first, and learned from then
//! (prequential: Dawid, *Journal of the Royal Statistical Society A* 147, 1984).

use crate::{
    calibration::Reliability,
    state::{Reader, StateError, Writer},
};

/// Fewer examples than that, or fewer of the rarer outcome than [`FEWEST_OF_EACH`], prove nothing.
pub(crate) const FEWEST: f64 = 100.0;
/// See [`FEWEST`].
pub(crate) const FEWEST_OF_EACH: f64 = 10.0;

/// −ln of what was said of what happened.
pub(crate) fn log_loss(probability: f64, came_true: bool) -> f64 {
    -(if came_true { probability } else { 1.0 - probability }).max(1e-15).ln()
}

/// Losses so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Examples.
    pub examples: f64,
    /// Of a yes or no: those that came true.
    pub positives: f64,
    /// The sum of losses of what was learned: log-loss of a yes or no, squared error of a quantity.
    pub learned: f64,
    /// The same of the base rate or the mean of what was seen before.
    pub simple: f64,
    /// The sum of squared differences of the two, per example.
    pub squares: f64,
    /// Whether it is a yes or no.
    pub yes_or_no: bool,
    /// Of a yes or no: what was said, and what came true.
    pub reliability: Reliability,
    /// How often the world was seen to change.
    pub drifts: u64,
}

/// Whether it was worth learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too little was seen to tell.
    TooFew,
    /// Only one outcome was seen: there is nothing to learn.
    OneOutcome,
    /// It is better than the simple one, beyond chance.
    Better,
    /// No difference that chance would not make.
    NoDifference,
    /// The simple one is better, beyond chance.
    Worse,
}

impl Progress {
    pub(crate) fn add(&mut self, learned: f64, simple: f64) {
        self.examples += 1.0;
        self.learned += learned;
        self.simple += simple;
        self.squares += (simple - learned).powi(2);
    }

    /// How much smaller the loss of what was learned is, per example, and the half width of its interval of 95 %; of
    /// examples that do not depend on each other.
    #[must_use]
    pub fn gain(&self) -> (f64, f64) {
        if self.examples < 2.0 {
            return (0.0, f64::INFINITY);
        }
        let mean = (self.simple - self.learned) / self.examples;
        let variance = (self.squares / self.examples - mean * mean).max(0.0) / (self.examples - 1.0);
        (mean, 1.96 * variance.sqrt())
    }

    /// Whether it was worth learning.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let rarer = self.positives.min(self.examples - self.positives);
        if self.yes_or_no && rarer == 0.0 && self.examples > 0.0 {
            return Verdict::OneOutcome;
        }
        if self.examples < FEWEST || (self.yes_or_no && rarer < FEWEST_OF_EACH) {
            return Verdict::TooFew;
        }
        let (gain, width) = self.gain();
        match gain {
            gain if gain > width => Verdict::Better,
            gain if gain < -width => Verdict::Worse,
            _ => Verdict::NoDifference,
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.all(&[self.examples, self.positives, self.learned, self.simple, self.squares]);
        out.u8(u8::from(self.yes_or_no));
        self.reliability.encode(out);
        out.u64(self.drifts);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let mut sums = [0.0; 5];
        from.fill(&mut sums)?;
        let [examples, positives, learned, simple, squares] = sums;
        if !(positives >= 0.0 && examples >= positives && squares >= 0.0) {
            return Err(StateError::Malformed("a count of examples is none"));
        }
        let yes_or_no = from.u8()? != 0;
        let (reliability, drifts) = (Reliability::decode(from)?, from.u64()?);
        Ok(Self { examples, positives, learned, simple, squares, yes_or_no, reliability, drifts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(examples: u32, positives: f64, difference: impl Fn(u32) -> f64) -> Progress {
        let mut progress = Progress { yes_or_no: true, positives, ..Progress::default() };
        (0..examples).for_each(|number| progress.add(0.5, 0.5 + difference(number)));
        progress
    }

    #[test]
    fn the_verdict_is_beyond_chance_or_says_so() {
        let noise = |number: u32| if number.is_multiple_of(2) { 0.5 } else { -0.5 };
        assert_eq!(progress(0, 0.0, noise).verdict(), Verdict::TooFew);
        assert_eq!(progress(50, 25.0, |_| 1.0).verdict(), Verdict::TooFew);
        assert_eq!(progress(1_000, 9.0, |_| 1.0).verdict(), Verdict::TooFew);
        assert_eq!(progress(1_000, 1_000.0, |_| 1.0).verdict(), Verdict::OneOutcome);
        assert_eq!(progress(1_000, 0.0, |_| 1.0).verdict(), Verdict::OneOutcome);
        assert_eq!(progress(1_000, 500.0, noise).verdict(), Verdict::NoDifference);
        assert_eq!(progress(1_000, 500.0, |number| noise(number) + 0.1).verdict(), Verdict::Better);
        assert_eq!(progress(1_000, 500.0, |number| noise(number) - 0.1).verdict(), Verdict::Worse);
    }

    #[test]
    fn the_interval_is_that_of_the_mean() {
        // ±0.5 around 0.1: variance 0.25, of 1,000.
        let (gain, width) = progress(1_000, 500.0, |number| 0.1 + if number % 2 == 0 { 0.5 } else { -0.5 }).gain();
        assert!((gain - 0.1).abs() < 1e-12 && (width - 1.96 * (0.25_f64 / 999.0).sqrt()).abs() < 1e-9);
    }
}
