//! The index itself: a tree whose levels each look at one more thing that a registration needs.

use super::{
    super::{Test, attribute::Core},
    check::{Check, Name, Step},
    hash::{Seed, SeededMap, shrink},
    trie::{Side, Trie},
};
use crate::event::Envelope;

/// So many entries are tried one by one before a level divides them.
const MOST_UNDIVIDED: usize = 8;

/// One alternative of a registration.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub(super) check: Check,
    pub(super) id: T,
    /// Part of a hash of the only type of events that pass, 0 if there are several.
    type_hash: u32,
}

/// What is looked for.
pub(super) struct Search<'a> {
    event: &'a Envelope,
    type_hash: u32,
}

/// Entries that need the same things, as far as the levels above have looked.
///
/// An entry is in the branch of its next step; or in the list if it has no further one, or while the level is undivided.
/// So where it is follows from what it is.
#[derive(Debug, Default)]
pub(super) enum Level<T> {
    #[default]
    Empty,
    /// Most levels: the entry stands in the table of the level above.
    One(Entry<T>),
    Many(Box<Many<T>>),
}

#[derive(Debug)]
pub(super) struct Many<T> {
    list: Vec<Entry<T>>,
    branches: Option<Branches<T>>,
}

/// The levels below one level.
#[derive(Debug)]
struct Branches<T> {
    core: Vec<(Core, Table<T>)>,
    extensions: SeededMap<Box<str>, Vec<Table<T>>>,
    seed: Seed,
}

/// The levels below one level that look at one attribute in one way.
#[derive(Debug)]
enum Table<T> {
    Exact(SeededMap<Box<[u8]>, Level<T>>),
    Prefix(Trie<Level<T>>),
    Suffix(Trie<Level<T>>),
}

impl<T> Entry<T> {
    pub(super) fn new(id: T, check: Check, seed: Seed) -> Self {
        let type_hash = check.event_type().map_or(0, |event_type| type_hash(event_type, seed));
        Self { check, id, type_hash }
    }
}

/// Never 0.
fn type_hash(event_type: &[u8], seed: Seed) -> u32 {
    seed.hash(event_type) as u32 | 1
}

impl<'a> Search<'a> {
    pub(super) fn new(event: &'a Envelope, seed: Seed) -> Self {
        Self { event, type_hash: type_hash(event.event_type().as_bytes(), seed) }
    }

    /// Whether the event passes an entry that was found at this depth. Most that it does not pass want another type:
    /// that is known without a look at the check.
    fn passes<T>(&self, entry: &Entry<T>, depth: usize) -> bool {
        (entry.type_hash == 0 || entry.type_hash == self.type_hash) && entry.check.passes(depth, self.event)
    }
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
            Self::Many(many) => many.list.len(),
        }
    }

    /// Calls `found` with the id of each entry that the event passes, which passed the `depth` steps that lead here.
    pub(super) fn find(&self, search: &Search<'_>, depth: usize, found: &mut impl FnMut(T)) {
        match self {
            Self::Empty => {}
            Self::One(entry) => {
                if search.passes(entry, depth) {
                    found(entry.id);
                }
            }
            Self::Many(many) => {
                many.list.iter().filter(|entry| search.passes(entry, depth)).for_each(|entry| found(entry.id));
                if let Some(branches) = &many.branches {
                    branches.visit(search.event, |level| level.find(search, depth + 1, found));
                }
            }
        }
    }

    /// Adds an entry whose first `depth` steps lead here.
    pub(super) fn insert(&mut self, entry: Entry<T>, depth: usize, seed: Seed) {
        match std::mem::take(self) {
            Self::Empty => *self = Self::One(entry),
            Self::One(first) => {
                *self = Self::Many(Box::new(Many { list: vec![first, entry], branches: None }));
            }
            Self::Many(mut many) => {
                many.insert(entry, depth, seed);
                *self = Self::Many(many);
            }
        }
    }

    /// Removes an entry, which was inserted at this depth, and all that it alone needed.
    pub(super) fn remove(&mut self, entry: &Entry<T>, depth: usize) {
        match self {
            Self::Empty => {}
            Self::One(_) => *self = Self::Empty,
            Self::Many(many) => {
                many.remove(entry, depth);
                if many.list.is_empty() && many.branches.is_none() {
                    *self = Self::Empty;
                }
            }
        }
    }
}

impl<T: Copy + Eq> Many<T> {
    fn insert(&mut self, entry: Entry<T>, depth: usize, seed: Seed) {
        if self.branches.is_none() && self.list.len() >= MOST_UNDIVIDED {
            self.branches = Some(Branches::new(seed));
            for entry in std::mem::take(&mut self.list) {
                self.insert(entry, depth, seed);
            }
        }
        match (entry.check.step(depth), &mut self.branches) {
            (Some(step), Some(branches)) => branches.level(&step).insert(entry, depth + 1, seed),
            _ => self.list.push(entry),
        }
    }

