//! A disk in memory that fails and loses power as told: for tests of the log and of what is built on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::{copy_in, copy_out};
use super::{File, Storage, write_all};

const SECTOR: usize = 512;

/// A kind of call to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Storage::list`].
    List,
    /// [`Storage::open`] of a file that exists.
    Open,
    /// [`Storage::open`] of a new file.
    Create,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::rename`].
    Rename,
    /// [`Storage::sync_dir`].
    SyncDir,
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync`].
    Sync,
    /// [`File::len`].
    Len,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Self; 10] = [
        Self::List,
        Self::Open,
        Self::Create,
        Self::Remove,
        Self::Rename,
        Self::SyncDir,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Len,
    ];

    fn changes_the_disk(self) -> bool {
        matches!(self, Self::Create | Self::Remove | Self::Rename | Self::SyncDir | Self::Write | Self::Sync)
    }
}

/// A disk that tells what was synced from what was only written. Clones are the same disk.
///
/// [`crash`](Self::crash) yields the disk as it may be found after a loss of power: everything synced, and of the rest any
/// 512-byte sectors, whole or torn, in any combination that the seed picks.
#[derive(Clone)]
pub struct FaultyStorage {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    faults: Vec<Fault>,
    counts: [u64; Call::ALL.len()],
    changes: u64,
    power_off_at: Option<u64>,
    off: bool,
    stutter: bool,
    /// The name that the file of the last call that failed as asked had then.
    failed: Option<String>,
    random: u64,
}

#[derive(Clone, Default)]
struct Contents {
    current: Vec<u8>,
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
}

struct Fault {
    call: Call,
    from: u64,
    times: u64,
    error: io::ErrorKind,
}

impl FaultyStorage {
    /// An empty disk; `seed` decides what a crash keeps.
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: seed, ..Disk::default() })) }
    }

    /// Fails the `nth` call of this kind from now on (0 is the next one), once.
    pub fn fail(&self, call: Call, nth: u64, error: io::ErrorKind) {
        self.disk.lock().arm(call, nth, 1, error);
    }

    /// Fails every call of this kind from the `nth` on, until [`heal`](Self::heal).
    pub fn fail_from(&self, call: Call, nth: u64, error: io::ErrorKind) {
        self.disk.lock().arm(call, nth, u64::MAX, error);
    }

    /// Forgets every fault that was asked for.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        disk.faults.clear();
        disk.stutter = false;
    }

    /// Makes every other read and write be interrupted by a signal, and the rest come out short.
    pub fn stutter(&self) {
        self.disk.lock().stutter = true;
    }

    /// Loses power in the `nth` call from now on that changes the disk: it and every later call fail.
    pub fn power_off_at(&self, nth: u64) {
        let mut disk = self.disk.lock();
        disk.power_off_at = Some(disk.changes + nth);
    }

    /// Whether the power is on.
    pub fn is_on(&self) -> bool {
        !self.disk.lock().off
    }

    /// The name of the file whose call failed last as asked, as it was then.
    pub fn failed(&self) -> Option<String> {
        self.disk.lock().failed.clone()
    }

    /// How many calls of this kind there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.disk.lock().counts[call as usize]
    }

    /// How many calls there were that change the disk.
    pub fn changes(&self) -> u64 {
        self.disk.lock().changes
    }

    /// Turns the power off and returns the disk as it is found afterwards. This one answers nothing but errors from then on.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut disk = self.disk.lock();
        disk.off = true;
        let survived = disk.survivors();
        Self { disk: Arc::new(Mutex::new(survived)) }
    }
}

impl Disk {
    fn arm(&mut self, call: Call, nth: u64, times: u64, error: io::ErrorKind) {
        let from = self.counts[call as usize] + nth;
        self.faults.push(Fault { call, from, times, error });
    }

    /// Counts the call; an error if it is to fail.
    fn enter(&mut self, call: Call) -> io::Result<()> {
        let count = self.counts[call as usize];
        self.counts[call as usize] += 1;
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        if call.changes_the_disk() {
            self.off = self.power_off_at == Some(self.changes);
            self.changes += 1;
        }
        let hit = |fault: &&Fault| fault.call == call && count >= fault.from && count - fault.from < fault.times;
        self.faults.iter().find(hit).map_or(Ok(()), |fault| Err(io::Error::new(fault.error, "injected")))
    }

    /// Whether power went in the very call that [`enter`](Self::enter) let through.
    fn still_on(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power went off")) } else { Ok(()) }
    }

    /// With [`FaultyStorage::stutter`]: how much of a transfer of `wanted` bytes comes about.
    fn allowed(&self, call: Call, wanted: usize) -> io::Result<usize> {
        match self.counts[call as usize] % 2 {
            _ if !self.stutter => Ok(wanted),
            0 => Err(io::ErrorKind::Interrupted.into()),
            _ => Ok(wanted.min(1 + wanted / 2)),
        }
    }

    /// `SplitMix64`, Steele et al. 2014.
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    fn survivors(&mut self) -> Self {
        let mut names = self.synced_names.clone();
        let every: BTreeSet<String> = self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        for name in every {
            let now = self.names.get(&name).copied();
            if now != names.get(&name).copied() && self.random(2) == 0 {
                match now {
                    Some(file) => names.insert(name, file),
                    None => names.remove(&name),
                };
            }
        }
        let mut files = BTreeMap::new();
        for file in names.values() {
            let Some(contents) = self.files.get(file).cloned() else { continue };
            let kept = self.torn(&contents);
            files.insert(*file, Contents { current: kept.clone(), synced: kept, dirty: BTreeSet::new() });
        }
        let random = self.random(u64::MAX);
        Self { files, next_file: self.next_file, synced_names: names.clone(), names, random, ..Self::default() }
    }

