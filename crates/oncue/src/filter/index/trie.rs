//! Texts, and which of them a given text begins with, or ends with.

use std::hash::{Hash, Hasher};

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
    nodes: SeededMap<Key, Node>,
    /// By the node that the rest of a text hangs on, how many bytes that is, and the bytes.
    ends: SeededMap<Key, V>,
    /// How many texts end at a node with so many more bytes, by the key of such an end without its bytes.
    lengths: SeededMap<Key, u32>,
    /// How many nodes there ever were.
    numbers: u64,
}

#[derive(Debug, Default)]
struct Node {
    number: u64,
    /// How many nodes hang on this one.
    nodes: u32,
    /// Whether texts end here with one to eight more bytes, a bit for each.
    ends: u8,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.nodes == 0 && self.ends == 0
    }
}

/// What hangs on a node: another node, eight bytes further, or the end of a text, at most eight bytes further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    place: u64,
    bytes: u64,
}

impl Key {
    fn node(above: u64, bytes: u64) -> Self {
        Self { place: above, bytes }
    }

    fn end(above: u64, length: usize, bytes: u64) -> Self {
        Self { place: above.wrapping_mul(STRIDE as u64) + length as u64, bytes }
    }

    /// All ends of one length.
    fn without_bytes(self) -> Self {
        Self { bytes: 0, ..self }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from(self.place) << 64 | u128::from(self.bytes));
    }
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
        let lengths = SeededMap::with_hasher(seed);
        Self { side, root: Node::default(), nodes, ends, lengths, numbers: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Calls `found` with the value of each text that `text` begins (or ends) with.
    pub(super) fn visit<'a>(&'a self, text: &[u8], mut found: impl FnMut(&'a V)) {
        let (mut node, mut at) = (&self.root, 0);
        loop {
            let (rest, chunk) = (text.len() - at, chunk(text, at, self.side));
            let mut ends = u32::from(node.ends) & ((1 << rest.min(STRIDE)) - 1);
            while ends != 0 {
                let length = ends.trailing_zeros() as usize + 1;
                if let Some(value) = self.ends.get(&Key::end(node.number, length, first(chunk, length))) {
                    found(value);
                }
                ends &= ends - 1;
            }
            if rest <= STRIDE || node.nodes == 0 {
                return;
            }
            match self.nodes.get(&Key::node(node.number, chunk)) {
                Some(next) => (node, at) = (next, at + STRIDE),
                None => return,
            }
        }
    }

    /// The value of a text, which must not be empty.
    pub(super) fn get_mut(&mut self, text: &[u8]) -> Option<&mut V> {
        let (mut node, mut at) = (&self.root, 0);
        while text.len() - at > STRIDE {
            node = self.nodes.get(&Key::node(node.number, chunk(text, at, self.side)))?;
            at += STRIDE;
        }
        self.ends.get_mut(&Key::end(node.number, text.len() - at, chunk(text, at, self.side)))
    }

    /// The value of a text, which must not be empty; made if there is none.
    pub(super) fn entry(&mut self, text: &[u8]) -> &mut V {
        let (mut above, mut number, mut at) = (None, 0, 0);
        while text.len() - at > STRIDE {
            let key = Key::node(number, chunk(text, at, self.side));
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
        let key = Key::end(number, rest, chunk(text, at, self.side));
        if !self.ends.contains_key(&key) {
            *self.lengths.entry(key.without_bytes()).or_default() += 1;
            self.node(above).ends |= 1 << (rest - 1);
        }
        self.ends.entry(key).or_default()
    }

    /// Forgets a text, which must not be empty, and the nodes that nothing else needs.
    pub(super) fn remove(&mut self, text: &[u8]) {
        let (mut path, mut number, mut at) = (vec![], 0, 0);
        while text.len() - at > STRIDE {
            let key = Key::node(number, chunk(text, at, self.side));
            let Some(node) = self.nodes.get(&key) else { return };
            path.push(key);
            (number, at) = (node.number, at + STRIDE);
        }
        let rest = text.len() - at;
        let key = Key::end(number, rest, chunk(text, at, self.side));
        if self.ends.remove(&key).is_none() {
            return;
        }
        shrink(&mut self.ends);
        let others = self.lengths.get_mut(&key.without_bytes()).map_or(0, |texts| {
            *texts -= 1;
            *texts
        });
        if others > 0 {
            return;
        }
        self.lengths.remove(&key.without_bytes());
        shrink(&mut self.lengths);
        self.node(path.last().copied()).ends &= !(1 << (rest - 1));
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
    fn node(&mut self, key: Option<Key>) -> &mut Node {
        match key.and_then(|key| self.nodes.get_mut(&key)) {
            Some(node) => node,
            None => &mut self.root,
        }
    }
}

#[cfg(test)]
impl<V> Trie<V> {
    /// How many things there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity() + self.ends.capacity() + self.lengths.capacity()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.ends.values()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,3}", "a{6,10}", "a{7,8}[abé]{1,10}", "[ab]{1,40}", "\\PC{1,20}"]
    }

    proptest! {
        #[test]
        fn a_trie_finds_what_comparing_each_text_finds(
            changes in vec((text(), prop::bool::weighted(0.7)), 0..60),
            texts in vec(text(), 1..20),
            side in prop::sample::select(&[Side::Front, Side::Back][..]),
        ) {
            let (mut trie, mut known) = (Trie::<usize>::new(side, Seed::random()), BTreeMap::new());
            for (number, (text, add)) in changes.into_iter().enumerate() {
                if add {
                    *trie.entry(text.as_bytes()) = number;
                    known.insert(text, number);
                } else {
                    trie.remove(text.as_bytes());
                    known.remove(&text);
                }
                prop_assert_eq!(trie.is_empty(), known.is_empty());
            }
            for text in texts.iter().chain(known.keys()) {
                let is_side = |part: &str| match side {
                    Side::Front => text.starts_with(part),
                    Side::Back => text.ends_with(part),
                };
                let expected: Vec<usize> = known.iter().filter(|(part, _)| is_side(part)).map(|(_, number)| *number).collect();
                let mut found = Vec::new();
                trie.visit(text.as_bytes(), |number| found.push(*number));
                found.sort_unstable();
                prop_assert_eq!(found, { let mut expected = expected; expected.sort_unstable(); expected });
                prop_assert_eq!(trie.get_mut(text.as_bytes()).copied(), known.get(text).copied());
            }
            for text in known.keys() {
                trie.remove(text.as_bytes());
            }
            prop_assert!(trie.is_empty() && trie.nodes.is_empty() && trie.lengths.is_empty());
            prop_assert!(trie.root.is_unused());
        }
    }
}
