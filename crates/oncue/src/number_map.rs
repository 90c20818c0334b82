//! A map from numbers that are spread already, or nearly: offsets and hashes of keys.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map keyed by a number. One multiplication spreads it (Fibonacci hashing, Knuth, TAOCP 6.4): a tenth of the time of
/// the standard hasher, whose protection against chosen keys these do not need.
pub(crate) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<Fibonacci>>;

#[derive(Default)]
pub(crate) struct Fibonacci(u64);

impl Hasher for Fibonacci {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(20);
    }
}
