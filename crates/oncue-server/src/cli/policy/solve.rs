//! `oncue policy solve`: a Markov decision process from a file, in four steps.

mod found;

use std::{fs, io, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use oncue::clock::Clock;
use oncue_mdp::{
    Discount, JsonError, Method, Model, Options, Plan, Run, Simulated, SolveError, average_reward, backward_induction,
    solve,
};
use serde_json::{Value, json};
use thiserror::Error;

use self::found::Found;
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
/// Most choices of a plan, each of 4 bytes: one for each state and step.
const MOST_CHOICES: usize = 250_000_000;

/// Solve a Markov decision process: model, values, policy, execution
///
/// The model is a JSON file: `{"discount": 0.9, "states": ["new", …], "actions": ["run", …], "transitions": [[state, action,
/// next state, probability, reward], …]}`, with names or numbers. docs/policies.md has all of it. What is made as great as
/// can be is the discounted reward; with --steps that of so many steps, with --average the reward per unit of time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue policy solve machine.json\n  \
                        oncue policy solve machine.json --method policy-iteration --epsilon 1e-6\n  \
                        oncue policy solve machine.json --steps 12\n  \
                        oncue policy solve machine.json --average\n  \
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

    /// Solve for so many steps, by backward induction; nothing needs to be discounted
    #[arg(long, value_name = "N", conflicts_with_all = ["method", "average", "epsilon"])]
    steps: Option<NonZeroU32>,

    /// Solve for the average reward in the long run, by relative value iteration; a discount does not count
    #[arg(long, conflicts_with = "method")]
    average: bool,

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
    /// A plan that needs too much memory.
    #[error(
        "{} has {states} states: for {steps} steps that is more than {MOST_CHOICES} choices; ask for fewer steps, or without --steps",
        file.display()
    )]
    Plan {
        /// Which.
        file: PathBuf,
        /// How many it has.
        states: usize,
        /// How many were asked for.
        steps: u32,
    },
}

impl ModelFileError {
    pub(in crate::cli) fn is_callers(&self) -> bool {
        !matches!(self, Self::Solve { error: SolveError::NotReached { .. } | SolveError::Gain { .. }, .. })
    }
}

/// A model, and what became of it.
struct Solved {
    model: Model,
    found: Found,
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
        if let Some(steps) = self.steps.map(NonZeroU32::get)
            && model.states().saturating_mul(steps as usize) > MOST_CHOICES
        {
            return Err(ModelFileError::Plan { file: file(), states: model.states(), steps });
        }
        let clock = Clock::system();
        let began = clock.monotonic();
        let found = self.found(&model).map_err(|error| ModelFileError::Solve { file: file(), error })?;
        let seconds = clock.monotonic().saturating_sub(began).as_secs_f64();
        let start = model.start().unwrap_or(0);
        let run = Run { start, runs: self.runs.get(), steps: MOST_STEPS, seed: self.seed };
        let executed = found.execute(&model, run);
        Ok(Solved { model, found, seconds, start, executed })
    }

    fn found(&self, model: &Model) -> Result<Found, SolveError> {
        let options = Options { method: self.method.into(), epsilon: self.epsilon, ..Options::default() };
        Ok(match self.steps {
            Some(steps) => Found::Steps(backward_induction(model, steps.get() as usize, &options)?),
            None if self.average => Found::Average(average_reward(model, &options)?),
            None => Found::Discounted(solve(model, &options)?),
        })
    }
}

impl Solved {
    fn action_of(&self, choice: usize) -> String {
        self.model.action_name(self.model.choice(choice).action)
    }

    /// What to do in a state, with all steps to go.
    fn action(&self, state: usize) -> String {
        self.action_of(self.found.choice(state))
    }

