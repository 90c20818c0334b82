//! What the computed policy knows, what it would do, and why: for people.

use serde::Serialize;

use super::{
    Attempts, Optimal,
    attempts::{CLASSES, table_of},
    model::{MOST_STEPS, Solved},
    survival::{AGES, Outlook, Survival, age_s, place, split},
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
        let all = attempts.of_all_classes();
        let (solved, fallback) = match self.solve_events(attempts) {
            Ok(solved) => (Some(solved), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let class = |(table, class): (usize, &ErrorClass)| {
            let own = &attempts.troubles[table];
            let outlook = Outlook::of(own, Some(&all));
            ClassExplained {
                class: *class,
                ages: ages(own, &outlook),
                followed: CLASSES.into_iter().zip(attempts.next_class(table)).collect(),
                plan: self.steps(solved.as_ref(), *class, &outlook),
                states: solved.as_ref().map_or_else(Vec::new, |solved| states(solved, table)),
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
            outages: ages(&attempts.outages, &Outlook::of(&attempts.outages, None)),
        }
    }

    /// What follows each failure of an event that keeps failing, without jitter.
    fn steps(&self, solved: Option<&Solved>, class: ErrorClass, outlook: &Outlook) -> Vec<Step> {
        let exact = self.clone().jitter(0.0);
        let exponential = exact.fallback();
        let q: Vec<Vec<f64>> =
            solved.map_or_else(Vec::new, |solved| solved.values.iter().map(|values| solved.model.q(values)).collect());
        let (mut steps, mut age) = (Vec::new(), 0.0);
        for attempt in 1..=self.max_attempts.min(MOST_STEPS) {
            let failing_for = std::time::Duration::from_secs_f64(age);
            let failure = Failure { attempt, class, error: "explained", age: failing_for, failing_for, random: 0.0 };
            let delay_of = |decision| match decision {
                Decision::Retry(delay) => Some(std::time::Duration::as_secs_f64(&delay)),
                Decision::DeadLetter => None,
            };
            let delay = delay_of(exact.follow(solved.map(|solved| &solved.moves), &failure));
            let left = (self.max_attempts - attempt) as usize;
            let ranked = solved.and_then(|solved| ranked(solved, &q, left, class, age));
            steps.push(Step {
                attempt,
                age_s: age,
                delay_s: delay,
                works: delay.map_or(0.0, |delay| outlook.over_by(place(age), place(age + delay))),
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

/// The actions of a state with what each is worth, the best first. None without an attempt left.
fn ranked(
    solved: &Solved,
    q: &[Vec<f64>],
    left: usize,
    class: ErrorClass,
    age: f64,
) -> Option<Vec<(Option<f64>, f64)>> {
    let before = q.get(left.checked_sub(1)?.min(q.len().saturating_sub(2)))?;
    let (below, part) = split(place(age));
    let state = table_of(class)? * AGES + (below + usize::from(part >= 0.5)).min(AGES - 1);
    let worth = |choice: usize| (solved.moves.delay(solved.model.choice(choice).action), before[choice]);
    let mut ranked: Vec<_> = solved.model.choices_of(state).map(worth).collect();
    // Of those that are worth the same, the one that is chosen: the first.
    ranked.sort_by(
        |one, other| if (one.1 - other.1).abs() < SAME { std::cmp::Ordering::Equal } else { other.1.total_cmp(&one.1) },
    );
    Some(ranked)
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
    let age = |(number, cell): (usize, &super::Cell)| {
        let (from, to) = (number as f64, (number + 1) as f64);
        AgeSeen {
            from_s: age_s(from),
            to_s: age_s(to),
            reached: cell.reached,
            over: cell.over,
            p: outlook.over_by(from, to),
        }
    };
    cells.map(age).collect()
}
