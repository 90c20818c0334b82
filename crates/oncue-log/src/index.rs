//! The sparse index of a segment: from an lsn, or from a topic's offset, to the frame to start from.

use std::collections::HashMap;

use crate::limits::{INDEX_STRIDE, MAX_FRAME_BYTES};
use crate::record::Lsn;
use crate::spread::Spread;
use crate::wire::Decoder;

/// What one frame holds of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameTopic {
    pub(crate) topic: u32,
    pub(crate) first_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) events: u64,
    /// With their record headers.
    pub(crate) bytes: u64,
}

impl FrameTopic {
    /// None of it yet.
    pub(crate) fn new(topic: u32, first_offset: u64) -> Self {
        Self { topic, first_offset, next_offset: first_offset, events: 0, bytes: 0 }
    }

    /// Takes in its next event, whose record is of so many bytes.
    pub(crate) fn add(&mut self, offset: u64, bytes: usize) {
        self.next_offset = offset + 1;
        self.events += 1;
        self.bytes += bytes as u64;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    frames: Vec<FrameEntry>,
    /// The highest time of a frame; `None` without frames.
    time: Option<i64>,
    /// With a thousand of them a frame looks up a thousand, while the disk waits.
    topics: HashMap<u32, TopicIndex, Spread>,
    /// It ends where the segment is damaged.
    partial: bool,
}

/// Ascending in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameEntry {
    position: u64,
    first_lsn: Lsn,
    /// No frame before it has a higher time.
    before: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicIndex {
    pub(crate) first_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) events: u64,
    /// With their record headers.
    pub(crate) bytes: u64,
    /// `(offset, position)`, ascending in both.
    entries: Vec<(u64, u64)>,
}

impl Index {
    /// Takes in a frame; they come in order.
    pub(crate) fn add(&mut self, position: u64, first_lsn: Lsn, time: i64, topics: &[FrameTopic]) {
        if self.frames.last().is_none_or(|last| position - last.position >= INDEX_STRIDE) {
            self.frames.push(FrameEntry { position, first_lsn, before: self.time.unwrap_or(i64::MIN) });
        }
        self.time = self.time.max(Some(time));
        for seen in topics {
            let topic = self.topics.entry(seen.topic).or_default();
            if topic.entries.is_empty() {
                topic.first_offset = seen.first_offset;
            }
            topic.next_offset = seen.next_offset;
            topic.events += seen.events;
            topic.bytes += seen.bytes;
            if topic.entries.last().is_none_or(|(_, last)| position - last >= INDEX_STRIDE) {
                topic.entries.push((seen.first_offset, position));
            }
        }
    }

    /// The position of a frame at or before the one that holds `lsn`; `None` if the index starts behind it.
    pub(crate) fn of_lsn(&self, lsn: Lsn) -> Option<u64> {
        let behind = self.frames.partition_point(|frame| frame.first_lsn <= lsn);
        Some(self.frames.get(behind.checked_sub(1)?)?.position)
    }

    /// The position of a frame at or before the first one of a time or a later one; `None` if there is none.
    pub(crate) fn of_time(&self, time: i64) -> Option<u64> {
        if self.time < Some(time) {
            return None;
        }
        let behind = self.frames.partition_point(|frame| frame.before < time).max(1);
        self.frames.get(behind - 1).map(|frame| frame.position)
    }

    /// The highest time of a frame.
    pub(crate) fn time(&self) -> Option<i64> {
        self.time
    }

    /// What lies behind is not in it.
    pub(crate) fn cut_off(&mut self) {
        self.partial = true;
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The first indexed position behind `position`.
    pub(crate) fn after(&self, position: u64) -> Option<u64> {
        let next = self.frames.partition_point(|frame| frame.position <= position);
        self.frames.get(next).map(|frame| frame.position)
    }

    /// The last indexed position.
    pub(crate) fn last(&self) -> Option<u64> {
        self.frames.last().map(|frame| frame.position)
    }

    pub(crate) fn topic(&self, topic: u32) -> Option<&TopicIndex> {
        self.topics.get(&topic)
    }

    /// By id.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = (u32, &TopicIndex)> {
        let mut topics: Vec<_> = self.topics.iter().map(|(id, topic)| (*id, topic)).collect();
        topics.sort_unstable_by_key(|(id, _)| *id);
        topics.into_iter()
    }

