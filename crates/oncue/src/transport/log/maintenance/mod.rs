//! What is done to the log in a directory as a whole, by tools: read in full, told, copied, filled.
//!
//! [`verify`], [`dump`] and [`info`] look at it beside the process that writes it, take no lock and write nothing; so does
//! [`backup`], which copies it. [`restore`] and [`import`](Import) write.

mod backup;
mod dump;
mod import;
mod info;
mod meaning;
mod verify;

use std::path::Path;

pub use oncue_log::{
    Backup, BackupError, BackupFile, DamagedSpot, Manifest, Progress, RestoreError, SegmentInfo, TornTail,
    Verification, VerifiedSegment,
};
use oncue_log::{StorageError, storage::Snapshot, storage::Storage as _};

pub use self::{
    backup::{CopyError, backup, restore},
    dump::{DumpFilter, DumpLine, Dumped, KINDS, dump},
    import::{Import, ImportError, Imported, InvalidLine, MAX_LINE_BYTES},
    info::{CheckpointInfo, Hold, LogInfo, TopicSpace, info},
    verify::{TopicCount, Verified, verify},
};
use super::super::OpenError;

/// How often a log is looked at from the start where segments went while it was read.
const TRIES: usize = 5;

/// What the storage refused, as whoever opens a log is told.
fn storage(error: StorageError) -> OpenError {
    OpenError::Log(error.into())
}

/// The log in a directory, to be looked at, and how many bytes its files have.
fn look_at(directory: &Path) -> Result<(Snapshot, u64), OpenError> {
    let snapshot = Snapshot::open(directory)?;
    let files = snapshot.list();
    let files = files
        .map_err(|source| storage(StorageError { what: "list", file: directory.display().to_string(), source }))?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    Ok((snapshot, bytes))
}
