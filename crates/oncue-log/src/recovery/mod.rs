//! Opening: find the segments, verify what may be torn, replay, repair, go on. The rules: `docs/log-format.md`, Recovery.

mod behind;
mod extent;
mod repair;
mod replay;
mod scan;

use std::sync::Arc;

pub(crate) use self::behind::{Behind, CHUNK_BYTES};
pub(crate) use self::extent::{Extent, Piece, extent};
pub use self::replay::Replay;
use self::replay::replay_records;
pub(crate) use self::scan::zeros_from;
use self::scan::{Scanned, scan, scan_newest};
use crate::checkpoint::{Tracker, WholeCheckpoint};
use crate::committer::{Committer, create_segment};
use crate::core::Core;
use crate::error::{Damage, OpenError, StorageError};
use crate::frame::{Fault, Place, seed};
use crate::options::{Options, Recovery};
use crate::queue::Queue;
use crate::record::Lsn;
use crate::segment::{FIRST_FRAME, SegmentFile, SegmentHeader, epoch_of, name_of};
use crate::spares::{Spares, is_spare};
use crate::storage::{LOCK_FILE, RESTORING_FILE, Storage};
use crate::view::{Offsets, Segment, View, Written};

/// A segment whose header holds.
struct Found {
    file: SegmentFile,
    header: SegmentHeader,
    first_lsn: Lsn,
}

impl Found {
    /// Where its index lies, and with it the end of its records; `None` if it is the newest.
    fn index_at(&self, next: Option<&Self>) -> Option<u64> {
        if self.header.index > 0 { Some(self.header.index) } else { next.map(|next| next.header.previous_index) }
    }
}

/// What the storage held.
struct Survey {
    /// By epoch.
    found: Vec<Found>,
    /// The newest segment, if it never held anything.
    unused: Option<String>,
    /// Trimmed segments that were kept for reuse, and those that others were rewritten into: they go.
    spares: Vec<String>,
}

/// What was verified.
struct Verified {
    /// The newest segment.
    newest: Scanned,
    /// The verified segments, as a position in `Survey::found` to start from.
    from: usize,
    checkpoint: Option<WholeCheckpoint>,
}

/// How often the end of the log is verified, if it changes while it is.
const TRIES: usize = 4;

type ReplayFn<'a> = dyn FnMut(Replay<'_>) -> Result<(), String> + 'a;

pub(crate) fn open(
    storage: Box<dyn Storage>,
    options: Options,
    now: i64,
    replay: &mut ReplayFn<'_>,
) -> Result<(Core, Recovery), OpenError> {
    let mut report = Recovery::default();
    let Survey { mut found, unused, spares } = survey(storage.as_ref())?;
    report.removed = unused;
    if found.is_empty() {
        return create(storage, options, now, report);
    }
    let verified = verify_for_good(&found, &mut report)?;
    let topics = replay_records(&found[verified.from..], &verified, &mut report, replay)?;
    for spare in &spares {
        repair::remove(storage.as_ref(), spare)?;
    }
    repair::repair(storage.as_ref(), &found[found.len() - 1], &report)?;

    let offsets = topics.iter().map(|topic| {
        let (first, next) = (topic.first_offset, topic.next_offset);
        Offsets { first, next, dropped: first }
    });
    let end = Place { epoch: found[found.len() - 1].file.epoch, position: verified.newest.end };
    let mut view = View::new(options.tail_bytes, end, offsets.collect());
    for (place, segment) in found.iter().enumerate() {
        let index_at = segment.index_at(found.get(place + 1));
        let made = Segment::new(segment.file.epoch, segment.first_lsn, index_at);
        made.set_bytes(segment.file.len()?);
        view.segments.push_back(Arc::new(if segment.header.index > 0 {
            made.rewritten(segment.header.previous_epoch + 1, Written::Again)
        } else {
            made
        }));
    }
    view.checkpoint = verified.checkpoint;
    view.named = found[found.len() - 1].header.checkpoint;
    let Scanned { next_lsn, sealed, index, end: position, filled, .. } = verified.newest;
    view.index = index;
    find_first_offsets(storage.as_ref(), &mut view, found[0].file.seed)?;
    let Some(newest) = found.pop() else { return create(storage, options, now, report) };
    let log_id = newest.header.log_id;
    let mut committer = Committer::new(newest.file, position, filled, next_lsn);
    if let Some(index_at) = sealed {
        let checkpoint = verified.checkpoint.map(|whole| whole.place).unwrap_or_default();
        let previous_epoch = committer.segment.epoch;
        let header = SegmentHeader { log_id, previous_epoch, previous_index: index_at, checkpoint, index: 0 };
        let none = Spares::default();
        let (file, _) = create_segment(storage.as_ref(), &none, &header, previous_epoch + 1, next_lsn, now)?;
        view.roll(index_at, Segment::new(file.epoch, next_lsn, None), checkpoint);
        committer = Committer::new(file, FIRST_FRAME, FIRST_FRAME, next_lsn);
    }
    (committer.checkpoint, committer.closed) = (verified.checkpoint, report.clean);
    (report.log_id, report.next_lsn) = (log_id, next_lsn);
    let mut queue = Queue::new(next_lsn, topics);
    (queue.since_checkpoint, queue.checkpoint_bytes) =
        (verified.newest.since_checkpoint, verified.newest.checkpoint_bytes);
    Ok((Core::new(log_id, options, storage, queue, view, committer), report))
}

