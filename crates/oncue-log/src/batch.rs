//! The buffer that callers fill and the log appends as one unit.

use crate::limits::MAX_EVENT_BYTES;
use crate::record::{KIND_EVENT, KIND_STATE, RECORD_HEADER_BYTES, RecordHeader, TopicId};

/// Records that become durable together, or not at all. A buffer to be kept and reused: [`clear`](Self::clear) keeps its memory.
///
/// Nothing is checked while it is filled; [`Log::append`](crate::Log::append) refuses what is too large.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) events: u32,
    pub(crate) lowest_topic: u32,
    pub(crate) highest_topic: u32,
    pub(crate) largest_record: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets every record, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.records, self.events, self.lowest_topic, self.highest_topic) = (0, 0, 0, 0);
        self.largest_record = 0;
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// How many bytes it will take in the log, record headers included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an event. Its data is the parts, joined, so that a caller with a header and a body need not copy them together.
    pub fn event(&mut self, topic: TopicId, partition: u16, parts: &[&[u8]]) {
        self.lowest_topic = if self.events == 0 { topic.0 } else { self.lowest_topic.min(topic.0) };
        self.highest_topic = self.highest_topic.max(topic.0);
        self.events += 1;
        self.push(KIND_EVENT, topic.0, partition, parts);
    }

    /// Adds a state record of a kind from [`KIND_STATE`] to 255, whose data is the parts, joined.
    ///
    /// # Panics
    /// If `kind` is below [`KIND_STATE`]: those kinds are the log's own.
    #[track_caller]
    pub fn state(&mut self, kind: u8, parts: &[&[u8]]) {
        assert!(kind >= KIND_STATE, "state kinds are {KIND_STATE} to 255, not {kind}");
        self.push(kind, 0, 0, parts);
    }

    fn push(&mut self, kind: u8, topic: u32, partition: u16, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.records += 1;
        self.largest_record = self.largest_record.max(bytes);
        if self.largest_record > MAX_EVENT_BYTES {
            return; // the batch will be refused: its length need not fit the header, nor its bytes the memory
        }
        let header = RecordHeader { bytes: bytes as u32, kind, flags: 0, partition, topic, offset: 0 };
        self.bytes.reserve(RECORD_HEADER_BYTES + bytes);
        self.bytes.extend_from_slice(&header.encode());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_clears() {
        let mut batch = Batch::new();
        batch.event(TopicId(2), 0, &[b"ab", b"c"]);
        batch.state(17, &[b"x"]);
        assert_eq!((batch.len(), batch.bytes(), batch.is_empty()), (2, 2 * RECORD_HEADER_BYTES + 4, false));
        batch.clear();
        assert_eq!((batch.len(), batch.bytes(), batch.is_empty()), (0, 0, true));
    }

    #[test]
    #[should_panic(expected = "state kinds")]
    fn a_kind_of_the_logs_own_is_refused() {
        Batch::new().state(16, &[]);
    }
}
