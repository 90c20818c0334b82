//! What a policy would do with an event that keeps failing: for people to read before it happens.

use std::{fmt, time::Duration};

use super::{Decision, ErrorClass, Failure, Policy};

/// The largest number below 1: [`Failure::random`] is never 1.
const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

/// One attempt of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedAttempt {
    /// Which attempt: 1 is the first.
    pub number: u32,
    /// The wait before it: shortest and longest, as jitter makes it.
    pub wait: (Duration, Duration),
    /// When it starts, counted from publishing: earliest and latest.
    pub at: (Duration, Duration),
    /// Whether it happens whatever the jitter: near a deadline, long waits may leave it out.
    pub certain: bool,
}

/// The attempts that a policy makes for an event that fails each time, as fast as it can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How each attempt fails.
    pub class: ErrorClass,
    /// The attempts, in order; there is at least the first.
    pub attempts: Vec<PlannedAttempt>,
    /// Whether the policy would go on: the plan was cut at the number asked for.
    pub cut: bool,
}

/// The plan of `policy` for an event whose attempts all fail with `class`, cut after `most` attempts.
///
/// It asks the policy itself, at both ends of its jitter, so it holds for any policy. The time that the attempts
/// themselves take is not in it.
#[must_use]
pub fn plan(policy: &dyn Policy, class: ErrorClass, most: u32) -> Plan {
    // Delays may shrink or grow with the random number: the ends are told apart afterwards.
    let (one, one_cut) = trace(policy, class, 0.0, most);
    let (other, other_cut) = trace(policy, class, ALMOST_ONE, most);
    let (longer, shorter) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    let attempts = longer.iter().enumerate().map(|(index, here)| {
        let there = shorter.get(index).unwrap_or(here);
        PlannedAttempt {
            number: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
            wait: (here.0.min(there.0), here.0.max(there.0)),
            at: (here.1.min(there.1), here.1.max(there.1)),
            certain: index < shorter.len(),
        }
    });
    Plan { class, attempts: attempts.collect(), cut: one_cut || other_cut }
}

/// (wait, age at start) of each attempt when the random number is always `random`, and whether `most` cut it.
fn trace(policy: &dyn Policy, class: ErrorClass, random: f64, most: u32) -> (Vec<(Duration, Duration)>, bool) {
    let mut attempts = vec![(Duration::ZERO, Duration::ZERO)];
    let mut age = Duration::ZERO;
    for attempt in 1.. {
        let failure = Failure { attempt, class, error: "planned", age, failing_for: age, random };
        let Decision::Retry(wait) = policy.decide(&failure) else { break };
        if attempt >= most {
            return (attempts, true);
        }
        age = age.saturating_add(wait);
        attempts.push((wait, age));
    }
    (attempts, false)
}

impl fmt::Display for Plan {
    /// One line an attempt, and what follows the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = |(from, to): (Duration, Duration)| {
            if from == to { format!("{from:?}") } else { format!("{from:.1?} to {to:.1?}") }
        };
        writeln!(f, "when each attempt fails ({}):", self.class)?;
        for attempt in &self.attempts {
            let unsure = if attempt.certain { "" } else { " (only if jitter leaves time for it)" };
            if attempt.number == 1 {
                writeln!(f, "  attempt 1 at once")?;
            } else {
                let (wait, at) = (between(attempt.wait), between(attempt.at));
                writeln!(f, "  attempt {} after {wait}, {at} from publishing{unsure}", attempt.number)?;
            }
        }
        f.write_str(if self.cut { "  and so on" } else { "  then a dead letter" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{exponential, fixed, never};

    #[test]
    fn the_plan_of_an_exact_policy_is_exact() {
        let policy = exponential().initial(Duration::from_secs(1)).jitter(0.0).max_attempts(4);
        let plan = plan(&policy, ErrorClass::Transient, 100);
        let at: Vec<_> = plan.attempts.iter().map(|attempt| attempt.at.0.as_secs()).collect();
        assert_eq!(at, [0, 1, 3, 7]);
        assert!(plan.attempts.iter().all(|attempt| attempt.certain && attempt.at.0 == attempt.at.1) && !plan.cut);
        assert_eq!(
            plan.to_string(),
            "when each attempt fails (transient):\n  attempt 1 at once\n  attempt 2 after 1s, 1s from publishing\n  \
             attempt 3 after 2s, 3s from publishing\n  attempt 4 after 4s, 7s from publishing\n  then a dead letter"
        );
    }

    #[test]
    fn jitter_and_a_deadline_make_late_attempts_uncertain() {
        let policy = fixed(Duration::from_secs(4)).jitter(1.0).deadline(Duration::from_secs(5)).max_attempts(3);
        let plan = plan(&policy, ErrorClass::Timeout, 100);
        let certain: Vec<_> = plan.attempts.iter().map(|attempt| attempt.certain).collect();
        assert_eq!(certain, [true, true, false]);
    }

    #[test]
    fn one_attempt_for_never_and_for_what_cannot_be_retried() {
        assert_eq!(plan(&never(), ErrorClass::Transient, 100).attempts.len(), 1);
        assert_eq!(plan(&exponential(), ErrorClass::Malformed, 100).attempts.len(), 1);
    }

    #[test]
    fn a_plan_without_end_is_cut() {
        let plan = plan(&fixed(Duration::ZERO).max_attempts(u32::MAX), ErrorClass::Transient, 7);
        assert!(plan.cut && plan.attempts.len() == 7 && plan.to_string().ends_with("and so on"));
    }
}
