//! A model of one quantity, or of a yes or no, with all that keeps it honest.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    adwin::Adwin,
    calibration::{Calibration, logistic},
    features::{BITS, Features},
    ftrl::{Ftrl, FtrlSettings},
    moments::Moments,
    progress::{Progress, log_loss},
    state::{Reader, STATE_VERSION, StateError, Writer},
};

/// When the world changed, what was seen before counts so much.
pub const DRIFT_SHARE: f64 = 0.1;
/// Numbers that are farther off count so many deviations, so that one outlier is no other model.
const FARTHEST: f64 = 10.0;
/// Quantities beyond have squares that are none.
const LARGEST: f64 = 1e50;
/// Where the weight stands that is no feature's.
const BIAS: u32 = 1 << BITS;

/// What is to be estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A probability: labels are 0 and 1.
    Logistic,
    /// A quantity: labels are numbers from −1e50 to 1e50.
    Squared,
}

/// Why an example was not learned from.
#[derive(Debug, Error, Clone, Copy, PartialEq)]
pub enum LearnError {
    /// The label is not what is estimated.
    #[error("{label} is no label of {}", match loss { Loss::Logistic => "a yes or no: it is 0 or 1", Loss::Squared => "a quantity: it is a number from -1e50 to 1e50" })]
    Label {
        /// What was given.
        label: f64,
        /// What is estimated.
        loss: Loss,
    },
}

/// Learns online: numbers are standardized by what was seen of them, weights begin at what is simple (the base rate, the
/// mean), and a change of the world that makes it worse quickens learning.
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    loss: Loss,
    weights: Ftrl,
    /// Of numbers, by slot.
    scales: BTreeMap<u32, Moments>,
    /// Of labels.
    labels: Moments,
    calibration: Calibration,
    window: Adwin,
    progress: Progress,
}

impl Learner {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(loss: Loss) -> Self {
        Self::with(loss, FtrlSettings::default())
    }

    /// With settings of your own.
    #[must_use]
    pub fn with(loss: Loss, settings: FtrlSettings) -> Self {
        Self {
            loss,
            weights: Ftrl::new(settings),
            scales: BTreeMap::new(),
            labels: Moments::default(),
            calibration: Calibration::default(),
            window: Adwin::default(),
            progress: Progress { yes_or_no: loss == Loss::Logistic, ..Progress::default() },
        }
    }

    /// What is estimated.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// How it compares with what is simple.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How its probabilities are calibrated.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The weight of the feature in a slot; of a standardized number, if it is one.
    #[must_use]
    pub fn weight(&self, slot: u32) -> f64 {
        self.weights.weight(slot)
    }

    /// The simple estimate: how many of the labels so far were 1 (with half of one of each before anything was seen), or
    /// their mean.
    #[must_use]
    pub fn simple(&self) -> f64 {
        match self.loss {
            Loss::Logistic => (self.progress.positives + 0.5) / (self.progress.examples + 1.0),
            Loss::Squared => self.labels.mean(),
        }
    }

    /// An example whose label nobody will know, for what was estimated: it counts as that in what is usual, or examples that
    /// are kept from the learner would seem to have become rare.
    pub fn pass_by(&mut self, features: &Features) {
        let estimate = self.estimate(features);
        self.scale(features);
        self.labels.add(estimate);
    }

    /// The estimate for an example: a probability, or a quantity.
    #[must_use]
    pub fn estimate(&self, features: &Features) -> f64 {
        let score = self.score(&self.example(features));
        match self.loss {
            Loss::Logistic => self.calibration.probability(score),
            Loss::Squared => self.labels.mean() + score * self.labels.deviation(),
        }
    }

    /// Learns from an example; gives what was estimated before.
    ///
    /// # Errors
    /// The label is none; nothing is changed.
    pub fn learn(&mut self, features: &Features, label: f64) -> Result<f64, LearnError> {
        let is_one = match self.loss {
            Loss::Logistic => label == 0.0 || label == 1.0,
            Loss::Squared => label.abs() <= LARGEST,
        };
        if !is_one {
            return Err(LearnError::Label { label, loss: self.loss });
        }
        let (estimate, simple) = (self.estimate(features), self.simple());
        let came_true = label == 1.0;
        let off = match self.loss {
            Loss::Logistic => {
                self.progress.add(log_loss(estimate, came_true), log_loss(simple, came_true));
                self.progress.reliability.add(estimate, came_true);
                self.progress.positives += label;
                (label - estimate).abs()
            }
            Loss::Squared => {
                let (learned, simple) = ((label - estimate).powi(2), (label - simple).powi(2));
                self.progress.add(learned, simple);
                // In [0, 1), whatever the unit.
                learned / (learned + self.labels.variance()).max(f64::MIN_POSITIVE)
            }
        };
        if self.window.add(off).is_some_and(|change| change.after > change.before) {
            self.progress.drifts += 1;
            self.weights.forget(DRIFT_SHARE);
        }
        self.step(features, label);
        Ok(estimate)
    }

