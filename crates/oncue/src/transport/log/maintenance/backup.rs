//! Copies of a log that may be written meanwhile.

use std::path::Path;

use oncue_log::{
    Backup, BackupError, Manifest, Progress, RestoreError,
    storage::{FileStorage, LockError, Snapshot},
};
use thiserror::Error;

use crate::clock::Timestamp;

/// Why a log was not copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// What is to be copied holds no log, or cannot be read.
    #[error("{0}")]
    Source(LockError),
    /// Where it is to be copied cannot be used.
    #[error("{0}")]
    Target(LockError),
    /// No backup was made.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A backup was not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Copies the log in `directory` to `target`, which is made or must be empty, and reads the copy in full. The process that
/// writes the log may go on; the copy has everything that was acknowledged before.
///
/// # Errors
/// There is no log, the target is not empty, or something cannot be read or written.
pub fn backup(
    directory: &Path,
    target: &Path,
    now: Timestamp,
    progress: &mut dyn FnMut(Progress),
) -> Result<Backup, CopyError> {
    let source = Snapshot::open(directory).map_err(CopyError::Source)?;
    let target = FileStorage::open(target).map_err(CopyError::Target)?;
    Ok(oncue_log::backup(&source, &target, now.as_micros(), progress)?)
}

/// Checks the backup in `from`, and copies it to `directory`, which is made or must be empty.
///
/// # Errors
/// It is no backup, or not what its manifest says; the directory is not empty, or something cannot be read or written.
pub fn restore(from: &Path, directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Manifest, CopyError> {
    let source = Snapshot::open(from).map_err(CopyError::Source)?;
    let target = FileStorage::open(directory).map_err(CopyError::Target)?;
    Ok(oncue_log::restore(&source, &target, progress)?)
}
