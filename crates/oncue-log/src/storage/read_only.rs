//! A directory that another process writes to: no lock, no writes, and an error for what went while it was read.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::file::{LockError, find_log, list};
use super::{File, Storage};

/// The files of a log, to be read.
pub(super) struct ReadOnlyDirectory {
    dir: PathBuf,
}

impl ReadOnlyDirectory {
    pub(super) fn open(dir: &Path) -> Result<Self, LockError> {
        let dir = dir.to_path_buf();
        if find_log(&dir)? { Ok(Self { dir }) } else { Err(LockError::NoLog { dir }) }
    }
}

impl Storage for ReadOnlyDirectory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        list(&self.dir)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        if create {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let path = self.dir.join(name);
        let file = fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => gone(),
            _ => error,
        })?;
        let inode = inode(&file.metadata()?);
        Ok(Box::new(ReadOnlyFile { path, inode, file }))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn fill_ahead(&self) -> bool {
        false
    }
}

struct ReadOnlyFile {
    path: PathBuf,
    inode: (u64, u64),
    file: fs::File,
}

impl ReadOnlyFile {
    /// A trimmed segment loses its name first, and is then overwritten to be used again: what was read before this
    /// passes was read in time.
    fn is_there(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(metadata) if inode(&metadata) == self.inode => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(gone()),
        }
    }
}

impl File for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.file.read_at(buffer, offset)?;
        self.is_there()?;
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// What tells a file from another of the same name.
fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn gone() -> io::Error {
    let reason = "the process that writes the log has trimmed it meanwhile; open the log again";
    io::Error::new(io::ErrorKind::NotFound, reason)
}
