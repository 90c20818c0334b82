//! Writing: frames into segments, zeros ahead of them, syncs, and rolling over to the next segment.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::buffer::{Buffer, Pool};
use crate::checkpoint::{Tracker, WholeCheckpoint};
use crate::core::Core;
use crate::error::StorageError;
use crate::frame::{FLAG_SKIPPABLE, FRAME_INDEX, FRAME_RECORDS, Frame, FrameHeader, HEADER_BYTES, Place};
use crate::limits::{FILL_BYTES, PREPARE_BYTES};
use crate::options::Durability;
use crate::queue::Pending;
use crate::record::Lsn;
use crate::segment::{FIRST_FRAME, SegmentFile, SegmentHeader, name_of};
use crate::spares::Spares;
use crate::storage::{Storage, write_all, write_zeros};
use crate::view::Segment;

/// The one place that writes. Behind a lock, so that the writer thread, an inline writer and closing can take turns.
pub(crate) struct Committer {
    pub(crate) segment: SegmentFile,
    /// Where the next frame goes.
    pub(crate) position: u64,
    /// The file holds zeros, or frames, up to here.
    pub(crate) filled: u64,
    /// The last frame was so large that the file may grow by such.
    grows: bool,
    pub(crate) next_lsn: Lsn,
    /// Every record below is synced.
    pub(crate) synced_lsn: Lsn,
    pub(crate) tracker: Tracker,
    pub(crate) checkpoint: Option<WholeCheckpoint>,
    /// What it was to write may be lost, whatever a later one says.
    sync_failed: bool,
    /// Nothing was written since the log was closed last.
    pub(crate) closed: bool,
    pub(crate) group: VecDeque<Pending>,
    written: Vec<(FrameHeader, Pending)>,
    /// Where what is written was expected to end, when its last frame was begun.
    expected: u64,
    pub(crate) pool: Arc<Pool>,
}

/// A frame this small is copied for readers, so that its buffer can be filled again: held as it is, it would hold a
/// buffer many times its size.
const COPIED_BYTES: usize = 128 << 10;
/// A frame this large may grow the file: syncing the growth costs less than writing as many zeros first would.
const GROWING_BYTES: usize = 128 << 10;

impl Committer {
    pub(crate) fn new(segment: SegmentFile, position: u64, filled: u64, next_lsn: Lsn) -> Self {
        Self {
            segment,
            position,
            filled,
            grows: false,
            next_lsn,
            synced_lsn: next_lsn,
            tracker: Tracker::default(),
            checkpoint: None,
            sync_failed: false,
            closed: false,
            group: VecDeque::new(),
            written: Vec::new(),
            expected: position,
            pool: Arc::default(),
        }
    }

    /// Writes the group, makes it durable, shows it to readers.
    pub(crate) fn write_group(&mut self, core: &Core) -> Result<(), StorageError> {
        while let Some(frame) = self.group.pop_front() {
            self.write_frame(core, frame)?;
        }
        self.publish(core)
    }

    fn write_frame(&mut self, core: &Core, mut frame: Pending) -> Result<(), StorageError> {
        let length = frame.bytes.len() as u64;
        if self.position > FIRST_FRAME && self.position + length > core.options.segment_bytes {
            self.roll(core, frame.time)?;
        }
        let header = FrameHeader {
            kind: FRAME_RECORDS,
            flags: 0,
            payload_bytes: (frame.bytes.len() - HEADER_BYTES) as u32,
            records: frame.records,
            topic: if let [only] = &frame.topics[..] { only.topic } else { 0 },
            place: Place { epoch: self.segment.epoch, position: self.position },
            first_lsn: frame.first_lsn,
            synced_lsn: self.synced_lsn,
            time: frame.time,
        };
        match frame.checksum {
            Some(payload) => header.seal_over(frame.bytes.bytes_mut(), core.seed, payload),
            None => header.seal(frame.bytes.bytes_mut(), core.seed),
        }
        for (lsn, part) in &frame.parts {
            self.checkpoint = self.tracker.see(*lsn, *part, header.place).or(self.checkpoint);
        }
        self.put(core, &mut frame.bytes)?;
        self.expected = frame.end();
        self.next_lsn = header.end_lsn();
        self.closed = false;
        core.counters.frames.fetch_add(1, Ordering::Relaxed);
        core.counters.records.fetch_add(u64::from(header.records), Ordering::Relaxed);
        self.written.push((header, frame));
        Ok(())
    }

