//! `oncue policy simulate`: what policies cost, in a world whose law is known.

mod life;
mod recorded;
mod world;

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum as _};
use oncue::policy::{Costs, Policy, exponential, fixed, optimal};
use serde_json::{Value, json};

pub(in crate::cli) use self::{life::LifeError, recorded::TooFew};
use self::{
    life::{Life, live},
    recorded::{Again, Record},
    world::{Dependency, Scenario, World},
};
use crate::{
    cli::{
        CommandError, print,
        view::{View, ViewError, listed},
    },
    columns::{Column, columns},
    number::{grouped, time},
};

/// The first delays and the factors among which the best exponential policy is searched.
const INITIALS_S: [f64; 5] = [0.05, 0.2, 1.0, 5.0, 20.0];
const FACTORS: [f64; 4] = [1.0, 1.5, 2.0, 3.0];
/// It is searched on other seeds than it is compared on.
const SEARCH_SEEDS: u64 = 1_000_000;
/// The quantile of the normal distribution for intervals of 95 %.
const NORMAL: f64 = 1.96;

/// Compare retry policies in virtual time, on a simulated dependency or on what a log recorded of a real one
///
/// The app is the real one, with its dispatcher, its log (in memory) and its policies; only time and what is called are simulated.
/// An event costs what its attempts, its delay and, if it is given up, its loss cost; all policies make ten attempts at most. The
/// computed policy begins without having seen anything. The best exponential policy is searched on seeds of its own.
///
/// With --from, what is called answers as it did when the log was written; what is assumed where the log does not tell stands
/// below. Events come when they were published, and a call takes as long as the median of those recorded. The newest 2,000
/// events are taken. The best exponential policy is searched on the same record: it is the best in hindsight.
#[derive(Debug, Args)]
#[command(after_help = "With --from, what an attempt found is known at its time. Of other times this is assumed:\n  \
                        An event that failed, and failed again, would have failed between; one that worked, would have later.\n  \
                        When it began to work, between one that failed and one that worked, the nearest call of another event says.\n  \
                        If there was none between, any time is as likely as another.\n  \
                        Before its first attempt the nearest call says it, its own or another's.\n  \
                        Given up, it works as soon as others do; never, if others did between its attempts, or if it was refused.\n  \
                        Calls do not change what is called: that one that is overloaded would gain by fewer, the log cannot tell.\n\
                        So who tries more often than was recorded is not lucky where that was not.\n\n\
                        Examples:\n  \
                        oncue policy simulate --scenario outage\n  \
                        oncue policy simulate --scenario mixed --seeds 100 --json | jq '.scenarios[].policies[] | {name, cost}'\n  \
                        oncue policy simulate charge --from ./data\n\n\
                        Exit codes: 0 all is done; 1 the app failed, or the log cannot be read; 2 there is no such subscription or \
                        log, or it has too few attempts, or an option is wrong.")]
pub(super) struct Simulate {
    /// With --from, the subscription whose attempts are taken
    #[arg(requires = "from")]
    subscription: Option<String>,

    /// Directory that an app keeps its log in: take what it recorded instead of a scenario. The app may be running
    #[arg(long, value_name = "DIR", requires = "subscription", conflicts_with = "scenario")]
    from: Option<PathBuf>,

    /// What the dependency goes through; all of them without it
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,

    /// How many lives each policy is given
    #[arg(long, value_name = "N", default_value = "30")]
    seeds: NonZeroU32,

    /// How many lives each candidate is given in the search
    #[arg(long, value_name = "N", default_value = "8")]
    search: NonZeroU32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the policies are compared on.
enum Law {
    Stated(Scenario),
    Recorded(String, Arc<Record>),
}

impl Law {
    fn name(&self) -> String {
        match self {
            Self::Stated(scenario) => name_of(*scenario),
            Self::Recorded(subscription, _) => subscription.clone(),
        }
    }

    fn dependency(&self, seed: u64) -> Arc<dyn Dependency> {
        match self {
            Self::Stated(scenario) => Arc::new(World::new(*scenario, seed)),
            Self::Recorded(_, record) => Arc::new(Again { record: Arc::clone(record), seed }),
        }
    }
}

/// A policy and its lives, by seed.
struct Lived {
    name: String,
    lives: Vec<Life>,
}

impl Simulate {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut told = Vec::new();
        for law in self.laws()? {
            let lived = self.compare(&law)?;
            if self.json {
                told.push(json(&law, &lived));
            } else {
                print(&text(&law, &lived))?;
            }
        }
        if self.json { print(&format!("{:#}\n", json!({ "scenarios": told }))) } else { Ok(()) }
    }

    fn laws(&self) -> Result<Vec<Law>, CommandError> {
        let (Some(directory), Some(subscription)) = (&self.from, &self.subscription) else {
            let scenarios = self.scenario.map_or_else(|| Scenario::value_variants().to_vec(), |one| vec![one]);
            return Ok(scenarios.into_iter().map(Law::Stated).collect());
        };
        let view = View { data: directory.clone(), json: self.json };
        let attempts = view.look(|log| {
            let known = log.subscriptions();
            if !known.iter().any(|known| known.id == *subscription) {
                let known = listed(known.iter().map(|known| known.id.as_str()));
                let (subscription, directory) = (subscription.clone(), directory.clone());
                return Err(ViewError::UnknownSubscription { subscription, directory, known });
            }
            Ok(log.recorded(subscription)?)
        })?;
        Ok(vec![Law::Recorded(subscription.clone(), Arc::new(Record::of(subscription, attempts)?))])
    }

