//! What the computed policy knows, what it would do, and why: for people.

use std::cmp::Ordering;

use serde::Serialize;

use super::{
    Attempts, Optimal,
    attempts::{CLASSES, table_of},
    model::{MOST_STEPS, Solved, Unsolved},
    outlook::Outlook,
    survival::{AGES, Survival, age_s, place, split},
};
use crate::{
    clock::Timestamp,
    policy::{Costs, Decision, ErrorClass, Failure, Policy as _},
};

/// Differences of values that are none.
const SAME: f64 = 1e-9;

/// What a policy that is computed knows of a subscription, and what it does.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What events are worth.
    pub costs: Costs,
    /// Most attempts.
    pub max_attempts: u32,
    /// Why exponential delays count instead, if nothing could be computed.
    pub fallback: Option<String>,
    /// Retries that were counted, ever.
    pub counted: u64,
    /// How often first attempts fail while all is well.
    pub failing_share: f64,
    /// Since when what the handler calls is down.
    pub down_since: Option<Timestamp>,
    /// By class of error, those first that were seen.
    pub classes: Vec<ClassExplained>,
    /// How long outages lasted, as far as they were seen.
    pub outages: Vec<AgeSeen>,
}

/// What is known and done of one class of errors.
#[derive(Clone, Debug, Serialize)]
pub struct ClassExplained {
    /// Which.
    pub class: ErrorClass,
    /// P(a failure is mere luck, so that the next attempt meets another), before the next attempt.
    pub luck: f64,
    /// What was seen, by the age of trouble.
    pub ages: Vec<AgeSeen>,
    /// P(the next failure is of a class), for the classes after which another attempt can help.
    pub followed: Vec<(ErrorClass, f64)>,
    /// The attempts of a new event that keeps failing with this class.
    pub plan: Vec<Step>,
    /// V and π of each state: by attempts made, then by age.
    #[serde(skip)]
    pub states: Vec<Vec<StateValue>>,
}

/// What was seen between one age and the next.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AgeSeen {
    /// From this age of trouble on, in seconds.
    pub from_s: f64,
    /// Until this one.
    pub to_s: f64,
    /// Troubles that reached it; what is old counts less.
    pub reached: f64,
    /// Those that were over before the next.
    pub over: f64,
    /// P(over before the next), prior included.
    pub p: f64,
}

/// What follows one failed attempt.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// Which attempt failed.
    pub attempt: u32,
    /// How old the trouble is then, in seconds.
    pub age_s: f64,
    /// The delay before the next attempt, in seconds; none: a dead letter.
    pub delay_s: Option<f64>,
    /// P(that attempt works).
    pub works: f64,
    /// What that is worth.
    pub value: f64,
    /// The best of the other actions: its delay, and what it is worth.
    pub runner_up: Option<(Option<f64>, f64)>,
    /// The delay that exponential growth would have had, in seconds.
    pub exponential_s: Option<f64>,
}

/// What a state is worth, and what is done in it.
#[derive(Clone, Copy, Debug)]
pub struct StateValue {
    /// The age of trouble, in seconds.
    pub age_s: f64,
    /// V.
    pub value: f64,
    /// The delay; none: a dead letter.
    pub delay_s: Option<f64>,
}