    /// What a plan says of a state, from all steps to go down to one: `run 12–4, replace 3–1`.
    fn by_steps(&self, plan: &Plan, state: usize) -> String {
        let choices = (1..=plan.steps()).rev().filter_map(|to_go| Some((to_go, plan.choice(to_go, state)?)));
        let choices: Vec<_> = choices.collect();
        let parts = choices.chunk_by(|one, other| one.1 == other.1).map(|same| {
            let ((from, choice), (to, _)) = (same[0], same[same.len() - 1]);
            let action = self.action_of(choice);
            if from == to { format!("{action} {from}") } else { format!("{action} {from}–{to}") }
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Whether the runs return what was computed, as far as so many can tell.
    fn agrees(&self) -> bool {
        let off = (self.executed.mean - self.found.expected(self.start)).abs();
        off <= self.executed.half_width + self.found.bound()
    }

    fn json(&self) -> Value {
        let Self { model, found, executed, .. } = self;
        let mut told = json!({
            "policy": (0..model.states()).map(|state| self.action(state)).collect::<Value>(),
            "bound": found.bound(),
            "seconds": self.seconds,
            "unreachable": model.unreachable().into_iter().map(|state| model.state_name(state)).collect::<Value>(),
            "execution": {
                "start": model.state_name(self.start),
                "value": found.expected(self.start),
                "mean": executed.mean,
                "half_width": executed.half_width,
                "steps": executed.steps,
                "agrees": self.agrees(),
            },
        });
        match found {
            Found::Discounted(solution) => {
                told["values"] = json!(solution.values);
                told["iterations"] = json!(solution.iterations);
                told["evaluations"] = json!(solution.evaluations);
            }
            Found::Steps(plan) => {
                let with = |to_go| (0..model.states()).filter_map(move |state| plan.choice(to_go, state));
                told["values"] = json!(plan.values);
                told["iterations"] = json!(plan.steps());
                told["plan"] = (1..=plan.steps())
                    .rev()
                    .map(|to_go| with(to_go).map(|choice| self.action_of(choice)).collect::<Value>())
                    .collect();
            }
            Found::Average(average) => {
                told["gain"] = json!(average.gain);
                told["bias"] = json!(average.bias);
                told["iterations"] = json!(average.iterations);
            }
        }
        told
    }

    fn text(&self, runs: NonZeroU32) -> String {
        let Self { model, found, executed, .. } = self;
        let count = |number: usize| grouped(number as u64);
        let discount = match model.discount() {
            _ if matches!(found, Found::Average(_)) => "per unit of time in the long run".to_owned(),
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
        let (values, policy) = match found {
            Found::Discounted(solution) => (
                format!(
                    "off by {:.1e} at most, after {} iterations and {} sweeps along a policy",
                    solution.bound,
                    grouped(solution.iterations),
                    grouped(solution.evaluations)
                ),
                "ACTION",
            ),
            Found::Steps(plan) => (format!("with {} steps to go", count(plan.steps())), "ACTION, BY STEPS TO GO"),
            Found::Average(average) => (
                format!(
                    "the gain is {:.6}, off by {:.1e} at most, after {} iterations; a state's value is beyond the last one's",
                    average.gain,
                    average.bound,
                    grouped(average.iterations)
                ),
                "ACTION",
            ),
        };
        out += &format!("2. values: {values}, {}\n3. policy:\n\n", time(Duration::from_secs_f64(self.seconds)));
        let heading = [Column::Text("STATE"), Column::Number("VALUE"), Column::Text(policy)];
        let action = |state| match found {
            Found::Steps(plan) => self.by_steps(plan, state),
            Found::Discounted(_) | Found::Average(_) => self.action(state),
        };
        let row = |state| vec![model.state_name(state), format!("{:.6}", found.values()[state]), action(state)];
        out += &columns(&heading, &(0..model.states().min(SHOWN)).map(row).collect::<Vec<_>>());
        if model.states() > SHOWN {
            out += &format!("… and {} more: --json has all\n", count(model.states() - SHOWN));
        }
        let steps = executed.first.iter().take(SHOWN_STEPS);
        let path: Vec<_> = steps
            .map(|(state, choice)| format!("{} ({})", model.state_name(*state), self.action_of(*choice)))
            .collect();
        let says = if self.agrees() { "as" } else { "NOT as" };
        let said = if matches!(found, Found::Average(_)) { "the gain" } else { "the value" };
        out += &format!(
            "\n4. execution: {} …\n   {} runs return {:.6} ± {:.6} (95 %), {says} {said} says: {:.6}\n",
            plain(&path.join(" → ")),
            grouped(runs.get().into()),
            executed.mean,
            executed.half_width,
            found.expected(self.start)
        );
        out
    }
}
