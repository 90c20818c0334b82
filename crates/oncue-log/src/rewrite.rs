//! Rewriting: what is left of segments that are mostly of no use goes into one new file, with the lsns and offsets that it had.
//! `docs/log-format.md`, A rewritten segment, tells the rules that this follows.

use std::sync::{Arc, atomic::Ordering};

use crate::core::Core;
use crate::error::{ReadError, StorageError};
use crate::frame::{FLAG_SKIPPABLE, FRAME_INDEX, FRAME_RECORDS, Frame, FrameHeader, HEADER_BYTES, Place};
use crate::index::Index;
use crate::leaving::Leaving;
use crate::limits::{MAX_FRAME_BYTES, PREPARE_BYTES};
use crate::record::{KIND_GAP, Lsn, RECORD_HEADER_BYTES, RecordHeader, Step};
use crate::segment::{Chunk, FIRST_FRAME, SegmentHeader, name_of};
use crate::spares::REWRITING;
use crate::storage::{File, write_all};
use crate::view::{Segment, SegmentReader, Written, topics_of};
use crate::wanted::Wanted;

/// Most segments that are rewritten into one at once.
const MOST_AT_ONCE: usize = 16;
/// So many small neighbours are made one, although that frees little.
const MERGED_FROM: usize = 8;
/// A segment is small below this part of a whole one; and less than that is not worth rewriting for.
const SMALL_PART: u64 = 16;
/// Most records that one gap stands for.
const MOST_IN_GAP: u64 = 1 << 31;

/// What [`Log::rewrite`](crate::Log::rewrite) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// How many segments became one.
    pub segments: u64,
    /// What their files took, in bytes.
    pub bytes_before: u64,
    /// What the new one takes.
    pub bytes_after: u64,
}

/// A sealed segment, how long its file is, and about how much of that is wanted.
struct Candidate {
    segment: Arc<Segment>,
    bytes: u64,
    live: u64,
}

/// Segments that are to become one.
struct Run {
    segments: Vec<Arc<Segment>>,
    bytes: u64,
    live: u64,
    /// More than this is not worth it.
    most: u64,
}

impl Core {
    /// Rewrites those that it pays most to begin with: the oldest.
    pub(crate) fn rewrite(&self, wanted: &Wanted) -> Result<Option<Rewritten>, ReadError> {
        let mut leaving = self.leaving.lock();
        leaving.go_on(self)?;
        let candidates = self.candidates(wanted)?;
        let whole = self.options.segment_bytes;
        let Some(run) = (0..candidates.len()).find_map(|from| Run::from(&candidates[from..], whole)) else {
            return Ok(None);
        };
        let rewritten = Rewriter::begin(self, &run).and_then(|rewriter| rewriter.run(wanted, &mut leaving));
        if !matches!(rewritten, Ok(Some(_))) {
            // Opening would remove it, too.
            let _what_failed_is_told = self.storage.remove(REWRITING);
        }
        if matches!(rewritten, Ok(None) | Err(ReadError::Damaged(_))) {
            run.segments.iter().for_each(|segment| segment.refuse());
        }
        rewritten
    }

    /// The sealed segments that may be rewritten, oldest first: no reader has places in memory of theirs, and recovery reads
    /// none of them.
    fn candidates(&self, wanted: &Wanted) -> Result<Vec<Candidate>, ReadError> {
        let segments: Vec<_> = {
            let view = self.view.read();
            let bound = view.named.epoch.min(view.tail_from.epoch);
            let ends = view.segments.iter().skip(1).map(|next| next.first_lsn);
            let pairs = view.segments.iter().cloned().zip(ends);
            pairs.take_while(|(segment, _)| segment.epoch < bound).collect()
        };
        let dropped = self.dropped();
        let mut candidates = Vec::with_capacity(segments.len());
        for (segment, end) in segments {
            let bytes = segment.bytes();
            let live = self.live_bytes(&segment, end, (wanted, &dropped))?;
            let live = if segment.may_pay(live) { live } else { bytes };
            candidates.push(Candidate { segment, bytes, live });
        }
        Ok(candidates)
    }

