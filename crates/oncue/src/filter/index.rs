//! Which of many filters match an event, without trying each.

mod alternatives;
mod branches;
mod check;
mod entry;
mod hash;
mod level;
mod trie;

use std::collections::BTreeMap;

use self::{
    alternatives::Alternatives,
    check::Check,
    entry::{Entry, Search},
    hash::Seed,
    level::Level,
};
use super::Filter;
use crate::event::{Envelope, takes};

/// Finds, for an event, all registrations that want it. Each has an id of type `T`, small and cheap to copy.
#[derive(Debug)]
pub struct FilterIndex<T> {
    registrations: BTreeMap<T, Box<[Check]>>,
    root: Level<T>,
    /// Those that an event may not want although it passed one of their checks.
    inexact: BTreeMap<T, Wanted>,
    seed: Seed,
}

/// What was registered.
#[derive(Debug)]
struct Wanted {
    types: Box<[String]>,
    filter: Option<Filter>,
}

impl Wanted {
    fn matches(&self, event: &Envelope) -> bool {
        takes(&self.types, event.event_type()) && self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

impl<T: Copy + Ord> Default for FilterIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + Ord> FilterIndex<T> {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { registrations: BTreeMap::new(), root: Level::default(), inexact: BTreeMap::new(), seed: Seed::random() }
    }

    /// Registers `id` for events of one of these types (none: of every type) that match the filter, if there is one.
    /// What was registered under the same id is replaced.
    pub fn insert(&mut self, id: T, types: &[String], filter: Option<&Filter>) {
        self.remove(id);
        let Alternatives { checks, exact } = Alternatives::new(types, filter);
        for check in &checks {
            self.root.insert(Entry::new(id, check.clone(), self.seed), 0, self.seed);
        }
        self.registrations.insert(id, checks.into());
        if !exact {
            self.inexact.insert(id, Wanted { types: types.into(), filter: filter.cloned() });
        }
    }

    /// Forgets `id`, and frees what it took; whether it was registered.
    pub fn remove(&mut self, id: T) -> bool {
        let Some(checks) = self.registrations.remove(&id) else { return false };
        self.inexact.remove(&id);
        for check in checks {
            self.root.remove(&Entry::new(id, check, self.seed), 0);
        }
        true
    }

    /// Puts into `out` the ids of all registrations that want this event, in ascending order, each once, and nothing
    /// else. Allocates nothing but what `out` needs.
    pub fn matches(&self, event: &Envelope, out: &mut Vec<T>) {
        out.clear();
        self.root.find(&Search::new(event, self.seed), None, &mut |id| out.push(id));
        out.sort_unstable();
        out.dedup();
        if !self.inexact.is_empty() {
            out.retain(|id| self.inexact.get(id).is_none_or(|wanted| wanted.matches(event)));
        }
    }

    /// How many are registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether nothing is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// How many are tried for every event, because they need nothing that an event could be looked up by: those of
    /// every type without a filter, or with one that only says what is not wanted. Each costs time with each event.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.root.listed()
    }
}

#[cfg(test)]
mod tests;
