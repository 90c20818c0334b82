//! How a handler is served, as data: a section of the file, or an override at run time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    PolicyConfig, RouteConfig, duration, learned,
    problem::{Findings, KeyPath},
    reader::{self, Table},
    route,
};
use crate::{
    filter::{Filter, LearnedFilter},
    handler::{OnDeadLetter, Order, Ordered, Retry},
    policy::LearnedPriority,
};

/// How a handler is served, as far as it is said here; what is not said is left to who comes after (see
/// [`or`](Self::or)).
///
/// It goes there and back through JSON, with durations as text. Reading JSON finds what is wrong as reading a file does.
///
/// ```
/// use oncue::config::HandlerConfig;
///
/// let config: HandlerConfig = serde_json::from_str(r#"{"concurrency": 4, "timeout": "1m30s"}"#)?;
/// assert_eq!(serde_json::to_string(&config)?, r#"{"timeout":"1m30s","concurrency":4}"#);
///
/// let wrong = serde_json::from_str::<HandlerConfig>(r#"{"concurency": 4}"#).unwrap_err();
/// assert_eq!(wrong.to_string(), "concurency: unknown key `concurency`: did you mean `concurrency`?");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct HandlerConfig {
    /// What follows a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryConfig>,
    /// Longest that one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration::serialize_option")]
    pub timeout: Option<Duration>,
    /// Most events in flight at once, of different keys; 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// How strictly order is kept within a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Ordered>,
    /// Whether the next event of a key starts once the handler has acknowledged the last one, while that is made durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipelined: Option<bool>,
    /// Which of the waiting events comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// What a dead letter does to later events of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_dead_letter: Option<OnDeadLetter>,
    /// Whether nothing is delivered for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Which events it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// What it learns of its events' ends, and which events it holds back for that.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "learned::serialize")]
    pub learned_filter: Option<LearnedFilter>,
    /// How it learns which events come first, where the order is by priority.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "learned::serialize_priority")]
    pub priority: Option<LearnedPriority>,
    /// Which of its handlers is given an event, of a [route](crate::route).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "route::serialize")]
    pub route: Option<RouteConfig>,
}

/// A retry policy: by name, or said in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Value")]
pub enum RetryConfig {
    /// The name of a policy in the file or in code.
    Named(String),
    /// The policy itself.
    Policy(PolicyConfig),
}

impl HandlerConfig {
    /// This, and for what it does not say, `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            retry: self.retry.or(other.retry),
            timeout: self.timeout.or(other.timeout),
            concurrency: self.concurrency.or(other.concurrency),
            ordered: self.ordered.or(other.ordered),
            pipelined: self.pipelined.or(other.pipelined),
            order: self.order.or(other.order),
            on_dead_letter: self.on_dead_letter.or(other.on_dead_letter),
            paused: self.paused.or(other.paused),
            filter: self.filter.or(other.filter),
            learned_filter: self.learned_filter.or(other.learned_filter),
            priority: self.priority.or(other.priority),
            route: self.route.or(other.route),
        }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with its values: `key: what, and what would be right`. What was read from text or JSON has no
    /// problems; ask for what was put together in code, or of several parts.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut findings = Findings::default();
        self.examine(&KeyPath::default(), &mut findings);
        findings.texts()
    }

    /// Reads a table and looks at its values.
    pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        let mut table = Table::of(value, path, findings)?;
        let config = Self {
            retry: table.read("retry", RetryConfig::read),
            timeout: table.read("timeout", reader::duration),
            concurrency: table.read("concurrency", reader::whole),
            ordered: table.read("ordered", |value, path, findings| {
                reader::choice(value, path, findings, &[Ordered::Strict, Ordered::Relaxed])
            }),
            pipelined: table.read("pipelined", reader::boolean),
            order: table.read("order", |value, path, findings| {
                reader::choice(value, path, findings, &[Order::Fifo, Order::Lifo, Order::Priority])
            }),
            on_dead_letter: table.read("on_dead_letter", |value, path, findings| {
                reader::choice(value, path, findings, &[OnDeadLetter::Continue, OnDeadLetter::Hold])
            }),
            paused: table.read("paused", reader::boolean),
            filter: table.read("filter", reader::any),
            learned_filter: table.read("learned_filter", learned::read),
            priority: table.read("priority", learned::read_priority),
            route: table.read("route", RouteConfig::read),
        };
        table.finish();
        config.examine(path, findings);
        Some(config)
    }

    /// Finds values that would not do what they say. The rules are those of
    /// [`Registration::problems`](crate::handler::Registration::problems).
    fn examine(&self, path: &KeyPath, findings: &mut Findings) {
        if let Some(RetryConfig::Policy(policy)) = &self.retry {
            policy.examine(&path.child("retry"), findings);
        }
        if self.concurrency == Some(0) {
            let what = "0 would never handle anything: give 1 or more, or say paused = true";
            findings.value(&path.child("concurrency"), what);
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            findings.value(&path.child("timeout"), "0 would fail every attempt: give a longer one, or none");
        }
        if self.ordered == Some(Ordered::Relaxed) && self.on_dead_letter == Some(OnDeadLetter::Hold) {
            let what =
                "\"hold\" makes later events of a key wait, and ordered = \"relaxed\" lets them pass: choose one";
            findings.value(&path.child("on_dead_letter"), what);
        }
        if self.order == Some(Order::Lifo) && self.ordered == Some(Ordered::Strict) {
            let what = "\"lifo\" gives later events of a key first, and ordered = \"strict\" never does: choose one";
            findings.value(&path.child("order"), what);
        }
    }
}

impl RetryConfig {
    /// As a handler's options take it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Named(name) => Retry::Named(name.clone()),
            Self::Policy(policy) => Retry::Policy(policy.policy()),
        }
    }

    fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        match value {
            Value::String(name) => Some(Self::Named(name.clone())),
            Value::Object(_) => PolicyConfig::read(value, path, findings).map(Self::Policy),
            other => {
                let what = "is neither the name of a policy nor a table such as { kind = \"fixed\", delay = \"1s\" }";
                findings.value(path, format!("{} {what}", reader::shown(other)));
                None
            }
        }
    }
}

impl TryFrom<Value> for HandlerConfig {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        reader::alone(&value, Self::read)
    }
}

impl TryFrom<Value> for RetryConfig {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        reader::alone(&value, |value, path, findings| {
            let retry = Self::read(value, path, findings)?;
            if let Self::Policy(policy) = &retry {
                policy.examine(path, findings);
            }
            Some(retry)
        })
    }
}
