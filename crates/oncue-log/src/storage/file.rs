//! A directory as storage, locked against a second process.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock, fstatvfs};

use super::direct::Direct;
use super::{File, Storage, write_zeros};
use crate::segment::epoch_of;

/// The file that is locked for as long as a process has the log open.
pub const LOCK_FILE: &str = "LOCK";

/// The file that marks a directory which a backup is being restored into: it is no log before that is done.
pub const RESTORING_FILE: &str = "RESTORING";

/// What a freshly made file system puts at its root: not a sign that the directory is somebody else's.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// Why a directory cannot be used for a log.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another log handle, most likely in another process, has it open.
    #[error(
        "{} is in use by process {pid}: stop that process, or give this one another directory; the lock goes when the process does",
        dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds the lock, as it wrote itself into the lock file.
        pid: String,
    },
    /// It holds files and none of them is a log's.
    #[error("{} holds {file:?} and no log: it seems to belong to something else; choose an empty or new directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One of the files in it.
        file: String,
    },
    /// It is to be looked at, and holds nothing to look at.
    #[error("{} holds no log: name the directory that an app keeps its log in", dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A directory on a file system. Holds its lock until dropped.
#[derive(Debug)]
pub struct FileStorage {
    dir: PathBuf,
    /// Open for `fsync`; reading the path again could find another directory.
    handle: fs::File,
    /// Never read: closing it frees the lock.
    _lock: fs::File,
}

impl FileStorage {
    /// Opens `dir`, making it if need be, and takes its lock.
    ///
    /// # Errors
    /// [`LockError::Locked`] if a process has it open, [`LockError::Foreign`] if it holds other files and no segment
    /// (nothing in it is touched then), [`LockError::Io`] for what the operating system refuses.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LockError> {
        let dir = dir.as_ref().to_path_buf();
        let at = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| LockError::Io { what, path, source }
        };
        fs::create_dir_all(&dir).map_err(at("create the directory", &dir))?;
        find_log(&dir)?;
        let handle = fs::File::open(&dir).map_err(at("open the directory", &dir))?;
        let path = dir.join(LOCK_FILE);
        let mut options = fs::OpenOptions::new();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at("open the lock file", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Locked { dir, pid: holder(&mut lock) }),
            Err(error) => return Err(at("lock", &path)(error.into())),
        }
        name_holder(&mut lock).map_err(at("write the lock file", &path))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // So that a directory made just now outlives a crash. Whoever may not read the parent did not make it.
            fs::File::open(parent).and_then(|parent| parent.sync_all()).ok();
        }
        Ok(Self { dir, handle, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Whether a directory holds a log; an error if it holds something else.
pub(super) fn find_log(dir: &Path) -> Result<bool, LockError> {
    let io = |source| LockError::Io { what: "list", path: dir.to_path_buf(), source };
    let mut foreign = None;
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if epoch_of(&name).is_some() {
            return Ok(true);
        }
        if name != LOCK_FILE && name != LOST_AND_FOUND {
            foreign = Some(name);
        }
    }
    foreign.map_or(Ok(false), |file| Err(LockError::Foreign { dir: dir.to_path_buf(), file }))
}

fn holder(lock: &mut fs::File) -> String {
    let mut pid = String::new();
    let read = lock.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
    let own = pid.trim() == std::process::id().to_string();
    match (read, own) {
        (true, true) => format!("{} (this very process)", pid.trim()),
        (true, false) => pid.trim().to_owned(),
        _ => "(unknown)".to_owned(),
    }
}

fn name_holder(lock: &mut fs::File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// The files of a directory. One that goes while they are listed is left out.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

impl Storage for FileStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        list(&self.dir)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        let path = self.dir.join(name);
        let file = fs::OpenOptions::new().read(true).write(true).create_new(create).open(&path)?;
        Ok(Box::new(DiskFile { file, path, direct: OnceLock::new() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// What the file system leaves to processes without privileges.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let space = fstatvfs(&self.handle)?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }
}

struct DiskFile {
    file: fs::File,
    /// Its name when it was opened.
    path: PathBuf,
    /// For appending, from the first time on; `None` where the file system has no such thing.
    direct: OnceLock<Option<Direct>>,
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn append(&self, bytes: &[u8], blank: usize, offset: u64) -> io::Result<()> {
        let mut done = 0;
        if let Some(direct) = self.direct.get_or_init(|| Direct::open(&self.path, &self.file)) {
            done = direct.append(&self.file, bytes, blank, offset)?;
        }
        if done == bytes.len() {
            return Ok(());
        }
        self.file.write_all_at(&bytes[done..], offset + done as u64)?;
        write_zeros(self, offset + bytes.len() as u64, blank as u64)
    }

    fn append_blocks(&self, blocks: &mut [u8], range: Range<usize>, blank: usize, offset: u64) -> io::Result<()> {
        let direct = self.direct.get_or_init(|| Direct::open(&self.path, &self.file));
        if let Some(direct) = direct
            && direct.append_blocks(&self.file, blocks, range.clone(), offset)?
        {
            return Ok(());
        }
        self.append(&blocks[range], blank, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