    /// Writes a frame of the log's own.
    fn put_own(&mut self, core: &Core, kind: u8, payload: &[u8], time: i64) -> Result<(), StorageError> {
        let mut frame = Buffer::default();
        frame.begin(None);
        frame.extend(payload);
        self.own_header(kind, payload.len(), time).seal(frame.bytes_mut(), core.seed);
        self.put(core, &mut frame)
    }

    /// Writes a frame's bytes at the end, and zeros behind it where they run out.
    fn put(&mut self, core: &Core, buffer: &mut Buffer) -> Result<(), StorageError> {
        let file = self.segment.file.as_ref();
        let end = self.position + buffer.len() as u64;
        // What was in the file before must not stand where the next frame will be looked for.
        let blank = self.filled.saturating_sub(end).min(HEADER_BYTES as u64) as usize;
        let written = match core.options.durability {
            Durability::Disk => buffer.append_to(file, blank, self.position),
            // Nobody waits for the disk: the page cache is faster.
            Durability::Os => {
                write_all(file, buffer.bytes(), self.position).and_then(|()| write_zeros(file, end, blank as u64))
            }
        };
        written.map_err(StorageError::on("write", &self.segment.name))?;
        self.position = end;
        self.grows = buffer.len() >= GROWING_BYTES;
        core.counters.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if self.position <= self.filled || !core.storage.fill_ahead() {
            return Ok(());
        }
        if self.grows {
            self.filled = self.position;
            return Ok(());
        }
        let target = (self.position + FILL_BYTES).min(core.options.segment_bytes.max(self.position));
        write_zeros(file, self.position, target - self.position)
            .map_err(StorageError::on("write zeros to", &self.segment.name))?;
        self.filled = target;
        Ok(())
    }

