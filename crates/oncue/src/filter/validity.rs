//! What makes a filter valid, and where it is not.

use std::fmt;

use thiserror::Error;

use super::{Expression, Test, attribute::Attribute};

/// Most filters within one another, the outermost counted: `{"not": {"exact": …}}` has two.
pub const MAX_FILTER_DEPTH: usize = 16;
/// Most parts of one filter: each `all`, `any` and `not` is one, and each pair of an attribute and a value.
pub const MAX_FILTER_NODES: usize = 256;

/// Most characters of an attribute's name.
const MAX_NAME: usize = 20;

/// Why a filter is refused, and where in it: `all[1].not.prefix` is the `prefix` in the `not` that is the second part of
/// the outermost `all`.
#[derive(Debug, Error, Clone, PartialEq, Eq, Hash)]
pub enum InvalidFilter {
    /// No attribute can have this name.
    #[error("filter, at {at}: `{name}` is no attribute name: write lower-case letters and digits, at most {MAX_NAME}")]
    Name {
        /// Where.
        at: String,
        /// The name.
        name: String,
    },
    /// An attribute is named twice in one place.
    #[error(
        "filter, at {at}: `{name}` stands twice: put each into an `exact`, `prefix` or `suffix` of its own, in `all`"
    )]
    Twice {
        /// Where.
        at: String,
        /// The attribute.
        name: String,
    },
    /// `exact`, `prefix` or `suffix` names no attribute.
    #[error("filter, at {at}: names no attribute: write at least one, such as \"type\": \"order.created\"")]
    NoAttribute {
        /// Where.
        at: String,
    },
    /// The value to compare with is empty, which no attribute is.
    #[error("filter, at {at}: the value for `{name}` is empty: write some text, or leave `{name}` out")]
    EmptyValue {
        /// Where.
        at: String,
        /// The attribute.
        name: String,
    },
    /// `all` or `any` without a filter.
    #[error("filter, at {at}: the list is empty: write at least one filter, or leave it out")]
    EmptyList {
        /// Where.
        at: String,
    },
    /// Too many filters within one another.
    #[error(
        "filter, at {at}: more than {MAX_FILTER_DEPTH} filters within one another (MAX_FILTER_DEPTH): write nested \
         `all` or `any` as one list"
    )]
    TooDeep {
        /// Where.
        at: String,
    },
    /// Too many parts.
    #[error(
        "filter, at {at}: more than {MAX_FILTER_NODES} parts (MAX_FILTER_NODES): divide it between several subscriptions"
    )]
    TooLarge {
        /// Where the part is that is one too many.
        at: String,
    },
    /// A filter names no dialect, or several.
    #[error("filter, at {at}: has {found} dialects and must have one: put several into `all`")]
    Dialects {
        /// Where.
        at: String,
        /// How many it has; 2 if it has more.
        found: usize,
    },
    /// The dialect is not one of those that are understood.
    #[error(
        "filter, at {at}: `{dialect}` is no filter dialect here: there are exact, prefix, suffix, all, any and not"
    )]
    UnknownDialect {
        /// Where.
        at: String,
        /// What is written there.
        dialect: String,
    },
}

/// A place within a filter.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) above: Option<&'a Place<'a>>,
    pub(super) step: Step,
}

/// The last step to a place.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Dialect(&'static str),
    Index(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            write!(f, "{above}")?;
        }
        match self.step {
            Step::Dialect(name) if self.above.is_some() => write!(f, ".{name}"),
            Step::Dialect(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The text of a place; of none it is the outermost filter.
pub(super) fn at(place: Option<&Place<'_>>) -> String {
    place.map_or_else(|| "the top".to_owned(), Place::to_string)
}

impl Test {
    pub(super) fn dialect(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Suffix => "suffix",
        }
    }
}

/// The first thing that is wrong within `expression`, which stands at `above`.
pub(super) fn check(expression: &Expression, above: Option<&Place<'_>>) -> Result<(), InvalidFilter> {
    let place = |dialect| Place { above, step: Step::Dialect(dialect) };
    match expression {
        Expression::Attributes(test, pairs) => check_pairs(&place(test.dialect()), pairs),
        Expression::All(parts) => check_list(&place("all"), parts),
        Expression::Any(parts) => check_list(&place("any"), parts),
        Expression::Not(part) => check(part, Some(&place("not"))),
        Expression::Refused(refused) => Err(refused.clone()),
    }
}

fn check_list(place: &Place<'_>, parts: &[Expression]) -> Result<(), InvalidFilter> {
    if parts.is_empty() {
        return Err(InvalidFilter::EmptyList { at: place.to_string() });
    }
    let mut parts = parts.iter().enumerate();
    parts.try_for_each(|(index, part)| check(part, Some(&Place { above: Some(place), step: Step::Index(index) })))
}

/// Pairs are in the order of their names.
pub(super) fn check_pairs(place: &Place<'_>, pairs: &[(Attribute, Box<str>)]) -> Result<(), InvalidFilter> {
    let at = || place.to_string();
    if pairs.is_empty() {
        return Err(InvalidFilter::NoAttribute { at: at() });
    }
    for (attribute, value) in pairs {
        let name = attribute.name();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(InvalidFilter::Name { at: at(), name: name.to_owned() });
        }
        if value.is_empty() {
            return Err(InvalidFilter::EmptyValue { at: at(), name: name.to_owned() });
        }
    }
    match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(InvalidFilter::Twice { at: at(), name: pair[0].0.name().to_owned() }),
        None => Ok(()),
    }
}

