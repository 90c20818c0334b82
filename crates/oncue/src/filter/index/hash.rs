//! Hashes that nobody who chooses the keys can foresee: they come from outside, and each index has a seed of its own.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map whose keys are chosen by others.
pub(super) type SeededMap<K, V> = HashMap<K, V, Seed>;

/// What all hashes of one index depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    first: u64,
    second: u64,
    /// Leaves so few hashes that values collide, as they would too seldom to be tested.
    #[cfg(test)]
    pub(super) weak: bool,
}

impl Seed {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self {
            first: random.hash_one(0),
            second: random.hash_one(1),
            #[cfg(test)]
            weak: false,
        }
    }

    pub(super) fn hash(self, text: &[u8]) -> u64 {
        let hash = xxh3_64_with_seed(text, self.first);
        #[cfg(test)]
        let hash = if self.weak { hash % 2 } else { hash };
        hash
    }
}

impl BuildHasher for Seed {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher { seed: *self, hash: self.first }
    }
}

/// For keys that are one text or one number.
pub(super) struct SeededHasher {
    seed: Seed,
    hash: u64,
}

impl Hasher for SeededHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        self.hash = self.seed.hash(bytes);
    }

    /// The end of a text, which needs no mark where a key is one text.
    fn write_u8(&mut self, _: u8) {}

    /// Both halves of a product, folded: each bit of the number reaches each bit of the hash.
    fn write_u128(&mut self, number: u128) {
        let product =
            u128::from(self.seed.first ^ number as u64) * u128::from(self.seed.second ^ (number >> 64) as u64);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// Gives memory back that a map no longer needs.
pub(super) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}
