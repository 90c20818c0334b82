//! What readers see: everything durable, and nothing else.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::checkpoint::WholeCheckpoint;
use crate::error::{ReadError, StorageError};
use crate::frame::{FRAME_INDEX, FRAME_RECORDS, Frame, HEADER_BYTES, Place};
use crate::index::{FrameTopic, Index};
use crate::record::{KIND_EVENT, Lsn, RECORD_HEADER_BYTES};
use crate::segment::{Chunk, FIRST_FRAME, FrameError, SegmentFile, name_of};
use crate::storage::Storage;

/// A segment on the storage, opened when somebody reads it.
pub(crate) struct Segment {
    pub(crate) epoch: u64,
    /// The lowest epoch whose records are in it: its own, unless others were rewritten into it.
    pub(crate) first_epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// Where its records end, once it is sealed; 0 before.
    index_at: AtomicU64,
    pub(crate) written: Written,
    /// What its file takes.
    bytes: AtomicU64,
    /// How much of it was about wanted, when that was last looked at, and when it was found not to pay to rewrite it.
    live: AtomicU64,
    refused: AtomicU64,
    reader: Mutex<Weak<SegmentReader>>,
}

/// How a segment's file came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Frame by frame, as the log grew: every event is in it.
    Once,
    /// Rewritten before the log was opened: events are missing.
    Again,
    /// Rewritten since: somebody may know places in the file that it was before.
    Moved,
}

/// An open segment with its index.
pub(crate) struct SegmentReader {
    pub(crate) file: SegmentFile,
    /// What the file is, also when another replaces it.
    pub(crate) segment: Arc<Segment>,
    index: OnceLock<Index>,
}

impl Segment {
    pub(crate) fn new(epoch: u64, first_lsn: Lsn, index_at: Option<u64>) -> Self {
        let index_at = AtomicU64::new(index_at.unwrap_or(0));
        Self {
            epoch,
            first_epoch: epoch,
            first_lsn,
            index_at,
            written: Written::Once,
            bytes: AtomicU64::new(0),
            live: AtomicU64::new(0),
            refused: AtomicU64::new(u64::MAX),
            reader: Mutex::default(),
        }
    }

    /// One that was rewritten, and holds the records of all epochs from `first_epoch` on.
    pub(crate) fn rewritten(self, first_epoch: u64, written: Written) -> Self {
        Self { first_epoch, written, ..self }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether rewriting it may pay where about so many bytes are wanted: not if it did not pay with hardly more.
    pub(crate) fn may_pay(&self, live: u64) -> bool {
        self.live.store(live, Ordering::Relaxed);
        live <= self.refused.load(Ordering::Relaxed) / 4 * 3
    }

    /// Rewriting it did not pay.
    pub(crate) fn refuse(&self) {
        self.refused.store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn seal(&self, index_at: u64) {
        self.index_at.store(index_at, Ordering::Release);
    }

    pub(crate) fn index_at(&self) -> Option<u64> {
        Some(self.index_at.load(Ordering::Acquire)).filter(|position| *position > 0)
    }

    /// Opens the file, or shares it with who reads it already.
    pub(crate) fn reader(
        self: &Arc<Self>,
        storage: &dyn Storage,
        seed: u32,
    ) -> Result<Arc<SegmentReader>, StorageError> {
        let mut open = self.reader.lock();
        if let Some(reader) = open.upgrade() {
            return Ok(reader);
        }
        let name = name_of(self.epoch);
        let file = storage.open(&name, false).map_err(StorageError::on("open", &name))?;
        let file = SegmentFile { name, epoch: self.epoch, seed, file };
        let reader = Arc::new(SegmentReader { segment: Arc::clone(self), file, index: OnceLock::new() });
        *open = Arc::downgrade(&reader);
        Ok(reader)
    }
}

impl SegmentReader {
    /// The index of a sealed segment: its own, or what a scan up to the first damage yields. One that cannot be read now is
    /// not made up.
    pub(crate) fn index(&self, index_at: u64) -> Result<&Index, StorageError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let stored = match self.file.frame_at(index_at, u64::MAX, &mut Chunk::default(), HEADER_BYTES) {
            Ok(frame) if frame.header.kind == FRAME_INDEX => Index::decode(frame.payload()),
            Ok(_) | Err(FrameError::Fault(_)) => None,
            Err(FrameError::Storage(error)) => return Err(error),
        };
        let index = stored.map_or_else(|| self.scan(index_at), Ok)?;
        Ok(self.index.get_or_init(|| index))
    }

    fn scan(&self, index_at: u64) -> Result<Index, StorageError> {
        let mut index = Index::default();
        let mut chunk = Chunk::default();
        let mut position = FIRST_FRAME;
        while position < index_at {
            let frame = match self.file.frame_at(position, index_at, &mut chunk, 1 << 20) {
                Ok(frame) => frame,
                Err(FrameError::Fault(_)) => {
                    index.cut_off();
                    break;
                }
                Err(FrameError::Storage(error)) => return Err(error),
            };
            index.add(position, frame.header.first_lsn, frame.header.time, &topics_of(&frame));
            position = frame.next().position;
        }
        Ok(index)
    }
}

/// What a frame holds of each topic, by reading all of it.
pub(crate) fn topics_of(frame: &Frame) -> Vec<FrameTopic> {
    let mut topics: Vec<FrameTopic> = Vec::new();
    if frame.header.kind != FRAME_RECORDS {
        return topics;
    }
    let mut places = std::collections::HashMap::new();
    let mut walk = frame.walk();
    while let Some(Ok(step)) = walk.next(&frame.bytes) {
        if step.header.kind == KIND_EVENT {
            let (topic, offset) = (step.header.topic, step.header.offset);
            let place = *places.entry(topic).or_insert_with(|| {
                topics.push(FrameTopic::new(topic, offset));
                topics.len() - 1
            });
            topics[place].add(offset, RECORD_HEADER_BYTES + step.header.bytes as usize);
        }
    }
    topics
}

/// The range of a topic's offsets that can be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offsets {
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// Those below were dropped durably: a crash does not take that back, so their space may go.
    pub(crate) dropped: u64,
}

