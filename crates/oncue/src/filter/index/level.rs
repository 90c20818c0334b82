//! The tree: each level of it looks at one more thing that a registration needs.

use super::{
    super::equal,
    branches::Branches,
    entry::{Entry, Search},
    hash::Seed,
};

/// So many entries are tried one by one before a level divides them.
const MOST_UNDIVIDED: usize = 4;

/// Entries that need the same things, as far as the levels above have looked.
///
/// An entry is in the branch of its next step; or in the list if it has no further one, or while there are few.
/// So where it is follows from what it is.
#[derive(Debug, Default)]
pub(super) enum Level<T> {
    #[default]
    Empty,
    /// Most levels: the entry stands in the table of the level above.
    One(Entry<T>),
    /// Few entries, tried one by one.
    Few(Vec<Entry<T>>),
    Many(Box<Many<T>>),
}

#[derive(Debug)]
pub(super) struct Many<T> {
    /// What the last step to this level compares with; nothing at the root.
    value: Box<[u8]>,
    pub(super) list: Vec<Entry<T>>,
    pub(super) branches: Branches<T>,
}

impl<T: Copy + Eq> Level<T> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Entries that are tried for each event that comes here.
    pub(super) fn listed(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(list) => list.len(),
            Self::Many(many) => many.list.len(),
        }
    }

    /// Calls `found` with the id of each entry that the event passes. If there is a value `by_hash`, only its hash led
    /// here.
    pub(super) fn find(&self, search: &Search<'_>, by_hash: Option<&[u8]>, found: &mut impl FnMut(T)) {
        let is_for = |entry: &Entry<T>| by_hash.is_none_or(|value| equal(entry.last_value(), value));
        match self {
            Self::Empty => {}
            Self::One(entry) => {
                if search.may_pass(entry) && is_for(entry) && search.passes(entry) {
                    found(entry.id);
                }
            }
            Self::Few(list) => {
                let mut candidates = list.iter().filter(|entry| search.may_pass(entry)).peekable();
                // One tells for all, and if there is none, no check is looked at.
                if candidates.peek().is_some_and(|entry| is_for(entry)) {
                    candidates.filter(|entry| search.passes(entry)).for_each(|entry| found(entry.id));
                }
            }
            Self::Many(many) => {
                if by_hash.is_some_and(|value| !equal(&many.value, value)) {
                    return;
                }
                many.list.iter().filter(|entry| search.passes(entry)).for_each(|entry| found(entry.id));
                many.branches.visit(search.event, |level, by_hash| level.find(search, by_hash, found));
            }
        }
    }

    /// Whether the last step that leads here compares with this value.
    pub(super) fn is_for(&self, value: &[u8]) -> bool {
        match self {
            Self::Empty => true,
            Self::One(entry) => entry.last_value() == value,
            Self::Few(list) => list.first().is_none_or(|entry| entry.last_value() == value),
            Self::Many(many) => *many.value == *value,
        }
    }

    /// Adds an entry whose first `depth` steps lead here.
    pub(super) fn insert(&mut self, entry: Entry<T>, depth: usize, seed: Seed) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(entry.at(depth)),
            Self::One(first) => Self::Few(vec![first, entry.at(depth)]),
            Self::Few(mut list) if list.len() < MOST_UNDIVIDED => {
                list.push(entry.at(depth));
                Self::Few(list)
            }
            Self::Few(list) => {
                let value = list.first().map_or_else(Box::default, |entry| entry.last_value().into());
                let mut many = Many { value, list: Vec::new(), branches: Branches::new(seed) };
                list.into_iter().chain([entry]).for_each(|entry| many.insert(entry, depth, seed));
                Self::Many(Box::new(many))
            }
            Self::Many(mut many) => {
                many.insert(entry, depth, seed);
                Self::Many(many)
            }
        }
    }

    /// Removes an entry, which was inserted at this depth, and all that it alone needed.
    pub(super) fn remove(&mut self, entry: &Entry<T>, depth: usize) {
        match self {
            Self::Empty => {}
            Self::One(_) => *self = Self::Empty,
            Self::Few(list) => {
                remove_from(list, entry);
                if list.is_empty() {
                    *self = Self::Empty;
                }
            }
            Self::Many(many) => {
                match entry.check.step(depth) {
                    Some(step) => many.branches.remove(&step, |level| level.remove(entry, depth + 1)),
                    None => remove_from(&mut many.list, entry),
                }
                if many.list.is_empty() && many.branches.is_empty() {
                    *self = Self::Empty;
                }
            }
        }
    }
}

/// Of a registration that has several entries in one list, all are removed, one after the other: so any of them will do.
fn remove_from<T: Eq>(list: &mut Vec<Entry<T>>, entry: &Entry<T>) {
    if let Some(at) = list.iter().position(|other| other.id == entry.id) {
        list.swap_remove(at);
        if list.len() < list.capacity() / 4 {
            list.shrink_to_fit();
        }
    }
}

impl<T: Copy + Eq> Many<T> {
    fn insert(&mut self, entry: Entry<T>, depth: usize, seed: Seed) {
        match entry.check.step(depth) {
            Some(step) => self.branches.level(&step).insert(entry, depth + 1, seed),
            None => self.list.push(entry.at(depth)),
        }
    }
}
