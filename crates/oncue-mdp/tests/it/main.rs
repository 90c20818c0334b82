//! The solver against what is known: textbooks, closed forms, laws.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod averages;
mod laws;
mod machines;
mod queues;
mod refusals;
mod textbook;

use oncue_mdp::{Method, Model, Options, Solution, solve};

/// Solved by every method, which must find the same values; the last one's solution.
#[track_caller]
fn by_all_methods(model: &Model) -> Solution {
    let solutions = Method::ALL.map(|method| solve(model, &Options { method, ..Options::default() }).unwrap());
    for solution in &solutions {
        assert!(solution.bound <= 1e-8, "{}", solution.bound);
        close(&solution.values, &solutions[0].values, solution.bound + solutions[0].bound);
    }
    let [.., last] = solutions;
    last
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= within, "[{index}]: {found} is not {expected} within {within}");
    }
}
