//! FTRL-proximal: a linear score whose weights are learned online, each at a rate of its own (`McMahan` et al., *Ad Click
//! Prediction: a View from the Trenches*, KDD 2013, algorithm 1).

use std::collections::BTreeMap;

use crate::state::{Reader, StateError, Writer};

/// Sums of gradients that no state has.
const LARGEST: f64 = 1e18;

/// How fast it learns, and how far it trusts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FtrlSettings {
    /// α: rate of learning.
    pub alpha: f64,
    /// β: how much of a weight's first steps is held back.
    pub beta: f64,
    /// λ₁: weights that bring less than this stay zero.
    pub l1: f64,
    /// λ₂: pulls weights to zero.
    pub l2: f64,
}

impl Default for FtrlSettings {
    fn default() -> Self {
        Self { alpha: 0.1, beta: 1.0, l1: 0.0, l2: 1.0 }
    }
}

/// z and n of one weight, of which it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Coordinate {
    z: f64,
    /// The sum of squared gradients.
    n: f64,
}

/// A linear score of sparse examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ftrl {
    settings: FtrlSettings,
    /// By slot; none was seen that is not there.
    coordinates: BTreeMap<u32, Coordinate>,
}

impl Ftrl {
    /// With all weights zero.
    #[must_use]
    pub fn new(settings: FtrlSettings) -> Self {
        Self { settings, coordinates: BTreeMap::new() }
    }

    /// The weight of a slot.
    #[must_use]
    pub fn weight(&self, slot: u32) -> f64 {
        self.coordinates.get(&slot).map_or(0.0, |coordinate| coordinate.weight(&self.settings))
    }

    /// Weights that were ever moved.
    #[must_use]
    pub fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// Whether nothing was learned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// w·x.
    #[must_use]
    pub fn score(&self, example: &[(u32, f64)]) -> f64 {
        example.iter().map(|(slot, value)| self.weight(*slot) * value).sum()
    }

    /// One step: `gradient` is the derivative of the loss by the score. What is not finite changes nothing.
    pub fn step(&mut self, example: &[(u32, f64)], gradient: f64) {
        for (slot, value) in example {
            let mut coordinate = self.coordinates.get(slot).copied().unwrap_or_default();
            let (weight, g) = (coordinate.weight(&self.settings), gradient * value);
            let sigma = ((coordinate.n + g * g).sqrt() - coordinate.n.sqrt()) / self.settings.alpha;
            coordinate.z += g - sigma * weight;
            coordinate.n += g * g;
            if coordinate.z.is_finite() && coordinate.n.is_finite() {
                self.coordinates.insert(*slot, coordinate);
            }
        }
    }

