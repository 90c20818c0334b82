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
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn random() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    pub(super) fn hash(self, text: &[u8]) -> u64 {
        xxh3_64_with_seed(text, self.0)
    }
}

impl BuildHasher for Seed {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

pub(super) struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    /// Both halves of a product, folded: each bit of the number reaches each bit of the hash.
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// Gives memory back that a map no longer needs.
pub(super) fn shrink<K: Eq + Hash, V>(map: &mut SeededMap<K, V>) {
    if map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}
