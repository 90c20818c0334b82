//! What a bandit brought, compared with what each arm alone would have, and with choosing any of them as likely.
//!
//! Only the reward of the chosen arm is seen. What another would have brought is estimated by the doubly robust estimator
//! (Dudík, Langford and Li, *Doubly Robust Policy Evaluation and Learning*, ICML 2011): of each choice what was expected of
//! the arm before, and if it is the one that was chosen, how far off that was, divided by how likely it was to be chosen.
//! That is right on average however wrong what was expected is, as it is known how likely each choice was.

use crate::{
    bandit::Choice,
    moments::Moments,
    progress::{FEWEST, FEWEST_OF_EACH, Verdict},
    state::{Reader, StateError, Writer},
};

/// How a bandit compares: means per choice, with the half width of their intervals of 95 %, of choices that do not depend on
/// each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How many choices were compared: those for which all arms were there.
    pub choices: f64,
    /// What it brought, exploring included.
    pub reward: (f64, f64),
    /// What each arm alone would have brought.
    pub alone: Vec<(f64, f64)>,
    /// Which of them is best, in hindsight.
    pub best: usize,
    /// How much more it brought than that one.
    pub gain: (f64, f64),
    /// What choosing any arm as likely would have brought.
    pub any: (f64, f64),
    /// How much more it brought than that.
    pub gain_over_any: (f64, f64),
    /// Whether it is better than the best arm alone, beyond chance.
    pub verdict: Verdict,
}

/// What is compared, as it comes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compared {
    rewards: Moments,
    /// Of each arm: what it alone would bring; how much more was brought; and how often it was chosen.
    alone: Vec<(Moments, Moments, f64)>,
    any: Moments,
    gain_over_any: Moments,
}

impl Compared {
    pub(crate) fn new(arms: usize) -> Self {
        let alone = vec![(Moments::default(), Moments::default(), 0.0); arms];
        Self { rewards: Moments::default(), alone, any: Moments::default(), gain_over_any: Moments::default() }
    }

    /// A choice that brought `reward`, where `expected` was what was expected of each arm.
    pub(crate) fn add(&mut self, expected: &[f64], choice: Choice, floor: f64, reward: f64) {
        let arms = self.alone.len();
        if choice.among != arms {
            // Of an arm that was not there nothing is known, and what is best among others is another question.
            return;
        }
        let likely = floor / arms as f64 + if choice.arm == choice.best { 1.0 - floor } else { 0.0 };
        let off = (reward - expected[choice.arm]) / likely;
        let alone = |arm: usize| expected[arm] + if arm == choice.arm { off } else { 0.0 };
        self.rewards.add(reward);
        for (arm, (value, gain, chosen)) in self.alone.iter_mut().enumerate() {
            value.add(alone(arm));
            gain.add(reward - alone(arm));
            *chosen += f64::from(u8::from(arm == choice.arm));
        }
        let any = (0..arms).map(alone).sum::<f64>() / arms as f64;
        self.any.add(any);
        self.gain_over_any.add(reward - any);
    }

    pub(crate) fn tell(&self) -> Comparison {
        let better = |best: usize, arm: usize| if self.mean(arm) > self.mean(best) { arm } else { best };
        let best = (1..self.alone.len()).fold(0, better);
        let gain = interval(&self.alone[best].1);
        let rarest = self.alone.iter().map(|(.., chosen)| *chosen).fold(f64::INFINITY, f64::min);
        let verdict = match gain {
            _ if self.rewards.count() < FEWEST || rarest < FEWEST_OF_EACH => Verdict::TooFew,
            (gain, width) if gain > width => Verdict::Better,
            (gain, width) if gain < -width => Verdict::Worse,
            _ => Verdict::NoDifference,
        };
        Comparison {
            choices: self.rewards.count(),
            reward: interval(&self.rewards),
            alone: self.alone.iter().map(|(value, ..)| interval(value)).collect(),
            best,
            gain,
            any: interval(&self.any),
            gain_over_any: interval(&self.gain_over_any),
            verdict,
        }
    }

    fn mean(&self, arm: usize) -> f64 {
        self.alone[arm].0.mean()
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        [&self.rewards, &self.any, &self.gain_over_any].into_iter().for_each(|moments| moments.encode(out));
        for (value, gain, chosen) in &self.alone {
            value.encode(out);
            gain.encode(out);
            out.f64(*chosen);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>, arms: usize) -> Result<Self, StateError> {
        let mut compared = Self::new(arms);
        for moments in [&mut compared.rewards, &mut compared.any, &mut compared.gain_over_any] {
            *moments = Moments::decode(from)?;
        }
        for alone in &mut compared.alone {
            *alone = (Moments::decode(from)?, Moments::decode(from)?, from.not_negative()?);
        }
        Ok(compared)
    }
}

/// The mean, and the half width of its interval.
fn interval(of: &Moments) -> (f64, f64) {
    let width = if of.count() < 2.0 { f64::INFINITY } else { 1.96 * (of.variance() / (of.count() - 1.0)).sqrt() };
    (of.mean(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_arm_would_have_brought_is_right_whatever_was_expected() {
        // Two arms that bring 0.2 and 0.6; a half of choices explores, and the worse one is believed to be best.
        for expected in [[0.0, 0.0], [0.9, -0.7]] {
            let mut compared = Compared::new(2);
            for number in 0..4_000_u32 {
                // Of four choices one explores arm 1.
                let arm = usize::from(number % 4 == 0);
                let choice = Choice { arm, best: 0, explores: number % 2 == 0, among: 2 };
                compared.add(&expected, choice, 0.5, [0.2, 0.6][arm]);
            }
            let told = compared.tell();
            assert_eq!(told.best, 1);
            for (value, (mean, width)) in [0.2, 0.6].into_iter().zip(&told.alone) {
                assert!((mean - value).abs() < 1e-9 && *width < 0.1, "{expected:?}: {mean} ± {width}");
            }
            assert!((told.any.0 - 0.4).abs() < 1e-9 && (told.reward.0 - 0.3).abs() < 1e-9);
            assert!((told.gain.0 + 0.3).abs() < 1e-9 && (told.gain_over_any.0 + 0.1).abs() < 1e-9);
            assert_eq!(told.verdict, Verdict::Worse);
        }
    }

    #[test]
    fn where_an_arm_was_missing_or_too_little_was_seen_nothing_is_said() {
        let mut compared = Compared::new(3);
        let choice = Choice { arm: 0, best: 0, explores: false, among: 2 };
        (0..500).for_each(|_| compared.add(&[0.0; 3], choice, 0.1, 1.0));
        assert_eq!((compared.tell().choices, compared.tell().verdict), (0.0, Verdict::TooFew));
        (0..500).for_each(|_| compared.add(&[0.0; 3], Choice { among: 3, ..choice }, 0.1, 1.0));
        assert_eq!(
            (compared.tell().choices, compared.tell().verdict),
            (500.0, Verdict::TooFew),
            "of two nothing is known"
        );
    }
}
