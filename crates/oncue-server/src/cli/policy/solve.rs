//! `oncue policy solve`: a Markov decision process from a file, in four steps.

use std::{fs, io, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use oncue::clock::Clock;
use oncue_mdp::{Discount, JsonError, Method, Model, Options, Run, Simulated, Solution, SolveError, simulate, solve};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    cli::{CommandError, print},
    columns::{Column, columns, plain},
    number::{grouped, time},
};

/// Most states that are shown to people.
const SHOWN: usize = 20;
/// Most steps of a run that are shown.
const SHOWN_STEPS: usize = 8;
/// Most steps of a run.
const MOST_STEPS: u64 = 100_000;

/// Solve a Markov decision process: model, values, policy, execution
///
/// The model is a JSON file: `{"discount": 0.9, "states": ["new", …], "actions": ["run", …], "transitions": [[state, action,
/// next state, probability, reward], …]}`, with names or numbers. docs/policies.md has all of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue policy solve machine.json\n  \
                        oncue policy solve machine.json --method policy-iteration --epsilon 1e-6\n  \
                        oncue policy solve machine.json --json | jq '.policy'\n\n\
                        Exit codes: 0 all is done; 1 the values did not come near enough; 2 the file is no model, or an option \
                        is wrong.")]
pub(super) struct Solve {
    /// The model
    #[arg(value_name = "MODEL.json")]
    model: PathBuf,

    /// How it is solved; all find the same
    #[arg(long, value_enum, default_value_t = By::Modified)]
    method: By,

    /// What values may be off by
    #[arg(long, value_name = "DISTANCE", default_value_t = 1e-9)]
    epsilon: f64,

    /// How often the policy is executed
    #[arg(long, value_name = "N", default_value = "1000")]
    runs: NonZeroU32,

    /// What is random in it
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    #[value(name = "value-iteration")]
    Value,
    #[value(name = "modified-policy-iteration")]
    Modified,
    #[value(name = "policy-iteration")]
    Policy,
}

impl From<By> for Method {
    fn from(by: By) -> Self {
        match by {
            By::Value => Self::ValueIteration,
            By::Modified => Self::ModifiedPolicyIteration,
            By::Policy => Self::PolicyIteration,
        }
    }
}

/// Why a model was not solved.
#[derive(Debug, Error)]
pub(in crate::cli) enum ModelFileError {
    /// The file is not there.
    #[error("{} cannot be read: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no model.
    #[error("{}: {error}", file.display())]
    Model {
        /// Which.
        file: PathBuf,
        /// Why.
        error: JsonError,
    },
    /// It has no solution, or none was found.
    #[error("{}: {error}", file.display())]
    Solve {
        /// Which.
        file: PathBuf,
        /// Why.
        error: SolveError,
    },
}

impl ModelFileError {
    pub(in crate::cli) fn is_callers(&self) -> bool {
        !matches!(self, Self::Solve { error: SolveError::NotReached { .. }, .. })
    }
}

/// A model, and what became of it.
struct Solved {
    model: Model,
    solution: Solution,
    seconds: f64,
    start: usize,
    executed: Simulated,
}

impl Solve {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let solved = self.solved()?;
        print(&if self.json { format!("{:#}\n", solved.json()) } else { solved.text(self.runs) })
    }

    fn solved(&self) -> Result<Solved, ModelFileError> {
        let file = || self.model.clone();
        let text = fs::read(&self.model).map_err(|error| ModelFileError::Read { file: file(), error })?;
        let model = Model::from_json(&text).map_err(|error| ModelFileError::Model { file: file(), error })?;
        let options = Options { method: self.method.into(), epsilon: self.epsilon, ..Options::default() };
        let clock = Clock::system();
        let began = clock.monotonic();
        let solution = solve(&model, &options).map_err(|error| ModelFileError::Solve { file: file(), error })?;
        let seconds = clock.monotonic().saturating_sub(began).as_secs_f64();
        let start = model.start().unwrap_or(0);
        let run = Run { start, runs: self.runs.get(), steps: MOST_STEPS, seed: self.seed };
        let executed = simulate(&model, &solution.policy, run);
        Ok(Solved { model, solution, seconds, start, executed })
    }
}

impl Solved {
    fn action(&self, state: usize) -> String {
        self.model.action_name(self.model.choice(self.solution.policy[state]).action)
    }

    /// Whether the mean return is what the value says, as far as so many runs can tell.
    fn agrees(&self) -> bool {
        let off = (self.executed.mean - self.solution.values[self.start]).abs();
        off <= self.executed.half_width + self.solution.bound
    }

    fn json(&self) -> Value {
        let Self { model, solution, executed, .. } = self;
        json!({
            "values": solution.values,
            "policy": (0..model.states()).map(|state| self.action(state)).collect::<Value>(),
            "iterations": solution.iterations,
            "evaluations": solution.evaluations,
            "bound": solution.bound,
            "seconds": self.seconds,
            "unreachable": model.unreachable().into_iter().map(|state| model.state_name(state)).collect::<Value>(),
            "execution": {
                "start": model.state_name(self.start),
                "value": solution.values[self.start],
                "mean": executed.mean,
                "half_width": executed.half_width,
                "steps": executed.steps,
                "agrees": self.agrees(),
            },
        })
    }

    fn text(&self, runs: NonZeroU32) -> String {
        let Self { model, solution, executed, .. } = self;
        let count = |number: usize| grouped(number as u64);
        let discount = match model.discount() {
            Discount::PerStep(factor) => format!("γ = {factor}"),
            Discount::PerTime(rate) => format!("γ = e^(−{rate}τ)"),
        };
        let mut out = format!(
            "1. model: |S| = {}, {} choices, {} transitions, {discount}\n",
            count(model.states()),
            count(model.choices()),
            count(model.transitions())
        );
        let unreachable = model.unreachable();
        if let Some(state) = unreachable.first() {
            let (many, name) = (count(unreachable.len()), plain(&model.state_name(*state)));
            out += &format!("   {many} states cannot be reached from the start, `{name}` among them\n");
        }
        out += &format!(
            "2. values: off by {:.1e} at most, after {} iterations and {} sweeps along a policy, {}\n",
            solution.bound,
            grouped(solution.iterations),
            grouped(solution.evaluations),
            time(Duration::from_secs_f64(self.seconds))
        );
        out += "3. policy:\n\n";
        let heading = [Column::Text("STATE"), Column::Number("VALUE"), Column::Text("ACTION")];
        let row = |state| vec![model.state_name(state), format!("{:.6}", solution.values[state]), self.action(state)];
        out += &columns(&heading, &(0..model.states().min(SHOWN)).map(row).collect::<Vec<_>>());
        if model.states() > SHOWN {
            out += &format!("… and {} more: --json has all\n", count(model.states() - SHOWN));
        }
        let steps = executed.first.iter().take(SHOWN_STEPS);
        let path: Vec<_> =
            steps.map(|(state, _)| format!("{} ({})", model.state_name(*state), self.action(*state))).collect();
        let says = if self.agrees() { "as" } else { "NOT as" };
        out += &format!(
            "\n4. execution: {} …\n   {} runs return {:.6} ± {:.6} (95 %), {says} the value says: {:.6}\n",
            plain(&path.join(" → ")),
            grouped(runs.get().into()),
            executed.mean,
            executed.half_width,
            solution.values[self.start]
        );
        out
    }
}
