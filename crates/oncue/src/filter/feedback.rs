//! Feedback: a later event that tells whether an earlier one was lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Label;

/// What tells whether an event was lost: a later event of its key in its topic, or that none comes in time.
///
/// ```
/// use std::time::Duration;
/// use oncue::filter;
///
/// // Lost is what is canceled within a day.
/// let canceled = filter::feedback(["order.canceled"], Duration::from_secs(86_400));
/// // Lost is what is not paid within an hour.
/// let unpaid = filter::feedback(["order.paid"], Duration::from_secs(3_600)).expected();
/// let filter = filter::learned().label(canceled).threshold(0.9);
/// # let (_, _) = (filter, unpaid);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Feedback {
    /// The types of events that are feedback.
    types: Vec<String>,
    /// How long after an event was published its feedback still counts, in microseconds.
    within_us: u64,
    /// It is lost if no feedback comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    expected: bool,
}

/// Feedback of these types: an event is lost if one of them follows it within that time, with the same key and in the
/// same topic. See [`Feedback`].
#[must_use]
pub fn feedback<S: Into<String>>(types: impl IntoIterator<Item = S>, within: Duration) -> Feedback {
    let within_us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
    Feedback { types: types.into_iter().map(Into::into).collect(), within_us, expected: false }
}

impl Feedback {
    /// Turns it round: an event is lost if none of these follows it in time.
    #[must_use]
    pub fn expected(mut self) -> Self {
        self.expected = true;
        self
    }

    /// The types of events that are feedback.
    #[must_use]
    pub fn types(&self) -> &[String] {
        &self.types
    }

    /// How long after an event was published its feedback still counts.
    #[must_use]
    pub fn within(&self) -> Duration {
        Duration::from_micros(self.within_us)
    }

    /// Whether an event is lost if no feedback comes, instead of if one does.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.expected
    }

    /// Whether an event was lost, by whether feedback came.
    pub(crate) fn lost(&self, came: bool) -> bool {
        came != self.expected
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.types.is_empty() || self.types.iter().any(String::is_empty) {
            problems.push("its feedback names no type of events: give one such as \"order.canceled\"".to_owned());
        }
        if self.within_us == 0 {
            problems.push("its feedback would have to come at once: give the time that it may take".to_owned());
        }
        problems
    }
}

impl From<Feedback> for Label {
    fn from(feedback: Feedback) -> Self {
        Self::Feedback(feedback)
    }
}

/// What became of the events that wait, or waited, for [`Feedback`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackCounts {
    /// Those that wait for it.
    pub waiting: u64,
    /// Those that it came for.
    pub came: u64,
    /// Those that it did not come for in time.
    pub stayed_out: u64,
    /// Those of which nobody knows: there was no room to remember them, or the feedback that may have come before their
    /// handler was through.
    pub unknown: u64,
}
