//! Going through the segments, one after the other.

use super::Surveyed;
use super::content::Content;
use super::report::{DamagedSpot, Found, MAX_DAMAGED_SPOTS, Refusal, Verification, VerifiedSegment};
use crate::error::StorageError;
use crate::frame::{FRAME_INDEX, FRAME_RECORDS, FRAME_SEGMENT, Fault, Frame, FrameHeader, Place};
use crate::index::Index;
use crate::options::TornTail;
use crate::record::{Lsn, Step};
use crate::recovery::{Behind, CHUNK_BYTES};
use crate::segment::{Chunk, FIRST_FRAME, FrameError, SegmentFile, name_of};
use crate::view::topics_of;

type Look<'a> = dyn FnMut(Found<'_>) -> Result<(), Refusal> + 'a;

/// What is known on the way through the log.
pub(super) struct Walk<'a> {
    look: &'a mut Look<'a>,
    pub(super) report: Verification,
    /// Enough was seen.
    pub(super) stopped: bool,
    content: Content,
    /// The lsn that must come next; `None` where anything may, as it is not known what is missing.
    next_lsn: Option<Lsn>,
    /// Where the index of the segment before lies.
    sealed: Option<Place>,
    /// Of the segment that is read.
    segment: VerifiedSegment,
    /// Where its header says that its index lies, if it was rewritten.
    index_at: Option<u64>,
    index: Index,
    damaged_before: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(look: &'a mut Look<'a>) -> Self {
        Self {
            look,
            report: Verification::default(),
            stopped: false,
            content: Content::default(),
            next_lsn: None,
            sealed: None,
            segment: VerifiedSegment::default(),
            index_at: None,
            index: Index::default(),
            damaged_before: 0,
        }
    }

    fn show(&mut self, found: Found<'_>) -> Result<(), String> {
        match (self.look)(found) {
            Ok(()) => Ok(()),
            Err(Refusal::Damaged(reason)) => Err(reason),
            Err(Refusal::Stop) => {
                self.stopped = true;
                Ok(())
            }
        }
    }

    /// Something does not hold.
    pub(super) fn spot(&mut self, file: &str, offset: u64, bytes: u64, reason: impl Into<String>, records: u64) {
        let spot = DamagedSpot { file: file.to_owned(), offset, bytes, reason: reason.into(), records };
        // What it says of it is of no meaning: it is damage already.
        let _ = self.show(Found::Damage(&spot));
        self.report.damaged += 1;
        if self.report.damage.len() < MAX_DAMAGED_SPOTS {
            self.report.damage.push(spot);
        }
    }

    pub(super) fn begin(&mut self, one: &Surveyed, nth: usize, of: usize) {
        let (file, bytes) = (one.file.name.as_str(), one.bytes);
        let _ = self.show(Found::Segment { file, bytes, nth, of });
        let lsn = self.next_lsn.unwrap_or(0);
        let (file, epoch, end) = (file.to_owned(), one.file.epoch, FIRST_FRAME);
        self.segment =
            VerifiedSegment { file, epoch, bytes, end, first_lsn: lsn, next_lsn: lsn, ..VerifiedSegment::default() };
        (self.index, self.index_at, self.damaged_before) = (Index::default(), None, self.report.damaged);
    }

    /// Some records are missing here.
    fn lose(&mut self) {
        self.content.lose();
        self.next_lsn = None;
    }

    /// What a segment's header says, against what came before it.
    pub(super) fn header(&mut self, one: &Surveyed, before: Option<u64>) {
        let (file, epoch) = (one.file.name.as_str(), one.file.epoch);
        let first_lsn = one.header.as_ref().ok().map(|(_, first_lsn)| *first_lsn);
        let follows = one.header.as_ref().map_or(epoch - 1, |(header, _)| header.previous_epoch.min(epoch - 1));
        if before.is_some_and(|before| before < follows) {
            let records = first_lsn.zip(self.next_lsn).map_or(0, |(first, next)| first.saturating_sub(next));
            self.spot(&name_of(follows), 0, 0, format!("it is missing, and {file} is there"), records);
            self.lose();
        }
        let (header, first_lsn) = match &one.header {
            Ok(read) => *read,
            Err(fault) => {
                self.spot(file, 0, FIRST_FRAME, format!("its segment header cannot be read: {fault}"), 0);
                return;
            }
        };
        self.segment.frames = 1;
        let mut wrong = Vec::new();
        if header.log_id != self.report.log_id {
            wrong.push("it belongs to another log than the others".to_owned());
        }
        let is_rewritten = header.index > 0;
        self.index_at = Some(header.index).filter(|_| is_rewritten);
        self.content.begin(is_rewritten);
        if before.is_some_and(|before| header.previous_epoch < before)
            || (header.previous_epoch != epoch - 1 && !is_rewritten)
        {
            wrong.push(format!("it says that it follows segment {}", header.previous_epoch));
        }
        let index =
            self.sealed.filter(|index| index.epoch == header.previous_epoch && index.position != header.previous_index);
        if let Some(Place { position, .. }) = index {
            let said = header.previous_index;
            wrong.push(format!("it says that the segment before it ends at {said}, it does at {position}"));
        }
        if let Some(next) = self.next_lsn.filter(|next| *next != first_lsn) {
            wrong.push(format!("it begins with lsn {first_lsn} where {next} was to come"));
            self.lose();
        }
        if before.is_none() {
            self.content.complete = epoch == 1 && first_lsn == 0 && !is_rewritten;
        }
        // Of what was trimmed and of what is damaged, nothing is known.
        let newest = self.content.checkpoint.map(|(_, place)| place);
        let is_known = self.report.damaged == 0 && (newest.is_some() || self.content.complete);
        if is_known && header.checkpoint != newest.unwrap_or_default() {
            let Place { epoch, position } = header.checkpoint;
            wrong.push(format!("it says that the newest checkpoint is at {position} of segment {epoch}"));
        }
        self.next_lsn = Some(first_lsn);
        (self.segment.first_lsn, self.segment.next_lsn) = (first_lsn, first_lsn);
        for reason in wrong {
            self.spot(file, 0, 0, reason, 0);
        }
    }

    /// Reads the frames of a segment behind its header, and goes on behind what does not hold. `next`: the segment behind it.
    pub(super) fn follow(&mut self, one: &Surveyed, next: Option<&Surveyed>) -> Result<(), StorageError> {
        let file = &one.file;
        let mut chunk = Chunk::default();
        let chunk_bytes = CHUNK_BYTES.min(usize::try_from(one.bytes).unwrap_or(CHUNK_BYTES));
        let is_rewritten = self.index_at.is_some();
        self.sealed = None;
        while self.sealed.is_none() && !self.stopped {
            let at = self.segment.end;
            match file.frame_at(at, u64::MAX, &mut chunk, chunk_bytes) {
                Ok(frame) => self.frame(file, &frame),
                Err(FrameError::Storage(error)) => return Err(error),
                Err(FrameError::Fault(fault)) => match self.behind(file, &fault, next.is_none())? {
                    Some(there) => {
                        self.segment.end = there;
                        chunk = Chunk::default();
                    }
                    None => {
                        self.ends(one, &fault, next);
                        break;
                    }
                },
            }
        }
        if is_rewritten {
            // The next one's header says where the index was before.
            self.sealed = None;
        }
        self.report.checkpoint = self.content.checkpoint.map(|(of_lsn, _)| of_lsn);
        self.report.clean &= self.report.torn.is_none();
        self.report.segments.push(std::mem::take(&mut self.segment));
        Ok(())
    }

    /// Where frames go on: at the end of those before, if one was written there since, or behind damage, which is told.
    /// `None` if there are no more, or none that must be there.
    fn behind(&mut self, file: &SegmentFile, fault: &Fault, newest: bool) -> Result<Option<u64>, StorageError> {
        let (at, next_lsn) = (self.segment.end, self.next_lsn);
        let counts = |header: &FrameHeader| match next_lsn {
            Some(next_lsn) if newest => header.tells_of(next_lsn),
            _ => true,
        };
        let behind = Behind::search(file, at, &counts)?;
        if let Some(first) = behind.first.as_ref().filter(|_| behind.later.is_some()) {
            // Frames are written in order: what stands here now was written since, by another process.
            match file.frame_at(at, u64::MAX, &mut Chunk::default(), 0) {
                Ok(_) => return Ok(Some(at)),
                Err(FrameError::Storage(error)) => return Err(error),
                Err(FrameError::Fault(_)) => {}
            }
            let (there, first_lsn) = (first.header.place.position, first.header.first_lsn);
            let records = first_lsn.saturating_sub(next_lsn.unwrap_or(first_lsn));
            self.spot(&file.name, at, there - at, fault.to_string(), records);
            self.lose();
            return Ok(Some(there));
        }
        if newest && !matches!(fault, Fault::Unsupported(_)) {
            let torn = behind.torn(at, *fault == Fault::Blank);
            self.report.torn = torn.map(|bytes| TornTail { file: file.name.clone(), offset: at, bytes });
        }
        Ok(None)
    }

    /// There are no more frames, and no index was met.
    fn ends(&mut self, one: &Surveyed, fault: &Fault, next: Option<&Surveyed>) {
        let (file, at) = (one.file.name.as_str(), self.segment.end);
        let Some(next) = next else {
            if let Fault::Unsupported(_) = fault {
                self.spot(file, at, one.bytes.saturating_sub(at), fault.to_string(), 0);
            }
            return;
        };
        let known = next.header.as_ref().ok();
        let records = known.zip(self.next_lsn).map_or(0, |((_, first), next_lsn)| first.saturating_sub(next_lsn));
        let index_at = self.index_at.unwrap_or_else(|| known.map_or(one.bytes, |(header, _)| header.previous_index));
        let what = if index_at == at { "its index cannot be read: " } else { "" };
        self.spot(file, at, one.bytes.saturating_sub(at), format!("{what}{fault}"), records);
        if records > 0 || known.is_none() {
            self.lose();
        }
    }

    fn frame(&mut self, file: &SegmentFile, frame: &Frame) {
        let FrameHeader { kind, records, first_lsn, synced_lsn, time, .. } = frame.header;
        let at = frame.header.place.position;
        if let Some(next) = self.next_lsn.filter(|next| *next != first_lsn) {
            self.spot(&file.name, at, 0, format!("it goes on with lsn {first_lsn} where {next} was to come"), 0);
            self.lose();
        }
        if self.next_lsn.is_none() && self.segment.records == 0 {
            self.segment.first_lsn = first_lsn;
        }
        if synced_lsn > first_lsn {
            let reason = format!("it says that lsn {synced_lsn} was synced, and begins with {first_lsn}");
            self.spot(&file.name, at, 0, reason, 0);
        }
        match kind {
            FRAME_RECORDS => self.records(file, frame),
            FRAME_INDEX => self.index(file, frame),
            FRAME_SEGMENT => self.spot(&file.name, at, 0, "a segment header within a segment", 0),
            _ => {} // skippable, or it would have been refused
        }
        self.next_lsn = Some(frame.header.end_lsn());
        self.report.clean = kind == FRAME_RECORDS && records == 0;
        let segment = &mut self.segment;
        segment.end = frame.next().position;
        segment.frames += 1;
        segment.next_lsn = frame.header.end_lsn();
        if records > 0 {
            (segment.first_time, segment.last_time) = (segment.first_time.or(Some(time)), Some(time));
        }
    }

    fn records(&mut self, file: &SegmentFile, frame: &Frame) {
        let (file, offset) = (file.name.as_str(), frame.header.place.position);
        let mut walk = frame.walk();
        while let Some(step) = walk.next(&frame.bytes).filter(|_| !self.stopped) {
            self.segment.records += u64::from(step.is_ok());
            let refused = match step {
                Err(reason) => Err(reason.to_owned()),
                Ok(step) => self.record(file, frame, &step),
            };
            if let Err(reason) = refused {
                self.spot(file, offset, 0, reason, 0);
            }
        }
        self.index.add(offset, frame.header.first_lsn, frame.header.time, &topics_of(frame));
    }

    fn record(&mut self, file: &str, frame: &Frame, step: &Step) -> Result<(), String> {
        if let Some(what) = step.header.unsupported() {
            return Err(format!("{what}, which this version cannot read"));
        }
        let restated = self.content.take(step, frame);
        let record = step.record(&frame.bytes, frame.header.time);
        let with_lsn = |reason: String| format!("the record with lsn {}: {reason}", step.lsn);
        self.show(Found::Record { record: &record, file, offset: frame.header.place.position }).map_err(with_lsn)?;
        if let Some(restated) = restated.map_err(with_lsn)? {
            let (of_lsn, topics, opaque) = (restated.of_lsn, &restated.topics[..], &restated.bytes[restated.opaque..]);
            self.show(Found::Checkpoint { of_lsn, topics, opaque }).map_err(with_lsn)?;
        }
        Ok(())
    }

    fn index(&mut self, file: &SegmentFile, frame: &Frame) {
        let place = frame.header.place;
        (self.sealed, self.segment.sealed) = (Some(place), true);
        if let Some(said) = self.index_at.filter(|said| *said != place.position) {
            let reason = format!("its header says that its index lies at {said}");
            self.spot(&file.name, place.position, 0, reason, 0);
        }
        let was_whole = self.report.damaged == self.damaged_before;
        if was_whole && self.index.encode() != frame.payload() {
            self.spot(&file.name, place.position, 0, "its index says something else than its frames", 0);
        }
    }

    pub(super) fn report(self) -> Verification {
        self.report
    }
}
