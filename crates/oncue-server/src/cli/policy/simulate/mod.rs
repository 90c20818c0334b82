//! `oncue policy simulate`: what policies cost, in a world whose law is known.

mod life;
mod world;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use clap::{Args, ValueEnum as _};
use oncue::policy::{Costs, Policy, exponential, fixed, optimal};
use serde_json::{Value, json};

pub(in crate::cli) use self::life::LifeError;
use self::{
    life::{Life, live},
    world::Scenario,
};
use crate::{
    cli::{CommandError, print},
    columns::{Column, columns},
};

/// The first delays and the factors among which the best exponential policy is searched.
const INITIALS_S: [f64; 5] = [0.05, 0.2, 1.0, 5.0, 20.0];
const FACTORS: [f64; 4] = [1.0, 1.5, 2.0, 3.0];
/// It is searched on other seeds than it is compared on.
const SEARCH_SEEDS: u64 = 1_000_000;
/// The quantile of the normal distribution for intervals of 95 %.
const NORMAL: f64 = 1.96;

/// Compare retry policies in virtual time, on a simulated dependency
///
/// The app is the real one, with its dispatcher, its log (in memory) and its policies; only time and what is called are simulated.
/// An event costs what its attempts, its delay and, if it is given up, its loss cost; all policies make ten attempts at most. The
/// computed policy begins without having seen anything. The best exponential policy is searched on seeds of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue policy simulate --scenario outage\n  \
                        oncue policy simulate --scenario mixed --seeds 100 --json | jq '.policies[] | {name, cost}'\n\n\
                        Exit codes: 0 all is done; 1 the app failed.")]
pub(super) struct Simulate {
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

/// A policy and its lives, by seed.
struct Lived {
    name: String,
    lives: Vec<Life>,
}

impl Simulate {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let scenarios = self.scenario.map_or_else(|| Scenario::value_variants().to_vec(), |one| vec![one]);
        let mut told = Vec::new();
        for scenario in scenarios {
            let lived = self.compare(scenario)?;
            if self.json {
                told.push(json(scenario, &lived));
            } else {
                print(&text(scenario, &lived))?;
            }
        }
        if self.json { print(&format!("{:#}\n", json!({ "scenarios": told }))) } else { Ok(()) }
    }

    /// The computed policy first, the best exponential one last.
    fn compare(&self, scenario: Scenario) -> Result<Vec<Lived>, LifeError> {
        let (initial, factor) = self.best(scenario)?;
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
            let lives = seeds.map(|seed| live(scenario, seed, Arc::clone(&policy), &Costs::default()));
            lived.push(Lived { name, lives: lives.collect::<Result<_, _>>()? });
        }
        Ok(lived)
    }

    /// The first delay and the factor that cost least.
    fn best(&self, scenario: Scenario) -> Result<(f64, f64), LifeError> {
        let mut best = (f64::INFINITY, (INITIALS_S[0], FACTORS[0]));
        for initial in INITIALS_S {
            for factor in FACTORS {
                let policy = Arc::new(exponential().initial(Duration::from_secs_f64(initial)).factor(factor));
                let mut cost = 0.0;
                for seed in 0..u64::from(self.search.get()) {
                    cost += live(scenario, SEARCH_SEEDS + seed, policy.clone(), &Costs::default())?.cost;
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

fn json(scenario: Scenario, lived: &[Lived]) -> Value {
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
    json!({
        "scenario": name_of(scenario),
        "seeds": seeds,
        "policies": lived.iter().map(policy).collect::<Value>(),
    })
}

fn text(scenario: Scenario, lived: &[Lived]) -> String {
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
    format!("{}: per event, {seeds} lives each, ± 95 %\n\n{}\n", name_of(scenario), columns(&heading, &rows))
}
