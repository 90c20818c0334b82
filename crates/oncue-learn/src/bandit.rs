//! A contextual bandit: which of several arms to choose, when only the reward of the chosen one is seen.
//!
//! Each arm has a line of its own (`linucb.rs`), and the one is chosen that may bring most. A share of choices explores: any
//! arm, each as likely, whatever is believed. So it is known how likely each arm was chosen, and what the others would have
//! brought can be estimated without bias (`comparison.rs`).
//!
//! An arm whose rewards are farther off than they were (`adwin.rs`) has changed: its line is learned anew.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    adwin::Adwin,
    comparison::{Compared, Comparison},
    features::{BITS, Features},
    linucb::{Context, FARTHEST, Line, WIDTH},
    moments::Moments,
    state::{Reader, STATE_VERSION, StateError, Writer},
};

/// Arms at most.
pub const MAX_ARMS: usize = 16;
/// How optimistic it is about what it knows little of: α of `LinUCB`. Rewards are within 1 of zero.
const OPTIMISM: f64 = 0.5;

/// Settings that make no bandit, and rewards that are none.
#[derive(Debug, Error, Clone, Copy, PartialEq)]
pub enum BanditError {
    /// There is nothing to choose.
    #[error("{arms} arms: there are from 2 to {MAX_ARMS}")]
    Arms {
        /// How many were asked for.
        arms: usize,
    },
    /// Nothing would explore.
    #[error("a floor of {floor}: it is above 0, and 1 at most")]
    Floor {
        /// What was asked for.
        floor: f64,
    },
    /// There is no such arm.
    #[error("there is no arm {arm}; there are {arms}")]
    UnknownArm {
        /// Which was named.
        arm: usize,
        /// How many there are.
        arms: usize,
    },
    /// The reward is none.
    #[error("a reward is a number from -1 to 1")]
    Reward,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which arm, from 0.
    pub arm: usize,
    /// Which arm was believed to be best.
    pub best: usize,
    /// Whether it explores: any arm was as likely.
    pub explores: bool,
    /// Of how many arms it was chosen.
    pub among: usize,
}

/// What is known of an arm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arm {
    /// Rewards of its choices.
    pub rewards: Moments,
    /// How often it was chosen by exploring.
    pub explored: u64,
    /// How often it was seen to change.
    pub drifts: u64,
    line: Line,
    /// How far off its line is.
    window: Adwin,
}

/// Chooses among arms, and learns from rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct Bandit {
    floor: f64,
    arms: Vec<Arm>,
    scales: BTreeMap<u32, Moments>,
    compared: Compared,
}

impl Bandit {
    /// `floor`: the share of choices that explore.
    ///
    /// # Errors
    /// The settings make none.
    pub fn new(arms: usize, floor: f64) -> Result<Self, BanditError> {
        if !(2..=MAX_ARMS).contains(&arms) {
            return Err(BanditError::Arms { arms });
        }
        let (arms, compared) = (vec![Arm::default(); arms], Compared::new(arms));
        let mut bandit = Self { floor, arms, scales: BTreeMap::new(), compared };
        bandit.set_floor(floor)?;
        Ok(bandit)
    }

    /// Explores this share of choices from now on.
    ///
    /// # Errors
    /// Nothing would be explored, or more than all.
    pub fn set_floor(&mut self, floor: f64) -> Result<(), BanditError> {
        if !(floor > 0.0 && floor <= 1.0) {
            return Err(BanditError::Floor { floor });
        }
        self.floor = floor;
        Ok(())
    }

    /// The same with other arms, each of which is one of before or begins anew. What was compared begins anew, too: it was
    /// among other arms.
    ///
    /// # Errors
    /// There are too few or too many; one is named that there is not.
    pub fn with_arms(&self, before: &[Option<usize>]) -> Result<Self, BanditError> {
        let mut other = Self::new(before.len(), self.floor)?;
        other.scales.clone_from(&self.scales);
        for (arm, before) in other.arms.iter_mut().zip(before) {
            if let Some(before) = *before {
                let unknown = BanditError::UnknownArm { arm: before, arms: self.arms.len() };
                arm.clone_from(self.arms.get(before).ok_or(unknown)?);
            }
        }
        Ok(other)
    }

    /// The arms, in order.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The share of choices that explore.
    #[must_use]
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// The arm to choose in a context, of those that are `there`; nothing if none is. `draw` is a number that is as likely
    /// any: it decides whether this choice explores, and which arm. Of equals the first.
    #[must_use]
    pub fn choose(&self, context: &Features, there: impl Fn(usize) -> bool, draw: u64) -> Option<Choice> {
        let there: Vec<usize> = (0..self.arms.len()).filter(|arm| there(*arm)).collect();
        let best = *self.ranked(context, &there).first()?;
        let (arm, explores) = explored(draw, self.floor, &there).map_or((best, false), |arm| (arm, true));
        Some(Choice { arm, best, explores, among: there.len() })
    }

