//! `oncue policy explain`: what a retry policy does with an event that keeps failing, and what is known of a subscription's
//! attempts.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use oncue::{
    config::{Config, ConfigError, PolicyConfig},
    policy::{ErrorClass, Plan, plan},
};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::learned::Learned;
use crate::cli::{CommandError, print, view::listed};

/// Print the attempts that a retry policy makes for an event that keeps failing
///
/// The times are counted from publishing, without the time that the attempts themselves take. With jitter each is a range:
/// shortest and longest.
///
/// With --data, print what the log knows of a subscription's attempts, and what the policy that is computed of them does:
/// how long trouble lasted, the delays with their values and the runner-up's, and what exponential delays would be. Whatever
/// policy the subscription has: this is what `optimal` does, with these costs and bounds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue policy explain --kind exponential\n  \
                        oncue policy explain --kind fixed --delay 2s --max-attempts 5 --deadline 1m\n  \
                        oncue policy explain --kind list --delays 1s,10s,1m --class throttled\n  \
                        oncue policy explain --config oncue.toml bank --json | jq '.attempts[-1].at_ms'\n  \
                        oncue policy explain charge --data ./data --loss 500 --svg charge.svg\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read, or the plot not written; 2 there is no such policy, \
                        subscription or log, or the file or an option is wrong.")]
pub(super) struct Explain {
    /// Which policy
    #[arg(long, value_enum, required_unless_present_any = ["config", "data"], conflicts_with_all = ["config", "data", "name"])]
    kind: Option<Kind>,

    #[command(flatten)]
    options: Options,

    /// A configuration file that has the policy
    #[arg(long, value_name = "FILE", requires = "name")]
    config: Option<PathBuf>,

    /// The policy's name in the configuration file; with --data, the subscription
    name: Option<String>,

    /// Directory that an app keeps its log in: explain what is known of a subscription's attempts
    #[arg(long, value_name = "DIR", requires = "name", conflicts_with = "config")]
    data: Option<PathBuf>,

    /// With --data: plot value and action by attempt and age into this file
    #[arg(long, value_name = "FILE", requires = "data")]
    svg: Option<PathBuf>,

    /// How each attempt fails
    #[arg(long, value_enum, default_value_t = Class::Transient)]
    class: Class,

    /// At most so many attempts
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroU32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a policy is made of; which of it a kind has, the policy itself knows.
#[derive(Debug, Args)]
#[group(id = "options", conflicts_with = "config", multiple = true)]
struct Options {
    /// exponential: the delay after the first failed attempt, such as `200ms`
    #[arg(long, value_name = "DURATION")]
    initial: Option<String>,

    /// exponential: what each further delay is multiplied by
    #[arg(long, value_name = "N")]
    factor: Option<f64>,

    /// exponential, optimal: the longest delay
    #[arg(long, value_name = "DURATION")]
    max_delay: Option<String>,

    /// fixed: the delay
    #[arg(long, value_name = "DURATION", required_if_eq("kind", "fixed"))]
    delay: Option<String>,

    /// list: the delays, in order
    #[arg(long, value_name = "DURATION,…", value_delimiter = ',', required_if_eq("kind", "list"))]
    delays: Option<Vec<String>>,

    /// optimal: what it brings if an event is handled
    #[arg(long, value_name = "COST")]
    success: Option<f64>,

    /// optimal: what an attempt costs
    #[arg(long, value_name = "COST")]
    attempt: Option<f64>,

    /// optimal: what a second of delay costs
    #[arg(long, value_name = "COST")]
    delay_per_s: Option<f64>,

    /// optimal: what it costs if an event is given up
    #[arg(long, value_name = "COST")]
    loss: Option<f64>,

    /// Most attempts, the first one included
    #[arg(long, value_name = "N")]
    max_attempts: Option<u64>,

    /// How much of each delay is random, 0 to 1
    #[arg(long, value_name = "SHARE")]
    jitter: Option<f64>,

    /// How old an event may get
    #[arg(long, value_name = "DURATION")]
    deadline: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Exponential,
    Fixed,
    List,
    Never,
    Optimal,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    Transient,
    Throttled,
    Permanent,
    Malformed,
    Timeout,
    Panic,
    Filtered,
    Shed,
}

impl From<Class> for ErrorClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Transient => Self::Transient,
            Class::Throttled => Self::Throttled,
            Class::Permanent => Self::Permanent,
            Class::Malformed => Self::Malformed,
            Class::Timeout => Self::Timeout,
            Class::Panic => Self::Panic,
            Class::Filtered => Self::Filtered,
            Class::Shed => Self::Shed,
        }
    }
}

