//! Reading: by topic and offset, by lsn, and all of it in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::error::ReadError;
use crate::frame::{FRAME_INDEX, FRAME_RECORDS, Frame, Place};
use crate::record::{KIND_EVENT, Lsn, Record, TopicId, Walk};
use crate::segment::{Chunk, FIRST_FRAME};
use crate::view::{Segment, SegmentReader};

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
struct Position {
    place: Place,
    frame: Option<(Frame, Walk)>,
    segment: Option<Arc<SegmentReader>>,
    chunk: Chunk,
    chunk_bytes: usize,
}

impl Position {
    fn at(place: Place, chunk_bytes: usize) -> Self {
        Self { place, frame: None, segment: None, chunk: Chunk::default(), chunk_bytes }
    }
}

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
        let Some(mut position) = self.locate(core)? else { return Ok(0) };
        let mut bytes = 0;
        while out.len() - before < max_records {
            match self.step(core, &mut position, max_bytes.saturating_sub(bytes), out.len() == before) {
                Ok(Some(record)) => {
                    bytes += record.data.len();
                    self.offset += 1;
                    out.push(record);
                }
                Ok(None) => break,
                // What was read is not lost with the error, which comes again.
                Err(_) if out.len() > before => break,
                // The frames were trimmed; the event itself may lie behind them.
                Err(ReadError::Trimmed { .. }) => match self.locate(core)? {
                    Some(found) => position = found,
                    None => return Ok(0),
                },
                Err(error) => return Err(error),
            }
        }
        self.position = Some(position);
        Ok(out.len() - before)
    }

    /// Where it stood, or where its offset is found; `None` if that is not durable yet.
    fn locate(&mut self, core: &Core) -> Result<Option<Position>, ReadError> {
        match self.position.take() {
            Some(position) => Ok(Some(position)),
            None => Ok(core.place_of_offset(self.topic, self.offset)?.map(|place| Position::at(place, CHUNK_BYTES))),
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
            if header.offset > self.offset {
                return Err(damage(frame, format!("topic {} lacks offset {}", header.topic, self.offset)));
            }
            if header.bytes as usize > room && !first {
                *walk = here;
                return Ok(None);
            }
            return Ok(Some(step.record(&frame.bytes, frame.header.time)));
        }
    }
}