/// Behind one lock, held for a lookup or for taking in a group.
pub(crate) struct View {
    /// By epoch; the last one is written to.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// How many they are, also for who does not hold the view.
    pub(crate) count: Arc<AtomicU64>,
    /// Of the last segment.
    pub(crate) index: Index,
    /// The frames from `tail_from` on, without gaps, and the memory that each takes.
    tail: VecDeque<(Frame, usize)>,
    tail_bytes: usize,
    tail_limit: usize,
    pub(crate) tail_from: Place,
    /// Where the next frame will lie, or the index before it.
    pub(crate) end: Place,
    offsets: Vec<Offsets>,
    /// Drops that may not be durable yet: the lsn that ends each, its topic, and below which offset.
    drops: Vec<(Lsn, u32, u64)>,
    pub(crate) checkpoint: Option<WholeCheckpoint>,
    /// The checkpoint that the last segment's header names: recovery reads nothing before it.
    pub(crate) named: Place,
}

impl View {
    pub(crate) fn new(tail_limit: usize, end: Place, offsets: Vec<Offsets>) -> Self {
        Self {
            segments: VecDeque::new(),
            count: Arc::default(),
            index: Index::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_limit,
            tail_from: end,
            end,
            offsets,
            drops: Vec::new(),
            checkpoint: None,
            named: Place::default(),
        }
    }

    /// How many topics have had a durable event, or more.
    pub(crate) fn topics(&self) -> u32 {
        self.offsets.len() as u32
    }

    pub(crate) fn offsets(&self, topic: u32) -> Offsets {
        (topic as usize).checked_sub(1).and_then(|at| self.offsets.get(at)).copied().unwrap_or_default()
    }

    /// The events of a topic below an offset are dropped, by a record that ends at `end`: nobody reads them from now on.
    pub(crate) fn drop_below(&mut self, end: Lsn, topic: u32, below: u64) {
        let offsets = self.offsets_mut(topic);
        if below > offsets.first {
            offsets.first = below;
            self.drops.push((end, topic, below));
        }
    }

    /// Below which offset the events of each topic were dropped durably, by id.
    pub(crate) fn dropped(&mut self, durable: Lsn) -> Vec<u64> {
        let drops = std::mem::take(&mut self.drops);
        let (done, open): (Vec<_>, Vec<_>) = drops.into_iter().partition(|(end, ..)| *end <= durable);
        self.drops = open;
        for (_, topic, below) in done {
            let offsets = self.offsets_mut(topic);
            offsets.dropped = offsets.dropped.max(below);
        }
        self.offsets.iter().map(|offsets| offsets.dropped).collect()
    }

