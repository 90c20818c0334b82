//! A view of a log that another process may be writing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::file::LockError;
use super::read_only::ReadOnlyDirectory;
use super::{File, Storage, read_full};

/// A storage as it is found, under changes that stay in memory: no lock is taken and nothing is ever written below.
///
/// Opening a log on it runs the ordinary recovery, whose repairs only this log sees. The log is what had been written
/// when it was opened, and holds at least what was durable then. It does not follow the writer: to see more, take
/// another snapshot.
///
/// A segment that the writer trims while it is needed is an error of the read that needs it ([`StorageError`], which
/// says so); the names of segments, too, may be read while they change, which then looks like damage. Both pass: open
/// the log on a new snapshot.
///
/// What the log writes is kept in memory for as long as the snapshot: little, unless somebody appends to it.
///
/// [`StorageError`]: crate::StorageError
pub struct Snapshot {
    under: Box<dyn Storage>,
    /// Files that were opened or changed; `None` = removed.
    files: Mutex<BTreeMap<String, Option<Layer>>>,
}

/// What a file is made of.
#[derive(Clone)]
struct Layer {
    /// The file below; `None` if it was created here.
    under: Option<String>,
    written: Arc<RwLock<Written>>,
}

/// What was written to a file, in order: a later one covers an earlier one.
#[derive(Default)]
struct Written(Vec<(u64, Vec<u8>)>);

impl Snapshot {
    /// Of the log in a directory.
    ///
    /// # Errors
    /// [`LockError::Foreign`] if it holds other files and no segment, [`LockError::NoLog`] if it holds none,
    /// [`LockError::Io`] for what the operating system refuses: a directory that is not there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LockError> {
        Ok(Self::over(ReadOnlyDirectory::open(dir.as_ref())?))
    }

    /// Of what is in another storage.
    pub fn over(under: impl Storage + 'static) -> Self {
        Self { under: Box::new(under), files: Mutex::default() }
    }
}

impl Storage for Snapshot {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let under: BTreeMap<_, _> = self.under.list()?.into_iter().collect();
        let files = self.files.lock();
        let mut listed: Vec<_> = under
            .iter()
            .filter(|(name, _)| !files.contains_key(*name))
            .map(|(name, len)| (name.clone(), *len))
            .collect();
        for (name, layer) in files.iter() {
            let Some(layer) = layer else { continue };
            let below = layer.under.as_ref().map_or(Some(&0), |name| under.get(name));
            listed.extend(below.map(|len| (name.clone(), layer.written.read().end().max(*len))));
        }
        Ok(listed)
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        let mut files = self.files.lock();
        let layer = match (files.get(name), create) {
            (Some(Some(_)), true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(None), false) => return Err(io::ErrorKind::NotFound.into()),
            (Some(Some(layer)), false) => layer.clone(),
            // Whatever the writer has made of this name since is not part of the view.
            (_, true) => Layer { under: None, written: Arc::default() },
            (None, false) => Layer { under: Some(name.to_owned()), written: Arc::default() },
        };
        let under = layer.under.as_ref().map(|name| self.under.open(name, false)).transpose()?;
        files.insert(name.to_owned(), Some(layer.clone()));
        Ok(Box::new(SnapshotFile { under, written: layer.written }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().insert(name.to_owned(), None);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let known = files.insert(from.to_owned(), None);
        let layer = match known {
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            Some(Some(layer)) => layer,
            None => Layer { under: Some(from.to_owned()), written: Arc::default() },
        };
        files.insert(to.to_owned(), Some(layer));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn fill_ahead(&self) -> bool {
        false
    }
}

struct SnapshotFile {
    under: Option<Box<dyn File>>,
    written: Arc<RwLock<Written>>,
}

impl File for SnapshotFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut count = self.under.as_ref().map_or(Ok(0), |under| under.read_at(buffer, offset))?;
        let written = self.written.read();
        if count == 0 {
            count = written.end().saturating_sub(offset).min(buffer.len() as u64) as usize;
            buffer[..count].fill(0);
        }
        written.cover(&mut buffer[..count], offset);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        // Recovery writes the last frames again as they are, up to a segment of them: that needs no memory.
        let mut there = vec![0; bytes.len()];
        if read_full(self, &mut there, offset)? < bytes.len() || there != bytes {
            self.written.write().0.push((offset, bytes.to_vec()));
        }
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let under = self.under.as_ref().map_or(Ok(0), |under| under.len())?;
        Ok(self.written.read().end().max(under))
    }
}