    /// The payload of an index frame. An index too large for a frame is thinned out: lookups walk further.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut every = 1;
        loop {
            let payload = self.encode_every(every);
            if payload.len() <= MAX_FRAME_BYTES {
                return payload;
            }
            if every > self.frames.len() {
                return Self::default().encode_every(1); // too many topics for one frame: as if there were no index
            }
            every *= 2;
        }
    }

    fn encode_every(&self, every: usize) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.frames.len().div_ceil(every) as u32).to_le_bytes());
        for frame in self.frames.iter().step_by(every) {
            out.extend_from_slice(&frame.position.to_le_bytes());
            out.extend_from_slice(&frame.first_lsn.to_le_bytes());
            out.extend_from_slice(&frame.before.to_le_bytes());
        }
        out.extend_from_slice(&self.time.unwrap_or(i64::MIN).to_le_bytes());
        let topics = self.topics();
        out.extend_from_slice(&(topics.len() as u32).to_le_bytes());
        for (id, topic) in topics {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&topic.first_offset.to_le_bytes());
            out.extend_from_slice(&topic.next_offset.to_le_bytes());
            out.extend_from_slice(&topic.events.to_le_bytes());
            out.extend_from_slice(&topic.bytes.to_le_bytes());
            out.extend_from_slice(&(topic.entries.len().div_ceil(every) as u32).to_le_bytes());
            for (offset, position) in topic.entries.iter().step_by(every) {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&position.to_le_bytes());
            }
        }
        out
    }

    /// Reads an index frame's payload; `None` if it is not one, or an empty one (a segment always holds a frame).
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(payload);
        let mut index = Self::default();
        for _ in 0..decoder.u32()? {
            let (position, first_lsn) = (decoder.u64()?, decoder.u64()?);
            index.frames.push(FrameEntry { position, first_lsn, before: decoder.i64()? });
        }
        index.time = Some(decoder.i64()?);
        for _ in 0..decoder.u32()? {
            let id = decoder.u32()?;
            let mut topic = TopicIndex {
                first_offset: decoder.u64()?,
                next_offset: decoder.u64()?,
                events: decoder.u64()?,
                bytes: decoder.u64()?,
                entries: Vec::new(),
            };
            for _ in 0..decoder.u32()? {
                topic.entries.push((decoder.u64()?, decoder.u64()?));
            }
            index.topics.insert(id, topic);
        }
        (decoder.rest().is_empty() && !index.frames.is_empty()).then_some(index)
    }
}

impl TopicIndex {
    /// The position of a frame at or before the one that holds `offset`; `None` if the segment's first is behind it.
    pub(crate) fn of_offset(&self, offset: u64) -> Option<u64> {
        let behind = self.entries.partition_point(|(first, _)| *first <= offset);
        Some(self.entries.get(behind.checked_sub(1)?)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let mut index = Index::default();
        for frame in 0..100 {
            let times = [5, 90, 20, 30]; // of the first frames; the others come in order
            let time = times.get(frame as usize).map_or(frame as i64, |time| *time);
            index.add(144 + frame * 40_000, frame * 10, time, &[one(1 + (frame % 3) as u32, frame)]);
        }
        index
    }

    fn one(topic: u32, offset: u64) -> FrameTopic {
        FrameTopic { topic, first_offset: offset, next_offset: offset + 1, events: 1, bytes: 30 }
    }

    #[test]
    fn round_trips() {
        let index = sample();
        assert_eq!(Index::decode(&index.encode()), Some(index.clone()));
        assert_eq!(Index::decode(&index.encode()[1..]), None);
        assert_eq!(Index::decode(&[]), None);
    }

    #[test]
    fn finds_the_frame_at_or_before() {
        let index = sample();
        assert_eq!(index.of_lsn(0), Some(144));
        assert_eq!(index.of_lsn(15), Some(144));
        assert_eq!(index.of_lsn(20), Some(144 + 80_000));
        let topic = index.topic(1).unwrap();
        assert_eq!((topic.first_offset, topic.next_offset), (0, 100));
        assert_eq!((topic.events, topic.bytes), (34, 34 * 30));
        assert_eq!(topic.of_offset(5), Some(144 + 3 * 40_000));
        assert_eq!(index.topic(2).unwrap().of_offset(0), None);
    }

    #[test]
    fn finds_the_first_frame_of_a_time_where_times_are_out_of_order() {
        let index = sample();
        assert_eq!(index.of_time(i64::MIN), Some(144));
        assert_eq!(index.of_time(6), Some(144), "in the second frame, which has no entry of its own");
        assert_eq!(index.of_time(90), Some(144));
        assert_eq!(index.of_time(91), Some(144 + 90 * 40_000));
        assert_eq!(index.of_time(99), Some(144 + 98 * 40_000));
        assert_eq!(index.of_time(100), None);
    }

    #[test]
    fn too_many_entries_for_a_frame_are_thinned_out() {
        let mut index = Index::default();
        for frame in 0..400_000 {
            index.add(144 + frame * INDEX_STRIDE, frame, 0, &[1, 2, 3].map(|topic| one(topic, frame)));
        }
        let payload = index.encode();
        assert!(payload.len() <= MAX_FRAME_BYTES);
        let thin = Index::decode(&payload).unwrap();
        assert_eq!(thin.topic(2).unwrap().next_offset, 400_000);
        assert!(thin.topic(2).unwrap().of_offset(399_999).unwrap() > 144);
    }
}