    pub(crate) fn sync(&mut self, core: &Core) -> Result<(), StorageError> {
        let synced =
            if self.sync_failed { Err(io::Error::other("one has failed before")) } else { self.segment.file.sync() };
        self.sync_failed = synced.is_err();
        synced.map_err(StorageError::on("sync", &self.segment.name))?;
        self.synced_lsn = self.next_lsn;
        core.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What was written becomes durable, readable and known to be.
    fn publish(&mut self, core: &Core) -> Result<(), StorageError> {
        if self.written.is_empty() {
            return Ok(());
        }
        if core.options.durability == Durability::Disk {
            self.sync(core)?;
        }
        let keep = core.options.tail_bytes > 0;
        let frames: Vec<_> =
            self.written.iter_mut().map(|(header, frame)| readable(*header, frame, keep, &self.pool)).collect();
        let mut view = core.view.write();
        for ((frame, held), (_, pending)) in frames.into_iter().zip(&self.written) {
            view.publish(frame, held, &pending.topics);
        }
        view.checkpoint = self.checkpoint;
        drop(view);
        core.visible.store(self.next_lsn, Ordering::Release);
        // More may count as durable already, where what is appended does.
        core.durable.fetch_max(self.next_lsn, Ordering::AcqRel);
        let mut queue = core.queue.lock();
        if self.expected != self.position {
            queue.moved(self.expected, self.position);
            self.expected = self.position;
        }
        self.written.drain(..).for_each(|(_, frame)| queue.recycle(frame));
        Ok(())
    }

    /// Seals the segment and begins the next.
    fn roll(&mut self, core: &Core, time: i64) -> Result<(), StorageError> {
        self.publish(core)?;
        let index_at = self.position;
        let payload = core.view.read().index.encode();
        self.put_own(core, FRAME_INDEX, &payload, time)?;
        self.sync(core)?;
        let header = SegmentHeader {
            log_id: core.log_id,
            previous_epoch: self.segment.epoch,
            previous_index: index_at,
            checkpoint: self.checkpoint.map(|whole| whole.place).unwrap_or_default(),
            index: 0,
        };
        let epoch = self.segment.epoch + 1;
        let sealed_bytes = self.filled.max(self.position);
        (self.segment, self.filled) =
            create_segment(core.storage.as_ref(), &core.spares, &header, epoch, self.next_lsn, time)?;
        self.position = FIRST_FRAME;
        let next = Segment::new(self.segment.epoch, self.next_lsn, None);
        next.set_bytes(self.filled);
        let mut view = core.view.write();
        view.segments.back().inspect(|sealed| sealed.set_bytes(sealed_bytes));
        view.roll(index_at, next, header.checkpoint);
        Ok(())
    }

    /// How far the next segment's file is to be prepared by now: it is begun when an eighth of this one is written, and whole
    /// a little before this one is full. In whole steps: with a little more for each small frame, the disk would sync twice as
    /// often. Not at all while frames are large: zeros would take from them what the disk can write, and a file that grows by
    /// large frames costs less than that.
    pub(crate) fn next_wanted(&self, core: &Core) -> u64 {
        if self.grows {
            return 0;
        }
        let whole = core.options.segment_bytes;
        let wanted = self.position.saturating_sub(whole / 8) * 5 / 4;
        if wanted < whole { wanted - wanted % PREPARE_BYTES } else { whole }
    }

    /// Writes the last frame, which tells that nothing is missing behind what it says was synced.
    pub(crate) fn write_closing(&mut self, core: &Core, time: i64) -> Result<(), StorageError> {
        if self.closed {
            return Ok(());
        }
        if self.synced_lsn < self.next_lsn {
            self.sync(core)?;
        }
        self.put_own(core, FRAME_RECORDS, &[], time)?;
        self.sync(core)?;
        core.view.write().end.position = self.position;
        self.closed = true;
        Ok(())
    }

    fn own_header(&self, kind: u8, payload: usize, time: i64) -> FrameHeader {
        FrameHeader {
            kind,
            flags: if kind == FRAME_INDEX { FLAG_SKIPPABLE } else { 0 },
            payload_bytes: payload as u32,
            records: 0,
            topic: 0,
            place: Place { epoch: self.segment.epoch, position: self.position },
            first_lsn: self.next_lsn,
            synced_lsn: self.synced_lsn,
            time,
        }
    }
}

/// The frame as readers get it, in the buffer that it was written from, or copied if it is small; and the memory that it takes.
fn readable(header: FrameHeader, pending: &mut Pending, keep: bool, pool: &Arc<Pool>) -> (Frame, usize) {
    let buffer = std::mem::take(&mut pending.bytes);
    if keep && buffer.len() > COPIED_BYTES {
        let held = buffer.capacity();
        return (Frame { header, bytes: pool.lend(buffer) }, held);
    }
    let bytes = if keep { Bytes::copy_from_slice(buffer.bytes()) } else { Bytes::new() };
    pool.put(buffer);
    let held = bytes.len();
    (Frame { header, bytes }, held)
}

/// Makes a segment that is there, whole, after a crash: its header is synced before its name is. Returns how far the file
/// can be written without growing.
pub(crate) fn create_segment(
    storage: &dyn Storage,
    spares: &Spares,
    header: &SegmentHeader,
    epoch: u64,
    first_lsn: Lsn,
    time: i64,
) -> Result<(SegmentFile, u64), StorageError> {
    let name = name_of(epoch);
    let spare = spares.take();
    let made = spare.as_ref().map_or(&name, |(spare, _)| spare);
    let mut file = storage.open(made, spare.is_none()).map_err(StorageError::on("create", &name))?;
    let mut first = header.encode(epoch, first_lsn, time);
    if spare.is_some() {
        first.resize(first.len() + HEADER_BYTES, 0); // no frame stands behind it, whatever the file held before
    }
    write_all(file.as_ref(), &first, 0).map_err(StorageError::on("write", &name))?;
    file.sync().map_err(StorageError::on("sync", &name))?;
    if let Some((spare, _)) = &spare {
        storage.rename(spare, &name).map_err(StorageError::on("rename a spare segment to", &name))?;
        file = storage.open(&name, false).map_err(StorageError::on("open", &name))?;
    }
    storage.sync_dir().map_err(StorageError::on("sync the directory of", &name))?;
    let seed = crate::frame::seed(header.log_id);
    let filled = spare.map_or(FIRST_FRAME, |(_, length)| length.max(FIRST_FRAME));
    Ok((SegmentFile { name, epoch, seed, file }, filled))
}
