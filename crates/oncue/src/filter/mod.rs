//! Filters: which events somebody wants, by their attributes.
//!
//! The six filter dialects that the `CloudEvents` Subscriptions API makes mandatory (`exact`, `prefix`, `suffix`, `all`,
//! `any`, `not`), in its JSON form and in the same form as TOML. Source:
//! <https://github.com/cloudevents/spec/blob/main/subscriptions/spec.md#324-filters>.
//!
//! ```
//! use oncue::{Envelope, filter::Filter};
//!
//! let filter = Filter::exact("type", "order.created").and(!Filter::prefix("subject", "test-"));
//! assert_eq!(filter.to_string(), r#"type = "order.created" and not subject prefix "test-""#);
//!
//! let json = r#"{"all":[{"exact":{"type":"order.created"}},{"not":{"prefix":{"subject":"test-"}}}]}"#;
//! assert_eq!(serde_json::from_str::<Filter>(json)?, filter);
//!
//! let event = Envelope::builder("order.created").subject("o-1").build()?;
//! assert!(filter.matches(&event));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`FilterIndex`] finds the filters, among many, that match an event. A [`LearnedFilter`] learns from what became of
//! events which of them are lost anyhow.

mod attribute;
mod dialect;
mod features;
mod feedback;
mod index;
mod learned;
mod text;
mod validity;

use std::ops::Not;

use self::attribute::Attribute;
pub(crate) use self::features::{kind_of, of as features_of, part_of_data};
pub use self::{
    feedback::{Feedback, FeedbackCounts, feedback},
    index::FilterIndex,
    learned::{DEFAULT_EXPLORE, Estimate, Label, LearnedFilter, Lessons, learned},
    validity::{InvalidFilter, MAX_FILTER_DEPTH, MAX_FILTER_NODES},
};
use crate::event::Envelope;
pub use oncue_learn::{Features, Learner, Loss, Progress, Verdict};

/// Which events somebody wants. Immutable.
///
/// A filter that is built is checked where it is used ([`validate`](Self::validate)); one that is read (JSON, TOML) is
/// valid. An attribute that an event does not have matches nothing, so that `not` of it matches. All comparisons are
/// case sensitive; `time` is compared as its RFC 3339 text in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Expression);

/// What a filter is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Expression {
    /// All of these attributes pass the test. In the order of their names.
    Attributes(Test, Vec<(Attribute, Box<str>)>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    /// What was built is past a limit. Nothing of it is kept, so that nothing that walks a filter can be made to
    /// recurse further than the limit; it matches nothing, alone or in whatever it is joined to.
    Refused(InvalidFilter),
}

/// How an attribute is compared with a given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    Exact,
    Prefix,
    Suffix,
}

impl Test {
    fn holds(self, value: &[u8], wanted: &[u8]) -> bool {
        match self {
            Self::Exact => equal(value, wanted),
            Self::Prefix => value.get(..wanted.len()).is_some_and(|front| equal(front, wanted)),
            Self::Suffix => {
                let at = value.len().checked_sub(wanted.len());
                at.and_then(|at| value.get(at..)).is_some_and(|back| equal(back, wanted))
            }
        }
    }
}

/// What `==` says. That calls a function of the C library, which for texts as short as attributes takes longer.
#[inline]
fn equal(one: &[u8], other: &[u8]) -> bool {
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(end), Some(other_end)) => {
            let chunks = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
            one.len() == other.len() && end == other_end && chunks.into_iter().all(|(one, other)| one == other)
        }
        (None, None) => one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other),
        _ => false,
    }
}

impl Filter {
    /// Events whose attribute has this value.
    ///
    /// The attribute is one of `id`, `source`, `type`, `subject`, `datacontenttype`, `dataschema`, `time`,
    /// `partitionkey`, or the name of an extension.
    #[must_use]
    pub fn exact(attribute: &str, value: impl Into<String>) -> Self {
        Self::attribute(Test::Exact, attribute, value.into())
    }

    /// Events whose attribute begins with this text.
    #[must_use]
    pub fn prefix(attribute: &str, value: impl Into<String>) -> Self {
        Self::attribute(Test::Prefix, attribute, value.into())
    }

    /// Events whose attribute ends with this text.
    #[must_use]
    pub fn suffix(attribute: &str, value: impl Into<String>) -> Self {
        Self::attribute(Test::Suffix, attribute, value.into())
    }

    fn attribute(test: Test, attribute: &str, value: String) -> Self {
        Self(Expression::Attributes(test, vec![(Attribute::named(attribute), value.into_boxed_str())]))
    }

    /// Events that match every one of these filters. There must be at least one.
    #[must_use]
    pub fn all(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::of(Expression::All(filters.into_iter().map(|filter| filter.0).collect()))
    }

    /// Events that match at least one of these filters. There must be at least one.
    #[must_use]
    pub fn any(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::of(Expression::Any(filters.into_iter().map(|filter| filter.0).collect()))
    }

    /// Events that match both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let parts = |Self(filter)| if let Expression::All(parts) = filter { parts } else { vec![filter] };
        Self::of(Expression::All([parts(self), parts(other)].concat()))
    }

    /// Events that match this one or the other, or both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let parts = |Self(filter)| if let Expression::Any(parts) = filter { parts } else { vec![filter] };
        Self::of(Expression::Any([parts(self), parts(other)].concat()))
    }

    /// Events that do not match; the same as `!filter`.
    #[must_use]
    pub fn negate(self) -> Self {
        match self.0 {
            Expression::Not(inner) => Self(*inner),
            filter => Self::of(Expression::Not(Box::new(filter))),
        }
    }

    /// Whether the event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Envelope) -> bool {
        self.0.matches(event)
    }

    /// Whether this is a filter that the specification and the limits allow.
    ///
    /// # Errors
    /// The first thing that is wrong, where it stands (such as `all[1].not.prefix`), and how to mend it.
    pub fn validate(&self) -> Result<(), InvalidFilter> {
        validity::check(&self.0, None)
    }

    /// Every filter is made here: the limits hold for each that exists.
    fn of(expression: Expression) -> Self {
        Self(match validity::past_limits(&expression) {
            Some(refused) => Expression::Refused(refused),
            None => expression,
        })
    }
}

impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        self.negate()
    }
}

impl Expression {
    fn matches(&self, event: &Envelope) -> bool {
        match self {
            Self::Attributes(test, pairs) => pairs.iter().all(|(attribute, wanted)| {
                let mut room = None;
                attribute.of(event, &mut room).is_some_and(|value| test.holds(value, wanted.as_bytes()))
            }),
            Self::All(parts) => parts.iter().all(|part| part.matches(event)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(event)),
            Self::Not(part) => !part.matches(event),
            Self::Refused(_) => false,
        }
    }
}
