//! Markov decision processes with finitely many states and actions, solved by dynamic programming.
//!
//! A [`Model`] is (S, A, P, R) with sparse transitions and a [`Discount`], which is per step or, where sojourns take time
//! (a semi-Markov process), per unit of time. [`solve`] finds V(s) = maxₐ [R(s, a) + γ Σ P(s′|s, a) V(s′)] and the policy
//! π(s) = argmaxₐ …, with a bound on what V is off by; [`backward_induction`] does so for a number of steps,
//! [`average_reward`] for the reward per unit of time in the long run. [`simulate`] and its like execute
//! what was found.
//!
//! ```
//! use oncue_mdp::{Discount, ModelBuilder, Options, solve};
//!
//! // A machine that is new or worn: run it, or replace it for 6.
//! let mut builder = ModelBuilder::new(2, Discount::PerStep(0.9));
//! builder.choice(0, 0, 5.0, &[(0, 0.7), (1, 0.3)])?; // new, run
//! builder.choice(1, 0, 1.0, &[(1, 1.0)])?; // worn, run
//! builder.choice(1, 1, -1.0, &[(0, 1.0)])?; // worn, replace
//! let model = builder.build()?;
//! let solution = solve(&model, &Options::default())?;
//! assert_eq!(solution.actions(&model), [0, 1]);
//! assert!(solution.bound <= 1e-9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The textbook meant in this documentation is M. L. Puterman, *Markov Decision Processes* (Wiley, 1994).

mod average;
mod backup;
mod bounds;
mod builder;
mod elimination;
mod evaluation;
mod horizon;
#[cfg(feature = "json")]
mod json;
mod krylov;
mod model;
mod policy_iteration;
mod simulation;
mod solution;
mod value_iteration;

pub use average::{Average, average_reward};
pub use builder::{ModelBuilder, ModelError, Sojourn, Transition};
pub use evaluation::evaluate;
pub use horizon::{Plan, backward_induction};
#[cfg(feature = "json")]
pub use json::JsonError;
pub use model::{Choice, Discount, Model};
pub use simulation::{Run, Simulated, simulate, simulate_average, simulate_plan};
pub use solution::{Method, Options, Solution, SolveError, solve};
