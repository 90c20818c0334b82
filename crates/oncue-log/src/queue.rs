//! What waits for the writer, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::Batch;
use crate::buffer::{Buffer, Pool};
use crate::checkpoint::{Part, TopicState};
use crate::error::AppendError;
use crate::frame::{self, HEADER_BYTES};
use crate::index::FrameTopic;
use crate::limits::{FRAME_TARGET_BYTES, MAX_BATCH_BYTES, MAX_EVENT_BYTES};
use crate::options::Ticket;
use crate::record::{KIND_EVENT, Lsn, RECORD_HEADER_BYTES, RecordHeader, TopicId};
use crate::wakers::Wakers;
use crate::wire::{put, u32_at};

/// A frame that is being filled: room for the header, then the payload.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Buffer,
    /// Of the payload, if it is summed up while it comes.
    pub(crate) checksum: Option<u32>,
    /// Where it will lie, as far as is known when it is begun.
    pub(crate) position: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) records: u32,
    pub(crate) time: i64,
    pub(crate) topics: Vec<FrameTopic>,
    pub(crate) parts: Vec<(Lsn, Part)>,
    serial: u64,
}

/// A topic, as appends see it.
#[derive(Debug)]
pub(crate) struct TopicSlot {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
    /// Its events below were dropped.
    pub(crate) first_offset: u64,
    /// The lsn to wait for until its definition is durable.
    pub(crate) defined: Lsn,
}

/// What each event of a topic looks at and changes; apart from the rest, so that a thousand topics are near the processor.
#[derive(Debug)]
pub(crate) struct Occurs {
    pub(crate) next_offset: u64,
    /// The frame that the topic occurred in last, and where in that frame's list.
    frame: u64,
    slot: usize,
}

impl Occurs {
    /// Another event of it stands in the frame, a record of so many bytes; gives its offset.
    fn again(&mut self, topic: u32, bytes: usize, frame: &mut Pending) -> u64 {
        let offset = self.next_offset;
        self.next_offset += 1;
        if self.frame != frame.serial {
            (self.frame, self.slot) = (frame.serial, frame.topics.len());
            frame.topics.push(FrameTopic::new(topic, offset));
        }
        frame.topics[self.slot].add(offset, bytes);
        offset
    }
}

/// Everything that appending changes, under one short lock.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Pending>,
    pub(crate) waiting_bytes: usize,
    pub(crate) next_lsn: Lsn,
    pub(crate) topics: Vec<TopicSlot>,
    /// As long as these.
    pub(crate) occurs: Vec<Occurs>,
    pub(crate) names: HashMap<String, u32>,
    pub(crate) last_time: i64,
    /// Everything below is with the writer, or durable.
    pub(crate) in_flight_end: Lsn,
    pub(crate) in_flight: Wakers,
    pub(crate) behind: Wakers,
    pub(crate) space: Wakers,
    /// An append was refused since the writer last took what waits.
    pub(crate) full: bool,
    pub(crate) closed: bool,
    /// The writer thread sleeps.
    pub(crate) idle: bool,
    pub(crate) since_checkpoint: u64,
    pub(crate) checkpoint_bytes: u64,
    /// Whether frames are made ready for the disk by those who append: laid out as its blocks, and summed up. So the writer
    /// has nothing to do between two writes.
    pub(crate) readies: bool,
    /// Where the frame behind those that the writer has will lie, as far as is known.
    position: u64,
    pub(crate) pool: Arc<Pool>,
    spare: Vec<Pending>,
    serial: u64,
}

const SPARES: usize = 4;

impl Pending {
    /// Adds a record, whose data is the parts, joined.
    fn push(&mut self, header: &RecordHeader, parts: &[&[u8]]) {
        let from = self.bytes.len();
        self.bytes.extend(&header.encode());
        for part in parts {
            self.bytes.extend(part);
        }
        self.sum(from);
        self.records += 1;
    }

    /// Sums up what came in from `from` on.
    fn sum(&mut self, from: usize) {
        if let Some(checksum) = &mut self.checksum {
            *checksum = frame::add(*checksum, &self.bytes.bytes()[from..]);
        }
    }

