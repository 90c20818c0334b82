//! A model (S, A, P, R): rows of a sparse matrix, one for each choice of an action in a state.

use std::ops::Range;

/// What a reward is worth that comes later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Discount {
    /// Each step is worth so many times the one before it: γ, from 0 to 1. With 1, nothing is discounted: such a model has
    /// a [plan](crate::backward_induction) and an [average](crate::average_reward), but no discounted value.
    PerStep(f64),
    /// What comes after the time τ is worth e^(−βτ): β, above 0, in one over the unit of the sojourn times.
    PerTime(f64),
}

/// An action that can be chosen in a state.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Which action.
    pub action: usize,
    /// R(s, a): the reward that is expected when it is chosen.
    pub reward: f64,
    next: &'a [u32],
    probabilities: &'a [f64],
}

impl<'a> Choice<'a> {
    /// Each state that may be next, with P(s′|s, a).
    pub fn next(&self) -> impl Iterator<Item = (usize, f64)> + use<'a> {
        self.next.iter().zip(self.probabilities).map(|(next, probability)| (*next as usize, *probability))
    }
}

/// What is known of the time that choices take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timed {
    /// Per transition: its probability times what its sojourn discounts. Empty if the discount is per step.
    pub(crate) discounted: Vec<f64>,
    /// Per choice: the expected sojourn.
    pub(crate) mean: Vec<f64>,
}

/// A Markov decision process, or a semi-Markov one, that has been checked. Made by a [`ModelBuilder`](crate::ModelBuilder),
/// or from [JSON](Model::from_json).
///
/// States and actions are numbers from 0 on; they may have names.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) state_names: Vec<String>,
    pub(crate) action_names: Vec<String>,
    pub(crate) discount: Discount,
    pub(crate) start: Option<usize>,
    /// Where the choices of each state begin; one more for the end.
    pub(crate) choices_of: Vec<u32>,
    /// Per choice.
    pub(crate) actions: Vec<u32>,
    pub(crate) rewards: Vec<f64>,
    /// Where the transitions of each choice begin; one more for the end.
    pub(crate) first: Vec<u32>,
    /// Per transition.
    pub(crate) next: Vec<u32>,
    pub(crate) probabilities: Vec<f64>,
    pub(crate) timed: Option<Timed>,
    /// The least and the most that a choice keeps of what follows: γ, where the discount is per step.
    pub(crate) kept: (f64, f64),
}

impl Model {
    /// |S|: how many states there are.
    pub fn states(&self) -> usize {
        self.choices_of.len() - 1
    }

    /// How many pairs of a state and an action there are.
    pub fn choices(&self) -> usize {
        self.actions.len()
    }

    /// How many transitions there are that may happen.
    pub fn transitions(&self) -> usize {
        self.next.len()
    }

    /// What later rewards are worth.
    pub fn discount(&self) -> Discount {
        self.discount
    }

    /// Where executing begins, if the model says so.
    pub fn start(&self) -> Option<usize> {
        self.start
    }

    /// The name of a state; its number if it has none.
    pub fn state_name(&self, state: usize) -> String {
        self.state_names.get(state).cloned().unwrap_or_else(|| state.to_string())
    }

    /// The name of an action; its number if it has none.
    pub fn action_name(&self, action: usize) -> String {
        self.action_names.get(action).cloned().unwrap_or_else(|| action.to_string())
    }

    /// The numbers of a state's choices; [`Solution::policy`](crate::Solution::policy) holds such.
    ///
    /// # Panics
    ///
    /// If there is no such state.
    pub fn choices_of(&self, state: usize) -> Range<usize> {
        self.choices_of[state] as usize..self.choices_of[state + 1] as usize
    }

    /// A choice by its number.
    ///
    /// # Panics
    ///
    /// If there is no such choice.
    pub fn choice(&self, choice: usize) -> Choice<'_> {
        let row = self.row(choice);
        Choice {
            action: self.actions[choice] as usize,
            reward: self.rewards[choice],
            next: &self.next[row.clone()],
            probabilities: &self.probabilities[row],
        }
    }

    /// Q(s, a) of every choice, by its number: R(s, a) + γ Σ P(s′|s, a) V(s′).
    ///
    /// # Panics
    ///
    /// If there is not one value for each state.
    pub fn q(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.states(), "one value for each state");
        let rows = self.rows();
        (0..self.choices()).map(|choice| rows.value(choice, values)).collect()
    }

    /// The states that cannot be reached from where the model starts. None if it does not say where. They are no error:
    /// each has its value.
    pub fn unreachable(&self) -> Vec<usize> {
        let Some(start) = self.start else { return Vec::new() };
        let mut reached = vec![false; self.states()];
        let mut open = vec![start];
        reached[start] = true;
        while let Some(state) = open.pop() {
            for choice in self.choices_of(state) {
                for (next, probability) in self.choice(choice).next() {
                    if probability > 0.0 && !std::mem::replace(&mut reached[next], true) {
                        open.push(next);
                    }
                }
            }
        }
        (0..self.states()).filter(|state| !reached[*state]).collect()
    }

    fn row(&self, choice: usize) -> Range<usize> {
        self.first[choice] as usize..self.first[choice + 1] as usize
    }

    /// What a choice keeps of what follows it.
    pub(crate) fn kept_by(&self, choice: usize) -> f64 {
        let rows = self.rows();
        rows.factor * rows.weights[self.row(choice)].iter().sum::<f64>()
    }

    /// The expected time that a choice takes: 1 where the model does not say.
    pub(crate) fn mean_time(&self, choice: usize) -> f64 {
        self.timed.as_ref().map_or(1.0, |timed| timed.mean[choice])
    }

    /// The rows with what is discounted.
    pub(crate) fn rows(&self) -> Rows<'_> {
        let (weights, factor) = match (self.discount, &self.timed) {
            (Discount::PerStep(factor), _) => (&self.probabilities, factor),
            (Discount::PerTime(_), Some(timed)) => (&timed.discounted, 1.0),
            // A builder that discounts by time keeps times.
            (Discount::PerTime(rate), None) => (&self.probabilities, (-rate).exp()),
        };
        Rows { first: &self.first, next: &self.next, weights, factor, rewards: &self.rewards }
    }

    /// The rows without a discount.
    pub(crate) fn undiscounted(&self) -> Rows<'_> {
        Rows { weights: &self.probabilities, factor: 1.0, ..self.rows() }
    }
}

/// Rows of a sparse matrix and a reward for each: x ↦ r + factor · W x.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) first: &'a [u32],
    pub(crate) next: &'a [u32],
    pub(crate) weights: &'a [f64],
    pub(crate) factor: f64,
    pub(crate) rewards: &'a [f64],
}

impl<'a> Rows<'a> {
    /// The states that a row leads to, and their weights without the factor.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> (&'a [u32], &'a [f64]) {
        let range = self.first[row] as usize..self.first[row + 1] as usize;
        (&self.next[range.clone()], &self.weights[range])
    }

    /// Σ of a row's weights times the values of where it leads, without the factor.
    #[inline]
    pub(crate) fn expected(&self, row: usize, values: &[f64]) -> f64 {
        let (next, weights) = self.row(row);
        next.iter().zip(weights).map(|(next, weight)| weight * values[*next as usize]).sum()
    }

    /// The value of a row.
    #[inline]
    pub(crate) fn value(&self, row: usize, values: &[f64]) -> f64 {
        self.rewards[row] + self.factor * self.expected(row, values)
    }
}
