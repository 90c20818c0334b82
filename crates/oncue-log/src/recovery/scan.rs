//! Verifying a segment, frame by frame, and telling a torn end from damage.

use std::collections::VecDeque;

use super::Found;
use super::behind::{Behind, CHUNK_BYTES};
use crate::checkpoint::{Part, Tracker, WholeCheckpoint};
use crate::error::{OpenError, StorageError};
use crate::frame::{FRAME_INDEX, FRAME_RECORDS, FRAME_SEGMENT, Fault, Frame};
use crate::index::Index;
use crate::options::TornTail;
use crate::record::{KIND_CHECKPOINT, Lsn};
use crate::segment::{Chunk, FIRST_FRAME, FrameError, SegmentFile};
use crate::storage::read_full;
use crate::view::topics_of;

/// A segment up to where its frames end.
pub(super) struct Scanned {
    /// Behind the last frame that holds.
    pub(super) end: u64,
    /// Zeros from `end` up to here, the end of the file; set by `examine_tail`.
    pub(super) filled: u64,
    pub(super) next_lsn: Lsn,
    /// Where its index lies, if it was sealed.
    pub(super) sealed: Option<u64>,
    pub(super) index: Index,
    /// The newest whole one that ends in this segment.
    pub(super) checkpoint: Option<WholeCheckpoint>,
    pub(super) since_checkpoint: u64,
    pub(super) checkpoint_bytes: u64,
    /// Whether the last frame is a closing one.
    pub(super) clean: bool,
    pub(super) torn: Option<TornTail>,
    /// Frames that no later one says were synced: where each begins, and the lsn after it.
    unsynced: VecDeque<(u64, Lsn)>,
    pub(super) frames: u64,
    /// What is at `end`, unless the segment was sealed.
    fault: Option<Fault>,
}

impl Scanned {
    pub(super) fn reason(&self) -> String {
        self.fault.as_ref().map_or_else(|| "it ends too early".to_owned(), Fault::to_string)
    }

    /// Frames from here on may be in the operating system's cache only.
    pub(super) fn unsynced_from(&self) -> u64 {
        self.unsynced.front().map_or(self.end, |(position, _)| *position)
    }

    /// Verifies the frames from `end` on, up to the first that does not hold, or to `until`.
    fn follow(&mut self, found: &Found, until: u64, tracker: &mut Tracker) -> Result<(), OpenError> {
        let file = &found.file;
        let limit = file.len()?.min(until);
        let mut chunk = Chunk::default();
        while self.sealed.is_none() {
            let frame = match file.frame_at(self.end, limit, &mut chunk, CHUNK_BYTES) {
                Ok(frame) => frame,
                Err(FrameError::Fault(fault @ (Fault::Blank | Fault::Invalid(_)))) => {
                    self.fault = Some(fault);
                    break;
                }
                Err(error) => return Err(file.open_error(self.end, error)),
            };
            let header = frame.header;
            let joins_in_the_middle = self.frames == 0 && self.end != FIRST_FRAME;
            if header.first_lsn != self.next_lsn && !joins_in_the_middle {
                let reason = format!("it goes on with lsn {} where {} was to come", header.first_lsn, self.next_lsn);
                return Err(file.damage(self.end, reason).into());
            }
            match header.kind {
                FRAME_RECORDS => self.take_in(found, &frame, tracker)?,
                FRAME_INDEX => self.sealed = Some(self.end),
                FRAME_SEGMENT => return Err(file.damage(self.end, "a segment header within a segment").into()),
                _ => {} // skippable, or it would have been refused
            }
            while self.unsynced.front().is_some_and(|(_, end)| *end <= header.synced_lsn) {
                self.unsynced.pop_front();
            }
            self.unsynced.push_back((self.end, header.end_lsn()));
            self.clean = header.kind == FRAME_RECORDS && header.records == 0;
            self.frames += 1;
            self.next_lsn = header.end_lsn();
            self.end = frame.next().position;
        }
        Ok(())
    }

