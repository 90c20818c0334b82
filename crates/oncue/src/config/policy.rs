//! Retry policies as data.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    duration,
    problem::{Findings, KeyPath},
    reader::{self, Table},
    suggestion::suggestion,
};
use crate::policy::{self, Costs, DEFAULT_INITIAL, DEFAULT_MAX_DELAY, Policy};

/// The kinds of policies, as `kind` names them.
const KINDS: [&str; 5] = ["exponential", "fixed", "list", "never", "optimal"];

/// A retry policy as data: which one, and what of it is not as by default. See [`crate::policy`] for what each does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", try_from = "Value")]
pub enum PolicyConfig {
    /// Delays that grow: [`policy::exponential`].
    Exponential {
        /// The delay after the first failed attempt.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration::serialize_option")]
        initial: Option<Duration>,
        /// What each further delay is multiplied by; 1 or more.
        #[serde(skip_serializing_if = "Option::is_none")]
        factor: Option<f64>,
        /// The longest delay.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration::serialize_option")]
        max_delay: Option<Duration>,
        /// When to give up.
        #[serde(flatten)]
        limits: PolicyLimits,
    },
    /// The same delay each time: [`policy::fixed`].
    Fixed {
        /// The delay.
        #[serde(serialize_with = "duration::serialize")]
        delay: Duration,
        /// When to give up.
        #[serde(flatten)]
        limits: PolicyLimits,
    },
    /// These delays, in order: [`policy::list`].
    List {
        /// The delays; at least one.
        #[serde(serialize_with = "duration::serialize_list")]
        delays: Vec<Duration>,
        /// When to give up.
        #[serde(flatten)]
        limits: PolicyLimits,
    },
    /// No second attempt: [`policy::never()`].
    Never,
    /// Delays that are computed: [`policy::optimal()`].
    Optimal {
        /// What it brings if an event is handled; see [`Costs`].
        #[serde(skip_serializing_if = "Option::is_none")]
        success: Option<f64>,
        /// What an attempt costs.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<f64>,
        /// What a second of delay costs.
        #[serde(skip_serializing_if = "Option::is_none")]
        delay_per_s: Option<f64>,
        /// What it costs if an event is given up.
        #[serde(skip_serializing_if = "Option::is_none")]
        loss: Option<f64>,
        /// The longest delay.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration::serialize_option")]
        max_delay: Option<Duration>,
        /// What its handler calls and that may be down.
        #[serde(skip_serializing_if = "Option::is_none")]
        dependency: Option<String>,
        /// When to give up.
        #[serde(flatten)]
        limits: PolicyLimits,
    },
}

/// What bounds every policy that retries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PolicyLimits {
    /// Most attempts, the first one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How much of each delay is random, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// How old an event may get (since it was published).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration::serialize_option")]
    pub deadline: Option<Duration>,
}

/// `policy` with what `limits` says. (The policies have setters of the same names, and no trait for them.)
macro_rules! limited {
    ($policy:expr, $limits:expr) => {{
        let mut policy = $policy;
        let PolicyLimits { max_attempts, jitter, deadline } = $limits;
        if let Some(attempts) = max_attempts {
            policy = policy.max_attempts(*attempts);
        }
        if let Some(share) = jitter {
            policy = policy.jitter(*share);
        }
        if let Some(age) = deadline {
            policy = policy.deadline(*age);
        }
        Arc::new(policy)
    }};
}

impl PolicyConfig {
    /// The policy itself. What the data does not say is as that policy has it by default.
    #[must_use]
    pub fn policy(&self) -> Arc<dyn Policy> {
        match self {
            Self::Exponential { initial, factor, max_delay, limits } => {
                let mut policy = policy::exponential();
                if let Some(delay) = initial {
                    policy = policy.initial(*delay);
                }
                if let Some(factor) = factor {
                    policy = policy.factor(*factor);
                }
                if let Some(delay) = max_delay {
                    policy = policy.max_delay(*delay);
                }
                limited!(policy, limits)
            }
            Self::Fixed { delay, limits } => limited!(policy::fixed(*delay), limits),
            Self::List { delays, limits } => limited!(policy::list(delays.iter().copied()), limits),
            Self::Never => Arc::new(policy::never()),
            Self::Optimal { max_delay, dependency, limits, .. } => {
                let mut policy = policy::optimal().costs(self.costs().unwrap_or_default());
                if let Some(delay) = max_delay {
                    policy = policy.max_delay(*delay);
                }
                if let Some(name) = dependency {
                    policy = policy.dependency(name);
                }
                limited!(policy, limits)
            }
        }
    }

    /// What events are worth, if the policy is one that is computed of that.
    #[must_use]
    pub fn costs(&self) -> Option<Costs> {
        let Self::Optimal { success, attempt, delay_per_s, loss, .. } = self else { return None };
        let default = Costs::default();
        Some(Costs {
            success: success.unwrap_or(default.success),
            attempt: attempt.unwrap_or(default.attempt),
            delay_per_s: delay_per_s.unwrap_or(default.delay_per_s),
            loss: loss.unwrap_or(default.loss),
        })
    }

