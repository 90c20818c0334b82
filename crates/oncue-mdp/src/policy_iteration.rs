//! Policy iteration, exact and modified.

use crate::{
    backup::{Best, Chain, Extent, Parts, backup},
    bounds::{Missing, Patience, Terms, shift},
    evaluation::{exactly, follow},
    model::Model,
    solution::{Options, Solution, SolveError},
    value_iteration::{solution, take},
};

/// How much closer to its own value a policy is brought than the bounds are, before it is improved.
const SHARE: f64 = 0.05;
/// If the bounds have not become closer than this share of what they were, policies are followed longer.
const PROGRESS: f64 = 0.7;
/// A policy that changed in no more than one of so many states is near the best one.
const NEAR: usize = 1_000;

/// Modified policy iteration: improve, then follow the policy until it is closer to its own value than to the best. As long
/// as that brings the bounds closer, it is enough; where it does not, policies are followed ever longer, so that at worst it
/// becomes policy iteration, which ends.
pub(crate) fn modified(model: &Model, options: &Options, mut values: Vec<f64>) -> Result<Solution, SolveError> {
    let parts = Parts::of_states(model, options.threads);
    let mut found = vec![Best::default(); model.states()];
    let mut policy: Vec<u32> = Vec::new();
    let mut chain = None;
    let (terms, mut patience) = (Terms::of(model), Patience::new());
    let (mut iterations, mut evaluations, mut last, mut share) = (0, 0, f64::INFINITY, SHARE);
    loop {
        let changed = backup(model, &parts, &values, &mut found);
        take(&found, &mut values);
        iterations += 1;
        let missing = Missing::after(terms, changed, Extent::of(&values).magnitude());
        let bound = missing.bound();
        if missing.is_within(options.epsilon) {
            shift(&mut values, missing.extent.middle());
            return Ok(solution(values, &found, bound, iterations, evaluations));
        }
        if iterations >= options.iterations || patience.is_over(bound) {
            return Err(SolveError::NotReached { iterations, bound });
        }
        shift(&mut values, missing.extent.middle());
        if bound > PROGRESS * last {
            share *= SHARE;
        }
        last = bound;
        // Where choices keep different shares of what follows, the bounds are closer than epsilon only if values are much closer.
        let least = options.epsilon / 2.0 * (share / SHARE);
        let differ = policy.iter().zip(&found).filter(|(old, new)| **old != new.choice).count();
        let is_near = !policy.is_empty() && differ * NEAR <= policy.len();
        if chain.is_none() || differ > 0 {
            policy = found.iter().map(|best| best.choice).collect();
            chain = Some(Chain::of(model, &policy, options.threads));
        }
        if let Some(chain) = &chain {
            let target = if is_near { least } else { least.max(share * bound) };
            evaluations += follow(chain, terms, &mut values, target, options.iterations).1;
        }
    }
}

/// Policy iteration: a choice is changed only where another is truly better, so that equal ones do not take turns.
pub(crate) fn exact(model: &Model, options: &Options, mut values: Vec<f64>) -> Result<Solution, SolveError> {
    let parts = Parts::of_states(model, options.threads);
    let mut found = vec![Best::default(); model.states()];
    backup(model, &parts, &values, &mut found);
    let mut policy: Vec<u32> = found.iter().map(|best| best.choice).collect();
    let terms = Terms::of(model);
    let (mut iterations, mut evaluations) = (1, 0);
    loop {
        let chain = Chain::of(model, &policy, options.threads);
        evaluations += exactly(&chain, terms, &mut values, options.iterations);
        let changed = backup(model, &parts, &values, &mut found);
        iterations += 1;
        let missing = Missing::after(terms, changed, Extent::of(&values).magnitude());
        let mut improved = false;
        for ((choice, best), value) in policy.iter_mut().zip(&mut found).zip(&values) {
            if best.choice != *choice && best.value - value > missing.rounding {
                *choice = best.choice;
                improved = true;
            }
            best.choice = *choice;
        }
        let (is_close, bound) = (missing.is_within(options.epsilon), missing.bound());
        if is_close && !improved {
            take(&found, &mut values);
            shift(&mut values, missing.extent.middle());
            return Ok(solution(values, &found, bound, iterations, evaluations));
        }
        if !improved || iterations >= options.iterations {
            return Err(SolveError::NotReached { iterations, bound });
        }
    }
}