/// What is to stand in place of an expression whose parts are within the limits, and which itself is not.
pub(super) fn past_limits(expression: &Expression) -> Option<InvalidFilter> {
    if let Some(refused) = refused_part(expression) {
        return Some(refused.clone());
    }
    let (depth, nodes) = size(expression);
    match () {
        () if depth > MAX_FILTER_DEPTH => Some(InvalidFilter::TooDeep { at: at(None) }),
        () if nodes > MAX_FILTER_NODES => Some(InvalidFilter::TooLarge { at: at(None) }),
        () => None,
    }
}

fn parts(expression: &Expression) -> &[Expression] {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => parts,
        Expression::Not(part) => std::slice::from_ref(part),
        Expression::Attributes(..) | Expression::Refused(_) => &[],
    }
}

fn refused_part<'a>(expression: &'a Expression) -> Option<&'a InvalidFilter> {
    let refused = |part: &'a Expression| if let Expression::Refused(refused) = part { Some(refused) } else { None };
    parts(expression).iter().find_map(refused)
}

/// Depth and number of parts.
fn size(expression: &Expression) -> (usize, usize) {
    let own = if let Expression::Attributes(_, pairs) = expression { pairs.len() } else { 1 };
    let below = parts(expression).iter().map(size);
    let (depth, nodes) = below.fold((0, 0), |(depth, nodes), below| (below.0.max(depth), below.1 + nodes));
    (depth + 1, nodes + own)
}

#[cfg(test)]
mod tests {
    use super::{super::Filter, *};

    #[test]
    fn what_is_wrong_is_found_where_it_stands() {
        let good = || Filter::exact("type", "a");
        let cases = [
            (Filter::all([good(), !Filter::prefix("Type", "a")]), "at all[1].not.prefix: `Type` is no attribute name"),
            (Filter::exact("", "a"), "at exact: `` is no attribute name"),
            (Filter::exact("x".repeat(21).as_str(), "a"), "lower-case letters and digits, at most 20"),
            (
                Filter::any([good(), Filter::suffix("subject", "")]),
                "at any[1].suffix: the value for `subject` is empty",
            ),
            (Filter::exact("subject", ""), "at exact: the value for `subject` is empty"),
            (!Filter::all([]), "at not.all: the list is empty"),
            (Filter::any([]), "at any: the list is empty"),
        ];
        for (filter, expected) in cases {
            let error = filter.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(good().and(!Filter::prefix("tenant1", "é")).validate(), Ok(()));
    }

    #[test]
    fn depth_has_a_limit_and_past_it_nothing_is_kept() {
        let grow = |filter, times| (0..times).fold(filter, |filter: Filter, _| Filter::all([filter]));
        let deepest = grow(Filter::exact("type", "a"), MAX_FILTER_DEPTH - 1);
        assert_eq!(deepest.validate(), Ok(()));
        let error = grow(deepest, 1_000_000).validate().unwrap_err();
        assert!(matches!(error, InvalidFilter::TooDeep { .. }));
        assert!(error.to_string().contains("more than 16 filters within one another (MAX_FILTER_DEPTH)"));
    }

    #[test]
    fn size_has_a_limit_and_past_it_nothing_matches() {
        let wide = |count| Filter::any((0..count).map(|index| Filter::exact("subject", format!("s{index}"))));
        assert_eq!(wide(MAX_FILTER_NODES - 1).validate(), Ok(()));
        let refused = wide(MAX_FILTER_NODES);
        assert!(matches!(refused.validate(), Err(InvalidFilter::TooLarge { .. })));
        let event = crate::Envelope::builder("a").subject("s1").build().unwrap();
        for filter in [refused.clone(), !refused.clone(), refused.or(Filter::exact("type", "a"))] {
            assert!(!filter.matches(&event));
            assert!(filter.validate().is_err());
        }
    }
}