    /// What is wrong with its values: `key: what, and what would be right`. What was read from text or JSON has no
    /// problems; ask for what was put together in code.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut findings = Findings::default();
        self.examine(&KeyPath::default(), &mut findings);
        findings.texts()
    }

    /// Reads a table. What is wrong with its values is not looked at: that is for [`examine`](Self::examine).
    pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        let mut table = Table::of(value, path, findings)?;
        let kind = table.required("kind", "\"exponential\"", reader::text)?;
        let policy = match kind.as_str() {
            "exponential" => Self::Exponential {
                initial: table.read("initial", reader::duration),
                factor: table.read("factor", reader::number),
                max_delay: table.read("max_delay", reader::duration),
                limits: PolicyLimits::read(&mut table),
            },
            // A value in place of what is missing lets the other keys be looked at: the finding stops the whole.
            "fixed" => Self::Fixed {
                delay: table.required("delay", "\"1s\"", reader::duration).unwrap_or_default(),
                limits: PolicyLimits::read(&mut table),
            },
            "list" => Self::List {
                delays: table
                    .required("delays", "[\"1s\", \"10s\"]", reader::durations)
                    .unwrap_or_else(|| vec![Duration::ZERO]),
                limits: PolicyLimits::read(&mut table),
            },
            "never" => Self::Never,
            "optimal" => Self::Optimal {
                success: table.read("success", reader::number),
                attempt: table.read("attempt", reader::number),
                delay_per_s: table.read("delay_per_s", reader::number),
                loss: table.read("loss", reader::number),
                max_delay: table.read("max_delay", reader::duration),
                dependency: table.read("dependency", reader::text),
                limits: PolicyLimits::read(&mut table),
            },
            other => {
                let meant = suggestion(other, KINDS, "kinds");
                let key = table.path.child("kind");
                table.findings.value(&key, format!("{other:?} is no kind of retry policy: {meant}"));
                return None;
            }
        };
        table.finish();
        Some(policy)
    }

    /// Finds values that would not do what they say.
    pub(super) fn examine(&self, path: &KeyPath, findings: &mut Findings) {
        let limits = match self {
            Self::Exponential { initial, factor, max_delay, limits } => {
                let (first, longest) = (initial.unwrap_or(DEFAULT_INITIAL), max_delay.unwrap_or(DEFAULT_MAX_DELAY));
                if first > longest {
                    let (first, longest) = (duration::text(first), duration::text(longest));
                    let at = path.child(if initial.is_some() { "initial" } else { "max_delay" });
                    findings.value(
                        &at,
                        format!("the first delay, {first}, is longer than the longest, {longest}: raise max_delay or lower initial"),
                    );
                }
                if factor.is_some_and(|factor| !(factor.is_finite() && factor >= 1.0)) {
                    findings.value(&path.child("factor"), "delays never shrink: give 1 or more");
                }
                limits
            }
            Self::Fixed { limits, .. } => limits,
            Self::List { delays, limits } => {
                if delays.is_empty() {
                    findings.value(&path.child("delays"), "no delay is no retry: list one, or say kind = \"never\"");
                }
                limits
            }
            Self::Optimal { limits, .. } => {
                if let Some(Err(error)) = self.costs().map(|costs| costs.check()) {
                    findings.value(&path.child(error.what()), error.to_string());
                }
                limits
            }
            Self::Never => return,
        };
        if limits.max_attempts == Some(0) {
            findings.value(&path.child("max_attempts"), "the first attempt counts too: give 1 or more");
        }
        if limits.jitter.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            findings.value(&path.child("jitter"), "the random share of a delay is between 0 and 1");
        }
        if limits.deadline.is_some_and(|age| age.is_zero()) {
            let what = "no event is young enough for a retry: give a longer one, or say kind = \"never\"";
            findings.value(&path.child("deadline"), what);
        }
    }
}

impl PolicyLimits {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            max_attempts: table.read("max_attempts", reader::whole),
            jitter: table.read("jitter", reader::number),
            deadline: table.read("deadline", reader::duration),
        }
    }
}