    fn take_in(&mut self, found: &Found, frame: &Frame, tracker: &mut Tracker) -> Result<(), OpenError> {
        let file = &found.file;
        let position = frame.header.place.position;
        let mut walk = frame.walk();
        while let Some(step) = walk.next(&frame.bytes) {
            let step = step.map_err(|reason| file.damage(position, reason))?;
            if let Some(what) = step.header.unsupported() {
                return Err(OpenError::Unsupported { file: file.name.clone(), offset: position, what });
            }
            if step.header.kind != KIND_CHECKPOINT {
                continue;
            }
            let Some((part, slice)) = Part::decode(step.data(&frame.bytes)) else {
                return Err(file.damage(position, "a checkpoint's part contradicts itself").into());
            };
            self.checkpoint_bytes = slice.len() as u64 + if part.part == 0 { 0 } else { self.checkpoint_bytes };
            if let Some(whole) = tracker.see(step.lsn, part, frame.header.place) {
                self.checkpoint = Some(whole);
                self.since_checkpoint = 0;
            }
        }
        self.since_checkpoint += u64::from(frame.header.payload_bytes);
        self.index.add(position, frame.header.first_lsn, frame.header.time, &topics_of(frame));
        Ok(())
    }

    /// Of the newest segment: whether anything of it is behind the last frame, and whether it was acknowledged. False if frames
    /// go on behind it: another process writes the log, and had not written them when they were looked for.
    ///
    /// `docs/log-format.md`, Recovery, tells the rules that this follows.
    fn examine_tail(&mut self, found: &Found) -> Result<bool, OpenError> {
        let file = &found.file;
        let behind = Behind::search(file, self.end, &|header| header.tells_of(self.next_lsn))?;
        self.filled = behind.file_end;
        if let Some(position) = behind.later {
            if self.goes_on(file)? {
                return Ok(false);
            }
            let reason = format!("{}, and a frame that was written later stands at {position}", self.reason());
            return Err(file.damage(self.end, reason).into());
        }
        let blank = self.fault.as_ref().is_none_or(|fault| *fault == Fault::Blank);
        self.torn =
            behind.torn(self.end, blank).map(|bytes| TornTail { file: file.name.clone(), offset: self.end, bytes });
        Ok(true)
    }

    /// Whether a frame stands at `end` now. A frame is written when those before it are: once a later one is seen, this
    /// answers for good.
    fn goes_on(&self, file: &SegmentFile) -> Result<bool, OpenError> {
        match file.frame_at(self.end, u64::MAX, &mut Chunk::default(), CHUNK_BYTES) {
            Ok(_) => Ok(self.sealed.is_none()),
            Err(FrameError::Fault(_)) => Ok(false),
            Err(FrameError::Storage(error)) => Err(error.into()),
        }
    }
}

/// Verifies the frames from `from` on, up to the first that does not hold, or to `until`.
pub(super) fn scan(found: &Found, from: u64, until: u64, tracker: &mut Tracker) -> Result<Scanned, OpenError> {
    let mut state = Scanned {
        end: from,
        filled: from,
        next_lsn: found.first_lsn,
        sealed: None,
        index: Index::default(),
        checkpoint: None,
        since_checkpoint: 0,
        checkpoint_bytes: 0,
        clean: false,
        torn: None,
        unsynced: VecDeque::new(),
        frames: 0,
        fault: None,
    };
    state.follow(found, until, tracker)?;
    Ok(state)
}

/// Verifies the newest segment, its end included.
pub(super) fn scan_newest(found: &Found, tracker: &mut Tracker) -> Result<Scanned, OpenError> {
    let mut state = scan(found, FIRST_FRAME, u64::MAX, tracker)?;
    while !state.examine_tail(found)? {
        state.follow(found, u64::MAX, tracker)?;
    }
    Ok(state)
}

/// Whether there is nothing but zeros from `from` on.
pub(crate) fn zeros_from(file: &SegmentFile, from: u64) -> Result<bool, StorageError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut start = from;
    loop {
        let count = read_full(file.file.as_ref(), &mut buffer, start).map_err(StorageError::on("read", &file.name))?;
        if buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if count < buffer.len() {
            return Ok(true);
        }
        start += count as u64;
    }
}