    /// Below which offset the events of each topic were dropped, by id, as far as that is durable: a crash may take back the
    /// rest.
    pub(crate) fn dropped(&self) -> Vec<u64> {
        let durable = self.durable.load(Ordering::Acquire);
        self.view.write().dropped(durable)
    }

    /// About how many bytes of a sealed segment are wanted: 0 if none is, and only then.
    /// `dropped`: below which offset each topic's events were dropped durably.
    pub(crate) fn live_bytes(
        &self,
        segment: &Arc<Segment>,
        end: Lsn,
        (wanted, dropped): (&Wanted, &[u64]),
    ) -> Result<u64, ReadError> {
        let index_at = segment.index_at().unwrap_or(0);
        let reader = self.reader(segment)?;
        let index = reader.index(index_at)?;
        if index.is_partial() {
            return Ok(segment.bytes().max(1)); // damaged: nobody knows
        }
        let (mut events, mut of_events, mut live) = (0, 0, 0);
        for (topic, seen) in index.topics() {
            let first = (topic as usize).checked_sub(1).and_then(|place| dropped.get(place)).copied().unwrap_or(0);
            let left = wanted.count(topic, seen.first_offset.max(first)..seen.next_offset).min(seen.events);
            live = scaled(seen.bytes, left, seen.events).saturating_add(live);
            (events, of_events) = (seen.events.saturating_add(events), seen.bytes.saturating_add(of_events));
        }
        let states = wanted.states(segment.first_lsn..end);
        let of_states = index_at.saturating_sub(FIRST_FRAME).saturating_sub(of_events);
        let others = match segment.written {
            Written::Once => (end - segment.first_lsn).saturating_sub(events),
            // Gaps count, too.
            Written::Again | Written::Moved => states,
        };
        Ok(live.saturating_add(scaled(of_states, states.min(others), others).max(states)))
    }
}

/// So many bytes, if of so many only a part counts.
fn scaled(bytes: u64, part: u64, of: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

impl Run {
    /// The segments from the first on, if rewriting them pays.
    fn from(candidates: &[Candidate], whole: u64) -> Option<Self> {
        let most = |bytes: u64| (bytes / 2).min(bytes.saturating_sub(whole / SMALL_PART));
        let mut run = Self { segments: Vec::new(), bytes: 0, live: 0, most: u64::MAX };
        let mut largest = 0;
        for Candidate { segment, bytes, live } in candidates.iter().take(MOST_AT_ONCE) {
            let is_small = *bytes <= whole / SMALL_PART;
            if !(is_small || *live < most(*bytes)) || run.live + live > whole {
                break;
            }
            run.segments.push(Arc::clone(segment));
            (run.bytes, run.live, largest) = (run.bytes + bytes, run.live + live, largest.max(*bytes));
        }
        if run.live < most(run.bytes) {
            run.most = most(run.bytes);
            return Some(run);
        }
        (run.segments.len() >= MERGED_FROM && largest <= run.bytes / 2).then_some(run)
    }
}

/// Writes the new file.
struct Rewriter<'a> {
    core: &'a Core,
    run: &'a Run,
    readers: Vec<Arc<SegmentReader>>,
    header: SegmentHeader,
    file: Box<dyn File>,
    epoch: u64,
    index: Index,
    /// Frames that are not written yet, and where they will lie.
    buffer: Vec<u8>,
    flushed: u64,
    /// The record that comes next, dropped or not.
    next: Lsn,
    /// The first offsets of the topics, by id.
    firsts: Vec<u64>,
}

