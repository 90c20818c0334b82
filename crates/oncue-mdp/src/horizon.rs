//! Backward induction: the value and the policy for a number of steps.

use crate::{
    backup::{Best, Parts, backup},
    model::Model,
    solution::{Options, SolveError},
    value_iteration::take,
};

/// What is best with so many steps to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// V with all steps to go, for each state.
    pub values: Vec<f64>,
    /// The choices, as numbers of [`Model::choice`]: first for one step to go, last for all.
    policies: Vec<Vec<u32>>,
}

impl Plan {
    /// How many steps it is for.
    pub fn steps(&self) -> usize {
        self.policies.len()
    }

    /// The choice in a state with so many steps to go, from 1 on. None where there is no such state or step.
    pub fn choice(&self, to_go: usize, state: usize) -> Option<usize> {
        let policy = self.policies.get(to_go.checked_sub(1)?)?;
        policy.get(state).map(|choice| *choice as usize)
    }
}

/// The best that can be done in `steps` steps (Puterman 4.5), with the model's discount, if it has one. `options.guess` says
/// what each state is worth at the end, and `options.threads` counts; the result is exact but for rounding.
///
/// # Errors
///
/// If the values at the end are not one finite number for each state.
pub fn backward_induction(model: &Model, steps: usize, options: &Options) -> Result<Plan, SolveError> {
    let states = model.states();
    let mut values = options.guess.clone().unwrap_or_else(|| vec![0.0; states]);
    let given = values.iter().filter(|value| value.is_finite()).count();
    if given != states || values.len() != states {
        return Err(SolveError::Guess { given, states });
    }
    let parts = Parts::of_states(model, options.threads);
    let mut found = vec![Best::default(); states];
    let policies = (0..steps).map(|_| {
        backup(model, &parts, &values, &mut found);
        take(&found, &mut values);
        found.iter().map(|best| best.choice).collect()
    });
    let policies = policies.collect();
    Ok(Plan { values, policies })
}
