//! Putting the end of a log in order before anything is appended.

use super::scan::Scanned;
use super::{CHUNK_BYTES, Found};
use crate::error::StorageError;
use crate::options::{Recovery, TornTail};
use crate::segment::{Chunk, FIRST_FRAME, FrameError};
use crate::storage::{Storage, write_all, write_zeros};

/// Makes durable what replay is to show: the last frames may never have reached the disk. A process that was killed left
/// them in the operating system's cache, or a sync failed, after which the cache counts as clean. Writing them again, as
/// they are, makes the next sync write them. False if they do not read as they did a moment ago: the cache has let go of
/// what a failed sync gave up.
pub(super) fn write_again(segment: &Found, newest: &Scanned) -> Result<bool, StorageError> {
    let file = &segment.file;
    let failed = |what| StorageError::on(what, &file.name);
    // Where there is no frame, nothing tells that the header was synced.
    let mut position = if newest.end == FIRST_FRAME { 0 } else { newest.unsynced_from() };
    let mut chunk = Chunk::default();
    while position < newest.end {
        match file.frame_at(position, newest.end, &mut chunk, CHUNK_BYTES) {
            Ok(frame) => {
                write_all(file.file.as_ref(), &frame.bytes, position).map_err(failed("write"))?;
                position = frame.next().position;
            }
            Err(FrameError::Fault(_)) => return Ok(false),
            Err(FrameError::Storage(error)) => return Err(error),
        }
    }
    file.file.sync().map_err(failed("sync"))?;
    Ok(true)
}

/// Removes a segment that was never used, zeros a torn tail, and makes durable which files there are: a process that was
/// killed may have made the newest one, and not come to that.
pub(super) fn repair(storage: &dyn Storage, segment: &Found, report: &Recovery) -> Result<(), StorageError> {
    if let Some(name) = &report.removed {
        remove(storage, name)?;
    }
    let name = &segment.file.name;
    let file = segment.file.file.as_ref();
    if let Some(TornTail { offset, bytes, .. }) = report.torn {
        write_zeros(file, offset, bytes).map_err(StorageError::on("write zeros to", name))?;
        file.sync().map_err(StorageError::on("sync", name))?;
    }
    storage.sync_dir().map_err(StorageError::on("sync the directory of", name))
}

pub(super) fn remove(storage: &dyn Storage, name: &str) -> Result<(), StorageError> {
    storage.remove(name).map_err(StorageError::on("remove", name))?;
    storage.sync_dir().map_err(StorageError::on("sync the directory of", name))
}
