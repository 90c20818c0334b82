//! A contextual bandit: which of several arms to choose, when only the reward of the chosen one is seen.
//!
//! `LinUCB` with disjoint models (Li, Chu, Langford and Schapire, *A Contextual-Bandit Approach to Personalized News Article
//! Recommendation*, WWW 2010, algorithm 1), and a floor of exploration: each arm is chosen for a share of all choices
//! whatever is believed, in turn. These choices do not look at the context, so their mean rewards are those of the arms
//! alone: what the whole is compared with.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    features::Features,
    moments::Moments,
    progress::{FEWEST, Verdict},
    state::{Reader, STATE_VERSION, StateError, Writer},
};

/// Numbers of a context: features are hashed into one fewer, the first is always 1.
const WIDTH: usize = 32;
/// Arms at most.
const MOST_ARMS: usize = 64;

/// Settings that make no bandit.
#[derive(Debug, Error, Clone, Copy, PartialEq)]
pub enum BanditError {
    /// There is nothing to choose.
    #[error("{arms} arms: there are from 2 to {MOST_ARMS}")]
    Arms {
        /// How many were asked for.
        arms: usize,
    },
    /// All choices would explore, or none could.
    #[error("a floor of {floor}: it is above 0 and, for {arms} arms, below {}", 1.0 / *arms as f64)]
    Floor {
        /// What was asked for.
        floor: f64,
        /// How many arms there are.
        arms: usize,
    },
    /// Optimism is not negative.
    #[error("an alpha of {alpha}: it is a finite number, 0 or more")]
    Alpha {
        /// What was asked for.
        alpha: f64,
    },
    /// There is no such arm.
    #[error("there is no arm {arm}; there are {arms}")]
    UnknownArm {
        /// Which was named.
        arm: usize,
        /// How many there are.
        arms: usize,
    },
    /// The reward is no number.
    #[error("a reward is a finite number")]
    Reward,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which arm, from 0.
    pub arm: usize,
    /// It was its turn to be explored.
    pub explores: bool,
}

/// What is known of an arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Rewards of all its choices.
    pub rewards: Moments,
    /// Rewards of those that did not look at the context.
    pub explored: Moments,
    /// A⁻¹, by rows.
    inverse: [[f64; WIDTH]; WIDTH],
    /// b
    sums: [f64; WIDTH],
}

impl Arm {
    fn new() -> Self {
        let mut inverse = [[0.0; WIDTH]; WIDTH];
        (0..WIDTH).for_each(|at| inverse[at][at] = 1.0);
        Self { rewards: Moments::default(), explored: Moments::default(), inverse, sums: [0.0; WIDTH] }
    }

    /// A⁻¹ x
    fn solved(&self, x: &[f64; WIDTH]) -> [f64; WIDTH] {
        self.inverse.map(|row| dot(&row, x))
    }

    /// A += x xᵀ, by Sherman and Morrison; b += r x.
    fn learn(&mut self, x: &[f64; WIDTH], reward: f64) {
        let solved = self.solved(x);
        let scale = 1.0 + dot(x, &solved);
        for (row, one) in self.inverse.iter_mut().zip(solved) {
            row.iter_mut().zip(solved).for_each(|(cell, two)| *cell -= one * two / scale);
        }
        self.sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += reward * x);
    }
}

/// Chooses among arms, and learns from rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct Bandit {
    alpha: f64,
    floor: f64,
    arms: Vec<Arm>,
    scales: BTreeMap<u32, Moments>,
}

impl Bandit {
    /// `alpha`: how optimistic it is about what it knows little of. `floor`: the share of choices that each arm gets
    /// whatever is believed.
    ///
    /// # Errors
    /// The settings make none.
    pub fn new(arms: usize, alpha: f64, floor: f64) -> Result<Self, BanditError> {
        if !(2..=MOST_ARMS).contains(&arms) {
            return Err(BanditError::Arms { arms });
        }
        if !(floor > 0.0 && floor * (arms as f64) < 1.0) {
            return Err(BanditError::Floor { floor, arms });
        }
        if !(alpha.is_finite() && alpha >= 0.0) {
            return Err(BanditError::Alpha { alpha });
        }
        Ok(Self { alpha, floor, arms: vec![Arm::new(); arms], scales: BTreeMap::new() })
    }

    /// The arms, in order.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The arm to choose in a context: one whose turn to be explored it is, else the one that may bring most. Of equals the
    /// first.
    #[must_use]
    pub fn choose(&self, context: &Features) -> Choice {
        let seen: f64 = self.arms.iter().map(|arm| arm.rewards.count()).sum();
        let rarest = first_best(self.arms.iter().map(|arm| -arm.explored.count()));
        if self.arms[rarest].explored.count() < self.floor * (seen + 1.0) {
            return Choice { arm: rarest, explores: true };
        }
        let x = self.context(context);
        let bound = |arm: &Arm| {
            let solved = arm.solved(&x);
            dot(&solved, &arm.sums) + self.alpha * dot(&x, &solved).max(0.0).sqrt()
        };
        Choice { arm: first_best(self.arms.iter().map(bound)), explores: false }
    }

