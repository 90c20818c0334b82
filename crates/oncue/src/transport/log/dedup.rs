//! The window in which publishing the same `source` and `id` again is recognised.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::codec::{Malformed, Reader, Writer};
use crate::{clock::Timestamp, event::Envelope};

/// How far back duplicates are recognised: by age (microseconds) and by number, whichever is smaller. A log keeps the one
/// that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) age_us: u64,
    pub(crate) ids: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { age_us: 120_000_000, ids: 100_000 }
    }
}

/// What a URL says of the window; the rest stays as the log has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowWish {
    pub(crate) age_us: Option<u64>,
    pub(crate) ids: Option<u64>,
}

impl WindowWish {
    pub(crate) fn over(self, known: Window) -> Window {
        Window { age_us: self.age_us.unwrap_or(known.age_us), ids: self.ids.unwrap_or(known.ids) }
    }
}

/// Hash of topic, source and id. 128 bits: among a million ids, two that differ meet with a chance of 10⁻²⁷.
pub(crate) type IdHash = u128;

/// Where an event stands: topic, partition, offset.
pub(crate) type Place = (u32, u16, u64);

#[derive(Default)]
pub(crate) struct Dedup {
    window: Window,
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

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// What has left a smaller window is forgotten with the next id.
    pub(crate) fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    pub(crate) fn insert(&mut self, hash: IdHash, place: Place, at: Timestamp) {
        if self.seen.insert(hash, place).is_none() {
            self.order.push_back((at, hash));
        }
        self.forget(at);
    }

    /// Forgets what has left the window.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        while let Some((at, hash)) = self.order.front() {
            let is_young = now.since(*at).as_micros() <= u128::from(self.window.age_us);
            if self.order.len() as u64 <= self.window.ids && is_young {
                break;
            }
            self.seen.remove(hash);
            self.order.pop_front();
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.window.age_us);
        out.varint(self.window.ids);
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
        let window = Window { age_us: from.varint()?, ids: from.varint()? };
        let mut dedup = Self { window, ..Self::default() };
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
        let second = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let mut dedup = Dedup::default();
        dedup.set_window(Window { age_us: 10_000_000, ids: 3 });
        for id in 0..3_u64 {
            dedup.insert(u128::from(id), (1, 0, id), second(0));
        }
        assert_eq!(dedup.find(0), Some((1, 0, 0)), "the 3rd newest of 3 is in the window");
        dedup.insert(3, (1, 0, 3), second(0));
        assert_eq!(dedup.find(0), None, "the 4th newest is not");
        dedup.forget(second(10));
        assert!(dedup.find(1).is_some(), "10 s old is in the window");
        dedup.forget(second(11));
        assert_eq!((dedup.find(1), dedup.seen.len()), (None, 0));
    }

    #[test]
    fn survives_a_checkpoint() {
        let mut dedup = Dedup::default();
        dedup.set_window(Window { age_us: 9, ids: 8 });
        dedup.insert(7, (1, 2, 3), Timestamp::from_micros(5));
        let mut out = Writer::default();
        dedup.encode(&mut out);
        let bytes = out.into_bytes();
        let read = Dedup::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((read.find(7), read.window()), (Some((1, 2, 3)), Window { age_us: 9, ids: 8 }));
    }
}
