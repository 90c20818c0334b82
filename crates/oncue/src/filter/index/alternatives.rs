//! A registration in disjunctive normal form: alternatives, each a list of comparisons that must all turn out as wanted.

use super::{
    super::{
        Expression, Filter, Test,
        attribute::{Attribute, Core},
    },
    check::{Check, Comparison},
};
use crate::event::Slot;

/// Most alternatives that may come from combining those of two parts.
const MOST_COMBINED: usize = 64;

/// What the index keeps of a registration.
#[derive(Debug)]
pub(super) struct Alternatives {
    /// An event that is wanted passes at least one of these.
    pub(super) checks: Vec<Check>,
    /// Whether an event that passes one of them is wanted. Otherwise the filter itself has to be asked.
    pub(super) exact: bool,
}

type List<'a> = Vec<Vec<Comparison<'a>>>;

const TYPE: &Attribute = &Attribute::Core(Core::Text(Slot::Type));

impl Alternatives {
    /// Of one of the types (none: any) and the filter.
    pub(super) fn new(types: &[String], filter: Option<&Filter>) -> Self {
        let mut builder = Builder { exact: true };
        let mut list = match filter {
            Some(Filter(expression)) => builder.alternatives(expression, true),
            None => vec![vec![]],
        };
        if !types.is_empty() {
            let of_type = |name| vec![Comparison { attribute: TYPE, test: Test::Exact, wanted: name, passes: true }];
            list = builder.combined(types.iter().map(|name| of_type(name.as_str())).collect(), list);
        }
        let mut list: List<'_> = list.into_iter().filter_map(in_order).collect();
        // What cannot be looked up is tried for every event: once is enough.
        let scanned = |comparisons: &Vec<Comparison<'_>>| !comparisons.first().is_some_and(Comparison::is_step);
        if list.len() > 1 && list.iter().any(scanned) {
            (list, builder.exact) = (vec![vec![]], false);
        }
        Self { checks: list.iter().map(|comparisons| Check::new(comparisons)).collect(), exact: builder.exact }
    }
}

struct Builder {
    exact: bool,
}

impl Builder {
    /// Alternatives of `expression`, or if not `wanted` of its opposite.
    fn alternatives<'a>(&mut self, expression: &'a Expression, wanted: bool) -> List<'a> {
        match expression {
            Expression::Attributes(test, pairs) => {
                let comparison = |(attribute, value): &'a (Attribute, Box<str>)| Comparison {
                    attribute,
                    test: *test,
                    wanted: value,
                    passes: wanted,
                };
                let comparisons = pairs.iter().map(comparison);
                if wanted { vec![comparisons.collect()] } else { comparisons.map(|one| vec![one]).collect() }
            }
            Expression::All(parts) if wanted => self.all(parts, wanted),
            Expression::Any(parts) if !wanted => self.all(parts, wanted),
            Expression::All(parts) | Expression::Any(parts) => {
                parts.iter().flat_map(|part| self.alternatives(part, wanted)).collect()
            }
            Expression::Not(part) => self.alternatives(part, !wanted),
            Expression::Refused(_) => vec![],
        }
    }

    fn all<'a>(&mut self, parts: &'a [Expression], wanted: bool) -> List<'a> {
        let each: Vec<List<'a>> = parts.iter().map(|part| self.alternatives(part, wanted)).collect();
        each.into_iter().fold(vec![vec![]], |found, more| self.combined(found, more))
    }

    /// Each alternative of one list with each of the other. If that is too many, those of the list by which events are
    /// found better: more events pass then, and none fewer.
    fn combined<'a>(&mut self, one: List<'a>, other: List<'a>) -> List<'a> {
        if one.len().saturating_mul(other.len()) <= MOST_COMBINED || one.len().min(other.len()) <= 1 {
            return one.iter().flat_map(|left| other.iter().map(|right| [&left[..], right].concat())).collect();
        }
        self.exact = false;
        let worst = |list: &List<'a>| list.iter().map(|comparisons| best(comparisons)).max();
        if worst(&one) <= worst(&other) { one } else { other }
    }
}

/// How well events are found by a comparison, the best first.
type Rank<'a> = (bool, Test, (u8, &'a str));

fn rank<'a>(comparison: &Comparison<'a>) -> Rank<'a> {
    (!comparison.is_step(), comparison.test, comparison.attribute.rank())
}

fn best<'a>(comparisons: &[Comparison<'a>]) -> Rank<'a> {
    let unknown = (true, Test::Suffix, (u8::MAX, ""));
    comparisons.iter().map(rank).min().unwrap_or(unknown)
}

/// The comparisons in the order in which the index takes them, each once. None if no event can pass them all.
fn in_order(mut comparisons: Vec<Comparison<'_>>) -> Option<Vec<Comparison<'_>>> {
    comparisons.sort_by_key(|comparison| (rank(comparison), comparison.passes, comparison.wanted));
    comparisons.dedup_by_key(|comparison| (rank(comparison), comparison.passes, comparison.wanted));
    let contradict =
        |pair: &[Comparison<'_>]| pair[0].test == Test::Exact && pair[1].is_step() && rank(&pair[0]) == rank(&pair[1]);
    (!comparisons.windows(2).any(contradict)).then_some(comparisons)
}
