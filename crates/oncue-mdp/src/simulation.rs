//! Executing a policy: runs with a seed, and what they return.

use crate::model::{Discount, Model};

/// What may be left of a run's discounted reward when it is cut.
const LEFT_OVER: f64 = 1e-9;

/// How to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where each run begins.
    pub start: usize,
    /// How many runs.
    pub runs: u32,
    /// Most steps of a run. It ends before, when what may follow is worth less than a billionth of the largest value.
    pub steps: u64,
    /// What is random follows from this alone.
    pub seed: u64,
}

/// What the runs returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// The mean of the runs' discounted rewards.
    pub mean: f64,
    /// Half of the interval around the mean in which the value lies with a probability of 95 %, as far as runs are alike; with
    /// what may be missing as runs were cut.
    pub half_width: f64,
    /// The first run: each state with the choice that was made in it.
    pub first: Vec<(usize, usize)>,
    /// Steps of all runs.
    pub steps: u64,
}

/// Executes a policy of a discounted model. Each choice gives its expected reward, so that only where it leads is random.
///
/// # Panics
///
/// If the policy is not one choice for each state of this model, or there is no such start.
pub fn simulate(model: &Model, policy: &[usize], run: Run) -> Simulated {
    assert_eq!(policy.len(), model.states(), "one choice for each state");
    let mut random = fastrand::Rng::with_seed(run.seed);
    let largest = crate::bounds::largest_value(model);
    let (mut sum, mut squares, mut left, mut steps) = (0.0, 0.0, 0.0_f64, 0);
    let mut first = Vec::new();
    for number in 0..run.runs {
        let (mut state, mut worth, mut total) = (run.start, 1.0, 0.0);
        let mut step = 0;
        while step < run.steps && worth > LEFT_OVER {
            let choice = policy[state];
            if number == 0 {
                first.push((state, choice));
            }
            total += worth * model.choice(choice).reward;
            let (next, keeps) = draw(model, choice, &mut random);
            state = next;
            worth *= keeps;
            step += 1;
        }
        steps += step;
        left = left.max(worth * largest);
        // Welford: the mean and the sum of squares around it.
        let off = total - sum;
        sum += off / f64::from(number + 1);
        squares += off * (total - sum);
    }
    let runs = f64::from(run.runs);
    let half_width = if run.runs < 2 { f64::INFINITY } else { 1.96 * (squares / (runs - 1.0) / runs).sqrt() + left };
    Simulated { mean: sum, half_width, first, steps }
}

/// Where a choice leads, and what it keeps of what follows: the expectation, given where it leads.
fn draw(model: &Model, choice: usize, random: &mut fastrand::Rng) -> (usize, f64) {
    let (next, probabilities) = model.undiscounted().row(choice);
    let (rows, mut at) = (model.rows(), random.f64());
    let last = next.len() - 1;
    for (index, (next, probability)) in next.iter().zip(probabilities).enumerate() {
        at -= probability;
        if at < 0.0 || index == last {
            let keeps = match model.discount() {
                Discount::PerStep(factor) => factor,
                Discount::PerTime(_) if *probability > 0.0 => rows.factor * rows.row(choice).1[index] / probability,
                Discount::PerTime(_) => 0.0,
            };
            return (*next as usize, keeps);
        }
    }
    // A choice leads somewhere: the builder sees to it.
    (0, 0.0)
}