    /// Keeps all weights, and counts `share` of what was seen: it learns faster again.
    pub fn forget(&mut self, share: f64) {
        for coordinate in self.coordinates.values_mut() {
            let weight = coordinate.weight(&self.settings);
            coordinate.n *= share;
            if weight != 0.0 {
                coordinate.z = -weight * coordinate.held(&self.settings) - self.settings.l1 * weight.signum();
            }
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        let FtrlSettings { alpha, beta, l1, l2 } = self.settings;
        out.all(&[alpha, beta, l1, l2]);
        out.u32(u32::try_from(self.coordinates.len()).unwrap_or(u32::MAX));
        for (slot, Coordinate { z, n }) in &self.coordinates {
            out.u32(*slot);
            out.all(&[*z, *n]);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>, slots: u32) -> Result<Self, StateError> {
        let settings =
            FtrlSettings { alpha: from.f64()?, beta: from.f64()?, l1: from.not_negative()?, l2: from.not_negative()? };
        let rates = [settings.alpha, settings.beta].iter().all(|rate| (1e-12..1e12).contains(rate));
        if !rates || settings.l1.max(settings.l2) > LARGEST {
            return Err(StateError::Malformed("a rate of learning is none"));
        }
        let mut ftrl = Self::new(settings);
        for _ in 0..from.count(20)? {
            let slot = from.u32()?;
            let in_order = ftrl.coordinates.last_key_value().is_none_or(|(last, _)| *last < slot);
            if !in_order || slot >= slots {
                return Err(StateError::Malformed("a weight has no place"));
            }
            let (z, n) = (from.f64()?, from.not_negative()?);
            if z.abs().max(n) > LARGEST {
                return Err(StateError::Malformed("a weight is beyond all that is learned"));
            }
            ftrl.coordinates.insert(slot, Coordinate { z, n });
        }
        Ok(ftrl)
    }
}

impl Coordinate {
    fn weight(self, settings: &FtrlSettings) -> f64 {
        if self.z.abs() <= settings.l1 {
            return 0.0;
        }
        -(self.z - settings.l1 * self.z.signum()) / self.held(settings)
    }

    /// (β + √n)/α + λ₂: what a weight's sum of gradients is divided by.
    fn held(self, settings: &FtrlSettings) -> f64 {
        (settings.beta + self.n.sqrt()) / settings.alpha + settings.l2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_steps_are_those_of_the_paper() {
        let settings = FtrlSettings { alpha: 0.5, beta: 1.0, l1: 0.1, l2: 2.0 };
        let mut ftrl = Ftrl::new(settings);
        // By hand: g = −0.5·2 = −1; σ = 1/0.5 = 2, w = 0; z = −1, n = 1; w = −(−1 + 0.1)/((1 + 1)/0.5 + 2) = 0.15.
        ftrl.step(&[(3, 2.0)], -0.5);
        assert!((ftrl.weight(3) - 0.15).abs() < 1e-15);
        // g = 0.75; σ = (√1.5625 − 1)/0.5 = 0.5; z = −1 + 0.75 − 0.5·0.15 = −0.325, n = 1.5625;
        // w = (0.325 − 0.1)/((1 + 1.25)/0.5 + 2) = 0.225/6.5.
        ftrl.step(&[(3, 1.0)], 0.75);
        assert!((ftrl.weight(3) - 0.225 / 6.5).abs() < 1e-15);
        assert_eq!((ftrl.weight(4), ftrl.len()), (0.0, 1));
    }

    #[test]
    fn without_penalties_it_is_adagrad() {
        // With λ = 0 and β → 0 the proximal steps are w −= α·g/√Σg² (the paper, section 3.1).
        let mut ftrl = Ftrl::new(FtrlSettings { alpha: 0.3, beta: 1e-12, l1: 0.0, l2: 0.0 });
        let (mut weight, mut squares) = (0.0, 0.0_f64);
        for gradient in [1.0, -0.4, 0.2, 0.9, -0.6] {
            squares += gradient * gradient;
            weight -= 0.3 * gradient / squares.sqrt();
            ftrl.step(&[(0, 1.0)], gradient);
            assert!((ftrl.weight(0) - weight).abs() < 1e-9, "{} {weight}", ftrl.weight(0));
        }
    }

    #[test]
    fn what_brings_little_stays_zero() {
        let mut ftrl = Ftrl::new(FtrlSettings { l1: 1.0, ..FtrlSettings::default() });
        ftrl.step(&[(0, 1.0), (1, 1.0)], 0.6);
        ftrl.step(&[(0, 1.0)], 0.6);
        assert!(ftrl.weight(0) < 0.0);
        assert_eq!(ftrl.weight(1), 0.0);
    }

    proptest! {
        #[test]
        fn forgetting_keeps_weights_and_quickens(
            steps in proptest::collection::vec((0..4_u32, -3.0..3.0_f64, -1.0..1.0_f64), 1..60),
            l1 in 0.0..0.5_f64,
        ) {
            let mut ftrl = Ftrl::new(FtrlSettings { l1, ..FtrlSettings::default() });
            steps.iter().for_each(|(slot, value, gradient)| ftrl.step(&[(*slot, *value)], *gradient));
            let mut quick = ftrl.clone();
            quick.forget(0.1);
            for slot in 0..4 {
                let (before, after) = (ftrl.weight(slot), quick.weight(slot));
                prop_assert!((before - after).abs() < 1e-12);
                if before != 0.0 {
                    ftrl.step(&[(slot, 1.0)], 1.0);
                    quick.step(&[(slot, 1.0)], 1.0);
                    prop_assert!((quick.weight(slot) - after).abs() >= (ftrl.weight(slot) - before).abs() - 1e-12);
                }
            }
        }

        #[test]
        fn weights_stay_finite(steps in proptest::collection::vec((0..4_u32, any::<f64>(), any::<f64>()), 0..40)) {
            let mut ftrl = Ftrl::default();
            steps.iter().for_each(|(slot, value, gradient)| ftrl.step(&[(*slot, *value)], *gradient));
            prop_assert!((0..4).all(|slot| ftrl.weight(slot).is_finite()));
        }
    }
}