impl<'a> Rewriter<'a> {
    fn begin(core: &'a Core, run: &'a Run) -> Result<Self, ReadError> {
        let readers: Vec<_> = run.segments.iter().map(|segment| core.reader(segment)).collect::<Result<_, _>>()?;
        let header_of = |reader: &SegmentReader| {
            let read = reader.file.header()?;
            let unreadable = |fault| reader.file.damage(0, format!("its segment header cannot be read: {fault}"));
            Ok::<_, ReadError>(read.map_err(unreadable)?.0)
        };
        let (first, last) = (&readers[0], &readers[readers.len() - 1]);
        let SegmentHeader { log_id, previous_epoch, previous_index, .. } = header_of(first)?;
        let checkpoint = header_of(last)?.checkpoint;
        let header = SegmentHeader { log_id, previous_epoch, previous_index, checkpoint, index: 0 };
        let (epoch, next) = (last.file.epoch, run.segments[0].first_lsn);
        // What an earlier attempt left.
        let _there_is_none = core.storage.remove(REWRITING);
        let file = core.storage.open(REWRITING, true).map_err(StorageError::on("create", REWRITING))?;
        let (index, buffer, flushed) = (Index::default(), Vec::new(), FIRST_FRAME);
        let firsts = core.dropped();
        Ok(Self { core, run, readers, header, file, epoch, index, buffer, flushed, next, firsts })
    }

    /// Nothing if it turned out not to be worth it.
    fn run(mut self, wanted: &Wanted, leaving: &mut Leaving) -> Result<Option<Rewritten>, ReadError> {
        for reader in std::mem::take(&mut self.readers) {
            let end = reader.segment.index_at().unwrap_or(0);
            let (mut at, mut chunk) = (FIRST_FRAME, Chunk::default());
            while at < end {
                let frame = reader.file.frame_at(at, end, &mut chunk, PREPARE_BYTES as usize);
                let frame = frame.map_err(|error| reader.file.read_error(at, error))?;
                if frame.header.kind == FRAME_RECORDS {
                    self.take(&frame, wanted).map_err(|reason| reader.file.damage(at, reason))?;
                }
                at = frame.next().position;
                if !self.flush(PREPARE_BYTES as usize)? {
                    return Ok(None);
                }
            }
        }
        let end = {
            let view = self.core.view.read();
            let behind = view.segments.partition_point(|segment| segment.epoch <= self.epoch);
            view.segments.get(behind).map_or(self.next, |next| next.first_lsn)
        };
        self.pass(end, self.last_time());
        let index_at = self.position();
        let payload = self.index.encode();
        self.add(FRAME_INDEX, 0, self.last_time(), &payload);
        if !self.flush(0)? {
            return Ok(None);
        }
        self.replace(index_at, leaving).map(Some)
    }

    fn last_time(&self) -> i64 {
        self.index.time().unwrap_or_default()
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Takes over what is wanted of a frame.
    fn take(&mut self, frame: &Frame, wanted: &Wanted) -> Result<(), &'static str> {
        if frame.header.first_lsn < self.next {
            return Err("its records come twice");
        }
        let mut payload = Vec::new();
        let (mut walk, mut at) = (frame.walk(), self.next);
        while let Some(step) = walk.next(&frame.bytes) {
            let step = step?;
            let topic = (step.header.topic as usize).checked_sub(1);
            let first = topic.and_then(|topic| self.firsts.get(topic)).copied().unwrap_or(0);
            if !wanted.has(&step, first) {
                continue;
            }
            let crowded = frame.bytes.len() + RECORD_HEADER_BYTES > MAX_FRAME_BYTES;
            if payload.is_empty() && (step.lsn - at >= MOST_IN_GAP || crowded) {
                self.pass(step.lsn, frame.header.time);
                at = self.next;
            }
            if step.lsn > at {
                payload.extend_from_slice(&gap(step.lsn - at));
            }
            payload.extend_from_slice(whole_record(&step, frame));
            at = step.lsn + 1;
        }
        if !payload.is_empty() {
            self.add(FRAME_RECORDS, at - self.next, frame.header.time, &payload);
        }
        Ok(())
    }