impl Written {
    fn end(&self) -> u64 {
        self.0.iter().map(|(offset, bytes)| offset + bytes.len() as u64).max().unwrap_or(0)
    }

    /// Puts what was written over what was read at `offset`.
    fn cover(&self, read: &mut [u8], offset: u64) {
        for (start, bytes) in &self.0 {
            let from = (*start).max(offset);
            let to = (start + bytes.len() as u64).min(offset + read.len() as u64);
            if from < to {
                let piece = &bytes[(from - start) as usize..(to - start) as usize];
                read[(from - offset) as usize..(to - offset) as usize].copy_from_slice(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MemoryStorage;
    use super::*;

    fn contents(storage: &dyn Storage, name: &str) -> Vec<u8> {
        let file = storage.open(name, false).unwrap();
        let mut all = vec![0; file.len().unwrap() as usize + 10];
        let count = read_full(file.as_ref(), &mut all, 0).unwrap();
        assert_eq!(count as u64, file.len().unwrap());
        all.truncate(count);
        all
    }

    proptest! {
        #[test]
        fn writes_are_seen_above_and_never_below(
            below in proptest::collection::vec(any::<u8>(), 0..60),
            writes in proptest::collection::vec((0_u64..90, proptest::collection::vec(any::<u8>(), 1..30)), 0..12),
        ) {
            let under = MemoryStorage::new();
            under.replace("a", below.clone());
            let snapshot = Snapshot::over(under.clone());
            let model = MemoryStorage::new();
            model.replace("a", below.clone());
            for (offset, bytes) in &writes {
                for storage in [&snapshot as &dyn Storage, &model] {
                    storage.open("a", false).unwrap().write_at(bytes, *offset).unwrap();
                }
                prop_assert_eq!(contents(&snapshot, "a"), model.contents("a").unwrap());
            }
            prop_assert_eq!(under.contents("a").unwrap(), below);
        }
    }

    #[test]
    fn names_change_above_and_never_below() {
        let under = MemoryStorage::new();
        under.replace("a", b"a".to_vec());
        under.replace("b", b"bb".to_vec());
        let snapshot = Snapshot::over(under.clone());
        snapshot.remove("b").unwrap();
        snapshot.rename("a", "c").unwrap();
        snapshot.open("b", true).unwrap().write_at(b"new", 0).unwrap();
        let mut listed = snapshot.list().unwrap();
        listed.sort_unstable();
        assert_eq!(listed, [("b".to_owned(), 3), ("c".to_owned(), 1)]);
        assert_eq!((contents(&snapshot, "b"), contents(&snapshot, "c")), (b"new".to_vec(), b"a".to_vec()));
        let error = |result: io::Result<Box<dyn File>>| result.err().map(|error| error.kind());
        assert_eq!(error(snapshot.open("a", false)), Some(io::ErrorKind::NotFound));
        assert_eq!(error(snapshot.open("b", true)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!((under.contents("a").unwrap(), under.contents("b").unwrap()), (b"a".to_vec(), b"bb".to_vec()));
    }

    #[test]
    fn what_is_written_as_it_stands_takes_no_memory() {
        let under = MemoryStorage::new();
        under.replace("a", vec![7; 1000]);
        let snapshot = Snapshot::over(under);
        snapshot.open("a", false).unwrap().write_at(&[7; 500], 100).unwrap();
        assert!(snapshot.files.lock()["a"].as_ref().unwrap().written.read().0.is_empty());
    }
}