impl Optimal {
    /// What it knows of these attempts, and what it does.
    #[must_use]
    pub fn explain(&self, attempts: &Attempts) -> Explanation {
        let (valued, fallback) = match self.solve_events(attempts).and_then(Valued::of) {
            Ok(valued) => (Some(valued), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let outlooks = Outlook::by_class(attempts);
        let class = |(table, class): (usize, &ErrorClass)| {
            let outlook = &outlooks[table];
            ClassExplained {
                class: *class,
                luck: outlook.luck,
                ages: ages(&attempts.troubles[table], outlook),
                followed: CLASSES.into_iter().zip(attempts.next_class(table)).collect(),
                plan: self.steps(valued.as_ref(), *class, outlook),
                states: valued.as_ref().map_or_else(Vec::new, |valued| states(&valued.solved, table)),
            }
        };
        let mut classes: Vec<ClassExplained> = CLASSES.iter().enumerate().map(class).collect();
        classes.sort_by_key(|class| class.ages.is_empty());
        Explanation {
            costs: self.costs,
            max_attempts: self.max_attempts,
            fallback,
            counted: attempts.counted,
            failing_share: attempts.odds.failing_share(),
            down_since: attempts.down_since(),
            classes,
            outages: ages(&attempts.outages, &Outlook::of_passing(&attempts.outages)),
        }
    }

    /// What follows each failure of an event that keeps failing, without jitter.
    fn steps(&self, valued: Option<&Valued>, class: ErrorClass, outlook: &Outlook) -> Vec<Step> {
        let exact = self.clone().jitter(0.0);
        let exponential = exact.fallback();
        let (mut steps, mut age) = (Vec::new(), 0.0);
        for attempt in 1..=self.max_attempts.min(MOST_STEPS) {
            let failing_for = std::time::Duration::from_secs_f64(age);
            let failure = Failure { attempt, class, error: "explained", age: failing_for, failing_for, random: 0.0 };
            let delay_of = |decision| match decision {
                Decision::Retry(delay) => Some(std::time::Duration::as_secs_f64(&delay)),
                Decision::DeadLetter => None,
            };
            let delay = delay_of(exact.follow(valued.map(|valued| &valued.solved.moves), &failure));
            let left = (self.max_attempts - attempt) as usize;
            let ranked = valued.and_then(|valued| valued.ranked(left, class, age));
            steps.push(Step {
                attempt,
                age_s: age,
                delay_s: delay,
                works: delay.map_or(0.0, |delay| outlook.works(attempt, place(age), place(age + delay))),
                value: ranked.as_ref().and_then(|ranked| ranked.first()).map_or(-self.costs.loss, |best| best.1),
                runner_up: ranked.and_then(|ranked| ranked.get(1).copied()),
                exponential_s: delay_of(exponential.decide(&failure)),
            });
            let Some(delay) = delay else { break };
            age += delay;
        }
        steps
    }
}

/// An action (its delay; none: a dead letter), and what it is worth: Q.
type Worth = (Option<f64>, f64);

/// The solution, and what each action is worth, by state and by attempts left from 1 on.
struct Valued {
    solved: Solved,
    worths: Vec<Vec<Vec<Worth>>>,
}

impl Valued {
    fn of(solved: Solved) -> Result<Self, Unsolved> {
        let worths = (1..).zip(&solved.values[..solved.values.len() - 1]).map(|(left, values)| {
            let model = solved.model(left)?;
            let q = model.q(values);
            let worth = |choice: usize| (solved.moves.delay(model.choice(choice).action), q[choice]);
            Ok((0..model.states()).map(|state| model.choices_of(state).map(worth).collect()).collect())
        });
        let worths = worths.collect::<Result<_, Unsolved>>()?;
        Ok(Self { solved, worths })
    }

    /// The actions of a state with what each is worth, the best first. None without an attempt left.
    fn ranked(&self, left: usize, class: ErrorClass, age: f64) -> Option<Vec<Worth>> {
        let states = self.worths.get(left.checked_sub(1)?).or(self.worths.last())?;
        let (below, part) = split(place(age));
        let state = table_of(class)? * AGES + (below + usize::from(part >= 0.5)).min(AGES - 1);
        let mut ranked = states.get(state)?.clone();
        // Of those that are worth the same, the one that is chosen: the first.
        let same = |one: f64, other: f64| (one - other).abs() < SAME;
        ranked.sort_by(|one, other| if same(one.1, other.1) { Ordering::Equal } else { other.1.total_cmp(&one.1) });
        Some(ranked)
    }
}

fn states(solved: &Solved, table: usize) -> Vec<Vec<StateValue>> {
    let of = |left: usize| {
        let at = |age: usize| StateValue {
            age_s: age_s(age as f64),
            value: solved.values[left][table * AGES + age],
            delay_s: solved.moves.action(left, table * AGES + age),
        };
        (0..AGES).map(at).collect()
    };
    (1..solved.values.len()).rev().map(of).collect()
}

fn ages(seen: &Survival, outlook: &Outlook) -> Vec<AgeSeen> {
    let cells = seen.cells().iter().enumerate().filter(|(_, cell)| cell.reached > 0.0);
    let age = |(number, cell): (usize, &super::Cell)| AgeSeen {
        from_s: age_s(number as f64),
        to_s: age_s((number + 1) as f64),
        reached: cell.reached,
        over: cell.over,
        p: outlook.over_at(number),
    };
    cells.map(age).collect()
}
