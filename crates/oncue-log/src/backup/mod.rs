//! Backups: a copy of a log that may be written meanwhile, and the way back.
//!
//! Segments are copied, never linked: a segment that is trimmed is overwritten in place to be used again, and a link would
//! be overwritten with it. What lies behind a segment's last frame is not copied, so that nothing of an earlier life of the file
//! comes along. The manifest is written last: a backup without one is not complete.

mod manifest;
mod restore;

use crc32c::crc32c_append;

pub use self::manifest::{BackupFile, MANIFEST_FILE, Manifest};
pub use self::restore::{RestoreError, restore};
use crate::error::{OpenError, StorageError};
use crate::recovery::{Extent, Piece, extent};
use crate::storage::{LOCK_FILE, LOST_AND_FOUND, Storage, read_full, write_all};
use crate::verify::{Verification, verify};

/// How often the log is looked at anew, where segments were trimmed while they were copied.
const TRIES: usize = 5;
/// How much is copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What was copied so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes there are.
    pub of: u64,
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What it holds.
    pub manifest: Manifest,
    /// What reading all of it has shown. What is damaged here is damaged in the log, too: opening does not read old segments.
    pub verification: Verification,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// There is no log.
    #[error("there is no log to copy: name the directory that an app keeps its log in")]
    NoLog,
    /// The target holds something.
    #[error("the target holds {file:?}: name an empty or new directory")]
    NotEmpty {
        /// One of its files.
        file: String,
    },
    /// The target refused something. What is there is no backup; remove it.
    #[error("the backup was not completed: {0}; remove what is there, and make it again")]
    Target(StorageError),
}

/// Copies the log in `source` to `target`, which must be empty, and reads the copy in full.
///
/// Holds every record that was durable when it began, and ends behind a whole frame. `source` may be a
/// [`Snapshot`](crate::storage::Snapshot) beside the process that writes the log. When it returns, everything is synced.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(
    source: &dyn Storage,
    target: &dyn Storage,
    now_micros: i64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Backup, BackupError> {
    if let Some(file) = anything_in(target).map_err(BackupError::Target)? {
        return Err(BackupError::NotEmpty { file });
    }
    let mut copied = Vec::new();
    let mut tries = 1;
    let extent = loop {
        match copy_all(source, target, &mut copied, progress) {
            // Segments may go, and names of new ones appear, while they are read.
            Err(BackupError::Log(OpenError::Storage(_) | OpenError::Damaged(_))) if tries < TRIES => tries += 1,
            done => break done?,
        }
    };
    target.sync_dir().map_err(StorageError::on("sync", "the directory")).map_err(BackupError::Target)?;
    let verification = verify(target, &mut |_| Ok(())).map_err(BackupError::Target)?;
    let manifest = Manifest { log_id: extent.log_id, next_lsn: extent.next_lsn, time: now_micros, files: copied };
    write_new(target, MANIFEST_FILE, manifest.encode().as_bytes()).map_err(BackupError::Target)?;
    Ok(Backup { manifest, verification })
}

/// Copies what the log is now. `copied`: the whole segments that an earlier try has copied.
fn copy_all(
    source: &dyn Storage,
    target: &dyn Storage,
    copied: &mut Vec<BackupFile>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Extent, BackupError> {
    let extent = extent(source)?;
    if extent.pieces.is_empty() {
        return Err(BackupError::NoLog);
    }
    let of = extent.pieces.iter().map(|piece| piece.bytes).sum();
    // What was sealed since does not end where it did, and what was trimmed is no part of the log any more.
    let is_same = |file: &BackupFile| {
        let same = |piece: &&Piece| piece.name == file.name && piece.bytes == file.bytes;
        extent.pieces.iter().any(|piece| same(&piece))
    };
    copied.retain(is_same);
    for (name, _) in target.list().map_err(StorageError::on("list", "the target")).map_err(BackupError::Target)? {
        if is_content(&name) && !copied.iter().any(|file| file.name == name) {
            target.remove(&name).map_err(StorageError::on("remove", &name)).map_err(BackupError::Target)?;
        }
    }
    let mut bytes = copied.iter().map(|file| file.bytes).sum();
    progress(Progress { bytes, of });
    for piece in &extent.pieces {
        if copied.iter().any(|file| file.name == piece.name) {
            continue;
        }
        let mut more = |count: u64| {
            bytes += count;
            progress(Progress { bytes, of });
        };
        let file = copy(source, target, &piece.name, piece.bytes, &mut more).map_err(|failed| match failed {
            CopyError::Source(error) => BackupError::Log(error.into()),
            CopyError::Target(error) => BackupError::Target(error),
        })?;
        copied.push(file);
    }
    copied.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(extent)
}

/// Which side refused something.
enum CopyError {
    Source(StorageError),
    Target(StorageError),
}

/// Copies the first `bytes` bytes of a file, and syncs them.
fn copy(
    source: &dyn Storage,
    target: &dyn Storage,
    name: &str,
    bytes: u64,
    more: &mut dyn FnMut(u64),
) -> Result<BackupFile, CopyError> {
    let from = source.open(name, false).map_err(StorageError::on("open", name)).map_err(CopyError::Source)?;
    let to = target.open(name, true).map_err(StorageError::on("create", name)).map_err(CopyError::Target)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut at, mut checksum) = (0, 0);
    while at < bytes {
        let most = usize::try_from(bytes - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let read = read_full(from.as_ref(), &mut buffer[..most], at);
        let count = read.map_err(StorageError::on("read", name)).map_err(CopyError::Source)?;
        if count < most {
            let short = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it is shorter than it was");
            return Err(CopyError::Source(StorageError::on("read", name)(short)));
        }
        checksum = crc32c_append(checksum, &buffer[..count]);
        let written = write_all(to.as_ref(), &buffer[..count], at);
        written.map_err(StorageError::on("write", name)).map_err(CopyError::Target)?;
        at += count as u64;
        more(count as u64);
    }
    to.sync().map_err(StorageError::on("sync", name)).map_err(CopyError::Target)?;
    Ok(BackupFile { name: name.to_owned(), bytes, checksum })
}

/// Makes a file that is there whole or not at all.
fn write_new(target: &dyn Storage, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let unfinished = format!("{name}.unfinished");
    let file = target.open(&unfinished, true).map_err(StorageError::on("create", &unfinished))?;
    write_all(file.as_ref(), bytes, 0).map_err(StorageError::on("write", &unfinished))?;
    file.sync().map_err(StorageError::on("sync", &unfinished))?;
    target.rename(&unfinished, name).map_err(StorageError::on("rename", &unfinished))?;
    target.sync_dir().map_err(StorageError::on("sync the directory of", name))
}

/// Whether a file counts: a lock, and what a new file system has, do not.
fn is_content(name: &str) -> bool {
    name != LOCK_FILE && name != LOST_AND_FOUND
}

/// One of the files that must not be there.
fn anything_in(target: &dyn Storage) -> Result<Option<String>, StorageError> {
    let files = target.list().map_err(StorageError::on("list", "the directory"))?;
    Ok(files.into_iter().map(|(name, _)| name).filter(|name| is_content(name)).min())
}
