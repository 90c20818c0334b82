//! What stands at the ends of the tree, and what is looked for there.

use super::{check::Check, hash::Seed};
use crate::event::{Envelope, Slot};

/// One alternative of a registration.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub(super) check: Check,
    pub(super) id: T,
    /// Part of a hash of the only type of events that pass, 0 if there are several.
    type_hash: u32,
    /// Where in the check that begins which the steps to the entry do not tell.
    unknown: u32,
    /// Whether they tell all.
    certain: bool,
    /// How many steps lead to the entry.
    depth: u8,
}

/// What is looked for.
pub(super) struct Search<'a> {
    pub(super) event: &'a Envelope,
    type_hash: u32,
}

impl<T> Entry<T> {
    pub(super) fn new(id: T, check: Check, seed: Seed) -> Self {
        let type_hash = check.event_type().map_or(0, |event_type| type_hash(event_type, seed));
        Self { check, id, type_hash, unknown: 0, certain: false, depth: 0 }
    }

    /// What the last step that leads to the entry compares with.
    pub(super) fn last_value(&self) -> &[u8] {
        let last = usize::from(self.depth).checked_sub(1);
        last.and_then(|last| self.check.step(last)).map_or(&[], |step| step.wanted)
    }

    /// This entry where `depth` steps lead to it.
    pub(super) fn at(self, depth: usize) -> Self {
        let unknown = self.check.after(depth);
        Self { unknown, certain: unknown == self.check.bytes(), depth: depth as u8, ..self }
    }
}

/// Never 0.
fn type_hash(event_type: &[u8], seed: Seed) -> u32 {
    seed.hash(event_type) as u32 | 1
}

impl<'a> Search<'a> {
    pub(super) fn new(event: &'a Envelope, seed: Seed) -> Self {
        Self { event, type_hash: type_hash(event.slot_bytes(Slot::Type), seed) }
    }

    /// Whether the event may pass an entry. Most entries that it does not pass are for another type: that is known
    /// without a look at the check.
    pub(super) fn may_pass<T>(&self, entry: &Entry<T>) -> bool {
        entry.type_hash == 0 || entry.type_hash == self.type_hash
    }

    /// Whether the event passes an entry that the steps led to.
    pub(super) fn passes<T>(&self, entry: &Entry<T>) -> bool {
        self.may_pass(entry) && (entry.certain || entry.check.passes(entry.unknown, self.event))
    }
}
