//! The decision process of retries, (S, A, P, R), and its solution by backward induction.
//!
//! S: class of the last error × age of the trouble on the grid, and one state in which all is over. The attempts that are
//! left are the steps to go. A: retry after each delay of a geometric grid, or give up. P: [`Outlook`]. R: see [`Terms`].

use oncue_mdp::{Discount, Model, ModelBuilder, ModelError, Options, SolveError, backward_induction};
use thiserror::Error;

use super::{
    outlook::Outlook,
    survival::{AGES, age_s, place, split},
};

/// The shortest delay, in seconds; each is √2 times the one before.
pub(crate) const SHORTEST_S: f64 = 0.01;
/// Most steps that are looked ahead: who has more attempts left decides as with these.
pub(crate) const MOST_STEPS: u32 = 64;

/// P: how trouble ends, by class, and which class follows which.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) outlooks: Vec<Outlook>,
    pub(crate) follows: Vec<Vec<f64>>,
}

/// R, and what bounds A.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) success: f64,
    pub(crate) attempt: f64,
    pub(crate) delay_per_s: f64,
    pub(crate) loss: f64,
    /// Most attempts, the first one included.
    pub(crate) attempts: u32,
    /// Attempts that are looked ahead.
    pub(crate) steps: u32,
    pub(crate) max_delay_s: f64,
    pub(crate) deadline_s: f64,
    /// Whether giving up is an action; without it, only the end of all attempts costs the loss.
    pub(crate) gives_up: bool,
}

/// Why there is no solution.
#[derive(Clone, Debug, PartialEq, Error)]
pub(crate) enum Unsolved {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Solve(#[from] SolveError),
    #[error("a value is not finite: the costs are too large to be compared")]
    NotFinite,
    #[error("solving broke: this is a defect of Oncue")]
    Broke,
}

/// What to do in a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Move {
    /// Try again after so many seconds.
    Retry(f64),
    GiveUp,
}

/// π: what to do, by attempts left and state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moves {
    delays: Vec<f64>,
    /// The action of each state, first for one attempt left.
    actions: Vec<Vec<usize>>,
}

impl Moves {
    /// What to do after a failure of the class of `table`, when trouble is `age_s` old. None without an attempt left.
    pub(crate) fn at(&self, left: u32, table: usize, age_s: f64) -> Option<Move> {
        let steps = left.checked_sub(1)? as usize;
        let actions = self.actions.get(steps).or(self.actions.last())?;
        let (below, part) = split(place(age_s));
        let action = *actions.get(table * AGES + (below + usize::from(part >= 0.5)).min(AGES - 1))?;
        Some(self.delay(action).map_or(Move::GiveUp, Move::Retry))
    }

    /// The delay of an action; none if it gives up.
    pub(crate) fn delay(&self, action: usize) -> Option<f64> {
        self.delays.get(action).copied()
    }

    /// The delay in a state of the model; none if it gives up.
    pub(crate) fn action(&self, left: usize, state: usize) -> Option<f64> {
        self.delay(*self.actions.get(left.checked_sub(1)?)?.get(state)?)
    }
}

/// The four steps: the model, its values, the policy.
#[derive(Clone, Debug)]
pub(crate) struct Solved {
    world: World,
    terms: Terms,
    /// V of each state, by attempts left: first for none.
    pub(crate) values: Vec<Vec<f64>>,
    pub(crate) moves: Moves,
}

/// The delays that may be chosen.
fn delays(max_delay_s: f64) -> Vec<f64> {
    let grid = (0..).map(|number| SHORTEST_S * f64::powi(2.0_f64.sqrt(), number));
    let mut delays: Vec<f64> = grid.take_while(|delay| *delay < max_delay_s).collect();
    delays.push(max_delay_s);
    delays
}

/// The model of one step: how likely an attempt works hangs on how many failed, which those that are left tell.
fn step(world: &World, terms: &Terms, left: u32) -> Result<Model, ModelError> {
    let (delays, failed) = (delays(terms.max_delay_s), terms.attempts.saturating_sub(left));
    let tables = world.outlooks.len();
    let over = tables * AGES;
    let gives_up = delays.len();
    let mut builder = ModelBuilder::new(over + 1, Discount::PerStep(1.0));
    let mut next = Vec::new();
    for (table, outlook) in world.outlooks.iter().enumerate() {
        for at in 0..AGES {
            let (state, age) = (table * AGES + at, age_s(at as f64));
            let mut choices = 0;
            for (action, delay) in delays.iter().enumerate() {
                if age + delay > terms.deadline_s {
                    break;
                }
                let to = place(age + delay);
                let works = outlook.works(failed, at as f64, to);
                let (below, part) = split(to);
                next.clear();
                next.push((over, works));
                for (class, follows) in world.follows[table].iter().enumerate() {
                    let fails = (1.0 - works) * follows;
                    next.push((class * AGES + below, fails * (1.0 - part)));
                    next.push((class * AGES + (below + 1).min(AGES - 1), fails * part));
                }
                let reward = works * terms.success - terms.attempt - terms.delay_per_s * delay;
                builder.choice(state, action, reward, &next)?;
                choices += 1;
            }
            if terms.gives_up || choices == 0 {
                builder.choice(state, gives_up, -terms.loss, &[(over, 1.0)])?;
            }
        }
    }
    builder.choice(over, gives_up, 0.0, &[(over, 1.0)])?;
    builder.build()
}

/// Solves it: V with each number of attempts left, and what to do.
pub(crate) fn solve(world: World, terms: Terms) -> Result<Solved, Unsolved> {
    let counts_failures = world.outlooks.iter().any(Outlook::counts_failures);
    let mut model = step(&world, &terms, 1)?;
    let mut last = vec![-terms.loss; model.states()];
    last[model.states() - 1] = 0.0;
    let (mut values, mut actions) = (vec![last], Vec::new());
    for left in 1..=terms.steps {
        if left > 1 && counts_failures {
            model = step(&world, &terms, left)?;
        }
        let guess = values.last().cloned();
        let plan = backward_induction(&model, 1, &Options { guess, threads: 1, ..Options::default() })?;
        let chosen = (0..model.states()).map(|state| plan.choice(1, state).map(|choice| model.choice(choice).action));
        actions.push(chosen.collect::<Option<Vec<usize>>>().ok_or(Unsolved::Broke)?);
        values.push(plan.values);
    }
    if values.iter().flatten().any(|value| !value.is_finite()) {
        return Err(Unsolved::NotFinite);
    }
    let moves = Moves { delays: delays(terms.max_delay_s), actions };
    Ok(Solved { world, terms, values, moves })
}

impl Solved {
    /// The model with so many attempts left, from 1 on.
    pub(crate) fn model(&self, left: u32) -> Result<Model, Unsolved> {
        Ok(step(&self.world, &self.terms, left)?)
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
