//! The three things that a model is solved for: values, choices, and what executing them is to return.

use oncue_mdp::{Average, Model, Plan, Run, Simulated, Solution, simulate, simulate_average, simulate_plan};

/// Steps of a run of which the average reward is taken.
const LONG_RUN: u64 = 10_000;

/// What was asked for, and found.
pub(super) enum Found {
    Discounted(Solution),
    Steps(Plan),
    Average(Average),
}

impl Found {
    /// What each state is worth: of an average, beyond the last one.
    pub(super) fn values(&self) -> &[f64] {
        match self {
            Self::Discounted(solution) => &solution.values,
            Self::Steps(plan) => &plan.values,
            Self::Average(average) => &average.bias,
        }
    }

    /// The choice for a state, with all steps to go.
    pub(super) fn choice(&self, state: usize) -> usize {
        match self {
            Self::Discounted(solution) => solution.policy[state],
            Self::Steps(plan) => plan.choice(plan.steps(), state).unwrap_or_default(),
            Self::Average(average) => average.policy[state],
        }
    }

    /// What runs from a state are to return.
    pub(super) fn expected(&self, start: usize) -> f64 {
        match self {
            Self::Average(average) => average.gain,
            Self::Discounted(_) | Self::Steps(_) => self.values()[start],
        }
    }

    /// What that may be off by.
    pub(super) fn bound(&self) -> f64 {
        match self {
            Self::Discounted(solution) => solution.bound,
            // Exact, but for rounding.
            Self::Steps(plan) => plan.values.iter().fold(0.0_f64, |most, value| most.max(value.abs())) * 1e-12,
            Self::Average(average) => average.bound,
        }
    }

    pub(super) fn execute(&self, model: &Model, run: Run) -> Simulated {
        match self {
            Self::Discounted(solution) => simulate(model, &solution.policy, run),
            Self::Steps(plan) => simulate_plan(model, plan, run),
            Self::Average(average) => simulate_average(model, average, Run { steps: LONG_RUN, ..run }),
        }
    }
}
