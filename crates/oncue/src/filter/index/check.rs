//! What is left to check of a registration once the index has found it: comparisons, in one piece of memory.

use std::sync::Arc;

use super::super::{
    Test,
    attribute::{Attribute, Core},
};
use crate::event::Envelope;

/// Most comparisons of one check that the index looks up, and so how deep it is.
pub(super) const MOST_STEPS: usize = 16;

/// A comparison of a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison<'a> {
    pub(super) attribute: &'a Attribute,
    pub(super) test: Test,
    pub(super) wanted: &'a str,
    /// Whether an event must pass the test, or must fail it.
    pub(super) passes: bool,
}

impl Comparison<'_> {
    /// Whether events that pass can be looked up.
    pub(super) fn is_step(&self) -> bool {
        self.passes && (self.test == Test::Exact || !self.wanted.is_empty())
    }
}

/// Comparisons, all of which must turn out as wanted: first those that can be looked up, in the order in which the
/// index does.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Of each comparison its kind, the attribute, the name if that is an extension, and the text to compare with; names
    /// and texts with four bytes of length before. One piece of memory: what is seldom looked at is in no cache, and
    /// each piece would have to be waited for.
    bytes: Arc<[u8]>,
    comparisons: u32,
}

/// A comparison as it stands in a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) attribute: Name<'a>,
    pub(super) test: Test,
    pub(super) wanted: &'a [u8],
    passes: bool,
}

/// Of which attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Core(Core),
    Extension(&'a str),
}

/// In place of an attribute's number: an extension, whose name follows.
const EXTENSION: u8 = u8::MAX;
/// In the kind of a comparison, beside the test's number: it must fail.
const FAILS: u8 = 4;

impl Check {
    pub(super) fn new(comparisons: &[Comparison<'_>]) -> Self {
        let mut bytes = Vec::new();
        for Comparison { attribute, test, wanted, passes } in comparisons {
            bytes.push(*test as u8 | if *passes { 0 } else { FAILS });
            match attribute {
                Attribute::Core(core) => bytes.push(*core as u8),
                Attribute::Extension(name) => {
                    bytes.push(EXTENSION);
                    push_text(&mut bytes, name);
                }
            }
            push_text(&mut bytes, wanted);
        }
        Self { bytes: bytes.into(), comparisons: comparisons.len() as u32 }
    }

    /// What the index can look up at this depth.
    pub(super) fn step(&self, depth: usize) -> Option<Step<'_>> {
        if depth >= MOST_STEPS { None } else { self.all().nth(depth).filter(Step::is_step) }
    }

    /// Whether an event passes that passed the first `depth` comparisons already.
    pub(super) fn passes(&self, depth: usize, event: &Envelope) -> bool {
        // Without a look at the bytes, if nothing is left.
        self.comparisons as usize <= depth || self.all().skip(depth).all(|step| step.passes(event))
    }

    /// The type of all events that pass, if there is just one.
    pub(super) fn event_type(&self) -> Option<&[u8]> {
        let of_type = |step: &Step<'_>| matches!(step.attribute, Name::Core(Core::Type)) && step.test == Test::Exact;
        self.all().find(|step| of_type(step) && step.passes).map(|step| step.wanted)
    }

    fn all(&self) -> impl Iterator<Item = Step<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (&[kind, attribute], after) = rest.split_first_chunk()?;
            rest = after;
            let attribute = match Core::ALL.get(usize::from(attribute)) {
                Some(core) => Name::Core(*core),
                None => Name::Extension(std::str::from_utf8(text(&mut rest)?).ok()?),
            };
            let test = [Test::Exact, Test::Prefix, Test::Suffix][usize::from(kind & 3).min(2)];
            Some(Step { attribute, test, wanted: text(&mut rest)?, passes: kind & FAILS == 0 })
        })
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(text)
}

impl Step<'_> {
    fn is_step(&self) -> bool {
        self.passes && (self.test == Test::Exact || !self.wanted.is_empty())
    }

    fn passes(&self, event: &Envelope) -> bool {
        let mut room = None;
        let value = match self.attribute {
            Name::Core(core) => core.of(event, &mut room),
            Name::Extension(name) => event.extension(name),
        };
        value.is_some_and(|value| self.test.holds(value.as_bytes(), self.wanted)) == self.passes
    }
}
