//! Reading: by topic and offset, by lsn, and all of it in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::error::ReadError;
use crate::frame::{FRAME_INDEX, FRAME_RECORDS, Frame, Place};
use crate::index::Index;
use crate::record::{KIND_EVENT, Lsn, Record, TopicId, Walk};
use crate::segment::{Chunk, FIRST_FRAME};
use crate::view::{Segment, SegmentReader, Written};

/// How much of a segment is read at once, by who goes on reading, and by who wants one record.
const CHUNK_BYTES: usize = 256 << 10;
const PEEK_BYTES: usize = 64 << 10;
/// How many segments stay open when nobody reads them.
const RECENT: usize = 8;

/// A place in a topic that is read onwards from. It keeps the frame it stands in.
pub struct Cursor {
    topic: TopicId,
    offset: u64,
    position: Option<Position>,
}

/// Where reading goes on, among the frames.
pub(crate) struct Position {
    pub(crate) place: Place,
    pub(crate) frame: Option<(Frame, Walk)>,
    /// The file that the place is in, which is read to its end also when it is rewritten meanwhile.
    segment: Option<Arc<SegmentReader>>,
    chunk: Chunk,
    chunk_bytes: usize,
    /// Of the segment that the frame is in: every event is there.
    dense: bool,
    /// Every event since the last one that was read was there.
    exact: bool,
    /// The topic's next offset, once everything below was passed.
    end: u64,
}

impl Position {
    pub(crate) fn at((place, segment): Located, chunk_bytes: usize) -> Self {
        let chunk = Chunk::default();
        Self { place, frame: None, segment, chunk, chunk_bytes, dense: false, exact: false, end: 0 }
    }
}

/// A place, and the file that it is a place in, unless that is being written.
type Located = (Place, Option<Arc<SegmentReader>>);

impl Cursor {
    pub(crate) fn new(topic: TopicId, offset: u64) -> Self {
        Self { topic, offset, position: None }
    }

    /// Its topic.
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// The offset of the event that is read next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn read(
        &mut self,
        core: &Core,
        max_records: usize,
        max_bytes: usize,
        out: &mut Vec<Record>,
    ) -> Result<usize, ReadError> {
        let before = out.len();
        let first = core.view.read().offsets(self.topic.0).first;
        if self.offset < first {
            self.position = None;
            return Err(ReadError::Trimmed { what: "offset", wanted: self.offset, first });
        }
        let Some(mut position) = self.locate(core)? else { return Ok(0) };
        position.end = 0;
        let mut bytes = 0;
        while out.len() - before < max_records {
            match self.step(core, &mut position, max_bytes.saturating_sub(bytes), out.len() == before) {
                Ok(Some(record)) => {
                    bytes += record.data.len();
                    self.offset = record.offset + 1;
                    out.push(record);
                }
                Ok(None) => break,
                // What was read is not lost with the error, which comes again.
                Err(_) if out.len() > before => break,
                // The frames were trimmed, or written elsewhere; the event itself may lie behind them.
                Err(ReadError::Trimmed { .. }) => match self.locate(core)? {
                    Some(found) => position = found,
                    None => return Ok(0),
                },
                Err(error) => return Err(error),
            }
        }
        if out.len() - before < max_records {
            // What is missing up to there was dropped.
            self.offset = self.offset.max(position.end);
        }
        self.position = Some(position);
        Ok(out.len() - before)
    }

    /// Where it stood, or where its offset is found; `None` if that is not durable yet.
    fn locate(&mut self, core: &Core) -> Result<Option<Position>, ReadError> {
        match self.position.take() {
            Some(position) => Ok(Some(position)),
            None => {
                let found = core.place_of_offset(self.topic, self.offset)?;
                Ok(found.map(|located| Position::at(located, CHUNK_BYTES)))
            }
        }
    }

    /// The topic's next event, if it is there and fits.
    fn step(
        &self,
        core: &Core,
        position: &mut Position,
        room: usize,
        first: bool,
    ) -> Result<Option<Record>, ReadError> {
        loop {
            let Some((frame, walk)) = &mut position.frame else {
                if !core.next_frame(position, self.topic.0)? {
                    return Ok(None);
                }
                continue;
            };
            let here = walk.clone();
            let Some(step) = walk.next(&frame.bytes) else {
                position.frame = None;
                continue;
            };
            let step = step.map_err(|reason| damage(frame, reason))?;
            let header = step.header;
            if header.kind != KIND_EVENT || header.topic != self.topic.0 || header.offset < self.offset {
                continue;
            }
            if header.offset > self.offset && position.exact {
                return Err(damage(frame, format!("topic {} lacks offset {}", header.topic, self.offset)));
            }
            if header.bytes as usize > room && !first {
                *walk = here;
                return Ok(None);
            }
            position.exact = position.dense;
            return Ok(Some(step.record(&frame.bytes, frame.header.time)));
        }
    }
}

