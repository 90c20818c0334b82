//! What is asked for, and what is found: the discounted value and the policy that has it.

use thiserror::Error;

use crate::{bounds, model::Model, policy_iteration, value_iteration};

/// How a discounted model is solved. All find the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Backups of all choices, in place and not in turn, until the bounds are close (Puterman 6.3, 6.6).
    ValueIteration,
    /// Between backups of all choices, the best policy so far is followed for a while (Puterman 6.5): for how long is decided
    /// by how much it changes. Usually the fastest.
    #[default]
    ModifiedPolicyIteration,
    /// Each policy is evaluated exactly (to rounding), then improved where it can be (Puterman 6.4).
    PolicyIteration,
}

impl Method {
    /// Each method.
    pub const ALL: [Self; 3] = [Self::ValueIteration, Self::ModifiedPolicyIteration, Self::PolicyIteration];
}

/// How to solve.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// By which method.
    pub method: Method,
    /// What the values may be off by.
    pub epsilon: f64,
    /// Most iterations: backups of all choices.
    pub iterations: u64,
    /// Most threads; small models take one.
    pub threads: usize,
    /// Where values begin, one for each state; 0 where there are none. Good ones save iterations.
    pub guess: Option<Vec<f64>>,
}

impl Default for Options {
    /// To 1e-9, by modified policy iteration, on as many threads as the machine has processors.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { method: Method::default(), epsilon: 1e-9, iterations: 1_000_000, threads, guess: None }
    }
}

/// V and π.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// V(s): what each state is worth.
    pub values: Vec<f64>,
    /// π(s): the choice to make in each state, as a number of [`Model::choice`]. Of choices that are worth the same, one.
    pub policy: Vec<usize>,
    /// No value is off by more than this, and following the policy loses at most twice as much.
    pub bound: f64,
    /// Backups of all choices that were made.
    pub iterations: u64,
    /// Backups along a single policy that were made (0 with value iteration).
    pub evaluations: u64,
}

impl Solution {
    /// The action of each state.
    pub fn actions(&self, model: &Model) -> Vec<usize> {
        self.policy.iter().map(|choice| model.choice(*choice).action).collect()
    }
}

/// Why there is no solution.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SolveError {
    /// Nothing is discounted.
    #[error(
        "nothing is discounted, so that values may be without bounds: give the model a discount below 1, or ask for a \
         number of steps or for the average reward"
    )]
    Undiscounted,
    /// The bounds did not meet.
    #[error("after {iterations} iterations values are still off by up to {bound}: allow more, or a larger epsilon")]
    NotReached {
        /// How many were made.
        iterations: u64,
        /// What values are off by.
        bound: f64,
    },
    /// The values to begin with do not fit, or are not finite.
    #[error("the guess has {given} finite values for {states} states: give one for each")]
    Guess {
        /// How many are finite.
        given: usize,
        /// How many it should be.
        states: usize,
    },
    /// A policy that is none of this model.
    #[error("the policy names choice {choice} for state {state}, which is not one of its choices")]
    Policy {
        /// For which state.
        state: String,
        /// What it names; `usize::MAX` where it says nothing.
        choice: usize,
    },
    /// Epsilon is no distance.
    #[error("an epsilon of {0} is none: it must be above 0")]
    Epsilon(f64),
    /// There is no average reward that is the same from every state on, or it was not found.
    #[error(
        "the gain differs from state to state, or too slowly becomes the same: it lies between {least} and {greatest} after {iterations} iterations; solve the parts that do not reach each other by themselves"
    )]
    Gain {
        /// How many were made.
        iterations: u64,
        /// At least.
        least: f64,
        /// At most.
        greatest: f64,
    },
}

/// Solves a discounted model: V(s) = maxₐ [R(s, a) + γ Σ P(s′|s, a) V(s′)] to within epsilon, and the policy that has it.
/// Rounding limits how close that can be; [`Solution::bound`] tells.
///
/// # Errors
///
/// If the model discounts nothing, the options make no sense, or the iterations did not do.
pub fn solve(model: &Model, options: &Options) -> Result<Solution, SolveError> {
    let values = begin(model, options)?;
    match options.method {
        Method::ValueIteration => value_iteration::solve(model, options, values),
        Method::ModifiedPolicyIteration => policy_iteration::modified(model, options, values),
        Method::PolicyIteration => policy_iteration::exact(model, options, values),
    }
}

/// Checks the options, and gives the values to begin with.
pub(crate) fn begin(model: &Model, options: &Options) -> Result<Vec<f64>, SolveError> {
    if options.epsilon.is_nan() || options.epsilon <= 0.0 {
        return Err(SolveError::Epsilon(options.epsilon));
    }
    if model.kept.1 >= 1.0 || !bounds::largest_value(model).is_finite() {
        return Err(SolveError::Undiscounted);
    }
    let Some(guess) = &options.guess else { return Ok(vec![0.0; model.states()]) };
    let given = guess.iter().filter(|value| value.is_finite()).count();
    if given != model.states() || guess.len() != given {
        return Err(SolveError::Guess { given, states: model.states() });
    }
    Ok(guess.clone())
}