    /// The computed policy first, the best exponential one last.
    fn compare(&self, law: &Law) -> Result<Vec<Lived>, LifeError> {
        let (initial, factor) = self.best(law)?;
        let best = exponential().initial(Duration::from_secs_f64(initial)).factor(factor);
        let policies: [(String, Arc<dyn Policy>); 5] = [
            ("optimal".into(), Arc::new(optimal())),
            ("fixed 1 s".into(), Arc::new(fixed(Duration::from_secs(1)))),
            ("exponential".into(), Arc::new(exponential())),
            ("exponential, full jitter".into(), Arc::new(exponential().jitter(1.0))),
            (format!("best exponential: {initial} s × {factor}"), Arc::new(best)),
        ];
        let mut lived = Vec::new();
        for (name, policy) in policies {
            let seeds = 0..u64::from(self.seeds.get());
            let lives = seeds.map(|seed| live(law.dependency(seed), seed, Arc::clone(&policy), &Costs::default()));
            lived.push(Lived { name, lives: lives.collect::<Result<_, _>>()? });
        }
        Ok(lived)
    }

    /// The first delay and the factor that cost least.
    fn best(&self, law: &Law) -> Result<(f64, f64), LifeError> {
        let mut best = (f64::INFINITY, (INITIALS_S[0], FACTORS[0]));
        for initial in INITIALS_S {
            for factor in FACTORS {
                let policy = Arc::new(exponential().initial(Duration::from_secs_f64(initial)).factor(factor));
                let mut cost = 0.0;
                for seed in 0..u64::from(self.search.get()) {
                    let seed = SEARCH_SEEDS + seed;
                    cost += live(law.dependency(seed), seed, policy.clone(), &Costs::default())?.cost;
                }
                if cost < best.0 {
                    best = (cost, (initial, factor));
                }
            }
        }
        Ok(best.1)
    }
}

impl Lived {
    fn interval(&self, of: impl Fn(&Life) -> f64) -> (f64, f64) {
        interval(&self.lives.iter().map(of).collect::<Vec<_>>())
    }

    /// What it costs more than another, seed by seed.
    fn more_than(&self, other: &Self) -> (f64, f64) {
        let pairs = self.lives.iter().zip(&other.lives);
        interval(&pairs.map(|(one, other)| one.cost - other.cost).collect::<Vec<_>>())
    }
}

/// Mean, and half of the interval that holds it with 95 %.
#[expect(clippy::cast_precision_loss, reason = "not many")]
fn interval(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, NORMAL * (variance / count).sqrt())
}

/// The age that a share of a life's events did not exceed.
fn percentile(life: &Life, share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (life.ages.len() as f64 * share) as usize;
    life.ages.get(index.min(life.ages.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn name_of(scenario: Scenario) -> String {
    scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn json(law: &Law, lived: &[Lived]) -> Value {
    let of = |(mean, half_width): (f64, f64)| json!({ "mean": mean, "half_width": half_width });
    let policy = |policy: &Lived| {
        json!({
            "name": policy.name,
            "cost": of(policy.interval(|life| life.cost)),
            "optimal_costs_more": lived.first().map(|optimal| of(optimal.more_than(policy))),
            "handled": of(policy.interval(|life| life.handled)),
            "calls_per_event": of(policy.interval(|life| life.calls)),
            "p50_s": of(policy.interval(|life| percentile(life, 0.5))),
            "p99_s": of(policy.interval(|life| percentile(life, 0.99))),
        })
    };
    let seeds = lived.first().map_or(0, |policy| policy.lives.len());
    let policies = lived.iter().map(policy).collect::<Value>();
    match law {
        Law::Stated(scenario) => json!({ "scenario": name_of(*scenario), "seeds": seeds, "policies": policies }),
        Law::Recorded(subscription, record) => json!({
            "subscription": subscription,
            "events": record.events(),
            "failed_attempts": record.failed,
            "call_takes_s": record.call_takes.as_secs_f64(),
            "seeds": seeds,
            "policies": policies,
        }),
    }
}

fn text(law: &Law, lived: &[Lived]) -> String {
    let heading = [
        Column::Text("POLICY"),
        Column::Number("COST"),
        Column::Number("OPTIMAL COSTS MORE"),
        Column::Number("HANDLED"),
        Column::Number("CALLS"),
        Column::Number("p50"),
        Column::Number("p99"),
    ];
    let seconds = |(mean, half): (f64, f64)| format!("{mean:.2} ± {half:.2} s");
    let row = |policy: &Lived| {
        let (cost, half) = policy.interval(|life| life.cost);
        let more = lived.first().map(|optimal| optimal.more_than(policy)).filter(|more| *more != (0.0, 0.0));
        vec![
            policy.name.clone(),
            format!("{cost:.3} ± {half:.3}"),
            more.map_or_else(String::new, |(more, half)| format!("{more:+.3} ± {half:.3}")),
            format!("{:.2} %", policy.interval(|life| life.handled).0 * 100.0),
            format!("{:.3}", policy.interval(|life| life.calls).0),
            seconds(policy.interval(|life| percentile(life, 0.5))),
            seconds(policy.interval(|life| percentile(life, 0.99))),
        ]
    };
    let rows: Vec<_> = lived.iter().map(row).collect();
    let seeds = lived.first().map_or(0, |policy| policy.lives.len());
    let table = columns(&heading, &rows);
    let (name, mut taken) = (law.name(), String::new());
    if let Law::Recorded(_, record) = law {
        let (events, failed) = (grouped(record.events() as u64), grouped(record.failed as u64));
        taken = format!(
            "{events} recorded events, of whose attempts {failed} failed; a call takes {}; what is assumed between: --help\n",
            time(record.call_takes)
        );
    }
    format!("{name}: per event, {seeds} lives each, ± 95 %\n{taken}\n{table}\n")
}
