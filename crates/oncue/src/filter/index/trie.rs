//! Texts, and which of them a given text begins with, or ends with.

use super::hash::{Seed, SeededMap, shrink};

/// Bytes that one step of the trie takes.
const STRIDE: usize = 8;

/// From which side texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Front,
    Back,
}

/// A trie in two hash maps, which takes eight bytes a step: an event's attribute of n bytes costs at most n / 8 steps,
/// and in each of them one look-up for each length in which a text ends there.
#[derive(Debug)]
pub(super) struct Trie<V> {
    side: Side,
    root: Node,
    /// Nodes below the root, by the number of the node above and the eight bytes between.
    nodes: SeededMap<(u64, u64), Node>,
    /// By the node that the rest of a text hangs on, how many bytes that is (see [`ends_at`]) and the bytes.
    ends: SeededMap<(u64, u64), V>,
    /// How many nodes there ever were.
    numbers: u64,
}

#[derive(Debug, Default)]
struct Node {
    number: u64,
    /// How many nodes hang on this one.
    nodes: u32,
    /// How many texts end below with one to eight more bytes, by their number.
    ends: [u32; STRIDE],
}

impl Node {
    fn is_unused(&self) -> bool {
        self.nodes == 0 && self.ends == [0; STRIDE]
    }
}

/// One number for a node and how many bytes follow it, one to eight.
fn ends_at(node: u64, length: usize) -> u64 {
    node.wrapping_mul(STRIDE as u64) + length as u64
}

/// The next at most eight bytes after `at`; those further inside stand in higher bits.
fn chunk(text: &[u8], at: usize, side: Side) -> u64 {
    let rest = text.len() - at;
    match side {
        Side::Front => match text[at..].first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => text[at..].iter().rev().fold(0, |chunk, byte| chunk << 8 | u64::from(*byte)),
        },
        Side::Back => match text[..rest].last_chunk() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => text[..rest].iter().fold(0, |chunk, byte| chunk << 8 | u64::from(*byte)),
        },
    }
}

/// The first `length` bytes of a chunk.
fn first(chunk: u64, length: usize) -> u64 {
    chunk & (u64::MAX >> (64 - 8 * length))
}

impl<V: Default> Trie<V> {
    pub(super) fn new(side: Side, seed: Seed) -> Self {
        let (nodes, ends) = (SeededMap::with_hasher(seed), SeededMap::with_hasher(seed));
        Self { side, root: Node::default(), nodes, ends, numbers: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Calls `found` with the value of each text that `text` begins (or ends) with.
    pub(super) fn visit<'a>(&'a self, text: &[u8], mut found: impl FnMut(&'a V)) {
        let (mut node, mut at) = (&self.root, 0);
        loop {
            let (rest, chunk) = (text.len() - at, chunk(text, at, self.side));
            for (length, _) in (1..=rest.min(STRIDE)).zip(node.ends).filter(|(_, texts)| *texts > 0) {
                if let Some(value) = self.ends.get(&(ends_at(node.number, length), first(chunk, length))) {
                    found(value);
                }
            }
            if rest <= STRIDE || node.nodes == 0 {
                return;
            }
            match self.nodes.get(&(node.number, chunk)) {
                Some(next) => (node, at) = (next, at + STRIDE),
                None => return,
            }
        }
    }

    /// The value of a text, which must not be empty.
    pub(super) fn get_mut(&mut self, text: &[u8]) -> Option<&mut V> {
        let (mut node, mut at) = (&self.root, 0);
        while text.len() - at > STRIDE {
            node = self.nodes.get(&(node.number, chunk(text, at, self.side)))?;
            at += STRIDE;
        }
        self.ends.get_mut(&(ends_at(node.number, text.len() - at), chunk(text, at, self.side)))
    }

    /// The value of a text, which must not be empty; made if there is none.
    pub(super) fn entry(&mut self, text: &[u8]) -> &mut V {
        let (mut above, mut number, mut at) = (None, 0, 0);
        while text.len() - at > STRIDE {
            let key = (number, chunk(text, at, self.side));
            number = match self.nodes.get(&key) {
                Some(node) => node.number,
                None => {
                    self.numbers += 1;
                    self.nodes.insert(key, Node { number: self.numbers, ..Node::default() });
                    self.node(above).nodes += 1;
                    self.numbers
                }
            };
            (above, at) = (Some(key), at + STRIDE);
        }
        let rest = text.len() - at;
        let key = (ends_at(number, rest), chunk(text, at, self.side));
        if !self.ends.contains_key(&key) {
            self.node(above).ends[rest - 1] += 1;
        }
        self.ends.entry(key).or_default()
    }

    /// Forgets a text, which must not be empty, and the nodes that nothing else needs.
    pub(super) fn remove(&mut self, text: &[u8]) {
        let (mut path, mut number, mut at) = (vec![], 0, 0);
        while text.len() - at > STRIDE {
            let key = (number, chunk(text, at, self.side));
            let Some(node) = self.nodes.get(&key) else { return };
            path.push(key);
            (number, at) = (node.number, at + STRIDE);
        }
        let rest = text.len() - at;
        if self.ends.remove(&(ends_at(number, rest), chunk(text, at, self.side))).is_none() {
            return;
        }
        shrink(&mut self.ends);
        self.node(path.last().copied()).ends[rest - 1] -= 1;
        while let Some(key) = path.pop() {
            if !self.node(Some(key)).is_unused() {
                return;
            }
            self.nodes.remove(&key);
            shrink(&mut self.nodes);
            self.node(path.last().copied()).nodes -= 1;
        }
    }

    /// The node of this key; without one, the root.
    fn node(&mut self, key: Option<(u64, u64)>) -> &mut Node {
        match key.and_then(|key| self.nodes.get_mut(&key)) {
            Some(node) => node,
            None => &mut self.root,
        }
    }
}
