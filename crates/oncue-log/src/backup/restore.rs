//! From a backup to a log.

use crc32c::crc32c_append;

use super::{BackupFile, CHUNK_BYTES, CopyError, MANIFEST_FILE, Manifest, Progress, anything_in, copy};
use crate::error::StorageError;
use crate::storage::{RESTORING_FILE, Storage, read_full};

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no manifest.
    #[error("there is no {MANIFEST_FILE}: this is no backup, or one that was not completed; make it again")]
    NoManifest,
    /// The manifest cannot be read.
    #[error("{MANIFEST_FILE} cannot be used: {reason}; take another backup")]
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not as the manifest says.
    #[error("{file} is not as {MANIFEST_FILE} says: {reason}; nothing was restored, take another backup")]
    Damaged {
        /// The file.
        file: String,
        /// What differs.
        reason: String,
    },
    /// The target holds something.
    #[error("the target holds {file:?}: name an empty or new directory")]
    NotEmpty {
        /// One of its files.
        file: String,
    },
    /// The backup cannot be read.
    #[error("the backup cannot be read: {0}")]
    Source(StorageError),
    /// The target refused something.
    #[error("the log was not restored: {0}; empty the target, and restore again")]
    Target(StorageError),
}

/// Checks a backup and copies it to `target`, which must be empty. When it returns, everything is synced, and a log can be
/// opened there. A restore that stops before is told as such by whoever opens it.
///
/// # Errors
/// See [`RestoreError`]. The target is not touched before the backup was read in full and is as its manifest says.
pub fn restore(
    source: &dyn Storage,
    target: &dyn Storage,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, RestoreError> {
    let manifest = read_manifest(source)?;
    // Each byte is read twice: before anything is written, and to be written.
    let of = manifest.bytes().saturating_mul(2);
    let mut bytes = 0;
    let mut more = |count: u64| {
        bytes += count;
        progress(Progress { bytes, of });
    };
    if let Some(file) = anything_in(target).map_err(RestoreError::Target)? {
        return Err(RestoreError::NotEmpty { file });
    }
    for file in &manifest.files {
        check(source, file, &mut more)?;
    }
    mark(target).map_err(RestoreError::Target)?;
    for file in &manifest.files {
        let copied = copy(source, target, &file.name, file.bytes, &mut more).map_err(|failed| match failed {
            CopyError::Source(error) => RestoreError::Source(error),
            CopyError::Target(error) => RestoreError::Target(error),
        })?;
        if copied != *file {
            let reason = "it changed while it was copied".to_owned();
            return Err(RestoreError::Damaged { file: file.name.clone(), reason });
        }
    }
    finish(target).map_err(RestoreError::Target)?;
    Ok(manifest)
}

fn read_manifest(source: &dyn Storage) -> Result<Manifest, RestoreError> {
    let file = match source.open(MANIFEST_FILE, false) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(RestoreError::NoManifest),
        Err(error) => return Err(RestoreError::Source(StorageError::on("open", MANIFEST_FILE)(error))),
    };
    let read = || {
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        let count = read_full(file.as_ref(), &mut bytes, 0)?;
        bytes.truncate(count);
        Ok(bytes)
    };
    let bytes = read().map_err(StorageError::on("read", MANIFEST_FILE)).map_err(RestoreError::Source)?;
    Manifest::decode(&bytes).map_err(|reason| RestoreError::Manifest { reason })
}

/// Reads a file of the backup in full.
fn check(source: &dyn Storage, expected: &BackupFile, more: &mut dyn FnMut(u64)) -> Result<(), RestoreError> {
    let name = expected.name.as_str();
    let damaged = |reason: String| RestoreError::Damaged { file: name.to_owned(), reason };
    let file = match source.open(name, false) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is missing".to_owned())),
        Err(error) => return Err(RestoreError::Source(StorageError::on("open", name)(error))),
    };
    let (mut buffer, mut at, mut checksum) = (vec![0; CHUNK_BYTES], 0, 0);
    loop {
        let read = read_full(file.as_ref(), &mut buffer, at).map_err(StorageError::on("read", name));
        let count = read.map_err(RestoreError::Source)?;
        checksum = crc32c_append(checksum, &buffer[..count]);
        at += count as u64;
        more(count as u64);
        if count < buffer.len() {
            break;
        }
    }
    if at != expected.bytes {
        return Err(damaged(format!("it has {at} bytes for {}", expected.bytes)));
    }
    if checksum != expected.checksum {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    Ok(())
}

/// From here on, and until [`finish`], this is no log.
fn mark(target: &dyn Storage) -> Result<(), StorageError> {
    let file = target.open(RESTORING_FILE, true).map_err(StorageError::on("create", RESTORING_FILE))?;
    file.sync().map_err(StorageError::on("sync", RESTORING_FILE))?;
    target.sync_dir().map_err(StorageError::on("sync the directory of", RESTORING_FILE))
}

fn finish(target: &dyn Storage) -> Result<(), StorageError> {
    target.sync_dir().map_err(StorageError::on("sync the directory of", RESTORING_FILE))?;
    target.remove(RESTORING_FILE).map_err(StorageError::on("remove", RESTORING_FILE))?;
    target.sync_dir().map_err(StorageError::on("sync the directory of", RESTORING_FILE))
}
