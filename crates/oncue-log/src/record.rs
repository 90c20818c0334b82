//! Records: what a log keeps, and how one lies in a frame.

use bytes::Bytes;

use crate::checkpoint::{Part, decode_topic};
use crate::wire::{put, u16_at, u32_at, u64_at};

/// Log sequence number: counts the records of a log from 0, over all topics and kinds, without gaps.
pub type Lsn = u64;

/// A topic's number in its log, from 1 in the order of creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// A record that defines a topic.
pub const KIND_TOPIC: u8 = 1;
/// A record that holds a part of a checkpoint.
pub const KIND_CHECKPOINT: u8 = 2;
/// A record that says from which offset on a topic's events are kept.
pub const KIND_DROP: u8 = 3;
/// A record in a rewritten segment that stands for so many, its `offset`, that were dropped there. It is never handed out.
pub(crate) const KIND_GAP: u8 = 4;
/// A record that holds an event.
pub const KIND_EVENT: u8 = 16;
/// The lowest kind of a state record; every kind from it to 255 is state.
pub const KIND_STATE: u8 = 17;

pub(crate) const RECORD_HEADER_BYTES: usize = 20;
const FLAG_SKIPPABLE: u8 = 1;

/// One record, as read back. Its data is a slice of the frame it came in: nothing is copied, and holding it holds the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// [`KIND_EVENT`], [`KIND_TOPIC`], [`KIND_CHECKPOINT`], [`KIND_DROP`], or a state kind of the caller's.
    pub kind: u8,
    /// The topic of an event, of a topic definition, of a drop; else `TopicId(0)`.
    pub topic: TopicId,
    /// The partition of an event, else 0.
    pub partition: u16,
    /// The offset of an event in its topic, counted from 0 without gaps; the first that is kept, of a drop; else 0.
    pub offset: u64,
    /// The highest wall clock among those that its frame was filled at, in microseconds since 1970.
    pub time: i64,
    /// What was appended.
    pub data: Bytes,
}

impl Record {
    /// What a record that defines a topic says: the topic's name, and its metadata. `None` of any other record.
    pub fn topic_definition(&self) -> Option<(&str, &[u8])> {
        (self.kind == KIND_TOPIC).then(|| decode_topic(&self.data)).flatten()
    }

    /// What a record with a part of a checkpoint says: the lsn that the checkpoint stands for, which part it is, from 0, and
    /// of how many. `None` of any other record.
    pub fn checkpoint_part(&self) -> Option<(Lsn, u32, u32)> {
        let (part, _) = (self.kind == KIND_CHECKPOINT).then(|| Part::decode(&self.data)).flatten()?;
        Some((part.of_lsn, part.part, part.parts))
    }
}

/// The fixed part of a record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) bytes: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) partition: u16,
    pub(crate) topic: u32,
    pub(crate) offset: u64,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut raw = [0; RECORD_HEADER_BYTES];
        put(&mut raw, 0, &self.bytes.to_le_bytes());
        raw[4] = self.kind;
        raw[5] = self.flags;
        put(&mut raw, 6, &self.partition.to_le_bytes());
        put(&mut raw, 8, &self.topic.to_le_bytes());
        put(&mut raw, 12, &self.offset.to_le_bytes());
        raw
    }

    fn decode(raw: &[u8]) -> Self {
        Self {
            bytes: u32_at(raw, 0),
            kind: raw[4],
            flags: raw[5],
            partition: u16_at(raw, 6),
            topic: u32_at(raw, 8),
            offset: u64_at(raw, 12),
        }
    }

    /// What this version cannot read, in words; `None` if it can.
    pub(crate) fn unsupported(&self) -> Option<String> {
        if self.flags & !FLAG_SKIPPABLE != 0 {
            return Some(format!("record flags {:#04x}", self.flags));
        }
        let known = matches!(self.kind, KIND_TOPIC..=KIND_GAP | KIND_EVENT..);
        (!known && self.flags & FLAG_SKIPPABLE == 0).then(|| format!("record kind {}", self.kind))
    }
}

/// Steps through the records of one frame. It borrows nothing, so that a cursor can keep it between two reads.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    at: usize,
    lsn: Lsn,
    left: u32,
}

/// A record that a [`Walk`] came by: its header, and where its data lies in the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) lsn: Lsn,
    pub(crate) header: RecordHeader,
    pub(crate) data: usize,
}