/// A new log.
fn create(
    storage: Box<dyn Storage>,
    options: Options,
    now: i64,
    mut report: Recovery,
) -> Result<(Core, Recovery), OpenError> {
    if let Some(name) = &report.removed {
        repair::remove(storage.as_ref(), name)?;
    }
    let what = "get a random id for the new log";
    let log_id = getrandom::u64().map_err(|error| OpenError::System { what, source: std::io::Error::other(error) })?;
    let header = SegmentHeader { log_id, ..SegmentHeader::default() };
    let (file, _) = create_segment(storage.as_ref(), &Spares::default(), &header, 1, 0, now)?;
    let mut view = View::new(options.tail_bytes, Place { epoch: 1, position: FIRST_FRAME }, Vec::new());
    view.segments.push_back(Arc::new(Segment::new(1, 0, None)));
    let committer = Committer::new(file, FIRST_FRAME, FIRST_FRAME, 0);
    (report.log_id, report.created) = (log_id, true);
    Ok((Core::new(log_id, options, storage, Queue::new(0, Vec::new()), view, committer), report))
}

/// Opens every segment and checks that the headers form a chain.
fn survey(storage: &dyn Storage) -> Result<Survey, OpenError> {
    let files = storage.list().map_err(StorageError::on("list", "the directory"))?;
    let mut epochs: Vec<u64> = files.iter().filter_map(|(name, _)| epoch_of(name)).collect();
    epochs.sort_unstable();
    if files.iter().any(|(name, _)| name == RESTORING_FILE) {
        return Err(OpenError::Unfinished { file: RESTORING_FILE.to_owned() });
    }
    if epochs.is_empty() {
        return match files.into_iter().find(|(name, _)| name != LOCK_FILE) {
            Some((file, _)) => Err(OpenError::Foreign { file }),
            None => Ok(Survey { found: Vec::new(), unused: None, spares: Vec::new() }),
        };
    }
    let spares = files.into_iter().map(|(name, _)| name).filter(|name| is_spare(name)).collect();
    let mut survey = Survey { found: Vec::new(), unused: None, spares };
    let newest = epochs[epochs.len() - 1];
    for epoch in epochs {
        let name = name_of(epoch);
        let file = storage.open(&name, false).map_err(StorageError::on("open", &name))?;
        let mut file = SegmentFile { name, epoch, seed: 0, file };
        let mut read = file.header()?;
        let unused = epoch == newest && read.is_err() && zeros_from(&file, FIRST_FRAME)?;
        if read.is_err() && !unused {
            // Written since, by another process: what lies behind it shows that it is whole now.
            read = file.header()?;
        }
        match read {
            Ok((header, first_lsn)) => {
                file.seed = seed(header.log_id);
                survey.found.push(Found { file, header, first_lsn });
            }
            Err(Fault::Unsupported(what)) => return Err(OpenError::Unsupported { file: file.name, offset: 0, what }),
            Err(_) if unused => survey.unused = Some(file.name),
            Err(fault) => return Err(file.damage(0, format!("its segment header cannot be read: {fault}")).into()),
        }
    }
    take_superseded(&mut survey);
    for pair in survey.found.windows(2) {
        check_chain(&pair[0], &pair[1])?;
    }
    Ok(survey)
}

/// Lets go of segments whose records were written into a later one, but that a crash came before the removal of.
fn take_superseded(survey: &mut Survey) {
    for at in (1..survey.found.len()).rev() {
        if survey.found[at].header.supersedes(survey.found[at - 1].file.epoch) {
            survey.spares.push(survey.found.remove(at - 1).file.name);
        }
    }
}

fn check_chain(one: &Found, next: &Found) -> Result<(), Damage> {
    let missing = next.header.previous_epoch;
    if missing > one.file.epoch && missing < next.file.epoch {
        let file = name_of(missing);
        return Err(Damage { file, offset: 0, reason: format!("it is missing, and {} is there", next.file.name) });
    }
    if next.header.log_id != one.header.log_id {
        return Err(next.file.damage(0, format!("it belongs to another log than {}", one.file.name)));
    }
    if next.header.previous_epoch != one.file.epoch || next.first_lsn < one.first_lsn {
        return Err(next.file.damage(0, format!("it does not follow {}", one.file.name)));
    }
    Ok(())
}

