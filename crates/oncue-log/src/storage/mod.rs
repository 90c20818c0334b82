//! Where a log keeps its bytes: a seam of few methods, with a directory, memory, a disk that fails, and a view of what
//! another process writes behind it.

mod direct;
mod faulty;
mod file;
mod memory;
mod read_only;
mod snapshot;

use std::io;
use std::ops::Range;

pub use self::faulty::{Call, FaultyStorage};
pub(crate) use self::file::LOST_AND_FOUND;
pub use self::file::{FileStorage, LOCK_FILE, LockError, RESTORING_FILE};
pub use self::memory::MemoryStorage;
pub use self::snapshot::Snapshot;

/// What memory, places and lengths of writes past the page cache are multiples of. No disk asks for more.
pub const BLOCK_BYTES: usize = 4 << 10;

/// A flat directory of files that one log owns.
pub trait Storage: Send + Sync {
    /// Name and length in bytes of every file, in any order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Opens a file to read and write; with `create`, makes an empty one, which must not exist yet.
    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>>;

    /// Removes a file. Who has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, at once in place of another file that has it. Who has either open keeps it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which files there are.
    fn sync_dir(&self) -> io::Result<()>;

    /// Whether to write zeros ahead of the log's end, so that syncing a frame need not sync a file's growth.
    /// Pays on a file system (more than twice the syncs per second), not in memory.
    fn fill_ahead(&self) -> bool {
        true
    }

    /// Bytes that can still be written here, as far as the storage knows; nothing where it does not.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// One file. Calls may come from several threads at a time.
#[expect(clippy::len_without_is_empty, reason = "an open file's length is I/O; nobody asks whether it is empty")]
pub trait File: Send + Sync {
    /// Reads at `offset` into `buffer`; returns how many bytes, 0 at the end. May read less than there is.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, growing the file where needed; returns how many bytes. May write less than asked.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, where the log ends, and at least `blank` zeros behind them. What lies within 4 KiB
    /// behind these may become zeros too, so that whole blocks can be written.
    fn append(&self, bytes: &[u8], blank: usize, offset: u64) -> io::Result<()> {
        write_all(self, bytes, offset)?;
        write_zeros(self, offset + bytes.len() as u64, blank as u64)
    }

    /// As [`append`](Self::append), of the bytes `range` of `blocks`, which may be written over before and behind these. They
    /// lie in memory as in the file: where a block of [`BLOCK_BYTES`] begins there, one begins here, and what follows the
    /// bytes, to the end of the last block, is zeros.
    fn append_blocks(&self, blocks: &mut [u8], range: Range<usize>, blank: usize, offset: u64) -> io::Result<()> {
        self.append(&blocks[range], blank, offset)
    }

    /// Makes durable everything written so far (`fdatasync`). After an error nothing may be assumed of what was written.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// Writes all of `bytes`, however short the writes and whatever signal comes in between.
pub(crate) fn write_all<F: File + ?Sized>(file: &F, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the file takes no more bytes")),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` from `offset` on; returns how many bytes there were before the end of the file.
pub(crate) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Writes `count` zeros at `offset`, where the file ends.
pub(crate) fn append_zeros(file: &dyn File, offset: u64, count: u64) -> io::Result<()> {
    let mut done = 0;
    while done < count {
        let step = (count - done).min(ZEROS.len() as u64);
        file.append(&ZEROS[..step as usize], 0, offset + done)?;
        done += step;
    }
    Ok(())
}

/// Writes `count` zeros at `offset`.
pub(crate) fn write_zeros<F: File + ?Sized>(file: &F, offset: u64, count: u64) -> io::Result<()> {
    let mut done = 0;
    while done < count {
        let step = (count - done).min(ZEROS.len() as u64);
        write_all(file, &ZEROS[..step as usize], offset + done)?;
        done += step;
    }
    Ok(())
}
