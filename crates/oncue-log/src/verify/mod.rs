//! Reading all of a log, to see whether it holds: every segment, every frame, every record, past whatever is damaged.
//!
//! Opening verifies from the newest checkpoint on and refuses at the first damage; this goes through everything and goes
//! on behind it. Nothing is written, and no lock is needed: on a [`Snapshot`](crate::storage::Snapshot), it works beside the
//! process that writes the log.

mod content;
mod report;
mod segment;

pub use self::report::{DamagedSpot, Found, MAX_DAMAGED_SPOTS, Refusal, Verification, VerifiedSegment};
use self::segment::Walk;
use crate::error::StorageError;
use crate::frame::{Fault, HEADER_BYTES, seed};
use crate::record::Lsn;
use crate::recovery::zeros_from;
use crate::segment::{FIRST_FRAME, SegmentFile, SegmentHeader, epoch_of, name_of};
use crate::spares::is_spare;
use crate::storage::{LOCK_FILE, RESTORING_FILE, Storage, read_full};
use crate::wire::u64_at;

/// How often the directory is listed until no segment is missing in between: names may come while it is read.
const LISTINGS: usize = 5;

/// Reads every segment of a log in full and checks all that can be checked: each checksum, epoch, position and number, that
/// nothing is missing, that indexes and checkpoints say what the records say. `look` is shown what is found, in the order of
/// the log, and says whether it can be understood.
///
/// Goes on behind damage, with the next frame that holds. Stops early only where `look` says so.
///
/// # Errors
/// What the storage refuses. Beside a process that writes, a segment that was trimmed meanwhile is such an error: verify
/// again.
pub fn verify(
    storage: &dyn Storage,
    look: &mut dyn FnMut(Found<'_>) -> Result<(), Refusal>,
) -> Result<Verification, StorageError> {
    let mut walk = Walk::new(look);
    let epochs = list(storage, &mut walk)?;
    let mut segments = Vec::with_capacity(epochs.len());
    for epoch in &epochs {
        segments.push(survey(storage, *epoch)?);
    }
    drop_unused(&mut segments, &mut walk)?;
    drop_superseded(&mut segments, &mut walk);
    let log_id = common_id(&segments);
    walk.report.log_id = log_id.unwrap_or(0);
    for one in segments.iter_mut().filter(|one| one.header.is_err()) {
        one.file.seed = seed(walk.report.log_id);
    }
    for nth in 0..segments.len() {
        let before = nth.checked_sub(1).map(|before| segments[before].file.epoch);
        walk.begin(&segments[nth], nth, segments.len());
        walk.header(&segments[nth], before);
        walk.follow(&segments[nth], segments.get(nth + 1))?;
        if walk.stopped {
            break;
        }
    }
    Ok(walk.report())
}

/// A segment and what its header says.
struct Surveyed {
    file: SegmentFile,
    bytes: u64,
    header: Result<(SegmentHeader, Lsn), Fault>,
    /// The log id that stands where its header has it, whether or not the header holds.
    id: Option<u64>,
}

/// The epochs of the segments, in order; the other files go into the report.
fn list(storage: &dyn Storage, walk: &mut Walk<'_>) -> Result<Vec<u64>, StorageError> {
    let mut listings = 0;
    loop {
        listings += 1;
        let mut files = storage.list().map_err(StorageError::on("list", "the directory"))?;
        files.sort_unstable();
        let mut epochs: Vec<u64> = files.iter().filter_map(|(name, _)| epoch_of(name)).collect();
        epochs.sort_unstable();
        // A gap may be a name that came while the directory was read.
        if listings < LISTINGS && epochs.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            continue;
        }
        for (name, _) in files.into_iter().filter(|(name, _)| epoch_of(name).is_none() && name != LOCK_FILE) {
            if name == RESTORING_FILE {
                walk.spot(&name, 0, 0, "restoring a backup into this directory did not come to its end", 0);
            } else if is_spare(&name) {
                walk.report.spares.push(name);
            } else {
                walk.report.others.push(name);
            }
        }
        return Ok(epochs);
    }
}

fn survey(storage: &dyn Storage, epoch: u64) -> Result<Surveyed, StorageError> {
    let name = name_of(epoch);
    let file = storage.open(&name, false).map_err(StorageError::on("open", &name))?;
    let mut file = SegmentFile { name, epoch, seed: 0, file };
    let mut raw = [0; FIRST_FRAME as usize];
    let count = read_full(file.file.as_ref(), &mut raw, 0).map_err(StorageError::on("read", &file.name))?;
    let id = (count == raw.len()).then(|| u64_at(&raw, HEADER_BYTES));
    // A second look: it may have been written since, by another process.
    let header = match file.header()? {
        Ok(header) => Ok(header),
        Err(_) => file.header()?,
    };
    if let Ok((header, _)) = &header {
        file.seed = seed(header.log_id);
    }
    let bytes = file.len()?;
    Ok(Surveyed { file, bytes, header, id })
}

/// A newest segment that never held anything is none.
fn drop_unused(segments: &mut Vec<Surveyed>, walk: &mut Walk<'_>) -> Result<(), StorageError> {
    let unused = match segments.last() {
        Some(Surveyed { file, header: Err(Fault::Blank | Fault::Invalid(_)), .. }) => zeros_from(file, FIRST_FRAME)?,
        _ => false,
    };
    if unused && let Some(newest) = segments.pop() {
        walk.report.unused = Some(newest.file.name);
    }
    Ok(())
}

/// Segments that were rewritten into a later one are none.
fn drop_superseded(segments: &mut Vec<Surveyed>, walk: &mut Walk<'_>) {
    for at in (1..segments.len()).rev() {
        let Ok((later, _)) = &segments[at].header else { continue };
        if later.supersedes(segments[at - 1].file.epoch) {
            walk.report.spares.push(segments.remove(at - 1).file.name);
        }
    }
}

/// The id that most segments carry.
fn common_id(segments: &[Surveyed]) -> Option<u64> {
    let ids: Vec<u64> = segments.iter().filter_map(|one| Some(one.header.as_ref().ok()?.0.log_id)).collect();
    let votes = |id: &u64| ids.iter().filter(|other| *other == id).count();
    let mut common = None;
    for id in &ids {
        if common.is_none_or(|best| votes(id) > votes(&best)) {
            common = Some(*id);
        }
    }
    // Where no header holds, the one that a header would carry: frames tell whether it is right.
    common.or_else(|| segments.iter().find_map(|one| one.id))
}
