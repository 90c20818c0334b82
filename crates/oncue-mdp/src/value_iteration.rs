//! Value iteration.

use crate::{
    backup::{Best, Extent, Parts, backup, backup_in_place},
    bounds::{Missing, Patience, Terms, shift},
    model::Model,
    solution::{Options, Solution, SolveError},
};

/// If bounds have not become closer than this share of the best so far, moving all values together does not help.
const PROGRESS: f64 = 0.99;

/// A sweep in place spreads values along the order of the states; the backup after it gives the bounds, and all values are
/// moved to the middle of them. Where moving does not bring the bounds closer (it need not, after a sweep in place), it is
/// left, and what remains is a contraction.
pub(crate) fn solve(model: &Model, options: &Options, mut values: Vec<f64>) -> Result<Solution, SolveError> {
    let parts = Parts::of_states(model, options.threads);
    let mut found = vec![Best::default(); model.states()];
    let (terms, mut patience) = (Terms::of(model), Patience::new());
    let (mut iterations, mut closest, mut moves) = (0, f64::INFINITY, true);
    loop {
        let changed = backup(model, &parts, &values, &mut found);
        take(&found, &mut values);
        iterations += 1;
        let missing = Missing::after(terms, changed, Extent::of(&values).magnitude());
        if missing.is_within(options.epsilon) {
            shift(&mut values, missing.extent.middle());
            return Ok(solution(values, &found, missing.bound(), iterations, 0));
        }
        if iterations >= options.iterations || patience.is_over(missing.bound()) {
            return Err(SolveError::NotReached { iterations, bound: missing.bound() });
        }
        moves &= missing.bound() < PROGRESS * closest;
        closest = closest.min(missing.bound());
        if moves {
            shift(&mut values, missing.extent.middle());
        }
        backup_in_place(model, &mut values);
        iterations += 1;
    }
}

pub(crate) fn take(found: &[Best], values: &mut [f64]) {
    for (value, found) in values.iter_mut().zip(found) {
        *value = found.value;
    }
}

pub(crate) fn solution(values: Vec<f64>, found: &[Best], bound: f64, iterations: u64, evaluations: u64) -> Solution {
    let policy = found.iter().map(|best| best.choice as usize).collect();
    Solution { values, policy, bound, iterations, evaluations }
}