    /// The arms that are `there`, the one first that may bring most.
    #[must_use]
    pub fn ranked(&self, context: &Features, there: &[usize]) -> Vec<usize> {
        let x = self.context(context);
        let bound = |arm: usize| {
            let (mean, deviation) = self.arms.get(arm).map_or((0.0, 0.0), |arm| arm.line.estimate(&x));
            mean + OPTIMISM * deviation
        };
        let mut ranked: Vec<(f64, usize)> = there.iter().map(|arm| (bound(*arm), *arm)).collect();
        // It keeps the order of equals.
        ranked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        ranked.into_iter().map(|(_, arm)| arm).collect()
    }

    /// The reward that is expected of each arm.
    #[must_use]
    pub fn expected(&self, context: &Features) -> Vec<f64> {
        let x = self.context(context);
        self.arms.iter().map(|arm| arm.line.estimate(&x).0.clamp(-1.0, 1.0)).collect()
    }

    /// What the choice brought, from −1 to 1.
    ///
    /// # Errors
    /// There is no such arm; the reward is none. Nothing is changed.
    pub fn learn(&mut self, context: &Features, choice: Choice, reward: f64) -> Result<(), BanditError> {
        let arms = self.arms.len();
        let unknown = |arm| BanditError::UnknownArm { arm, arms };
        if choice.best >= arms {
            return Err(unknown(choice.best));
        }
        if !(-1.0..=1.0).contains(&reward) {
            return Err(BanditError::Reward);
        }
        let expected = self.expected(context);
        let arm = self.arms.get_mut(choice.arm).ok_or_else(|| unknown(choice.arm))?;
        arm.rewards.add(reward);
        arm.explored = arm.explored.saturating_add(u64::from(choice.explores));
        // Both are within 1 of zero.
        if arm
            .window
            .add((reward - expected[choice.arm]).abs() / 2.0)
            .is_some_and(|change| change.after > change.before)
        {
            arm.drifts = arm.drifts.saturating_add(1);
            arm.line = Line::default();
        }
        self.compared.add(&expected, choice, self.floor, reward);
        for feature in context.all() {
            if let Some(number) = feature.number {
                self.scales.entry(feature.slot).or_default().add(number);
            }
        }
        let x = self.context(context);
        self.arms[choice.arm].line.learn(&x, reward);
        Ok(())
    }

    /// How it compares with the best arm alone, and with choosing any.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        self.compared.tell()
    }

    fn context(&self, features: &Features) -> Context {
        let mut x = [0.0; WIDTH];
        for feature in features.all() {
            let scale = || self.scales.get(&feature.slot).copied().unwrap_or_default();
            let value = feature.number.map_or(1.0, |number| scale().standardized(number));
            x[1 + feature.slot as usize % (WIDTH - 1)] += if feature.negative { -value } else { value };
        }
        x = x.map(|value| value.clamp(-FARTHEST, FARTHEST));
        x[0] = 1.0;
        x
    }

    /// Its state, from which it goes on exactly as it would have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_version();
        out.f64(self.floor);
        out.u32(u32::try_from(self.arms.len()).unwrap_or(u32::MAX));
        for arm in &self.arms {
            arm.rewards.encode(&mut out);
            out.u64(arm.explored);
            out.u64(arm.drifts);
            arm.line.encode(&mut out);
            arm.window.encode(&mut out);
        }
        out.u32(u32::try_from(self.scales.len()).unwrap_or(u32::MAX));
        for (slot, moments) in &self.scales {
            out.u32(*slot);
            moments.encode(&mut out);
        }
        self.compared.encode(&mut out);
        debug_assert_eq!(out.0.first(), Some(&STATE_VERSION));
        out.0
    }

    /// The bandit that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another version wrote it; it is damaged.
    pub fn decode(state: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader::new(state)?;
        let floor = from.f64()?;
        let arms = from.count(40 + Line::BYTES)?;
        let mut bandit = Self::new(arms, floor).map_err(|_| StateError::Malformed("its settings make no bandit"))?;
        for arm in &mut bandit.arms {
            *arm = Arm {
                rewards: Moments::decode(&mut from)?,
                explored: from.u64()?,
                drifts: from.u64()?,
                line: Line::decode(&mut from)?,
                window: Adwin::decode(&mut from)?,
            };
        }
        for _ in 0..from.count(28)? {
            let slot = from.u32()?;
            let in_order = bandit.scales.last_key_value().is_none_or(|(last, _)| *last < slot);
            if !in_order || slot >= 1 << BITS {
                return Err(StateError::Malformed("a scale has no place"));
            }
            bandit.scales.insert(slot, Moments::decode(&mut from)?);
        }
        bandit.compared = Compared::decode(&mut from, arms)?;
        from.end()?;
        Ok(bandit)
    }
}

/// The arm that is explored by this draw, if it explores: its upper half says whether, its lower half which.
fn explored(draw: u64, floor: f64, there: &[usize]) -> Option<usize> {
    let (whether, which) = (draw >> 32, draw & u64::from(u32::MAX));
    if whether as f64 >= floor * (1_u64 << 32) as f64 {
        return None;
    }
    let place = usize::try_from((which * there.len() as u64) >> 32).ok()?;
    there.get(place).copied()
}
