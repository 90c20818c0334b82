//! Files that segments are made from: their blocks are written already, so that writing to them is an overwrite.
//! Measured: a frame of 4 KiB syncs twice as fast into them as into a file that grows, one of 1 MiB two to five times.
//!
//! Trimmed segments are kept as they are: what is in them cannot pass for a frame of a later segment. While there is none,
//! zeros are written to a new file, a step for each step that the log is written: never faster, and not while it rests.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::error::StorageError;
use crate::limits::{PREPARE_BYTES, SPARE_SEGMENTS};
use crate::storage::{File, Storage, append_zeros};

const SUFFIX: &str = ".spare";

/// The segment that is being rewritten.
pub(crate) const REWRITING: &str = "rewriting.spare";

/// Whether a file is a spare. Opening the log removes those that it finds.
pub(crate) fn is_spare(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// A file that becomes a segment: its name, and how far it can be written without growing.
pub(crate) type Spare = (String, u64);

#[derive(Default)]
pub(crate) struct Spares {
    files: Mutex<Files>,
    /// How far a file is to be prepared by now.
    wanted: AtomicU64,
    /// How far one is; the largest number where none needs to be, or can.
    prepared: AtomicU64,
    closed: Mutex<bool>,
    work: Condvar,
}

#[derive(Default)]
struct Files {
    trimmed: Vec<Spare>,
    /// The one that zeros are written to.
    next: Option<(Spare, Box<dyn File>)>,
    made: u64,
}

impl Spares {
    /// Takes a segment's name from it, for good; keeps the file if there are not enough yet and `keep`. What failed can be
    /// tried again.
    pub(crate) fn retire(&self, storage: &dyn Storage, name: &str, keep: bool) -> Result<(), StorageError> {
        let sync_dir = || storage.sync_dir().map_err(StorageError::on("sync the directory of", name));
        if !keep || !storage.fill_ahead() || self.files.lock().trimmed.len() >= SPARE_SEGMENTS {
            unless_gone(storage.remove(name)).map_err(StorageError::on("remove", name))?;
            return sync_dir();
        }
        let spare = format!("{name}{SUFFIX}");
        unless_gone(storage.rename(name, &spare)).map_err(StorageError::on("rename", name))?;
        // Before anything is written to it: a segment that is still there after a crash must be whole.
        sync_dir()?;
        let file = storage.open(&spare, false).map_err(StorageError::on("open", &spare))?;
        let length = file.len().map_err(StorageError::on("get the length of", &spare))?;
        let mut files = self.files.lock();
        files.trimmed.push((spare, length));
        self.prepared.store(u64::MAX, Ordering::Release);
        Ok(())
    }

    /// The best there is; what was being prepared is taken as far as it got.
    pub(crate) fn take(&self) -> Option<Spare> {
        let mut files = self.files.lock();
        let taken = files.trimmed.pop().or_else(|| Some(files.next.take()?.0));
        let left = files.next.as_ref().map_or(0, |((_, filled), _)| *filled);
        self.wanted.store(0, Ordering::Release);
        self.prepared.store(if files.trimmed.is_empty() { left } else { u64::MAX }, Ordering::Release);
        taken
    }

    /// Says how far the next file is to be prepared by now; true if it is not.
    pub(crate) fn want(&self, bytes: u64) -> bool {
        self.wanted.store(bytes, Ordering::Release);
        self.is_behind()
    }

    fn is_behind(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.prepared.load(Ordering::Acquire)
    }

    /// Prepares one step more. What fails costs time later, and nothing else: the log goes on in files that grow.
    pub(crate) fn step(&self, storage: &dyn Storage) {
        let mut files = self.files.lock();
        if !files.trimmed.is_empty() || !self.is_behind() {
            return;
        }
        let target = self.wanted.load(Ordering::Acquire);
        match files.prepare(storage, target) {
            Ok(filled) => self.prepared.store(filled, Ordering::Release),
            Err(_) => {
                self.prepared.store(u64::MAX, Ordering::Release);
                // The disk may be full: what is left of the attempt must not keep the log from going on.
                if let Some(((name, _), _)) = files.next.take() {
                    let _opening_removes_it = storage.remove(&name);
                }
            }
        }
    }

    /// The preparing thread's life.
    pub(crate) fn run(&self, storage: &dyn Storage) {
        let mut closed = self.closed.lock();
        while !*closed {
            if self.is_behind() {
                parking_lot::MutexGuard::unlocked(&mut closed, || self.step(storage));
            } else {
                self.work.wait(&mut closed);
            }
        }
    }

    /// Sees to it that the preparing thread goes on.
    pub(crate) fn wake(&self) {
        // Locked, so that it is not between looking and waiting.
        drop(self.closed.lock());
        self.work.notify_one();
    }

    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
        self.work.notify_one();
    }
}

/// Nothing is there any more: it was done before.
pub(crate) fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl Files {
    fn prepare(&mut self, storage: &dyn Storage, target: u64) -> io::Result<u64> {
        if self.next.is_none() {
            self.made += 1;
            let name = format!("prepared-{}{SUFFIX}", self.made);
            let file = storage.open(&name, true)?;
            self.next = Some(((name, 0), file));
        }
        let Some(((_, filled), file)) = &mut self.next else { return Ok(0) };
        let step = (target - *filled).min(PREPARE_BYTES);
        append_zeros(file.as_ref(), *filled, step)?;
        file.sync()?;
        *filled += step;
        Ok(*filled)
    }
}