impl TryFrom<Value> for PolicyConfig {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        reader::alone(&value, |value, path, findings| {
            let policy = Self::read(value, path, findings)?;
            policy.examine(path, findings);
            Some(policy)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::{Decision, ErrorClass, Failure, exponential, fixed, list};

    fn of(value: Value) -> Result<PolicyConfig, String> {
        value.try_into()
    }

    /// What follows each of the first attempts, at the longest that jitter allows and at the shortest.
    fn decisions(policy: &dyn Policy) -> Vec<Decision> {
        let of = |attempt, random| {
            let failure = Failure {
                attempt,
                class: ErrorClass::Transient,
                error: "",
                age: Duration::from_secs(59),
                failing_for: Duration::ZERO,
                random,
            };
            policy.decide(&failure)
        };
        (1..12).flat_map(|attempt| [of(attempt, 0.0), of(attempt, 0.9)]).collect()
    }

    #[test]
    fn the_policy_is_the_one_that_code_would_make() {
        let seconds = Duration::from_secs;
        let costs = Costs { success: 1.0, attempt: 0.5, delay_per_s: 0.1, loss: 90.0 };
        let pairs: [(Value, Arc<dyn Policy>); 8] = [
            (json!({"kind": "exponential"}), Arc::new(exponential())),
            (
                json!({"kind": "exponential", "initial": "2s", "factor": 3, "max_delay": "1m", "max_attempts": 5,
                       "jitter": 0.25, "deadline": "1h"}),
                Arc::new(
                    exponential()
                        .initial(seconds(2))
                        .factor(3.0)
                        .max_delay(seconds(60))
                        .max_attempts(5)
                        .jitter(0.25)
                        .deadline(seconds(3_600)),
                ),
            ),
            (json!({"kind": "fixed", "delay": "3s"}), Arc::new(fixed(seconds(3)))),
            (
                json!({"kind": "fixed", "delay": "3s", "deadline": "1m", "jitter": 1, "max_attempts": 2}),
                Arc::new(fixed(seconds(3)).deadline(seconds(60)).jitter(1.0).max_attempts(2)),
            ),
            (
                json!({"kind": "list", "delays": ["1s", "1m"], "max_attempts": 4}),
                Arc::new(list([seconds(1), seconds(60)]).max_attempts(4)),
            ),
            (json!({"kind": "never"}), Arc::new(policy::never())),
            (json!({"kind": "optimal"}), Arc::new(policy::optimal())),
            (
                json!({"kind": "optimal", "success": 1, "attempt": 0.5, "delay_per_s": 0.1, "loss": 90, "max_delay": "20s",
                       "max_attempts": 7, "jitter": 0.5, "deadline": "10m", "dependency": "bank"}),
                Arc::new(
                    policy::optimal()
                        .costs(costs)
                        .max_delay(seconds(20))
                        .max_attempts(7)
                        .jitter(0.5)
                        .deadline(seconds(600))
                        .dependency("bank"),
                ),
            ),
        ];
        for (value, expected) in pairs {
            let policy = of(value.clone()).unwrap().policy();
            assert_eq!(decisions(&*policy), decisions(&*expected), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let wrong = |value| of(value).unwrap_err();
        assert_eq!(
            wrong(json!({"kind": "exponental"})),
            "kind: \"exponental\" is no kind of retry policy: did you mean `exponential`?"
        );
        assert_eq!(wrong(json!({})), "`kind` is missing: add kind = \"exponential\"");
        assert_eq!(wrong(json!(7)), "7 is not a table");
        assert_eq!(
            wrong(json!({"kind": "fixed", "jitter": 2, "factor": 2})),
            "`delay` is missing: add delay = \"1s\"; factor: unknown key `factor`: the keys are kind, delay, \
             max_attempts, jitter, deadline; jitter: the random share of a delay is between 0 and 1"
        );
        assert!(wrong(json!({"kind": "never", "max_attempts": 3})).contains("unknown key `max_attempts`"));
        assert!(wrong(json!({"kind": "list", "delays": []})).contains("kind = \"never\""));
        assert!(wrong(json!({"kind": "list", "delays": ["1s", 5]})).starts_with("delays[1]: 5 has no unit"));
        assert!(wrong(json!({"kind": "exponential", "factor": 0.5})).starts_with("factor: delays never shrink"));
        assert!(
            wrong(json!({"kind": "exponential", "initial": "10m"})).contains("10m, is longer than the longest, 5m")
        );
        assert!(wrong(json!({"kind": "exponential", "max_delay": "1ms"})).starts_with("max_delay: the first delay"));
        assert!(wrong(json!({"kind": "exponential", "max_attempts": 0})).starts_with("max_attempts: "));
        assert!(wrong(json!({"kind": "exponential", "max_attempts": 5_000_000_000_u64})).contains("below 4294967296"));
        assert!(wrong(json!({"kind": "exponential", "deadline": "0s"})).starts_with("deadline: "));
        let cheap = wrong(json!({"kind": "optimal", "loss": 0.01}));
        assert!(
            cheap.starts_with("loss: ") && cheap.contains("every failure would be a dead letter at once"),
            "{cheap}"
        );
        assert!(wrong(json!({"kind": "optimal", "attempt": 0})).starts_with("attempt: "));
    }

    #[test]
    fn data_made_in_code_is_examined_too() {
        let limits = PolicyLimits { jitter: Some(f64::NAN), ..PolicyLimits::default() };
        assert_eq!(PolicyConfig::Fixed { delay: Duration::ZERO, limits }.problems().len(), 1);
        assert_eq!(PolicyConfig::Never.problems(), [""; 0]);
    }
}