    /// What the choice brought.
    ///
    /// # Errors
    /// There is no such arm; the reward is no number. Nothing is changed.
    pub fn learn(&mut self, context: &Features, choice: Choice, reward: f64) -> Result<(), BanditError> {
        let arms = self.arms.len();
        if choice.arm >= arms {
            return Err(BanditError::UnknownArm { arm: choice.arm, arms });
        }
        if !reward.is_finite() {
            return Err(BanditError::Reward);
        }
        for feature in context.all() {
            if let Some(number) = feature.number {
                self.scales.entry(feature.slot).or_default().add(number);
            }
        }
        let x = self.context(context);
        let arm = &mut self.arms[choice.arm];
        arm.learn(&x, reward);
        arm.rewards.add(reward);
        if choice.explores {
            arm.explored.add(reward);
        }
        Ok(())
    }

    /// The best arm alone, by what was explored: its number and its mean reward.
    #[must_use]
    pub fn best_fixed(&self) -> (usize, f64) {
        let arm = first_best(self.arms.iter().map(|arm| arm.explored.mean()));
        (arm, self.arms[arm].explored.mean())
    }

    /// The mean reward of all choices, what was explored included.
    #[must_use]
    pub fn mean_reward(&self) -> f64 {
        let count: f64 = self.arms.iter().map(|arm| arm.rewards.count()).sum();
        let sum: f64 = self.arms.iter().map(|arm| arm.rewards.mean() * arm.rewards.count()).sum();
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Whether choosing by context was better than the best arm alone, beyond chance.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let (best, fixed) = self.best_fixed();
        let count: f64 = self.arms.iter().map(|arm| arm.rewards.count()).sum();
        let explored = &self.arms[best].explored;
        if count < FEWEST || explored.count() < 10.0 {
            return Verdict::TooFew;
        }
        let squares: f64 = self.arms.iter().map(|arm| arm.rewards.variance() * arm.rewards.count()).sum();
        let width = 1.96 * (squares / count / count + explored.variance() / explored.count()).sqrt();
        match self.mean_reward() - fixed {
            gain if gain > width => Verdict::Better,
            gain if gain < -width => Verdict::Worse,
            _ => Verdict::NoDifference,
        }
    }

    fn context(&self, features: &Features) -> [f64; WIDTH] {
        let mut x = [0.0; WIDTH];
        x[0] = 1.0;
        for feature in features.all() {
            let scale = || self.scales.get(&feature.slot).copied().unwrap_or_default();
            let value = feature.number.map_or(1.0, |number| scale().standardized(number));
            let signed = if feature.negative { -value } else { value };
            x[1 + feature.slot as usize % (WIDTH - 1)] += signed.clamp(-10.0, 10.0);
        }
        x
    }

    /// Its state, from which it goes on exactly as it would have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(STATE_VERSION);
        out.all(&[self.alpha, self.floor]);
        out.u32(u32::try_from(self.arms.len()).unwrap_or(u32::MAX));
        for arm in &self.arms {
            arm.rewards.encode(&mut out);
            arm.explored.encode(&mut out);
            arm.inverse.iter().for_each(|row| out.all(row));
            out.all(&arm.sums);
        }
        out.u32(u32::try_from(self.scales.len()).unwrap_or(u32::MAX));
        for (slot, moments) in &self.scales {
            out.u32(*slot);
            moments.encode(&mut out);
        }
        out.0
    }

    /// The bandit that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another version wrote it; it is damaged.
    pub fn decode(state: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader::new(state)?;
        let (alpha, floor) = (from.f64()?, from.f64()?);
        let arms = from.count(48 + 8 * WIDTH * (WIDTH + 1))?;
        let no_bandit = |_| StateError::Malformed("its settings make no bandit");
        let mut bandit = Self::new(arms, alpha, floor).map_err(no_bandit)?;
        for arm in &mut bandit.arms {
            arm.rewards = Moments::decode(&mut from)?;
            arm.explored = Moments::decode(&mut from)?;
            arm.inverse.iter_mut().try_for_each(|row| from.fill(row))?;
            from.fill(&mut arm.sums)?;
        }
        for _ in 0..from.count(28)? {
            let slot = from.u32()?;
            bandit.scales.insert(slot, Moments::decode(&mut from)?);
        }
        from.end()?;
        Ok(bandit)
    }
}

fn dot(one: &[f64; WIDTH], two: &[f64; WIDTH]) -> f64 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

/// The first of the largest.
fn first_best(values: impl Iterator<Item = f64>) -> usize {
    let better = |best: (usize, f64), (at, value)| if value > best.1 { (at, value) } else { best };
    values.enumerate().fold((0, f64::NEG_INFINITY), better).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_inverse_is_that_of_what_was_seen(
            seen in proptest::collection::vec(proptest::array::uniform32(-2.0..2.0_f64), 1..30),
        ) {
            let mut arm = Arm::new();
            seen.iter().for_each(|x| arm.learn(x, 1.0));
            // A of each column of the inverse is that of the identity: A v = v + Σ x (x·v).
            for (number, column) in arm.inverse.iter().enumerate() {
                let mut product = *column;
                for x in &seen {
                    let along = dot(x, column);
                    product.iter_mut().zip(x).for_each(|(sum, x)| *sum += along * x);
                }
                for (row, value) in product.iter().enumerate() {
                    prop_assert!((value - f64::from(u8::from(row == number))).abs() < 1e-8);
                }
            }
        }
    }
}