/// Every record from an lsn on that was not dropped. Ends at what was durable when it got there; going on after that yields what came since.
///
/// Damage is yielded once, as an error; after it come the records behind the damage.
pub struct Scan {
    core: Arc<Core>,
    from: Lsn,
    position: Option<Position>,
}

impl Scan {
    pub(crate) fn new(core: Arc<Core>, from: Lsn) -> Self {
        Self { core, from, position: None }
    }

    /// The next record; what was written elsewhere meanwhile is looked for there.
    fn step(&mut self) -> Result<Option<Record>, ReadError> {
        self.core.catch_up();
        loop {
            match self.step_on() {
                Err(ReadError::Trimmed { .. }) if self.position.is_some() => self.position = None,
                step => return step,
            }
        }
    }

    fn step_on(&mut self) -> Result<Option<Record>, ReadError> {
        if self.position.is_none() && self.core.is_durable(self.from.saturating_add(1)) {
            self.position = Some(Position::at(self.core.place_of_lsn(self.from)?, CHUNK_BYTES));
        }
        let Some(position) = &mut self.position else { return Ok(None) };
        loop {
            let Some((frame, walk)) = &mut position.frame else {
                match self.core.next_frame(position, 0) {
                    Ok(true) => continue,
                    Ok(false) => return Ok(None),
                    Err(error) => {
                        self.core.skip_damage(position);
                        return Err(error);
                    }
                }
            };
            match walk.next(&frame.bytes) {
                None => position.frame = None,
                Some(Err(reason)) => return Err(damage(frame, reason)),
                Some(Ok(step)) if step.lsn < self.from => {}
                Some(Ok(step)) => {
                    self.from = step.lsn + 1;
                    return Ok(Some(step.record(&frame.bytes, frame.header.time)));
                }
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if let Err(ReadError::Trimmed { first, .. }) = &step {
            (self.from, self.position) = (*first, None);
        }
        step.transpose()
    }
}

fn damage(frame: &Frame, reason: impl Into<String>) -> ReadError {
    let Place { epoch, position } = frame.header.place;
    crate::error::Damage { file: crate::segment::name_of(epoch), offset: position, reason: reason.into() }.into()
}

impl Core {
    pub(crate) fn record(&self, lsn: Lsn) -> Result<Record, ReadError> {
        let durable = self.durable.load(Ordering::Acquire);
        if lsn >= durable {
            return Err(ReadError::NotDurable { lsn, durable });
        }
        loop {
            let mut position = Position::at(self.place_of_lsn(lsn)?, PEEK_BYTES);
            match self.record_from(&mut position, lsn) {
                // Written elsewhere meanwhile.
                Err(ReadError::Trimmed { .. }) if position.frame.is_none() => {}
                read => return read,
            }
        }
    }

    /// Reads on to a record that is durable.
    fn record_from(&self, position: &mut Position, lsn: Lsn) -> Result<Record, ReadError> {
        while self.next_frame(position, 0)? {
            let Some((frame, walk)) = &mut position.frame else { break };
            if frame.header.end_lsn() <= lsn {
                continue;
            }
            let mut first = frame.header.end_lsn();
            while let Some(step) = walk.next(&frame.bytes) {
                let step = step.map_err(|reason| damage(frame, reason))?;
                if step.lsn == lsn {
                    return Ok(step.record(&frame.bytes, frame.header.time));
                }
                if step.lsn > lsn {
                    first = step.lsn;
                    break;
                }
            }
            return Err(ReadError::Trimmed { what: "lsn", wanted: lsn, first });
        }
        Err(ReadError::NotDurable { lsn, durable: lsn })
    }

    /// Moves to the next frame that may hold `topic` (0 = any); false if there is none yet. `Trimmed` if there is no such
    /// place any more: what was to come there may be elsewhere.
    pub(crate) fn next_frame(&self, position: &mut Position, topic: u32) -> Result<bool, ReadError> {
        position.frame = None;
        loop {
            let (segment, tail_from) = {
                let view = self.view.read();
                if position.place >= view.tail_from {
                    (position.segment, position.chunk) = (None, Chunk::default());
                    let found = view.in_tail(position.place, topic).cloned();
                    position.place = found.as_ref().map_or(view.end, Frame::next);
                    position.frame = found.map(|frame| (frame.clone(), frame.walk()));
                    position.dense = true;
                    if position.frame.is_none() {
                        position.end = view.offsets(topic).next;
                    }
                    return Ok(position.frame.is_some());
                }
                let Some(segment) = view.segment(position.place.epoch) else { return Err(view.moved()) };
                (Arc::clone(segment), view.tail_from)
            };
            let reader = self.reader_at(position, &segment)?;
            let limit = if tail_from.epoch == reader.file.epoch { tail_from.position } else { u64::MAX };
            let limit = limit.min(reader.segment.index_at().unwrap_or(u64::MAX));
            if position.place.position >= limit {
                position.place = Place { epoch: reader.file.epoch + 1, position: FIRST_FRAME };
                position.segment = None;
                continue;
            }
            let at = position.place.position;
            let frame = match reader.file.frame_at(at, limit, &mut position.chunk, position.chunk_bytes) {
                Ok(frame) => frame,
                // Trimmed meanwhile: the file is gone, or on its way to be another segment.
                Err(_) if self.view.read().segment(reader.file.epoch).is_none() => continue,
                Err(error) => return Err(reader.file.read_error(at, error)),
            };
            position.place = frame.next();
            let header = &frame.header;
            if header.kind == FRAME_INDEX {
                position.place = Place { epoch: reader.file.epoch + 1, position: FIRST_FRAME };
                position.segment = None;
            } else if header.kind == FRAME_RECORDS && (topic == 0 || header.topic == 0 || header.topic == topic) {
                let walk = frame.walk();
                position.frame = Some((frame, walk));
                return Ok(true);
            }
        }
    }

    /// The file that a position is in.
    fn reader_at(&self, position: &mut Position, segment: &Arc<Segment>) -> Result<Arc<SegmentReader>, ReadError> {
        if let Some(reader) = position.segment.as_ref().filter(|reader| reader.file.epoch == position.place.epoch) {
            return Ok(Arc::clone(reader));
        }
        let is_first = position.place.position == FIRST_FRAME;
        if !is_first && (segment.epoch != position.place.epoch || segment.written == Written::Moved) {
            return Err(self.view.read().moved());
        }
        let reader = self.reader(segment)?;
        position.place.epoch = segment.epoch;
        (position.segment, position.chunk) = (Some(Arc::clone(&reader)), Chunk::default());
        position.dense = segment.written == Written::Once;
        position.exact &= position.dense;
        Ok(reader)
    }

    /// Behind damage, to the next place that is known to be a frame's.
    fn skip_damage(&self, position: &mut Position) {
        let Place { epoch, position: at } = position.place;
        let view = self.view.read();
        let Some(segment) = view.segment(epoch).cloned() else { return };
        let next = match segment.index_at() {
            None => view.index.after(at),
            Some(index_at) => self.reader(&segment).ok().and_then(|reader| reader.index(index_at).ok()?.after(at)),
        };
        let behind = Place { epoch: epoch + 1, position: FIRST_FRAME };
        position.place = next.map_or(behind, |position| Place { epoch, position });
        if position.place > view.end {
            position.place = view.end;
        }
        position.frame = None;
    }

    /// Opens a segment's file; `Trimmed` if it is not that any more.
    pub(crate) fn reader(&self, segment: &Arc<Segment>) -> Result<Arc<SegmentReader>, ReadError> {
        let opened = segment.reader(self.storage.as_ref(), self.seed);
        // Looked at after it was opened: a file that replaces it does so together with its segment here.
        let view = self.view.read();
        if !view.has(segment) {
            return Err(view.moved());
        }
        drop(view);
        let reader = opened?;
        let mut recent = self.recent.lock();
        recent.retain(|open| open.file.epoch != segment.epoch);
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(Arc::clone(&reader));
        Ok(reader)
    }

    /// A place at or before the record's frame.
    fn place_of_lsn(&self, lsn: Lsn) -> Result<Located, ReadError> {
        loop {
            let view = self.view.read();
            if let Some(place) = view.tail_of_lsn(lsn) {
                return Ok((place, None));
            }
            let Some(segment) = view.segment_of_lsn(lsn).cloned() else {
                let first = view.segments.front().map_or(0, |segment| segment.first_lsn);
                return Err(ReadError::Trimmed { what: "lsn", wanted: lsn, first });
            };
            let epoch = segment.epoch;
            let place = |position: Option<u64>| Place { epoch, position: position.unwrap_or(FIRST_FRAME) };
            let Some(index_at) = segment.index_at() else { return Ok((place(view.index.of_lsn(lsn)), None)) };
            drop(view);
            match self.reader(&segment) {
                Ok(reader) => return Ok((place(reader.index(index_at)?.of_lsn(lsn)), Some(reader))),
                Err(ReadError::Trimmed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A place at or before the frame of a topic's event; `None` if the event is not durable yet.
    fn place_of_offset(&self, topic: TopicId, offset: u64) -> Result<Option<Located>, ReadError> {
        loop {
            let view = self.view.read();
            let offsets = view.offsets(topic.0);
            if offset < offsets.first {
                return Err(ReadError::Trimmed { what: "offset", wanted: offset, first: offsets.first });
            }
            if offset >= offsets.next {
                let known = topic.0 > 0 && topic.0 as usize <= self.queue.lock().topics.len();
                return if known { Ok(None) } else { Err(ReadError::UnknownTopic { topic }) };
            }
            let within = view.index.topic(topic.0).and_then(|index| index.of_offset(offset));
            if let (Some(position), Some(active)) = (within, view.segments.back()) {
                return Ok(Some((Place { epoch: active.epoch, position }, None)));
            }
            let segments: Vec<_> = view.segments.iter().cloned().collect();
            drop(view);
            match self.place_in(&segments, topic, offset) {
                Err(ReadError::Trimmed { .. }) => {}
                found => return found.map(Some),
            }
        }
    }

    /// A place at or before the frame of a topic's event, in sealed segments or before the others.
    fn place_in(&self, segments: &[Arc<Segment>], topic: TopicId, offset: u64) -> Result<Located, ReadError> {
        for segment in segments.iter().rev() {
            let Some(index_at) = segment.index_at() else { continue };
            let reader = self.reader(segment)?;
            let within = reader.index(index_at)?.topic(topic.0).and_then(|index| index.of_offset(offset));
            if let Some(position) = within {
                return Ok((Place { epoch: segment.epoch, position }, Some(reader)));
            }
        }
        let oldest = segments.first().map_or(0, |oldest| oldest.epoch);
        Ok((Place { epoch: oldest, position: FIRST_FRAME }, None))
    }

    /// An offset such that every durable event of the topic below it was appended before `time`.
    pub(crate) fn offset_since(&self, topic: TopicId, time: i64) -> Result<u64, ReadError> {
        loop {
            let (segments, active, offsets) = {
                let view = self.view.read();
                (view.segments.iter().cloned().collect::<Vec<_>>(), view.index.clone(), view.offsets(topic.0))
            };
            match self.first_since(&segments, &active, topic, time) {
                Err(ReadError::Trimmed { .. }) => {}
                found => return Ok(found?.unwrap_or(offsets.next).clamp(offsets.first, offsets.next)),
            }
        }
    }

    /// An offset such that the durable events of the topic from it on take at most so many bytes.
    pub(crate) fn offset_within(&self, topic: TopicId, bytes: u64) -> Result<u64, ReadError> {
        loop {
            let (segments, active, offsets) = {
                let view = self.view.read();
                (view.segments.iter().cloned().collect::<Vec<_>>(), view.index.clone(), view.offsets(topic.0))
            };
            match self.first_within(&segments, &active, topic, bytes) {
                Err(ReadError::Trimmed { .. }) => {}
                found => return Ok(found?.unwrap_or(offsets.first).clamp(offsets.first, offsets.next)),
            }
        }
    }

    fn first_within(
        &self,
        segments: &[Arc<Segment>],
        active: &Index,
        topic: TopicId,
        bytes: u64,
    ) -> Result<Option<u64>, ReadError> {
        let mut left = bytes;
        for segment in segments.iter().rev() {
            let reader = if segment.index_at().is_some() { Some(self.reader(segment)?) } else { None };
            let index = match &reader {
                Some(reader) => reader.index(segment.index_at().unwrap_or(0))?,
                None => active,
            };
            let Some(seen) = index.topic(topic.0) else { continue };
            if seen.bytes > left {
                let fit = u128::from(seen.events) * u128::from(left) / u128::from(seen.bytes);
                return Ok(Some(seen.next_offset.saturating_sub(u64::try_from(fit).unwrap_or(u64::MAX))));
            }
            left -= seen.bytes;
        }
        Ok(None)
    }

    fn first_since(
        &self,
        segments: &[Arc<Segment>],
        active: &Index,
        topic: TopicId,
        time: i64,
    ) -> Result<Option<u64>, ReadError> {
        for segment in segments {
            let reader = if segment.index_at().is_some() { Some(self.reader(segment)?) } else { None };
            let index = match &reader {
                Some(reader) => reader.index(segment.index_at().unwrap_or(0))?,
                None => active,
            };
            let Some(at) = index.of_time(time).filter(|_| index.topic(topic.0).is_some()) else { continue };
            let place = Place { epoch: segment.epoch, position: at };
            let mut position = Position::at((place, reader), CHUNK_BYTES);
            while position.place.epoch == segment.epoch && self.next_frame(&mut position, topic.0)? {
                let Some((frame, walk)) = &mut position.frame else { break };
                while let Some(step) = walk.next(&frame.bytes) {
                    let header = step.map_err(|reason| damage(frame, reason))?.header;
                    let is_its = header.kind == KIND_EVENT && header.topic == topic.0;
                    if is_its && frame.header.time >= time {
                        return Ok(Some(header.offset));
                    }
                }
            }
        }
        Ok(None)
    }
}
