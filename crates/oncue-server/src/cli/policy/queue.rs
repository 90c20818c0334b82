//! The recorded events of a subscription as a queue that is served again: first in first out, by what events say of their
//! priority, and by what is learned of it. What waiting costs in each is compared.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use oncue::{
    event::MAX_PRIORITY,
    filter::Features,
    policy::{LearnedPriority, Ranker},
    transport::{Inspect, SubscriptionInfo},
};
use serde_json::{Value, json};

use crate::{
    cli::view::{View, ViewError, each_event},
    columns::{Column, columns},
    number::grouped,
};

/// Fewer events prove nothing.
const FEWEST: usize = 100;
/// Events that wait depend on each other: whole stretches of them are compared, so many.
const STRETCHES: usize = 20;
/// Of so many, 95 % of Student's t lie within ±.
const STUDENT: f64 = 2.093;

/// An event that was handled.
#[derive(Clone, Debug)]
struct Job {
    /// When it came, in microseconds.
    came: i64,
    /// How long its attempts took together, in microseconds.
    takes: i64,
    /// What a second of its waiting costs.
    cost: f64,
    features: Features,
    /// What it says itself.
    priority: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Fifo,
    Said,
    Learned,
}

const ORDERS: [(Order, &str); 3] =
    [(Order::Fifo, "first in first out"), (Order::Said, "priority that events say"), (Order::Learned, "learned")];

/// What waiting came to in one order.
struct Came {
    /// In seconds, per event.
    wait_s: f64,
    /// Per event.
    cost: f64,
    /// Of each event, in the order in which they came.
    costs: Vec<f64>,
}

/// The three orders compared.
pub(super) struct Queues {
    events: usize,
    /// How many were handled at once.
    places: usize,
    came: Vec<Came>,
    /// How much less a waiting event costs when priorities are learned, than in the better of the others; and the half width of
    /// its interval of 95 %.
    gain: (f64, f64),
    /// Events that were handled while priorities were learned, by the priority that they had.
    live: Option<Vec<u64>>,
}

impl Queues {
    /// Serves what is recorded of a subscription, with so many places.
    pub(super) fn of(
        view: &View,
        log: &dyn Inspect,
        about: &SubscriptionInfo,
        (rules, places): (&LearnedPriority, usize),
    ) -> Result<Self, ViewError> {
        let mut taken: HashMap<u64, i64> = HashMap::new();
        for recorded in log.recorded(&about.id)? {
            let took = recorded.attempt.ended.since(recorded.attempt.read).as_micros();
            *taken.entry(recorded.offset).or_default() += i64::try_from(took).unwrap_or(i64::MAX);
        }
        let mut jobs = Vec::with_capacity(taken.len());
        each_event(log, &view.topics(log, Some(&about.topic))?, |_, position, event| {
            if let Some(takes) = taken.get(&position.offset()) {
                let (cost, features) = (rules.cost_of_waiting(event), rules.features_of(event));
                let came = event.published().as_micros();
                jobs.push(Job { came, takes: *takes, cost, features, priority: event.priority() });
            }
        })?;
        // A clock may have been stepped back.
        jobs.sort_by_key(|job| job.came);
        Ok(Self::compare(&jobs, places, log.ranker(&about.id).map(|ranker| ranker.given().to_vec())))
    }

    fn compare(jobs: &[Job], places: usize, live: Option<Vec<u64>>) -> Self {
        let came: Vec<Came> = ORDERS.iter().map(|(order, _)| serve(jobs, places, *order)).collect();
        let simple = if came[1].cost < came[0].cost { &came[1] } else { &came[0] };
        let gain = difference(&simple.costs, &came[2].costs);
        Self { events: jobs.len(), places, came, gain, live }
    }

    fn verdict(&self) -> (&'static str, &'static str) {
        let (gain, width) = self.gain;
        if self.events < FEWEST {
            return ("too_few", "too little was seen to tell: it takes 100 events that were handled");
        }
        if self.came[0].cost == 0.0 {
            return ("no_waiting", "nothing waited: in which order events are handled makes no difference");
        }
        match gain {
            gain if gain > width => ("better", "learned priorities are better than the simple orders"),
            gain if gain < -width => {
                ("worse", "learned priorities are WORSE than the better simple order: do without them")
            }
            _ => (
                "no_difference",
                "learned priorities are NOT better than the better simple order: the difference may be chance",
            ),
        }
    }

    pub(super) fn json(&self, subscription: &str) -> Value {
        let came = |came: &Came| json!({"wait_s": came.wait_s, "cost": came.cost});
        json!({
            "subscription": subscription,
            "events": self.events,
            "places": self.places,
            "fifo": came(&self.came[0]),
            "said": came(&self.came[1]),
            "learned": came(&self.came[2]),
            "gain": self.gain.0,
            "gain_width_95": Some(self.gain.1).filter(|width| width.is_finite()),
            "verdict": self.verdict().0,
            "says": self.verdict().1,
            "live": self.live,
        })
    }

    pub(super) fn text(&self, subscription: &str) -> String {
        let mut out = String::new();
        if let Some(live) = &self.live {
            let counts: Vec<String> = live.iter().rev().map(|count| grouped(*count)).collect();
            out += &format!("{subscription}, handled by priority, {MAX_PRIORITY} to 0: {}\n\n", counts.join(" "));
        }
        let (events, places) = (grouped(self.events as u64), self.places);
        out += &format!("{subscription}, {events} events served again, {places} at a time:\n");
        let heading = [Column::Text("ORDER"), Column::Number("MEAN WAIT"), Column::Number("MEAN COST")];
        let row = |((_, name), came): (&(Order, &str), &Came)| {
            vec![(*name).to_owned(), format!("{:.3} s", came.wait_s), format!("{:.4}", came.cost)]
        };
        out += &columns(&heading, &ORDERS.iter().zip(&self.came).map(row).collect::<Vec<_>>());
        let (gain, width) = self.gain;
        if width.is_finite() {
            out +=
                &format!("learned costs {gain:.4} ± {width:.4} (95 %) less per event than the better of the others\n");
        }
        out + self.verdict().1 + "\n"
    }
}

