//! The average reward in the long run: relative value iteration.

use crate::{
    backup::{Extent, Parts},
    model::Model,
    solution::{Options, SolveError},
};

/// How much of a step is made: with less than the whole, no chain is periodic (Puterman 8.5.4).
const STEP: f64 = 0.9;

/// The gain, the bias and the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// g: the reward per unit of time (per step where no times are given) in the long run.
    pub gain: f64,
    /// The gain is off by no more than this, and so is that of the policy.
    pub bound: f64,
    /// h(s): how much more it is worth to be in a state than in the last one.
    pub bias: Vec<f64>,
    /// π(s): the choice in each state, as a number of [`Model::choice`].
    pub policy: Vec<usize>,
    /// Backups that were made.
    pub iterations: u64,
}

/// The best average reward, for a model in which it is the same from every state on, to within `options.epsilon`. The discount
/// does not count; where sojourns take time, it is the reward per unit of it (Puterman 8.5.5, 11.4). `options.guess` is
/// what bias to begin with.
///
/// # Errors
///
/// If the gain differs from state to state, or the options do not fit.
pub fn average_reward(model: &Model, options: &Options) -> Result<Average, SolveError> {
    let states = model.states();
    if options.epsilon.is_nan() || options.epsilon <= 0.0 {
        return Err(SolveError::Epsilon(options.epsilon));
    }
    let mut bias = options.guess.clone().unwrap_or_else(|| vec![0.0; states]);
    let given = bias.iter().filter(|value| value.is_finite()).count();
    if given != states || bias.len() != states {
        return Err(SolveError::Guess { given, states });
    }
    let parts = Parts::of_states(model, options.threads);
    // Every choice takes some time: the builder sees to it.
    let shortest = (0..model.choices()).map(|choice| model.mean_time(choice)).fold(f64::INFINITY, f64::min);
    let mut found = vec![(0.0, 0_u32); states];
    let mut iterations = 0;
    loop {
        let rate = rates(model, &parts, &bias, &mut found);
        iterations += 1;
        // Puterman, theorem 8.5.5: the gain lies between the least and the greatest.
        if rate.span() / 2.0 <= options.epsilon {
            let policy = found.iter().map(|(_, choice)| *choice as usize).collect();
            let last = bias.last().copied().unwrap_or_default();
            bias.iter_mut().for_each(|bias| *bias -= last);
            return Ok(Average { gain: rate.middle(), bound: rate.span() / 2.0, bias, policy, iterations });
        }
        if iterations >= options.iterations {
            return Err(SolveError::Gain { iterations, least: rate.least, greatest: rate.greatest });
        }
        // All move by the gain in the long run: without it they stay small.
        let middle = rate.middle();
        for (bias, (rate, _)) in bias.iter_mut().zip(&found) {
            *bias += STEP * shortest * (rate - middle);
        }
    }
}

/// For each state, the most that [r + Σ P h − h] per unit of time can be, and the choice for it.
fn rates(model: &Model, parts: &Parts, bias: &[f64], out: &mut [(f64, u32)]) -> Extent {
    let rows = model.undiscounted();
    parts.fill(out, |states, out| {
        let mut extent = Extent::EMPTY;
        for (state, out) in states.zip(out) {
            *out = (f64::NEG_INFINITY, 0);
            for choice in model.choices_of(state) {
                let rate = (rows.value(choice, bias) - bias[state]) / model.mean_time(choice);
                if rate > out.0 {
                    *out = (rate, choice as u32);
                }
            }
            extent = extent.with(out.0);
        }
        extent
    })
}