impl Walk {
    /// `at` is where the payload begins in the frame's bytes.
    pub(crate) fn new(at: usize, first_lsn: Lsn, records: u32) -> Self {
        Self { at, lsn: first_lsn, left: records }
    }

    /// The next record of `frame`, `None` after the last, an error if the frame's content contradicts itself.
    pub(crate) fn next(&mut self, frame: &[u8]) -> Option<Result<Step, &'static str>> {
        loop {
            if self.left == 0 {
                let over = self.at >= frame.len();
                return if over { None } else { self.stop(frame, "bytes after the frame's last record") };
            }
            let Some(raw) = frame.get(self.at..self.at + RECORD_HEADER_BYTES) else {
                return self.stop(frame, "a record runs past the end of its frame");
            };
            let header = RecordHeader::decode(raw);
            let data = self.at + RECORD_HEADER_BYTES;
            if header.bytes as usize > frame.len() - data {
                return self.stop(frame, "a record runs past the end of its frame");
            }
            if header.kind == KIND_EVENT && header.offset == u64::MAX {
                return self.stop(frame, "an event's offset leaves none for the next");
            }
            let step = Step { lsn: self.lsn, header, data };
            self.at = data + header.bytes as usize;
            if header.kind != KIND_GAP {
                self.lsn += 1;
                self.left -= 1;
                return Some(Ok(step));
            }
            match u32::try_from(header.offset).ok().and_then(|gap| self.left.checked_sub(gap)) {
                Some(left) if left < self.left => (self.lsn, self.left) = (self.lsn + header.offset, left),
                _ => return self.stop(frame, "a gap stands for no record, or for more than the frame has"),
            }
        }
    }

    fn stop(&mut self, frame: &[u8], reason: &'static str) -> Option<Result<Step, &'static str>> {
        (self.left, self.at) = (0, frame.len());
        Some(Err(reason))
    }
}

impl Step {
    pub(crate) fn data<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.data..self.data + self.header.bytes as usize]
    }

    pub(crate) fn record(&self, frame: &Bytes, time: i64) -> Record {
        Record {
            lsn: self.lsn,
            kind: self.header.kind,
            topic: TopicId(self.header.topic),
            partition: self.header.partition,
            offset: self.header.offset,
            time,
            data: frame.slice(self.data..self.data + self.header.bytes as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let header = RecordHeader { bytes: 7, kind: 16, flags: 1, partition: 9, topic: 3, offset: u64::MAX - 1 };
        assert_eq!(RecordHeader::decode(&header.encode()), header);
    }

    #[test]
    fn a_record_longer_than_its_frame_is_an_error_and_ends_the_walk() {
        let header = RecordHeader { bytes: 100, kind: 16, flags: 0, partition: 0, topic: 1, offset: 0 };
        let mut walk = Walk::new(0, 5, 2);
        assert!(walk.next(&header.encode()).unwrap().is_err());
        assert!(walk.next(&header.encode()).is_none());
    }

    #[test]
    fn there_is_an_offset_behind_each_event() {
        let header =
            |offset| RecordHeader { bytes: 0, kind: KIND_EVENT, flags: 0, partition: 0, topic: 1, offset }.encode();
        assert!(Walk::new(0, 5, 1).next(&header(u64::MAX - 1)).unwrap().is_ok());
        assert!(Walk::new(0, 5, 1).next(&header(u64::MAX)).unwrap().is_err());
    }

    #[test]
    fn a_gap_counts_as_the_records_that_it_stands_for() {
        let header = |kind, offset| RecordHeader { bytes: 0, kind, flags: 0, partition: 0, topic: 1, offset }.encode();
        let frame = [header(KIND_GAP, 3), header(KIND_EVENT, 7), header(KIND_GAP, 2)].concat();
        let mut walk = Walk::new(0, 10, 6);
        assert_eq!(walk.next(&frame).unwrap().unwrap().lsn, 13);
        assert!(walk.next(&frame).is_none());
        for gap in [0, 7, u64::MAX] {
            assert!(Walk::new(0, 10, 6).next(&header(KIND_GAP, gap)).unwrap().is_err(), "{gap}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_unless_skippable() {
        let mut header = RecordHeader { bytes: 0, kind: 5, flags: 0, partition: 0, topic: 0, offset: 0 };
        assert!(header.unsupported().unwrap().contains("kind 5"));
        header.flags = 1;
        assert!(header.unsupported().is_none());
        header.flags = 2;
        assert!(header.unsupported().unwrap().contains("flags"));
    }
}
