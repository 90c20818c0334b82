//! The window in which publishing the same `source` and `id` again is recognised.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use xxhash_rust::xxh3::Xxh3;

use crate::codec::{Malformed, Reader, Writer};
use crate::{clock::Timestamp, event::Envelope};

/// How far back duplicates are recognised: by age and by number, whichever is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) age: Duration,
    pub(crate) ids: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { age: Duration::from_secs(120), ids: 100_000 }
    }
}

/// Hash of topic, source and id. 128 bits: among a million ids, two that differ meet with a chance of 10⁻²⁷.
pub(crate) type IdHash = u128;

/// Where an event stands: topic, partition, offset.
pub(crate) type Place = (u32, u16, u64);

#[derive(Default)]
pub(crate) struct Dedup {
    seen: HashMap<IdHash, Place>,
    order: VecDeque<(Timestamp, IdHash)>,
}

impl Dedup {
    /// `seed` differs from log to log, so that ids made to collide in one do not in another.
    pub(crate) fn hash(seed: u64, topic: u32, envelope: &Envelope) -> IdHash {
        let mut hasher = Xxh3::with_seed(seed);
        hasher.update(&topic.to_le_bytes());
        hasher.update(&(envelope.source().len() as u64).to_le_bytes());
        hasher.update(envelope.source().as_bytes());
        hasher.update(envelope.id().as_bytes());
        hasher.digest128()
    }

    pub(crate) fn find(&self, hash: IdHash) -> Option<Place> {
        self.seen.get(&hash).copied()
    }

    pub(crate) fn insert(&mut self, hash: IdHash, place: Place, at: Timestamp, window: Window) {
        if self.seen.insert(hash, place).is_none() {
            self.order.push_back((at, hash));
        }
        self.forget(at, window);
    }

    /// Forgets what has left the window.
    pub(crate) fn forget(&mut self, now: Timestamp, window: Window) {
        while let Some((at, hash)) = self.order.front() {
            if self.order.len() <= window.ids && now.since(*at) <= window.age {
                break;
            }
            self.seen.remove(hash);
            self.order.pop_front();
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.order.len() as u64);
        for (at, hash) in &self.order {
            let (topic, partition, offset) = self.seen.get(hash).copied().unwrap_or_default();
            out.signed(at.as_micros());
            out.u128(*hash);
            out.varint(u64::from(topic));
            out.varint(u64::from(partition));
            out.varint(offset);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut dedup = Self::default();
        for _ in 0..from.count(20)? {
            let at = Timestamp::from_micros(from.signed()?);
            let hash = from.u128()?;
            let place = (from.small()?, from.small()?, from.varint()?);
            dedup.seen.insert(hash, place);
            dedup.order.push_back((at, hash));
        }
        Ok(dedup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_exact_in_number_and_in_age() {
        let window = Window { age: Duration::from_secs(10), ids: 3 };
        let second = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let mut dedup = Dedup::default();
        for id in 0..3_u64 {
            dedup.insert(u128::from(id), (1, 0, id), second(0), window);
        }
        assert_eq!(dedup.find(0), Some((1, 0, 0)), "the 3rd newest of 3 is in the window");
        dedup.insert(3, (1, 0, 3), second(0), window);
        assert_eq!(dedup.find(0), None, "the 4th newest is not");
        dedup.forget(second(10), window);
        assert!(dedup.find(1).is_some(), "10 s old is in the window");
        dedup.forget(second(11), window);
        assert_eq!((dedup.find(1), dedup.seen.len()), (None, 0));
    }

    #[test]
    fn survives_a_checkpoint() {
        let mut dedup = Dedup::default();
        dedup.insert(7, (1, 2, 3), Timestamp::from_micros(5), Window::default());
        let mut out = Writer::default();
        dedup.encode(&mut out);
        let bytes = out.into_bytes();
        assert_eq!(Dedup::decode(&mut Reader::new(&bytes)).unwrap().find(7), Some((1, 2, 3)));
    }
}
