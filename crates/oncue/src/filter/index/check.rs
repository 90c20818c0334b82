//! What is left to check of a registration once the index has found it: comparisons, in one piece of memory.

use std::sync::Arc;

use super::super::{
    Test,
    attribute::{Attribute, Core},
};
use crate::event::{Envelope, Slot};

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
///
/// Of each comparison: its kind, the attribute, the name if that is an extension, and the text to compare with; names and
/// texts have four bytes of length before. All in one piece of memory: what is seldom looked at is in no cache, and each
/// piece would have to be waited for.
#[derive(Clone, Debug)]
pub(super) struct Check(Arc<[u8]>);

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
                Attribute::Core(core) => bytes.push(core.number()),
                Attribute::Extension(name) => {
                    bytes.push(EXTENSION);
                    push_text(&mut bytes, name);
                }
            }
            push_text(&mut bytes, wanted);
        }
        Self(bytes.into())
    }

    /// What the index can look up at this depth.
    pub(super) fn step(&self, depth: usize) -> Option<Step<'_>> {
        if depth >= MOST_STEPS { None } else { self.all().nth(depth).filter(Step::is_step) }
    }

    /// Where the comparisons after the first `depth` begin.
    pub(super) fn after(&self, depth: usize) -> u32 {
        let mut rest = &self.0[..];
        for _ in 0..depth {
            let _ = Step::read(&mut rest);
        }
        (self.0.len() - rest.len()) as u32
    }

    pub(super) fn bytes(&self) -> u32 {
        self.0.len() as u32
    }

    /// Whether an event passes the comparisons that begin at this byte.
    pub(super) fn passes(&self, from: u32, event: &Envelope) -> bool {
        let mut rest = self.0.get(from as usize..).unwrap_or_default();
        while let Some(step) = Step::read(&mut rest) {
            if !step.passes(event) {
                return false;
            }
        }
        true
    }

    /// The type of all events that pass, if there is just one.
    pub(super) fn event_type(&self) -> Option<&[u8]> {
        let of_type =
            |step: &Step<'_>| matches!(step.attribute, Name::Core(Core::Text(Slot::Type))) && step.test == Test::Exact;
        self.all().find(|step| of_type(step) && step.passes).map(|step| step.wanted)
    }

    fn all(&self) -> impl Iterator<Item = Step<'_>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || Step::read(&mut rest))
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

impl<'a> Step<'a> {
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let (&[kind, attribute], after) = rest.split_first_chunk()?;
        *rest = after;
        let attribute = match Core::ALL.get(usize::from(attribute)) {
            Some(core) => Name::Core(*core),
            None => Name::Extension(std::str::from_utf8(text(rest)?).ok()?),
        };
        let test = match kind & 3 {
            0 => Test::Exact,
            1 => Test::Prefix,
            _ => Test::Suffix,
        };
        Some(Step { attribute, test, wanted: text(rest)?, passes: kind & FAILS == 0 })
    }

    fn is_step(&self) -> bool {
        self.passes && (self.test == Test::Exact || !self.wanted.is_empty())
    }

    #[inline]
    fn passes(&self, event: &Envelope) -> bool {
        match self.attribute {
            Name::Core(Core::Text(slot)) => {
                let value = event.slot_bytes(slot);
                (!value.is_empty() && self.test.holds(value, self.wanted)) == self.passes
            }
            Name::Core(core) => self.holds(core.of(event, &mut None)) == self.passes,
            Name::Extension(name) => self.holds(event.extension(name).map(str::as_bytes)) == self.passes,
        }
    }

    /// Kept apart from what is seldom called, so that that is short.
    #[inline(never)]
    fn holds(&self, value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| self.test.holds(value, self.wanted))
    }
}
