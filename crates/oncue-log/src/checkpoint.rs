//! Checkpoints: the topics and the caller's state, restated, so that what came before need not be replayed.

use std::ops::Range;

use bytes::Bytes;

use crate::frame::Place;
use crate::limits::CHECKPOINT_PART_BYTES;
use crate::record::{KIND_CHECKPOINT, Lsn};
use crate::wire::Decoder;

pub(crate) const PART_HEADER_BYTES: usize = 16;

/// The head of a checkpoint record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) of_lsn: Lsn,
    pub(crate) part: u32,
    pub(crate) parts: u32,
}

/// A checkpoint all of whose parts are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WholeCheckpoint {
    /// The frame of the first part.
    pub(crate) place: Place,
    pub(crate) of_lsn: Lsn,
}

impl Part {
    pub(crate) fn encode(&self) -> [u8; PART_HEADER_BYTES] {
        let mut raw = [0; PART_HEADER_BYTES];
        raw[..8].copy_from_slice(&self.of_lsn.to_le_bytes());
        raw[8..12].copy_from_slice(&self.part.to_le_bytes());
        raw[12..].copy_from_slice(&self.parts.to_le_bytes());
        raw
    }

    /// Reads a record's data: the head, and the slice of the checkpoint behind it.
    pub(crate) fn decode(data: &[u8]) -> Option<(Self, &[u8])> {
        let mut decoder = Decoder::new(data);
        let part = Self { of_lsn: decoder.u64()?, part: decoder.u32()?, parts: decoder.u32()? };
        (part.part < part.parts).then(|| (part, decoder.rest()))
    }
}

/// Follows the parts as they come by in lsn order, and says when a checkpoint is whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    begun: Option<(Part, Place)>,
}

impl Tracker {
    pub(crate) fn see(&mut self, lsn: Lsn, part: Part, place: Place) -> Option<WholeCheckpoint> {
        let next = match self.begun {
            _ if part.part == 0 && part.of_lsn == lsn => Some((part, place)),
            Some((last, first)) if Part { part: last.part + 1, ..last } == part => Some((part, first)),
            _ => None,
        };
        self.begun = next;
        let (part, place) = next?;
        (part.part + 1 == part.parts).then_some(WholeCheckpoint { place, of_lsn: part.of_lsn })
    }
}

/// The parts of a checkpoint, joined as its records come by in lsn order.
pub(crate) struct Joined {
    of_lsn: Lsn,
    pub(crate) bytes: Vec<u8>,
}

impl Joined {
    pub(crate) fn of(of_lsn: Lsn) -> Self {
        Self { of_lsn, bytes: Vec::new() }
    }

    /// Takes what a record says, if it is one of the parts; whether it was the last one.
    pub(crate) fn take(&mut self, kind: u8, data: &[u8]) -> bool {
        let part = (kind == KIND_CHECKPOINT).then(|| Part::decode(data)).flatten();
        let Some((part, slice)) = part.filter(|(part, _)| part.of_lsn == self.of_lsn) else { return false };
        self.bytes.extend_from_slice(slice);
        part.part + 1 == part.parts
    }
}

/// Where to cut `bytes` bytes of checkpoint.
pub(crate) fn cuts(bytes: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let parts = bytes.div_ceil(CHECKPOINT_PART_BYTES).max(1);
    (0..parts).map(move |part| {
        let start = part * CHECKPOINT_PART_BYTES;
        start..(start + CHECKPOINT_PART_BYTES).min(bytes)
    })
}

/// A topic, restated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicState {
    pub(crate) id: u32,
    /// Its events below were dropped.
    pub(crate) first_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// The part of a checkpoint that is the log's own, up to where the caller's begins.
pub(crate) fn encode_topics<'a>(topics: impl ExactSizeIterator<Item = (u64, u64, &'a str, &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(topics.len() as u32).to_le_bytes());
    for (index, (first_offset, next_offset, name, metadata)) in topics.enumerate() {
        out.extend_from_slice(&(index as u32 + 1).to_le_bytes());
        out.extend_from_slice(&first_offset.to_le_bytes());
        out.extend_from_slice(&next_offset.to_le_bytes());
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(metadata.len() as u32).to_le_bytes());
        out.extend_from_slice(metadata);
    }
    out
}

/// Reads a joined checkpoint: the topics, in order of id, and the caller's part.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Vec<TopicState>, &[u8])> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.u32()?;
    let mut topics = Vec::new();
    for expected in 1..=count {
        let id = decoder.u32()?;
        if id != expected {
            return None;
        }
        let (first_offset, next_offset) = (decoder.u64()?, decoder.u64()?);
        let name_bytes = decoder.u16()?;
        let name = str::from_utf8(decoder.bytes(usize::from(name_bytes))?).ok()?.to_owned();
        let metadata_bytes = decoder.u32()?;
        let metadata = Bytes::copy_from_slice(decoder.bytes(metadata_bytes as usize)?);
        topics.push(TopicState { id, first_offset, next_offset, name, metadata });
    }
    Some((topics, decoder.rest()))
}

/// The data of a record that defines a topic.
pub(crate) fn topic_definition(name: &str) -> [u8; 2] {
    (name.len() as u16).to_le_bytes()
}

/// Reads it back: name and metadata.
pub(crate) fn decode_topic(data: &[u8]) -> Option<(&str, &[u8])> {
    let mut decoder = Decoder::new(data);
    let bytes = decoder.u16()?;
    let name = str::from_utf8(decoder.bytes(usize::from(bytes))?).ok()?;
    Some((name, decoder.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_round_trip() {
        let mut bytes = encode_topics([(3, 7, "orders", b"meta".as_slice()), (0, 0, "", b"")].into_iter());
        bytes.extend_from_slice(b"opaque");
        let (topics, opaque) = decode(&bytes).unwrap();
        assert_eq!(opaque, b"opaque");
        assert_eq!((topics[0].id, topics[0].first_offset, topics[0].next_offset), (1, 3, 7));
        assert_eq!(topics[0].name, "orders");
        assert_eq!(topics[1].id, 2);
        assert_eq!(decode(&bytes[..20]), None);
    }

    #[test]
    fn whole_only_with_every_part_in_order() {
        let place = Place { epoch: 1, position: 144 };
        let part = |part, parts| Part { of_lsn: 10, part, parts };
        let mut tracker = Tracker::default();
        assert_eq!(tracker.see(10, part(0, 2), place), None);
        assert_eq!(tracker.see(12, part(1, 2), Place::default()), Some(WholeCheckpoint { place, of_lsn: 10 }));
        let mut tracker = Tracker::default();
        assert_eq!(tracker.see(10, part(0, 3), place), None);
        assert_eq!(tracker.see(12, part(2, 3), place), None);
        assert_eq!(tracker.see(13, part(1, 3), place), None);
    }

    #[test]
    fn cut_without_gaps() {
        assert_eq!(cuts(0).collect::<Vec<_>>(), vec![0..0]);
        let parts: Vec<_> = cuts(2 * CHECKPOINT_PART_BYTES + 1).collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2].len(), 1);
    }
}