    fn torn(&mut self, contents: &Contents) -> Vec<u8> {
        let mut kept = contents.synced.clone();
        let grown = contents.current.len().saturating_sub(kept.len());
        let length = match self.random(3) {
            0 => kept.len(),
            1 => kept.len() + grown,
            _ => kept.len() + self.random(grown as u64 + 1) as usize,
        };
        kept.resize(length, 0);
        // Some crashes lose everything that was not synced, some nothing, most a part.
        let (losing, tearing) = match self.random(6) {
            0 => (4, 0),
            1 => (0, 0),
            2 => (1, 1),
            _ => (2, 1),
        };
        for sector in &contents.dirty {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(contents.current.len()).min(length);
            if start >= end {
                continue;
            }
            let roll = self.random(4);
            let (from, to) = if roll < losing {
                continue;
            } else if roll < losing + tearing {
                let cut = start + self.random((end - start) as u64) as usize;
                if self.random(2) == 0 { (start, cut) } else { (cut, end) }
            } else {
                (start, end)
            };
            kept[from..to].copy_from_slice(&contents.current[from..to]);
        }
        kept
    }
}

impl Storage for FaultyStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut disk = self.disk.lock();
        disk.enter(Call::List)?;
        let length = |file| disk.files.get(file).map_or(0, |contents| contents.current.len() as u64);
        Ok(disk.names.iter().map(|(name, file)| (name.clone(), length(file))).collect())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk.lock();
        disk.enter(if create { Call::Create } else { Call::Open })?;
        let file = match (disk.names.get(name).copied(), create) {
            (Some(_), true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, false) => return Err(io::ErrorKind::NotFound.into()),
            (Some(file), false) => file,
            (None, true) => {
                let file = disk.next_file;
                disk.next_file += 1;
                disk.files.insert(file, Contents::default());
                disk.names.insert(name.to_owned(), file);
                file
            }
        };
        disk.still_on()?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.disk), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Call::Remove)?;
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.still_on()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Call::Rename)?;
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), file);
        disk.still_on()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Call::SyncDir)?;
        disk.still_on()?;
        disk.synced_names = disk.names.clone();
        Ok(())
    }
}

struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    file: u64,
}

impl FaultyFile {
    fn with<T>(&self, call: Call, act: impl FnOnce(&Disk, &mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if let Err(error) = disk.enter(call) {
            disk.failed = disk.names.iter().find(|(_, file)| **file == self.file).map(|(name, _)| name.clone());
            return Err(error);
        }
        let Some(mut contents) = disk.files.remove(&self.file) else { return Err(io::ErrorKind::NotFound.into()) };
        let result = act(&disk, &mut contents);
        disk.files.insert(self.file, contents);
        result
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(Call::Read, |disk, contents| {
            let count = disk.allowed(Call::Read, buffer.len())?;
            Ok(copy_out(&contents.current, &mut buffer[..count], offset))
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(Call::Write, |disk, contents| {
            let count = disk.allowed(Call::Write, bytes.len())?;
            copy_in(&mut contents.current, &bytes[..count], offset);
            let (start, end) = (offset as usize, offset as usize + count);
            contents.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
            disk.still_on()?;
            Ok(count)
        })
    }

    /// Up to the end of a sector, as a disk that is written in whole blocks.
    fn append(&self, bytes: &[u8], blank: usize, offset: u64) -> io::Result<()> {
        let end = (offset as usize + bytes.len() + blank).next_multiple_of(SECTOR);
        let mut whole = bytes.to_vec();
        whole.resize(end - offset as usize, 0);
        write_all(self, &whole, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.with(Call::Sync, |disk, contents| {
            disk.still_on()?;
            contents.synced.resize(contents.current.len(), 0);
            for sector in std::mem::take(&mut contents.dirty) {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(contents.current.len());
                contents.synced[range.clone()].copy_from_slice(&contents.current[range]);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Call::Len, |_, contents| Ok(contents.current.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..50 {
            let disk = FaultyStorage::new(seed);
            let file = disk.open("a", true).unwrap();
            disk.sync_dir().unwrap();
            file.write_at(&[1; 3000], 0).unwrap();
            file.sync().unwrap();
            file.write_at(&[2; 3000], 3000).unwrap();
            disk.open("b", true).unwrap();
            let after = disk.crash();
            assert!(disk.list().is_err() && file.sync().is_err(), "the old machine is off");
            let mut found = vec![0; 6000];
            let count = after.open("a", false).unwrap().read_at(&mut found, 0).unwrap();
            assert!(count >= 3000 && found[..3000].iter().all(|byte| *byte == 1), "seed {seed}");
        }
    }

    #[test]
    fn faults_hit_the_call_they_name() {
        let disk = FaultyStorage::new(1);
        let file = disk.open("a", true).unwrap();
        disk.fail(Call::Sync, 1, io::ErrorKind::StorageFull);
        file.sync().unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.sync().unwrap();
        disk.power_off_at(0);
        assert!(file.write_at(b"x", 0).is_err() && disk.list().is_err());
    }
}
