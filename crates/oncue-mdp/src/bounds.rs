//! Bounds on the value from one backup: `MacQueen`'s, and Porteus' for choices that keep different shares of what follows.

use crate::{backup::Extent, model::Model};

/// What still has to be added to TV to get the value V*: it lies between these, in every state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Missing {
    /// Least and greatest, but for rounding.
    pub(crate) extent: Extent,
    /// What rounding may have added.
    pub(crate) rounding: f64,
}

impl Missing {
    /// After a backup that changed values by `changed`; the new ones are at most `magnitude` in size.
    ///
    /// From TV ≤ V + b follows T(TV) ≤ TV + cb, with c the most that a choice keeps if b ≥ 0, and the least if b < 0; and so on:
    /// V* ≤ TV + cb / (1 − c). From below the same. (Puterman 6.6.2; Porteus 1971.)
    pub(crate) fn after(terms: Terms, changed: Extent, magnitude: f64) -> Self {
        let (least, most) = terms.kept;
        let sum = |change: f64, kept: f64| change * kept / (1.0 - kept);
        let extent = Extent {
            least: sum(changed.least, if changed.least < 0.0 { most } else { least }),
            greatest: sum(changed.greatest, if changed.greatest < 0.0 { least } else { most }),
        };
        Self { extent, rounding: terms.rounding * magnitude / (1.0 - most) }
    }

    /// What the values are off by at most once the middle is added.
    pub(crate) fn bound(self) -> f64 {
        self.extent.span() / 2.0 + self.rounding
    }

    /// Whether that is close enough; not closer than rounding lets it be.
    pub(crate) fn is_within(self, epsilon: f64) -> bool {
        self.bound() <= epsilon.max(4.0 * self.rounding)
    }

    /// The same for a policy's own value, which has to be nearer than what is then made of it.
    pub(crate) fn is_as_near(self, target: f64) -> bool {
        self.bound() <= target.max(2.0 * self.rounding)
    }
}

/// What bounds depend on, of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    /// The least and the most that a choice keeps of what follows.
    kept: (f64, f64),
    /// The most that a backup is off by, for values of size 1: half a unit in the last place for each term of the longest row,
    /// and two more for the factor and the reward (Higham, *Accuracy and Stability of Numerical Algorithms*, 3.1).
    rounding: f64,
}

impl Terms {
    pub(crate) fn of(model: &Model) -> Self {
        let longest = model.first.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Self { kept: model.kept, rounding: (f64::from(longest) + 2.0) * f64::EPSILON / 2.0 }
    }

    /// The span that a residual may have for the bound to be this.
    pub(crate) fn span_for(self, bound: f64) -> f64 {
        bound * (1.0 - self.kept.1) / self.kept.1.max(f64::MIN_POSITIVE)
    }
}

/// Ends what does not come closer any more: rounding can be in the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    best: f64,
    since: u32,
}

impl Patience {
    /// So many steps in a row may be for nothing.
    const MOST: u32 = 1_000;

    pub(crate) fn new() -> Self {
        Self { best: f64::INFINITY, since: 0 }
    }

    /// Takes the next bound; true if it is time to give up.
    pub(crate) fn is_over(&mut self, bound: f64) -> bool {
        self.since = if bound < self.best { 0 } else { self.since + 1 };
        self.best = self.best.min(bound);
        self.since > Self::MOST
    }
}

/// The largest size that a value of the model can have.
pub(crate) fn largest_value(model: &Model) -> f64 {
    Extent::of(&model.rewards).magnitude() / (1.0 - model.kept.1)
}

/// Adds the same to all.
pub(crate) fn shift(values: &mut [f64], by: f64) {
    for value in values {
        *value += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(least: f64, most: f64) -> Terms {
        Terms { kept: (least, most), rounding: f64::EPSILON }
    }

    #[test]
    fn the_value_of_a_constant_reward_is_found_at_once() {
        // From V = 0, a reward of 2 in every state: V* = 2 / (1 − 0.9) = 20, and TV = 2.
        let missing = Missing::after(terms(0.9, 0.9), Extent { least: 2.0, greatest: 2.0 }, 20.0);
        assert!((missing.extent.middle() - 18.0).abs() < 1e-12 && missing.bound() < 1e-12);
    }

    #[test]
    fn a_bound_takes_the_share_that_is_worst_for_its_sign() {
        let missing = Missing::after(terms(0.5, 0.9), Extent { least: -1.0, greatest: 1.0 }, 0.0);
        assert!((missing.extent.least + 9.0).abs() < 1e-12 && (missing.extent.greatest - 9.0).abs() < 1e-12);
        let missing = Missing::after(terms(0.5, 0.9), Extent { least: 1.0, greatest: 1.0 }, 0.0);
        assert!((missing.extent.least - 1.0).abs() < 1e-12 && (missing.extent.greatest - 9.0).abs() < 1e-12);
    }
}
