//! How the levels below a level are found.

use std::collections::BTreeMap;

use super::{
    super::{Test, attribute::Core},
    check::{Name, Step},
    hash::{Seed, SeededMap, shrink},
    level::Level,
    trie::{Side, Trie},
};
use crate::{event::Envelope, number_map::NumberMap};

/// The levels below one level.
#[derive(Debug)]
pub(super) struct Branches<T> {
    pub(super) core: Vec<(Core, Table<T>)>,
    pub(super) extensions: SeededMap<Box<str>, Vec<Table<T>>>,
    seed: Seed,
}

/// The levels below one level that look at one attribute in one way.
#[derive(Debug)]
pub(super) enum Table<T> {
    Exact(Exact<T>),
    Prefix(Trie<Level<T>>),
    Suffix(Trie<Level<T>>),
}

/// Levels by the value that an attribute must have.
#[derive(Debug)]
pub(super) struct Exact<T> {
    /// By a hash of the value, which itself stands in the level: to keep it here too would be one more place to look at.
    pub(super) levels: NumberMap<Level<T>>,
    /// For values whose hash another value has.
    pub(super) collided: BTreeMap<Box<[u8]>, Level<T>>,
    seed: Seed,
}

impl<T: Copy + Eq> Branches<T> {
    pub(super) fn new(seed: Seed) -> Self {
        Self { core: Vec::new(), extensions: SeededMap::with_hasher(seed), seed }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.core.is_empty() && self.extensions.is_empty()
    }

    /// Calls `found` with each level below that the event goes on to.
    pub(super) fn visit(&self, event: &Envelope, mut found: impl FnMut(&Level<T>, Option<&[u8]>)) {
        for (core, table) in &self.core {
            let mut room = None;
            if let Some(value) = core.of(event, &mut room) {
                table.visit(value, &mut found);
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
    pub(super) fn level(&mut self, step: &Step<'_>) -> &mut Level<T> {
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
    pub(super) fn remove(&mut self, step: &Step<'_>, remove: impl FnOnce(&mut Level<T>)) {
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
            Test::Exact => Self::Exact(Exact { levels: NumberMap::default(), collided: BTreeMap::new(), seed }),
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

    fn visit(&self, value: &[u8], mut found: impl FnMut(&Level<T>, Option<&[u8]>)) {
        match self {
            Self::Exact(exact) => exact.visit(value, found),
            Self::Prefix(trie) | Self::Suffix(trie) => trie.visit(value, |level| found(level, None)),
        }
    }

    fn level(&mut self, wanted: &[u8]) -> &mut Level<T> {
        match self {
            Self::Exact(exact) => exact.level(wanted),
            Self::Prefix(trie) | Self::Suffix(trie) => trie.entry(wanted),
        }
    }

    /// Lets `remove` change a level, and removes that if it is empty then; whether the table is.
    fn remove(&mut self, wanted: &[u8], remove: impl FnOnce(&mut Level<T>)) -> bool {
        match self {
            Self::Exact(exact) => {
                exact.remove(wanted, remove);
                exact.levels.is_empty() && exact.collided.is_empty()
            }
            Self::Prefix(trie) | Self::Suffix(trie) => {
                let Some(level) = trie.get_mut(wanted) else { return false };
                remove(level);
                if level.is_empty() {
                    trie.remove(wanted);
                }
                trie.is_empty()
            }
        }
    }
}

impl<T: Copy + Eq> Exact<T> {
    fn visit(&self, value: &[u8], mut found: impl FnMut(&Level<T>, Option<&[u8]>)) {
        if let Some(level) = self.levels.get(&self.seed.hash(value)) {
            found(level, Some(value));
        }
        if !self.collided.is_empty()
            && let Some(level) = self.collided.get(value)
        {
            found(level, None);
        }
    }

    fn level(&mut self, wanted: &[u8]) -> &mut Level<T> {
        if !self.collided.contains_key(wanted) {
            let level = self.levels.entry(self.seed.hash(wanted)).or_default();
            if level.is_for(wanted) {
                return level;
            }
        }
        self.collided.entry(wanted.into()).or_default()
    }

    fn remove(&mut self, wanted: &[u8], remove: impl FnOnce(&mut Level<T>)) {
        let hash = self.seed.hash(wanted);
        if let Some(level) = self.collided.get_mut(wanted) {
            remove(level);
            if level.is_empty() {
                self.collided.remove(wanted);
            }
        } else if let Some(level) = self.levels.get_mut(&hash).filter(|level| level.is_for(wanted)) {
            remove(level);
            if level.is_empty() {
                self.levels.remove(&hash);
                shrink(&mut self.levels);
            }
        }
    }
}
