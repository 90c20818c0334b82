//! Probabilities that mean what they say: of what is given 0.3, three in ten come true.
//!
//! By parts of the log-odds, what is said is moved to what came true there (histogram binning: Zadrozny and Elkan, *Obtaining
//! Calibrated Probability Estimates*, ICML 2001), as far as enough was seen; whether that helped is measured, as is how far
//! what is said is from what comes true.

use crate::{
    progress::log_loss,
    state::{Reader, StateError, Writer},
};

/// Parts of [0, 1] in which what is said is compared with what comes true.
pub const BINS: usize = 10;
/// Parts of the log-odds, of half a unit each, from −8 on.
const PARTS: usize = 32;
const FROM: f64 = -8.0;
const PART: f64 = 0.5;
/// What was said counts as if it had been seen to be right so often.
const PRIOR: f64 = 20.0;
/// What was seen in a part counts no more than that, so that a change is followed.
const MEMORY: f64 = 2_000.0;

/// 1 / (1 + e^(−score)), never quite 0 or 1.
pub(crate) fn logistic(score: f64) -> f64 {
    1.0 / (1.0 + (-score.clamp(-35.0, 35.0)).exp())
}

/// The log-odds of a probability.
fn log_odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

/// How log-odds are moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    parts: [Bin; PARTS],
    /// The log-loss so far without it, less that with it.
    gained: f64,
}

impl Calibration {
    /// The probability for a score in log-odds: calibrated, if that was better so far.
    #[must_use]
    pub fn probability(&self, score: f64) -> f64 {
        logistic(if self.gained > 0.0 { self.calibrated(score) } else { score })
    }

    /// How much less log-loss there was with it than without, in all.
    #[must_use]
    pub fn gained(&self) -> f64 {
        self.gained
    }

    /// What was given this score came true, or did not.
    pub fn learn(&mut self, score: f64, came_true: bool) {
        let (said, calibrated) = (logistic(score), logistic(self.calibrated(score)));
        self.gained += log_loss(said, came_true) - log_loss(calibrated, came_true);
        let part = &mut self.parts[part_of(score)];
        part.add(said, came_true);
        if part.count > MEMORY {
            let share = MEMORY / part.count;
            *part = Bin { count: MEMORY, said: part.said * share, came_true: part.came_true * share };
        }
    }

    fn calibrated(&self, score: f64) -> f64 {
        let part = &self.parts[part_of(score)];
        if part.count == 0.0 {
            return score;
        }
        let said = part.said / part.count;
        let came_true = (part.came_true + PRIOR * said) / (part.count + PRIOR);
        score + log_odds(came_true) - log_odds(said)
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.parts.iter().for_each(|part| part.encode(out));
        out.f64(self.gained);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let mut calibration = Self::default();
        for part in &mut calibration.parts {
            *part = Bin::decode(from)?;
        }
        calibration.gained = from.f64()?;
        Ok(calibration)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to PARTS")]
fn part_of(score: f64) -> usize {
    (((score - FROM) / PART).clamp(0.0, PARTS as f64) as usize).min(PARTS - 1)
}

/// What was said in one part of [0, 1], and what came true.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How often.
    pub count: f64,
    /// The sum of what was said.
    pub said: f64,
    /// How often it came true.
    pub came_true: f64,
}

impl Bin {
    fn add(&mut self, probability: f64, came_true: bool) {
        self.count += 1.0;
        self.said += probability;
        self.came_true += f64::from(u8::from(came_true));
    }

    fn encode(&self, out: &mut Writer) {
        out.all(&[self.count, self.said, self.came_true]);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let (count, said, came_true) = (from.not_negative()?, from.not_negative()?, from.not_negative()?);
        let (mean, none) = (said / count, (count, said, came_true) == (0.0, 0.0, 0.0));
        let fits = mean > 1e-16 && mean < 1.0 && came_true <= count;
        if !(none || fits) {
            return Err(StateError::Malformed("what was said is no share of what was seen"));
        }
        Ok(Self { count, said, came_true })
    }
}

/// What was said, compared with what came true.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; BINS],
}

impl Reliability {
    /// `probability` was said of something.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to BINS")]
    pub fn add(&mut self, probability: f64, came_true: bool) {
        let number = (probability.clamp(0.0, 1.0) * BINS as f64) as usize;
        self.bins[number.min(BINS - 1)].add(probability, came_true);
    }

    /// By tenths.
    #[must_use]
    pub fn bins(&self) -> &[Bin; BINS] {
        &self.bins
    }

    /// Expected calibration error: how far what is said is from what comes true, on average. Zero before anything was seen.
    #[must_use]
    pub fn error(&self) -> f64 {
        let count: f64 = self.bins.iter().map(|bin| bin.count).sum();
        let apart: f64 = self.bins.iter().map(|bin| (bin.said - bin.came_true).abs()).sum();
        if count > 0.0 { apart / count } else { 0.0 }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.bins.iter().for_each(|bin| bin.encode(out));
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let mut reliability = Self::default();
        for bin in &mut reliability.bins {
            *bin = Bin::decode(from)?;
        }
        Ok(reliability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log-odds that are too sure by a factor, and off by a shift.
    fn learned(factor: f64, shift: f64) -> (Calibration, Reliability, Reliability) {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut calibration, mut before, mut after) =
            (Calibration::default(), Reliability::default(), Reliability::default());
        for number in 0..40_000 {
            let score = (random.f64() - 0.5) * 6.0;
            let came_true = random.f64() < logistic(score);
            let said = score * factor + shift;
            if number >= 20_000 {
                before.add(logistic(said), came_true);
                after.add(calibration.probability(said), came_true);
            }
            calibration.learn(said, came_true);
        }
        (calibration, before, after)
    }

    #[test]
    fn what_is_too_sure_is_found_out() {
        let (calibration, before, after) = learned(2.5, 1.0);
        for true_score in [-2.5, -1.0, 0.0, 1.0, 2.5] {
            let said = calibration.probability(true_score * 2.5 + 1.0);
            assert!((said - logistic(true_score)).abs() < 0.08, "{true_score}: {said}");
        }
        assert!(before.error() > 0.08 && after.error() < 0.015, "{} {}", before.error(), after.error());
    }

    #[test]
    fn what_is_calibrated_is_left_as_it_is() {
        let (calibration, before, after) = learned(1.0, 0.0);
        for score in [-2.5, -1.0, 0.0, 1.0, 2.5] {
            assert!((calibration.probability(score) - logistic(score)).abs() < 0.04, "{score}");
        }
        assert!(after.error() <= before.error() + 0.005);
    }

    #[test]
    fn the_error_is_what_is_said_less_what_comes_true() {
        let mut reliability = Reliability::default();
        assert_eq!(reliability.error(), 0.0);
        (0..10).for_each(|number| reliability.add(0.25, number < 5));
        (0..30).for_each(|number| reliability.add(1.0, number < 27));
        // (10 · |0.25 − 0.5| + 30 · |1 − 0.9|) / 40
        assert!((reliability.error() - 5.5 / 40.0).abs() < 1e-12);
        assert_eq!(reliability.bins()[9].count, 30.0);
    }
}