    fn scale(&mut self, features: &Features) {
        for feature in features.all() {
            if let Some(number) = feature.number {
                self.scales.entry(feature.slot).or_default().add(number);
            }
        }
    }

    fn step(&mut self, features: &Features, label: f64) {
        self.scale(features);
        let example = self.example(features);
        let score = self.score(&example);
        let gradient = match self.loss {
            Loss::Logistic => {
                self.calibration.learn(score, label == 1.0);
                logistic(score) - label
            }
            Loss::Squared => (score - self.labels.standardized(label)).clamp(-FARTHEST, FARTHEST),
        };
        self.weights.step(&example, gradient);
        self.labels.add(label);
    }

    /// Numbers standardized, signs applied, and the bias.
    fn example(&self, features: &Features) -> Vec<(u32, f64)> {
        let values = features.all().iter().map(|feature| {
            let scale = || self.scales.get(&feature.slot).copied().unwrap_or_default();
            let value = feature.number.map_or(1.0, |number| scale().standardized(number).clamp(-FARTHEST, FARTHEST));
            (feature.slot, if feature.negative { -value } else { value })
        });
        values.chain([(BIAS, 1.0)]).collect()
    }

    /// In log-odds from what is usual on, or in deviations from the mean.
    fn score(&self, example: &[(u32, f64)]) -> f64 {
        let seen = self.labels.count();
        let begins = match self.loss {
            Loss::Logistic => {
                let usual = (self.labels.mean() * seen + 0.5) / (seen + 1.0);
                (usual / (1.0 - usual)).ln()
            }
            Loss::Squared => 0.0,
        };
        begins + self.weights.score(example)
    }

    /// Its state, from which it goes on exactly as it would have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(STATE_VERSION);
        out.u8(match self.loss {
            Loss::Logistic => 1,
            Loss::Squared => 2,
        });
        self.weights.encode(&mut out);
        out.u32(u32::try_from(self.scales.len()).unwrap_or(u32::MAX));
        for (slot, moments) in &self.scales {
            out.u32(*slot);
            moments.encode(&mut out);
        }
        self.labels.encode(&mut out);
        self.calibration.encode(&mut out);
        self.window.encode(&mut out);
        self.progress.encode(&mut out);
        out.0
    }

    /// The learner that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another version wrote it; it is damaged.
    pub fn decode(state: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader::new(state)?;
        let loss = match from.u8()? {
            1 => Loss::Logistic,
            2 => Loss::Squared,
            _ => return Err(StateError::Malformed("it estimates what is not known")),
        };
        let weights = Ftrl::decode(&mut from, BIAS + 1)?;
        let mut scales = BTreeMap::new();
        for _ in 0..from.count(28)? {
            let slot = from.u32()?;
            let in_order = scales.last_key_value().is_none_or(|(last, _)| *last < slot);
            if !in_order || slot >= BIAS {
                return Err(StateError::Malformed("a scale has no place"));
            }
            scales.insert(slot, Moments::decode(&mut from)?);
        }
        let labels = Moments::decode(&mut from)?;
        let calibration = Calibration::decode(&mut from)?;
        let (window, progress) = (Adwin::decode(&mut from)?, Progress::decode(&mut from)?);
        from.end()?;
        let mean = labels.mean();
        let fits = if loss == Loss::Logistic { (0.0..=1.0).contains(&mean) } else { mean.abs() <= LARGEST };
        if !fits || labels.deviation() > LARGEST {
            return Err(StateError::Malformed("labels are none"));
        }
        if progress.yes_or_no != (loss == Loss::Logistic) {
            return Err(StateError::Malformed("it was compared as what it is not"));
        }
        Ok(Self { loss, weights, scales, labels, calibration, window, progress })
    }
}
