//! Keyed state: the newest value of each key is in the log; a bounded share of the values is in memory too.

use std::collections::HashMap;

use bytes::Bytes;
use oncue_log::Lsn;

use crate::codec::{Malformed, Reader, Writer};
use crate::transport::StateChange;

/// Bytes of values kept in memory per subscription. What does not fit is read from the log, by its record's number.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Values up to this size are in checkpoints too.
const SMALL_BYTES: usize = 512;

#[derive(Default)]
pub(crate) struct KeyedStates {
    slots: HashMap<Box<str>, Slot>,
    cached_bytes: usize,
}

struct Slot {
    /// The record that holds the value.
    lsn: Lsn,
    value: Option<Bytes>,
}

impl Slot {
    /// The value, if it is in checkpoints too.
    fn small(&self) -> Option<&Bytes> {
        self.value.as_ref().filter(|value| value.len() <= SMALL_BYTES)
    }

    fn stored(&self) -> Stored {
        self.value.clone().map_or(Stored::InLog(self.lsn), Stored::InMemory)
    }
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    InMemory(Bytes),
    InLog(Lsn),
}

impl KeyedStates {
    pub(crate) fn get(&self, key: &str) -> Option<Stored> {
        self.slots.get(key).map(Slot::stored)
    }

    /// Every key with where its value is.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Stored)> {
        self.slots.iter().map(|(key, slot)| (&**key, slot.stored()))
    }

    /// The records of the values that checkpoints do not hold.
    pub(crate) fn records(&self) -> impl Iterator<Item = Lsn> {
        self.slots.values().filter(|slot| slot.small().is_none()).map(|slot| slot.lsn)
    }

    pub(crate) fn apply(&mut self, key: &str, change: &StateChange, lsn: Lsn) {
        let old = match change {
            StateChange::Clear => self.slots.remove(key),
            StateChange::Set(value) => {
                let held = self.slots.get(key).and_then(|slot| slot.value.as_ref()).map_or(0, Bytes::len);
                let fits = self.cached_bytes - held + value.len() <= CACHE_BYTES;
                self.cached_bytes += if fits { value.len() } else { 0 };
                let slot = Slot { lsn, value: fits.then(|| value.clone()) };
                match self.slots.get_mut(key) {
                    Some(known) => Some(std::mem::replace(known, slot)),
                    None => self.slots.insert(key.into(), slot),
                }
            }
        };
        self.cached_bytes -= old.and_then(|slot| slot.value).map_or(0, |value| value.len());
    }

    /// Where each value is, and the small ones themselves: a log that is opened again need not look for them.
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.slots.len() as u64);
        for (key, slot) in &self.slots {
            out.bytes(key.as_bytes());
            out.varint(slot.lsn);
            let small = slot.small();
            out.u8(u8::from(small.is_some()));
            if let Some(value) = small {
                out.bytes(value);
            }
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut states = Self::default();
        for _ in 0..from.count(3)? {
            let key = from.text()?.into();
            let lsn = from.varint()?;
            let value = if from.u8()? == 0 { None } else { Some(Bytes::copy_from_slice(from.bytes()?)) };
            states.cached_bytes += value.as_ref().map_or(0, Bytes::len);
            states.slots.insert(key, Slot { lsn, value });
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_counts_and_the_cache_is_bounded() {
        let mut states = KeyedStates::default();
        let large = Bytes::from(vec![0; CACHE_BYTES - 4]);
        states.apply("large", &StateChange::Set(large.clone()), 1);
        states.apply("small", &StateChange::Set(Bytes::from_static(b"12345")), 2);
        assert_eq!(states.get("small"), Some(Stored::InLog(2)), "does not fit beside the large one");
        states.apply("large", &StateChange::Set(Bytes::from_static(b"x")), 3);
        states.apply("small", &StateChange::Set(Bytes::from_static(b"12345")), 4);
        assert_eq!(states.get("small"), Some(Stored::InMemory(Bytes::from_static(b"12345"))));
        states.apply("small", &StateChange::Clear, 5);
        assert_eq!((states.get("small"), states.cached_bytes), (None, 1));
    }

    #[test]
    fn a_checkpoint_says_where_the_values_are() {
        let mut states = KeyedStates::default();
        states.apply("k", &StateChange::Set(Bytes::from_static(b"v")), 9);
        states.apply("large", &StateChange::Set(Bytes::from(vec![0; SMALL_BYTES + 1])), 10);
        let mut out = Writer::default();
        states.encode(&mut out);
        let bytes = out.into_bytes();
        let restored = KeyedStates::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(restored.get("k"), Some(Stored::InMemory(Bytes::from_static(b"v"))));
        assert_eq!((restored.get("large"), restored.cached_bytes), (Some(Stored::InLog(10)), 1));
    }
}