/// Why there is no policy to explain.
#[derive(Debug, Error)]
pub(in crate::cli) enum ExplainError {
    /// The options make none.
    #[error("--kind {kind}: {what}")]
    Options {
        /// Which policy it was to be.
        kind: String,
        /// What is wrong.
        what: String,
    },
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file has no such policy.
    #[error("there is no policy `{name}` in {}; there is {known}", file.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        file: PathBuf,
        /// The policies that there are, in words.
        known: String,
    },
    /// The plot has no place.
    #[error("--svg: {} cannot be written: {error}", file.display())]
    Plot {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Explain {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if let (Some(data), Some(subscription)) = (&self.data, &self.name) {
            let policy = self.of_options("optimal")?;
            let learned = Learned { data: data.clone(), subscription, json: self.json, svg: self.svg.as_deref() };
            return learned.tell(&policy);
        }
        let policy = self.policy()?;
        let plan = plan(&*policy.policy(), self.class.into(), self.limit.get());
        print(&if self.json { format!("{:#}\n", json(&policy, &plan)) } else { text(&policy, &plan) })
    }

    fn policy(&self) -> Result<PolicyConfig, ExplainError> {
        let (Some(file), Some(name)) = (&self.config, &self.name) else {
            let kind = self.kind.as_ref().and_then(ValueEnum::to_possible_value);
            return self.of_options(&kind.map(|kind| kind.get_name().to_owned()).unwrap_or_default());
        };
        let config = Config::read(file)?;
        config.policies.get(name).cloned().ok_or_else(|| {
            let known = listed(config.policies.keys().map(String::as_str));
            ExplainError::Unknown { name: name.clone(), file: file.clone(), known }
        })
    }

    fn of_options(&self, kind: &str) -> Result<PolicyConfig, ExplainError> {
        let (kind, value) = (kind.to_owned(), self.options.table(kind));
        PolicyConfig::try_from(value).map_err(|what| {
            // The keys of the file are the options, but for this.
            let what = what
                .replace("max_attempts", "max-attempts")
                .replace("max_delay", "max-delay")
                .replace("delay_per_s", "delay-per-s");
            ExplainError::Options { kind, what }
        })
    }
}

impl Options {
    /// The policy as the configuration file would have it.
    fn table(&self, kind: &str) -> Value {
        let pairs = [
            ("kind", Some(json!(kind))),
            ("initial", self.initial.as_ref().map(|value| json!(value))),
            ("factor", self.factor.map(|value| json!(value))),
            ("max_delay", self.max_delay.as_ref().map(|value| json!(value))),
            ("delay", self.delay.as_ref().map(|value| json!(value))),
            ("delays", self.delays.as_ref().map(|value| json!(value))),
            ("success", self.success.map(|value| json!(value))),
            ("attempt", self.attempt.map(|value| json!(value))),
            ("delay_per_s", self.delay_per_s.map(|value| json!(value))),
            ("loss", self.loss.map(|value| json!(value))),
            ("max_attempts", self.max_attempts.map(|value| json!(value))),
            ("jitter", self.jitter.map(|value| json!(value))),
            ("deadline", self.deadline.as_ref().map(|value| json!(value))),
        ];
        let given = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

fn json(policy: &PolicyConfig, plan: &Plan) -> Value {
    let millis = |(shortest, longest): (Duration, Duration)| [shortest, longest].map(|time| time.as_secs_f64() * 1e3);
    let attempts = plan.attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number,
            "wait_ms": millis(attempt.wait),
            "at_ms": millis(attempt.at),
            "certain": attempt.certain,
        })
    });
    json!({
        "policy": policy,
        "class": plan.class,
        "attempts": attempts.collect::<Value>(),
        "then": if plan.cut { "more" } else { "dead_letter" },
    })
}

fn text(policy: &PolicyConfig, plan: &Plan) -> String {
    let policy = serde_json::to_value(policy).unwrap_or_default();
    let pairs = policy.as_object().into_iter().flatten().filter(|(key, _)| *key != "kind");
    let said: Vec<_> = pairs.map(|(key, value)| format!("{key} = {value}")).collect();
    let kind = policy["kind"].as_str().unwrap_or_default();
    let said = if said.is_empty() { "all by default".to_owned() } else { said.join(", ") };
    let said = if kind == "never" { String::new() } else { format!(" ({said})") };
    format!("{kind}{said}, {plan}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_every_kind_can_be_asked_for() {
        let names: Vec<_> = Class::value_variants().iter().map(|class| ErrorClass::from(*class)).collect();
        assert_eq!(names, ErrorClass::ALL);
        for class in Class::value_variants() {
            let name = class.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(name, ErrorClass::from(*class).to_string());
        }
    }
}
