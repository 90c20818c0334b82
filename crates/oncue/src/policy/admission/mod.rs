//! Whether an event is handled at all when more come than can be: a decision by what it is worth and what it costs.

mod intake;
mod model;

use std::time::Duration;

pub use intake::AdmissionState;
pub(crate) use intake::{Arrived, Intake, Shed};

/// Sheds load by what it is worth. `value` is what a handled event is worth, `waiting_per_s` what it costs that one event waits or is handled
/// for a second, in the same unit.
///
/// How many come, how long handling takes and how many wait is measured; a decision process is solved of that, beside all else. Each event is looked at once,
/// when it is about to be handled: if it is worth less than what keeping it costs those behind it, it is a dead letter of the class
/// [`Shed`](super::ErrorClass::Shed), whose error says why. Redriven, it is handled. Where fewer come than can be handled, hardly any are shed.
///
/// ```
/// use std::time::Duration;
/// use oncue::{policy, prelude::*};
///
/// let quote = (|event: &Envelope| println!("quote {event:?}")).named("quote").types(["price.asked", "price.guessed"]);
/// let rules = policy::admission(10.0, 0.5).value_of("price.guessed", 1.0).deadline(Duration::from_secs(30));
/// # assert!(
/// quote.admission(rules)
/// # .problems().is_empty());
/// ```
#[must_use]
pub fn admission(value: f64, waiting_per_s: f64) -> Admission {
    Admission { value, waiting_per_s, values: Vec::new(), deadline: None }
}

/// See [`admission`].
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    value: f64,
    waiting_per_s: f64,
    /// By event type.
    values: Vec<(String, f64)>,
    deadline: Option<Duration>,
}

impl Admission {
    /// What an event of this type is worth, if it is handled.
    #[must_use]
    pub fn value_of(mut self, event_type: impl Into<String>, value: f64) -> Self {
        self.values.push((event_type.into(), value));
        self
    }

    /// Since it was published, an event may wait so long: handled later it is worth nothing, so that it is shed then, and before if it could
    /// hardly be handled in time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The value of each class of events: those of types that have one of their own, then all others.
    fn classes(&self) -> impl Iterator<Item = f64> {
        self.values.iter().map(|(_, value)| *value).chain([self.value])
    }

    /// The class of an event type.
    fn class_of(&self, event_type: &str) -> usize {
        self.values.iter().position(|(of, _)| of == event_type).unwrap_or(self.values.len())
    }

    /// What is wrong with the settings, each with the fix.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for value in self.classes().filter(|value| !(*value > 0.0 && value.is_finite())) {
            wrong.push(format!("a value of {value} would shed every event: give one above 0"));
        }
        if !(self.waiting_per_s > 0.0 && self.waiting_per_s.is_finite()) {
            wrong.push(format!(
                "waiting costs {} per second, so nothing would ever be shed: give more than 0",
                self.waiting_per_s
            ));
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            wrong.push("a deadline of no time would shed every event: give a longer one".to_owned());
        }
        let twice =
            (1..self.values.len()).find(|at| self.values[..*at].iter().any(|(of, _)| *of == self.values[*at].0));
        if let Some(at) = twice {
            wrong.push(format!("the value of `{}` is given twice: give it once", self.values[at].0));
        }
        wrong
    }
}