/// Serves jobs in an order, without interrupting any, and learns from those that are through.
fn serve(jobs: &[Job], places: usize, order: Order) -> Came {
    let (mut ranker, mut given) = (Ranker::default(), vec![0; jobs.len()]);
    let mut waiting: BTreeSet<(u8, usize)> = BTreeSet::new();
    let mut busy: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut waits = vec![0; jobs.len()];
    let mut next = 0;
    loop {
        let (comes, ends) = (jobs.get(next).map(|job| job.came), busy.peek().map(|Reverse((ends, _))| *ends));
        let now = match (comes, ends) {
            (None, None) => break,
            (Some(comes), Some(ends)) if ends <= comes => ends,
            (Some(comes), _) => comes,
            (None, Some(ends)) => ends,
        };
        if ends == Some(now)
            && let Some(Reverse((_, through))) = busy.pop()
        {
            if order == Order::Learned {
                let job = &jobs[through];
                ranker.learn(job.cost, &job.features, job.takes as f64 / 1e6, given[through]);
            }
        } else {
            let job = &jobs[next];
            given[next] = match order {
                Order::Fifo => 0,
                Order::Said => job.priority,
                Order::Learned => ranker.priority(job.cost, &job.features).unwrap_or(job.priority),
            };
            waiting.insert((MAX_PRIORITY - given[next], next));
            next += 1;
        }
        // All that came by now is there before the next one is chosen.
        let more = jobs.get(next).is_some_and(|job| job.came <= now) && ends != Some(now);
        while !more && busy.len() < places.max(1) {
            let Some((_, chosen)) = waiting.pop_first() else { break };
            waits[chosen] = now.saturating_sub(jobs[chosen].came);
            busy.push(Reverse((now.saturating_add(jobs[chosen].takes), chosen)));
        }
    }
    let costs: Vec<f64> = jobs.iter().zip(&waits).map(|(job, wait)| job.cost * *wait as f64 / 1e6).collect();
    let count = jobs.len().max(1) as f64;
    let wait_s = waits.iter().map(|wait| *wait as f64 / 1e6).sum::<f64>() / count;
    Came { wait_s, cost: costs.iter().sum::<f64>() / count, costs }
}

/// The mean of what one costs more than another, event by event, and the half width of its interval of 95 %, by the means
/// of stretches.
fn difference(one: &[f64], other: &[f64]) -> (f64, f64) {
    let differences: Vec<f64> = one.iter().zip(other).map(|(one, other)| one - other).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    let length = differences.len() / STRETCHES;
    if length == 0 {
        return (mean(&differences), f64::INFINITY);
    }
    let means: Vec<f64> = differences.chunks_exact(length).take(STRETCHES).map(mean).collect();
    let middle = mean(&means);
    let squares: f64 = means.iter().map(|of_one| (of_one - middle).powi(2)).sum();
    let variance = squares / (STRETCHES - 1) as f64;
    (mean(&differences), STUDENT * (variance / STRETCHES as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One job that comes at a second, takes so many, and whose waiting costs so much.
    fn job(came: i64, takes: i64, cost: f64) -> Job {
        let mut features = Features::default();
        features.category("takes", &takes.to_string());
        Job { came: came * 1_000_000, takes: takes * 1_000_000, cost, features, priority: 4 }
    }

    #[test]
    fn first_in_first_out_is_what_it_is() {
        // The second waits 3 s, the third 4 s.
        let jobs = [job(0, 4, 1.0), job(1, 2, 1.0), job(2, 1, 2.0)];
        let came = serve(&jobs, 1, Order::Fifo);
        assert_eq!(came.costs, [0.0, 3.0, 8.0]);
        assert_eq!((came.wait_s, came.cost), (7.0 / 3.0, 11.0 / 3.0));
        assert_eq!(serve(&jobs, 3, Order::Fifo).cost, 0.0);
    }

    #[test]
    fn what_is_urgent_passes_what_waits_and_interrupts_nothing() {
        let jobs = [job(0, 4, 1.0), job(1, 2, 1.0), Job { priority: 9, ..job(2, 1, 1.0) }];
        assert_eq!(serve(&jobs, 1, Order::Said).costs, [0.0, 4.0, 2.0]);
    }

    #[test]
    fn where_times_differ_learning_is_better_and_where_nothing_does_it_says_so() {
        // Twice a minute a batch: two long ones, then eight short ones; three quarters of the time it is busy.
        let batch = |number: i64| (0..10).map(move |place| job(number * 30, if place < 2 { 8 } else { 1 }, 1.0));
        let jobs: Vec<Job> = (0..100).flat_map(batch).collect();
        let queues = Queues::compare(&jobs, 1, None);
        assert_eq!(queues.verdict().0, "better", "{:?}", queues.gain);
        assert!(queues.came[2].cost < 0.7 * queues.came[0].cost);

        let alike: Vec<Job> = (0..1_000).map(|number| job(number / 10 * 30, 2, 1.0)).collect();
        assert_eq!(Queues::compare(&alike, 1, None).verdict().0, "no_difference");
        let alone: Vec<Job> = (0..200).map(|number| job(number * 10, 2, 1.0)).collect();
        assert_eq!(Queues::compare(&alone, 1, None).verdict().0, "no_waiting");
        assert_eq!(Queues::compare(&alone[..50], 1, None).verdict().0, "too_few");
    }
}