/// Every record from an lsn on. Ends at what was durable when it got there; going on after that yields what came since.
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

    fn step(&mut self) -> Result<Option<Record>, ReadError> {
        self.core.catch_up();
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
                Some(Ok(step)) => return Ok(Some(step.record(&frame.bytes, frame.header.time))),
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
        let mut position = Position::at(self.place_of_lsn(lsn)?, PEEK_BYTES);
        while self.next_frame(&mut position, 0)? {
            let Some((frame, mut walk)) = position.frame.take() else { break };
            if frame.header.end_lsn() <= lsn {
                continue;
            }
            while let Some(step) = walk.next(&frame.bytes) {
                let step = step.map_err(|reason| damage(&frame, reason))?;
                if step.lsn == lsn {
                    return Ok(step.record(&frame.bytes, frame.header.time));
                }
            }
        }
        Err(ReadError::NotDurable { lsn, durable })
    }

    /// Moves to the next frame that may hold `topic` (0 = any); false if there is none yet.
    fn next_frame(&self, position: &mut Position, topic: u32) -> Result<bool, ReadError> {
        loop {
            let (segment, limit) = {
                let view = self.view.read();
                if position.place >= view.tail_from {
                    (position.segment, position.chunk) = (None, Chunk::default());
                    let found = view.in_tail(position.place, topic).cloned();
                    position.place = found.as_ref().map_or(view.end, Frame::next);
                    position.frame = found.map(|frame| (frame.clone(), frame.walk()));
                    return Ok(position.frame.is_some());
                }
                let Some(segment) = view.segment(position.place.epoch) else {
                    let first = view.segments.front().map_or(0, |segment| segment.first_lsn);
                    return Err(ReadError::Trimmed { what: "lsn", wanted: 0, first });
                };
                let same = view.tail_from.epoch == position.place.epoch;
                (Arc::clone(segment), if same { view.tail_from.position } else { u64::MAX })
            };
            let limit = limit.min(segment.index_at().unwrap_or(u64::MAX));
            if position.place.position >= limit {
                position.place = Place { epoch: segment.epoch + 1, position: FIRST_FRAME };
                position.segment = None;
                continue;
            }
            let frame = match self.frame_on_storage(position, &segment, limit) {
                Ok(frame) => frame,
                // Trimmed meanwhile: the file is gone, or on its way to be another segment.
                Err(_) if self.view.read().segment(segment.epoch).is_none() => continue,
                Err(error) => return Err(error),
            };
            position.place = frame.next();
            let header = &frame.header;
            if header.kind == FRAME_INDEX {
                position.place = Place { epoch: segment.epoch + 1, position: FIRST_FRAME };
            } else if header.kind == FRAME_RECORDS && (topic == 0 || header.topic == 0 || header.topic == topic) {
                let walk = frame.walk();
                position.frame = Some((frame, walk));
                return Ok(true);
            }
        }
    }

    fn frame_on_storage(&self, position: &mut Position, segment: &Segment, limit: u64) -> Result<Frame, ReadError> {
        let reader = match position.segment.take().filter(|reader| reader.file.epoch == segment.epoch) {
            Some(reader) => reader,
            None => {
                position.chunk = Chunk::default();
                self.reader(segment)?
            }
        };
        let at = position.place.position;
        let frame = reader.file.frame_at(at, limit, &mut position.chunk, position.chunk_bytes);
        let frame = frame.map_err(|error| reader.file.read_error(at, error));
        position.segment = Some(reader);
        frame
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

    fn reader(&self, segment: &Segment) -> Result<Arc<SegmentReader>, ReadError> {
        let reader = segment.reader(self.storage.as_ref(), self.seed)?;
        let mut recent = self.recent.lock();
        recent.retain(|open| open.file.epoch != segment.epoch);
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(Arc::clone(&reader));
        Ok(reader)
    }

    /// A place at or before the record's frame.
    fn place_of_lsn(&self, lsn: Lsn) -> Result<Place, ReadError> {
        let view = self.view.read();
        if let Some(place) = view.tail_of_lsn(lsn) {
            return Ok(place);
        }
        let Some(segment) = view.segment_of_lsn(lsn).cloned() else {
            let first = view.segments.front().map_or(0, |segment| segment.first_lsn);
            return Err(ReadError::Trimmed { what: "lsn", wanted: lsn, first });
        };
        let epoch = segment.epoch;
        let start = Place { epoch, position: FIRST_FRAME };
        let Some(index_at) = segment.index_at() else {
            return Ok(view.index.of_lsn(lsn).map_or(start, |position| Place { epoch, position }));
        };
        drop(view);
        let reader = self.reader(&segment)?;
        Ok(reader.index(index_at)?.of_lsn(lsn).map_or(start, |position| Place { epoch, position }))
    }

    /// A place at or before the frame of a topic's event; `None` if the event is not durable yet.
    fn place_of_offset(&self, topic: TopicId, offset: u64) -> Result<Option<Place>, ReadError> {
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
            return Ok(Some(Place { epoch: active.epoch, position }));
        }
        let segments: Vec<_> = view.segments.iter().cloned().collect();
        drop(view);
        let oldest = segments.first().map(|oldest| Place { epoch: oldest.epoch, position: FIRST_FRAME });
        for segment in segments.iter().rev() {
            let Some(index_at) = segment.index_at() else { continue };
            let reader = segment.reader(self.storage.as_ref(), self.seed)?;
            let within = reader.index(index_at)?.topic(topic.0).and_then(|index| index.of_offset(offset));
            if let Some(position) = within {
                return Ok(Some(Place { epoch: segment.epoch, position }));
            }
        }
        Ok(oldest)
    }
}