    /// What the segments' files take.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let sealed: u64 = self.segments.iter().map(|segment| segment.bytes()).sum();
        let grown = self.segments.back().map_or(0, |newest| self.end.position.saturating_sub(newest.bytes()));
        sealed + grown
    }

    /// Puts a segment in the place of those that were rewritten into it.
    pub(crate) fn replace(&mut self, epochs: RangeInclusive<u64>, made: Segment) {
        let from = self.segments.partition_point(|segment| segment.epoch < *epochs.start());
        let to = self.segments.partition_point(|segment| segment.epoch <= *epochs.end());
        self.segments.drain(from..to);
        self.segments.insert(from, Arc::new(made));
        self.recount();
    }

    /// Segments came or went.
    pub(crate) fn recount(&self) {
        self.count.store(self.segments.len() as u64, Ordering::Relaxed);
    }

    /// What can be read of the topic, to be changed.
    pub(crate) fn offsets_mut(&mut self, topic: u32) -> &mut Offsets {
        if self.offsets.len() < topic as usize {
            self.offsets.resize(topic as usize, Offsets::default());
        }
        &mut self.offsets[topic as usize - 1]
    }

    /// Takes in a frame that is durable now, and that takes `held` bytes of memory.
    pub(crate) fn publish(&mut self, frame: Frame, held: usize, topics: &[FrameTopic]) {
        let place = frame.header.place;
        self.index.add(place.position, frame.header.first_lsn, frame.header.time, topics);
        for seen in topics {
            self.offsets_mut(seen.topic).next = seen.next_offset;
        }
        self.end = frame.next();
        if self.tail_limit == 0 {
            self.tail_from = self.end;
            return;
        }
        self.tail_bytes += held;
        self.tail.push_back((frame, held));
        while self.tail_bytes > self.tail_limit {
            let Some((_, held)) = self.tail.pop_front() else { break };
            self.tail_bytes -= held;
            self.tail_from = self.tail.front().map_or(self.end, |(next, _)| next.header.place);
        }
    }

    /// Goes on in a new segment, whose header names a checkpoint.
    pub(crate) fn roll(&mut self, index_at: u64, next: Segment, named: Place) {
        if let Some(sealed) = self.segments.back() {
            sealed.seal(index_at);
        }
        self.named = named;
        self.end = Place { epoch: next.epoch, position: FIRST_FRAME };
        if self.tail.is_empty() {
            self.tail_from = self.end;
        }
        self.index = Index::default();
        self.segments.push_back(Arc::new(next));
        self.recount();
    }

    /// Lets go of the oldest segment, also of what is in memory of it.
    pub(crate) fn trim(&mut self) {
        let Some(oldest) = self.segments.pop_front() else { return };
        self.recount();
        while let Some((_, held)) = self.tail.pop_front_if(|(frame, _)| frame.header.place.epoch <= oldest.epoch) {
            self.tail_bytes -= held;
            self.tail_from = self.tail.front().map_or(self.end, |(next, _)| next.header.place);
        }
    }

    /// The first frame at or behind `place` in memory that may hold `topic` (0 = any).
    pub(crate) fn in_tail(&self, place: Place, topic: u32) -> Option<&Frame> {
        let from = self.tail.partition_point(|(frame, _)| frame.header.place < place);
        let wanted = |frame: &&Frame| topic == 0 || frame.header.topic == 0 || frame.header.topic == topic;
        self.tail.range(from..).map(|(frame, _)| frame).find(wanted)
    }

    /// Where in memory the frame with `lsn` lies.
    pub(crate) fn tail_of_lsn(&self, lsn: Lsn) -> Option<Place> {
        let behind = self.tail.partition_point(|(frame, _)| frame.header.first_lsn <= lsn);
        Some(self.tail.get(behind.checked_sub(1)?)?.0.header.place)
    }

    /// The segment that holds the records of an epoch.
    pub(crate) fn segment(&self, epoch: u64) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|segment| segment.epoch < epoch);
        self.segments.get(at).filter(|segment| segment.first_epoch <= epoch)
    }

    /// What somebody is told who stands where nothing is any more.
    pub(crate) fn moved(&self) -> ReadError {
        let first = self.segments.front().map_or(0, |segment| segment.first_lsn);
        ReadError::Trimmed { what: "lsn", wanted: 0, first }
    }

    /// Whether a segment is as it is known here: neither trimmed nor rewritten since.
    pub(crate) fn has(&self, segment: &Arc<Segment>) -> bool {
        self.segment(segment.epoch).is_some_and(|known| Arc::ptr_eq(known, segment))
    }

    /// The segment that holds `lsn`, or would.
    pub(crate) fn segment_of_lsn(&self, lsn: Lsn) -> Option<&Arc<Segment>> {
        let behind = self.segments.partition_point(|segment| segment.first_lsn <= lsn);
        self.segments.get(behind.checked_sub(1)?)
    }
}