/// Verifies, and sees to it that what was found to hold is on the disk, so that it holds from now on.
fn verify_for_good(found: &[Found], report: &mut Recovery) -> Result<Verified, OpenError> {
    let newest = &found[found.len() - 1];
    for _ in 0..TRIES {
        let mut seen = report.clone();
        let verified = verify(found, &mut seen)?;
        if repair::write_again(newest, &verified.newest)? {
            *report = seen;
            return Ok(verified);
        }
    }
    let source = std::io::Error::other("it reads differently each time");
    Err(StorageError { what: "read", file: newest.file.name.clone(), source }.into())
}

/// Scans the newest segment, and if no whole checkpoint lies in it, every one from the newest checkpoint on.
fn verify(found: &[Found], report: &mut Recovery) -> Result<Verified, OpenError> {
    let last = found.len() - 1;
    let newest = &found[last];
    let mut tracker = Tracker::default();
    let scanned = scan_newest(newest, &mut tracker)?;
    let mut verified = Verified { checkpoint: scanned.checkpoint, newest: scanned, from: last };
    if verified.checkpoint.is_none() && last > 0 {
        let oldest = found[0].file.epoch;
        let begin = newest.header.checkpoint.max(Place { epoch: oldest, position: FIRST_FRAME });
        let Some(from) = found.iter().position(|segment| segment.file.epoch >= begin.epoch) else {
            return Err(newest.file.damage(0, "its header names a checkpoint in a segment to come").into());
        };
        let mut tracker = Tracker::default();
        let (mut since, mut size) = (0, 0);
        for (segment, next) in found[from..last].iter().zip(&found[from + 1..]) {
            let start = if segment.file.epoch == begin.epoch { begin.position } else { FIRST_FRAME };
            let sealed = scan(segment, start, u64::MAX, &mut tracker)?;
            if sealed.next_lsn != next.first_lsn {
                let reason = format!("{}: the records from lsn {} on are missing", sealed.reason(), sealed.next_lsn);
                return Err(segment.file.damage(sealed.end, reason).into());
            }
            if sealed.sealed.is_none() {
                report.damaged_indexes.push(segment.file.name.clone());
            }
            verified.checkpoint = sealed.checkpoint.or(verified.checkpoint);
            since = sealed.since_checkpoint + if sealed.checkpoint.is_some() { 0 } else { since };
            size = if sealed.checkpoint_bytes > 0 { sealed.checkpoint_bytes } else { size };
            report.frames += sealed.frames;
        }
        // Its last parts may lie in the newest segment, of which no more counts than was verified.
        let rest = scan(newest, FIRST_FRAME, verified.newest.end, &mut tracker)?;
        verified.checkpoint = rest.checkpoint.or(verified.checkpoint);
        verified.newest.since_checkpoint += since;
        verified.newest.checkpoint_bytes = verified.newest.checkpoint_bytes.max(size);
        verified.from = from;
    } else if let Some(whole) = verified.checkpoint {
        verified.from = found.iter().position(|segment| segment.file.epoch == whole.place.epoch).unwrap_or(last);
    }
    if verified.checkpoint.is_none() && (found[0].file.epoch > 1 || newest.header.checkpoint != Place::default()) {
        return Err(found[0].file.damage(0, "older segments were trimmed, and there is no whole checkpoint").into());
    }
    report.segments_scanned = found.len() - verified.from;
    report.frames += verified.newest.frames;
    (report.clean, report.torn) = (verified.newest.clean, verified.newest.torn.clone());
    Ok(verified)
}

/// Where each topic begins, once segments were trimmed.
fn find_first_offsets(storage: &dyn Storage, view: &mut View, seed: u32) -> Result<(), OpenError> {
    if view.segments.front().is_none_or(|oldest| oldest.epoch == 1) {
        return Ok(());
    }
    let mut missing: Vec<u32> = (1..=view.topics()).collect();
    for segment in view.segments.clone() {
        let reader = segment.reader(storage, seed)?;
        let active = view.index.clone();
        let index = segment.index_at().map_or(Ok(&active), |index_at| reader.index(index_at))?;
        missing.retain(|topic| match index.topic(*topic) {
            Some(seen) => {
                let offsets = view.offsets_mut(*topic);
                offsets.first = offsets.first.max(seen.first_offset);
                false
            }
            None => view.offsets(*topic).next > 0,
        });
        if missing.is_empty() {
            break;
        }
    }
    for topic in missing {
        let offsets = view.offsets_mut(topic);
        offsets.first = offsets.next;
    }
    Ok(())
}