    /// Where the frame behind it will lie.
    pub(crate) fn end(&self) -> u64 {
        self.position.wrapping_add(self.bytes.len() as u64)
    }
}

impl Queue {
    pub(crate) fn new(next_lsn: Lsn, topics: Vec<TopicState>) -> Self {
        let mut queue = Self { next_lsn, in_flight_end: next_lsn, ..Self::default() };
        for topic in topics {
            let id = queue.define(topic.name, topic.metadata, topic.next_offset, 0);
            queue.topics[id as usize - 1].first_offset = topic.first_offset;
        }
        queue
    }

    /// Appends a batch, whole.
    pub(crate) fn append(&mut self, batch: &Batch, now: i64, limit: usize) -> Result<Ticket, AppendError> {
        let too_large = |bytes, limit| Err(AppendError::TooLarge { bytes, limit });
        if batch.largest_record > MAX_EVENT_BYTES {
            return too_large(batch.largest_record, MAX_EVENT_BYTES);
        }
        if batch.bytes.len() > MAX_BATCH_BYTES {
            return too_large(batch.bytes.len(), MAX_BATCH_BYTES);
        }
        if batch.events > 0 && (batch.lowest_topic == 0 || batch.highest_topic as usize > self.topics.len()) {
            let topic = TopicId(if batch.lowest_topic == 0 { 0 } else { batch.highest_topic });
            return Err(AppendError::UnknownTopic { topic });
        }
        self.admit(batch.bytes.len(), limit)?;
        let lsn = self.next_lsn;
        if batch.records == 0 {
            return Ok(Ticket { lsn, end: lsn, offset: 0 });
        }
        let (frame, occurs) = self.room(batch.bytes.len(), now);
        let from = frame.bytes.len();
        frame.bytes.extend(&batch.bytes);
        frame.records += batch.records;
        let offset = if batch.events > 0 { number(frame, occurs, from) } else { 0 };
        frame.sum(from);
        self.next_lsn += u64::from(batch.records);
        Ok(Ticket { lsn, end: self.next_lsn, offset })
    }