    fn remove(&mut self, entry: &Entry<T>, depth: usize) {
        if let (Some(step), Some(branches)) = (entry.check.step(depth), &mut self.branches) {
            branches.remove(&step, |level| level.remove(entry, depth + 1));
            if branches.is_empty() {
                self.branches = None;
            }
            return;
        }
        // Of a registration that has several entries here all are removed, one after the other.
        if let Some(at) = self.list.iter().position(|other| other.id == entry.id) {
            self.list.swap_remove(at);
            if self.list.len() < self.list.capacity() / 4 {
                self.list.shrink_to_fit();
            }
        }
    }
}

impl<T: Copy + Eq> Branches<T> {
    fn new(seed: Seed) -> Self {
        Self { core: Vec::new(), extensions: SeededMap::with_hasher(seed), seed }
    }

    fn is_empty(&self) -> bool {
        self.core.is_empty() && self.extensions.is_empty()
    }

    /// Calls `found` with each level below that the event goes on to.
    fn visit<'a>(&'a self, event: &Envelope, mut found: impl FnMut(&'a Level<T>)) {
        for (core, table) in &self.core {
            let mut room = None;
            if let Some(value) = core.of(event, &mut room) {
                table.visit(value.as_bytes(), &mut found);
            }
        }
        if self.extensions.is_empty() {
            return;
        }
        for (name, value) in event.extensions() {
            let tables = self.extensions.get(name).map_or(&[][..], Vec::as_slice);
            tables.iter().for_each(|table| table.visit(value.as_bytes(), &mut found));
        }
    }

    /// The level below that a step leads to; made if there is none.
    fn level(&mut self, step: &Step<'_>) -> &mut Level<T> {
        let make = || Table::new(step.test, self.seed);
        let table = match step.attribute {
            Name::Core(core) => {
                let at = position(&self.core, |(known, table)| *known == core && table.test() == step.test);
                let at = at.unwrap_or_else(|| {
                    self.core.push((core, make()));
                    self.core.len() - 1
                });
                &mut self.core[at].1
            }
            Name::Extension(name) => {
                let tables = self.extensions.entry(name.into()).or_default();
                let at = position(tables, |table| table.test() == step.test).unwrap_or_else(|| {
                    tables.push(make());
                    tables.len() - 1
                });
                &mut tables[at]
            }
        };
        table.level(step.wanted)
    }

    /// Lets `remove` change the level that a step leads to, and removes what is empty then.
    fn remove(&mut self, step: &Step<'_>, remove: impl FnOnce(&mut Level<T>)) {
        match step.attribute {
            Name::Core(core) => {
                let at = position(&self.core, |(known, table)| *known == core && table.test() == step.test);
                let Some(at) = at else { return };
                if self.core[at].1.remove(step.wanted, remove) {
                    self.core.swap_remove(at);
                }
            }
            Name::Extension(name) => {
                let Some(tables) = self.extensions.get_mut(name) else { return };
                let Some(at) = position(tables, |table| table.test() == step.test) else { return };
                if tables[at].remove(step.wanted, remove) {
                    tables.swap_remove(at);
                }
                if tables.is_empty() {
                    self.extensions.remove(name);
                    shrink(&mut self.extensions);
                }
            }
        }
    }
}

fn position<I>(list: &[I], is_it: impl FnMut(&I) -> bool) -> Option<usize> {
    list.iter().position(is_it)
}

impl<T: Copy + Eq> Table<T> {
    fn new(test: Test, seed: Seed) -> Self {
        match test {
            Test::Exact => Self::Exact(SeededMap::with_hasher(seed)),
            Test::Prefix => Self::Prefix(Trie::new(Side::Front, seed)),
            Test::Suffix => Self::Suffix(Trie::new(Side::Back, seed)),
        }
    }

    fn test(&self) -> Test {
        match self {
            Self::Exact(_) => Test::Exact,
            Self::Prefix(_) => Test::Prefix,
            Self::Suffix(_) => Test::Suffix,
        }
    }

    fn visit<'a>(&'a self, value: &[u8], found: impl FnMut(&'a Level<T>)) {
        match self {
            Self::Exact(levels) => levels.get(value).into_iter().for_each(found),
            Self::Prefix(trie) | Self::Suffix(trie) => trie.visit(value, found),
        }
    }

    fn level(&mut self, wanted: &[u8]) -> &mut Level<T> {
        match self {
            Self::Exact(levels) => levels.entry(wanted.into()).or_default(),
            Self::Prefix(trie) | Self::Suffix(trie) => trie.entry(wanted),
        }
    }

    /// Lets `remove` change a level, and removes that if it is empty then; whether the table is.
    fn remove(&mut self, wanted: &[u8], remove: impl FnOnce(&mut Level<T>)) -> bool {
        let level = match self {
            Self::Exact(levels) => levels.get_mut(wanted),
            Self::Prefix(trie) | Self::Suffix(trie) => trie.get_mut(wanted),
        };
        let Some(level) = level else { return false };
        remove(level);
        let is_empty = level.is_empty();
        match self {
            Self::Exact(levels) => {
                if is_empty {
                    levels.remove(wanted);
                    shrink(levels);
                }
                levels.is_empty()
            }
            Self::Prefix(trie) | Self::Suffix(trie) => {
                if is_empty {
                    trie.remove(wanted);
                }
                trie.is_empty()
            }
        }
    }
}
