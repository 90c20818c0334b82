//! Putting the end of a log in order before anything is appended.

use super::scan::Scanned;
use super::{CHUNK_BYTES, Found};
use crate::error::StorageError;
use crate::options::Recovery;
use crate::storage::{Storage, read_full, write_all, write_zeros};

/// Removes a segment that was never used, zeros a torn tail, and makes durable what replay has shown to the caller.
pub(super) fn repair(
    storage: &dyn Storage,
    found: &[Found],
    newest: &Scanned,
    report: &Recovery,
) -> Result<(), StorageError> {
    if let Some(name) = &report.removed {
        remove(storage, name)?;
    }
    let Some(segment) = found.last() else { return Ok(()) };
    let name = &segment.file.name;
    let file = segment.file.file.as_ref();
    if let Some(torn) = &newest.torn {
        write_zeros(file, torn.offset, torn.bytes).map_err(StorageError::on("write zeros to", name))?;
    }
    // The last frames may never have reached the disk: a process that was killed left them in the operating system's
    // cache, or a sync failed, after which the cache counts as clean. Writing them again makes the next sync write them.
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = newest.unsynced_from();
    while position < newest.end {
        let most = buffer.len().min((newest.end - position) as usize);
        let count = read_full(file, &mut buffer[..most], position).map_err(StorageError::on("read", name))?;
        write_all(file, &buffer[..count], position).map_err(StorageError::on("write", name))?;
        if count < most {
            break;
        }
        position += count as u64;
    }
    file.sync().map_err(StorageError::on("sync", name))
}

pub(super) fn remove(storage: &dyn Storage, name: &str) -> Result<(), StorageError> {
    storage.remove(name).map_err(StorageError::on("remove", name))?;
    storage.sync_dir().map_err(StorageError::on("sync the directory of", name))
}
