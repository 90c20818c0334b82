//! The value of a policy.

use crate::{
    backup::{Chain, Extent},
    bounds::{Missing, Patience, Terms, shift},
    elimination, krylov,
    model::Model,
    solution::{Options, Solution, SolveError, begin},
};

/// After so many sweeps it is looked how fast they are.
const SWEEPS: u64 = 10;
/// If it would take more than so many others, elimination or conjugate gradients are tried.
const MANY_SWEEPS: f64 = 30.0;

/// The value of following `policy`: V = R + γ P V, to within epsilon, by the options' epsilon, threads and guess.
///
/// # Errors
///
/// If the policy is none of this model, or as [`solve`](crate::solve).
pub fn evaluate(model: &Model, policy: &[usize], options: &Options) -> Result<Solution, SolveError> {
    let mut values = begin(model, options)?;
    let wrong = (0..model.states().max(policy.len())).find(|state| {
        policy.get(*state).is_none_or(|choice| *state >= model.states() || !model.choices_of(*state).contains(choice))
    });
    if let Some(state) = wrong {
        let choice = policy.get(state).copied().unwrap_or(usize::MAX);
        return Err(SolveError::Policy { state: model.state_name(state), choice });
    }
    let narrow: Vec<u32> = policy.iter().map(|choice| *choice as u32).collect();
    let chain = Chain::of(model, &narrow, options.threads);
    let mut evaluations = 0;
    let limit = options.iterations;
    let (missing, sweeps) = follow(&chain, Terms::of(model), &mut values, options.epsilon, limit);
    evaluations += sweeps;
    if !missing.is_within(options.epsilon) {
        return Err(SolveError::NotReached { iterations: evaluations, bound: missing.bound() });
    }
    Ok(Solution { values, policy: policy.to_vec(), bound: missing.bound(), iterations: 0, evaluations })
}

/// Brings `values` to within `target` of the value of the chain, or as near as rounding and `limit` sweeps let it. Gives what they are off by and how many sweeps it took.
pub(crate) fn follow(chain: &Chain, terms: Terms, values: &mut Vec<f64>, target: f64, limit: u64) -> (Missing, u64) {
    let mut next = vec![0.0; values.len()];
    let mut patience = Patience::new();
    let (mut sweeps, mut first, mut tried) = (0, f64::INFINITY, false);
    loop {
        let changed = chain.backup(values, &mut next);
        std::mem::swap(values, &mut next);
        sweeps += 1;
        let missing = Missing::after(terms, changed, Extent::of(values).magnitude());
        if sweeps == 1 {
            first = missing.bound();
        }
        if missing.is_as_near(target) || sweeps >= limit || patience.is_over(missing.bound()) {
            shift(values, missing.extent.middle());
            return (missing, sweeps);
        }
        if !tried && sweeps >= SWEEPS {
            // So much closer per sweep, as logarithms; so much is to go.
            let speed = (first / missing.bound()).ln() / (sweeps - 1) as f64;
            let way = (missing.bound() / target.max(2.0 * missing.rounding)).ln();
            if way > MANY_SWEEPS * speed {
                tried = true;
                shift(values, missing.extent.middle());
                match elimination::band(chain) {
                    Some(band) => elimination::solve(chain, band, values),
                    None => sweeps += krylov::solve(chain, values, terms.span_for(target.max(missing.rounding))),
                }
            }
        }
    }
}

/// As [`follow`], as near as rounding lets it.
pub(crate) fn exactly(chain: &Chain, terms: Terms, values: &mut Vec<f64>, limit: u64) -> u64 {
    if let Some(band) = elimination::band(chain) {
        elimination::solve(chain, band, values);
        return 1;
    }
    follow(chain, terms, values, 0.0, limit).1
}
