//! Memory as storage: for tests, and for topics that need not outlive the process.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{File, Storage};

type Content = Arc<RwLock<Vec<u8>>>;

/// Files in memory. Clones share them: open a log on a clone to see what another left, as after a crash of the process.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Content>>>,
    /// The memory of a file that was removed, for the next one.
    spare: Arc<Mutex<Vec<u8>>>,
}

impl MemoryStorage {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of a file's bytes, to look at or to damage.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files.lock().get(name)?.read().clone())
    }

    /// Replaces a file, or makes one.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().insert(name.to_owned(), Arc::new(RwLock::new(bytes)));
    }

    /// Independent files with the same bytes.
    pub fn copy(&self) -> Self {
        let files = self.files.lock();
        let copied = files.iter().map(|(name, file)| (name.clone(), Arc::new(RwLock::new(file.read().clone()))));
        Self { files: Arc::new(Mutex::new(copied.collect())), spare: Arc::default() }
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files.lock().iter().map(|(name, file)| (name.clone(), file.read().len() as u64)).collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        let mut files = self.files.lock();
        let content = match (files.get(name), create) {
            (Some(_), true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, false) => return Err(io::ErrorKind::NotFound.into()),
            (Some(content), false) => Arc::clone(content),
            (None, true) => {
                let content = Arc::new(RwLock::new(std::mem::take(&mut *self.spare.lock())));
                files.insert(name.to_owned(), Arc::clone(&content));
                content
            }
        };
        Ok(Box::new(MemoryFile { content }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let content = self.files.lock().remove(name).ok_or(io::ErrorKind::NotFound)?;
        // If nobody reads it any more.
        if let Some(mut content) = Arc::into_inner(content).map(RwLock::into_inner) {
            content.clear();
            *self.spare.lock() = content;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn fill_ahead(&self) -> bool {
        false
    }
}

struct MemoryFile {
    content: Content,
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(copy_out(&self.content.read(), buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        copy_in(&mut self.content.write(), bytes, offset);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().len() as u64)
    }
}

pub(super) fn copy_out(content: &[u8], buffer: &mut [u8], offset: u64) -> usize {
    let rest = content.get(offset as usize..).unwrap_or_default();
    let count = rest.len().min(buffer.len());
    buffer[..count].copy_from_slice(&rest[..count]);
    count
}

pub(super) fn copy_in(content: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let offset = offset as usize;
    if content.len() < offset {
        content.resize(offset, 0);
    }
    let over = bytes.len().min(content.len() - offset);
    content[offset..offset + over].copy_from_slice(&bytes[..over]);
    content.extend_from_slice(&bytes[over..]);
}