    /// Appends one event.
    pub(crate) fn append_event(
        &mut self,
        (topic, partition): (TopicId, u16),
        parts: &[&[u8]],
        now: i64,
        limit: usize,
    ) -> Result<Ticket, AppendError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > MAX_EVENT_BYTES {
            return Err(AppendError::TooLarge { bytes, limit: MAX_EVENT_BYTES });
        }
        let place = (topic.0 as usize).wrapping_sub(1);
        if place >= self.topics.len() {
            return Err(AppendError::UnknownTopic { topic });
        }
        self.admit(RECORD_HEADER_BYTES + bytes, limit)?;
        let (frame, occurs) = self.room(RECORD_HEADER_BYTES + bytes, now);
        let offset = occurs[place].again(topic.0, RECORD_HEADER_BYTES + bytes, frame);
        let header =
            RecordHeader { bytes: bytes as u32, kind: KIND_EVENT, flags: 0, partition, topic: topic.0, offset };
        frame.push(&header, parts);
        self.next_lsn += 1;
        Ok(Ticket { lsn: self.next_lsn - 1, end: self.next_lsn, offset })
    }

    /// Back-pressure: whether `bytes` more may wait. What is larger than the limit may, alone.
    pub(crate) fn admit(&mut self, bytes: usize, limit: usize) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        if self.waiting_bytes > 0 && self.waiting_bytes + bytes > limit {
            self.full = true;
            return Err(AppendError::Full);
        }
        Ok(())
    }

    /// Appends one record of the log's own, past any bound. Returns its lsn.
    pub(crate) fn push(&mut self, kind: u8, (topic, offset): (u32, u64), parts: &[&[u8]], now: i64) -> Lsn {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let (frame, _) = self.room(RECORD_HEADER_BYTES + bytes, now);
        let header = RecordHeader { bytes: bytes as u32, kind, flags: 0, partition: 0, topic, offset };
        frame.push(&header, parts);
        self.next_lsn += 1;
        self.next_lsn - 1
    }

    /// The last frame that waits, if it has room, else a new one.
    fn room(&mut self, bytes: usize, now: i64) -> (&mut Pending, &mut [Occurs]) {
        let fits = |frame: &Pending| frame.bytes.len() + bytes <= HEADER_BYTES + FRAME_TARGET_BYTES;
        if !self.waiting.back().is_some_and(fits) {
            self.serial += 1;
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.position = self.waiting.back().map_or(self.position, Pending::end);
            frame.bytes = self.pool.take();
            frame.bytes.begin(self.readies.then_some(frame.position));
            frame.checksum = self.readies.then_some(0);
            frame.first_lsn = self.next_lsn;
            frame.time = now;
            frame.serial = self.serial;
            self.waiting.push_back(frame);
        }
        self.waiting_bytes += bytes;
        self.since_checkpoint += bytes as u64;
        self.last_time = now;
        let last = self.waiting.len() - 1;
        let frame = &mut self.waiting[last];
        frame.time = frame.time.max(now);
        (frame, &mut self.occurs)
    }

    /// Whether enough was appended since the last checkpoint, for the least that is written between two of them.
    pub(crate) fn is_checkpoint_due(&self, least: u64) -> bool {
        self.since_checkpoint >= least.max(4 * self.checkpoint_bytes)
    }

    /// Adds a topic, without a record.
    pub(crate) fn define(&mut self, name: String, metadata: Bytes, next_offset: u64, defined: Lsn) -> u32 {
        let first_offset = 0;
        self.topics.push(TopicSlot { name: name.clone(), metadata, first_offset, defined });
        self.occurs.push(Occurs { next_offset, frame: 0, slot: 0 });
        let id = self.topics.len() as u32;
        self.names.insert(name, id);
        id
    }

    /// Notes which frame a checkpoint's part went to: the last that waits.
    pub(crate) fn mark_part(&mut self, lsn: Lsn, part: Part) {
        if let Some(frame) = self.waiting.back_mut() {
            frame.parts.push((lsn, part));
        }
    }

    /// Hands everything that waits to the writer.
    pub(crate) fn take(&mut self, group: &mut VecDeque<Pending>) {
        std::mem::swap(&mut self.waiting, group);
        self.position = group.back().map_or(self.position, Pending::end);
        self.waiting_bytes = 0;
        self.full = false;
        self.in_flight_end = self.next_lsn;
        let Self { in_flight, behind, .. } = self;
        in_flight.append(behind);
    }

    /// What the writer had was `expected` to end somewhere, and ends at `position`, most likely in another segment. Frames that
    /// wait were begun for other places, and are copied when they are written.
    pub(crate) fn moved(&mut self, expected: u64, position: u64) {
        let moved = |place: u64| place.wrapping_add(position).wrapping_sub(expected);
        self.position = moved(self.position);
        for frame in &mut self.waiting {
            frame.position = moved(frame.position);
        }
    }

    /// Keeps what a written frame has for the next ones.
    pub(crate) fn recycle(&mut self, mut frame: Pending) {
        if self.spare.len() < SPARES {
            frame.topics.clear();
            frame.parts.clear();
            frame.records = 0;
            self.spare.push(frame);
        }
    }
}

/// Gives the events from `from` on their offsets; returns the first.
fn number(frame: &mut Pending, occurs: &mut [Occurs], from: usize) -> u64 {
    let mut first = None;
    let mut at = from;
    while at < frame.bytes.len() {
        let record = frame.bytes.bytes();
        let bytes = RECORD_HEADER_BYTES + u32_at(record, at) as usize;
        if record[at + 4] == KIND_EVENT {
            let topic = u32_at(record, at + 8);
            let offset = occurs[topic as usize - 1].again(topic, bytes, frame);
            put(frame.bytes.bytes_mut(), at + 12, &offset.to_le_bytes());
            first.get_or_insert(offset);
        }
        at += bytes;
    }
    first.unwrap_or(0)
}