    /// Leaves out the records up to an lsn, in frames of their own.
    fn pass(&mut self, upto: Lsn, time: i64) {
        while self.next < upto {
            let count = (upto - self.next).min(MOST_IN_GAP);
            self.add(FRAME_RECORDS, count, time, &gap(count));
        }
    }

    /// Adds a frame that covers so many records.
    fn add(&mut self, kind: u8, records: u64, time: i64, payload: &[u8]) {
        let place = Place { epoch: self.epoch, position: self.position() };
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(payload);
        let mut header = FrameHeader {
            kind,
            flags: if kind == FRAME_INDEX { FLAG_SKIPPABLE } else { 0 },
            payload_bytes: payload.len() as u32,
            records: records as u32,
            topic: 0,
            place,
            first_lsn: self.next,
            synced_lsn: self.next,
            time,
        };
        let mut frame = Frame { header, bytes: bytes.into() };
        let topics = topics_of(&frame);
        header.topic = if let [only] = &topics[..] { only.topic } else { 0 };
        frame.header = header;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&frame.bytes);
        header.seal(&mut self.buffer[start..], self.core.seed);
        if kind == FRAME_RECORDS {
            self.index.add(place.position, self.next, time, &topics);
        }
        self.next += records;
    }

    /// Writes what has come together, if that is more than `most`; false if the file is too long to be worth it.
    fn flush(&mut self, most: usize) -> Result<bool, StorageError> {
        if self.buffer.len() > most {
            self.file.append(&self.buffer, 0, self.flushed).map_err(StorageError::on("write", REWRITING))?;
            self.flushed += self.buffer.len() as u64;
            self.buffer.clear();
            // Whoever waits for what is written comes first: one step of this for each of the log's.
            drop(self.core.committer.lock());
        }
        Ok(self.flushed <= self.run.most)
    }

    /// Makes the new file the segment.
    fn replace(&mut self, index_at: u64, leaving: &mut Leaving) -> Result<Rewritten, ReadError> {
        let (core, storage) = (self.core, self.core.storage.as_ref());
        let (first, last) = (&self.run.segments[0], &self.run.segments[self.run.segments.len() - 1]);
        self.header.index = index_at;
        let header = self.header.encode(self.epoch, first.first_lsn, self.last_time());
        write_all(self.file.as_ref(), &header, 0).map_err(StorageError::on("write", REWRITING))?;
        self.file.sync().map_err(StorageError::on("sync", REWRITING))?;
        let bytes = self.file.len().map_err(StorageError::on("get the length of", REWRITING))?;
        let name = name_of(self.epoch);
        let made =
            Segment::new(self.epoch, first.first_lsn, Some(index_at)).rewritten(first.first_epoch, Written::Moved);
        made.set_bytes(bytes);
        let mut view = core.view.write();
        storage.rename(REWRITING, &name).map_err(StorageError::on("rename a rewritten segment to", &name))?;
        view.replace(first.epoch..=last.epoch, made);
        drop(view);
        core.recent.lock().retain(|reader| !(first.epoch..=last.epoch).contains(&reader.file.epoch));
        let superseded = self.run.segments.iter().map(|segment| segment.epoch);
        leaving.supersede(superseded.filter(|epoch| *epoch != last.epoch));
        leaving.settle(storage, &name)?;
        let segments = self.run.segments.len() as u64;
        Ok(Rewritten { segments, bytes_before: self.run.bytes, bytes_after: bytes })
    }
}

/// A record that stands for some that were dropped.
fn gap(count: u64) -> [u8; RECORD_HEADER_BYTES] {
    RecordHeader { bytes: 0, kind: KIND_GAP, flags: 0, partition: 0, topic: 0, offset: count }.encode()
}

/// A record's bytes, its header included.
fn whole_record<'a>(step: &Step, frame: &'a Frame) -> &'a [u8] {
    &frame.bytes[step.data - RECORD_HEADER_BYTES..step.data + step.header.bytes as usize]
}
