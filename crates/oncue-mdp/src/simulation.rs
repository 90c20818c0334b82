//! Executing a policy: runs with a seed, and what they return.

use crate::{
    average::Average,
    backup::Extent,
    horizon::Plan,
    model::{Discount, Model},
};

/// What may be left of a run's discounted reward when it is cut.
const LEFT_OVER: f64 = 1e-9;
/// Most steps of the first run that are kept.
const KEPT: usize = 100_000;

/// How to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where each run begins.
    pub start: usize,
    /// How many runs.
    pub runs: u32,
    /// Most steps of a run. One of a discounted model ends before, when what may follow is worth less than a billionth of
    /// the largest value.
    pub steps: u64,
    /// What is random follows from this alone.
    pub seed: u64,
}

/// What the runs returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// The mean of what the runs returned, which is what was computed, to within `half_width`: the discounted reward, that of
    /// the plan's steps, or the reward per unit of time.
    pub mean: f64,
    /// Half of the interval around the mean in which what was computed lies with a probability of 95 %, as far as runs are
    /// alike; with what may be missing as runs were cut.
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
    let largest = crate::bounds::largest_value(model);
    let (mut returns, mut left) = (Moments::default(), 0.0_f64);
    let (first, steps) = execute(
        model,
        run,
        |_, state| policy[state],
        LEFT_OVER,
        |ran| {
            left = left.max(ran.worth * largest);
            returns.take(ran.discounted);
        },
    );
    Simulated { mean: returns.mean, half_width: returns.half_width() + left, first, steps }
}

/// Executes a plan to its end, as [`simulate`] does a policy: the mean is that of the plan's values where nothing is worth
/// anything at the end. `run.steps` does not count.
///
/// # Panics
///
/// If the plan is not of this model, or there is no such start.
pub fn simulate_plan(model: &Model, plan: &Plan, run: Run) -> Simulated {
    assert_eq!(plan.values.len(), model.states(), "a plan of this model");
    let mut returns = Moments::default();
    let (first, steps) = execute(
        model,
        Run { steps: plan.steps() as u64, ..run },
        |step, state| plan.choice(plan.steps() - step as usize, state).unwrap_or_default(),
        f64::NEG_INFINITY,
        |ran| returns.take(ran.discounted),
    );
    Simulated { mean: returns.mean, half_width: returns.half_width(), first, steps }
}

/// Executes the policy of an average reward, for `run.steps` steps a run: the mean is the reward per unit of time. Where a run
/// begins and ends makes a difference of at most the span of the bias, which is part of `half_width`.
///
/// # Panics
///
/// If the policy is not one choice for each state of this model, or there is no such start.
pub fn simulate_average(model: &Model, average: &Average, run: Run) -> Simulated {
    assert_eq!(average.policy.len(), model.states(), "one choice for each state");
    // What a run brings beyond the gain of its time: nothing in the mean, but for where it begins and ends.
    let (mut beyond, mut times) = (Moments::default(), Moments::default());
    let (first, steps) = execute(
        model,
        run,
        |_, state| average.policy[state],
        f64::NEG_INFINITY,
        |ran| {
            beyond.take(ran.reward - average.gain * ran.time);
            times.take(ran.time);
        },
    );
    let time = times.mean.max(f64::MIN_POSITIVE);
    let half_width = (beyond.half_width() + Extent::of(&average.bias).span()) / time;
    Simulated { mean: average.gain + beyond.mean / time, half_width, first, steps }
}

/// What a run came to.
#[derive(Clone, Copy)]
struct Ran {
    discounted: f64,
    reward: f64,
    time: f64,
    /// What a reward after its end would count.
    worth: f64,
}

/// All runs, each until a reward counts no more than `least`. The first one's states and choices, and the steps of all.
fn execute(
    model: &Model,
    run: Run,
    choose: impl Fn(u64, usize) -> usize,
    least: f64,
    mut ended: impl FnMut(Ran),
) -> (Vec<(usize, usize)>, u64) {
    let mut random = fastrand::Rng::with_seed(run.seed);
    let (mut first, mut steps) = (Vec::new(), 0);
    for number in 0..run.runs {
        let (mut state, mut step) = (run.start, 0);
        let mut ran = Ran { discounted: 0.0, reward: 0.0, time: 0.0, worth: 1.0 };
        while step < run.steps && ran.worth > least {
            let choice = choose(step, state);
            if number == 0 && first.len() < KEPT {
                first.push((state, choice));
            }
            let reward = model.choice(choice).reward;
            ran.discounted += ran.worth * reward;
            ran.reward += reward;
            ran.time += model.mean_time(choice);
            let (next, keeps) = draw(model, choice, &mut random);
            state = next;
            ran.worth *= keeps;
            step += 1;
        }
        steps += step;
        ended(ran);
    }
    (first, steps)
}

/// The mean, and the sum of squares around it (Welford).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn take(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    /// Half of the interval in which the mean of all lies with a probability of 95 %.
    fn half_width(&self) -> f64 {
        if self.count < 2.0 {
            return f64::INFINITY;
        }
        1.96 * (self.squares / (self.count - 1.0) / self.count).sqrt()
    }
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
