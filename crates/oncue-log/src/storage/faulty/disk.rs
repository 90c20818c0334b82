//! What the disk holds, what of it is synced, and what is left after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Call;
use crate::storage::memory::{copy_in, copy_out};

pub(super) const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Disk {
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    pub(super) names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) counts: [u64; Call::ALL.len()],
    pub(super) changes: u64,
    pub(super) ends_at: Option<(u64, Ending)>,
    pub(super) off: bool,
    pub(super) undisturbed: bool,
    pub(super) stutter: bool,
    pub(super) capacity: Option<u64>,
    /// The name that the file of the last call that failed as asked had then.
    pub(super) failed: Option<String>,
    random: u64,
}

/// A file: what its readers see, and what is on the disk.
#[derive(Clone, Default)]
struct Contents {
    current: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Sectors that a failed sync gave up: read as written as long as they stay in the cache, never written again by themselves.
    given_up: BTreeSet<usize>,
}

pub(super) struct Fault {
    pub(super) call: Call,
    pub(super) from: u64,
    pub(super) times: u64,
    pub(super) error: io::ErrorKind,
}

/// What ends in the middle of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Power,
    Process,
}

/// What becomes of a call.
pub(super) enum Fate {
    Succeeds,
    Fails(io::Error),
    Ends(Ending),
}

impl Fate {
    /// For calls that fail without having done anything, and are done when all ends in them.
    fn or_fails(self) -> io::Result<Option<Ending>> {
        match self {
            Self::Succeeds => Ok(None),
            Self::Fails(error) => Err(error),
            Self::Ends(ending) => Ok(Some(ending)),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the power is off, or the process was killed")
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    pub(super) fn arm(&mut self, call: Call, nth: u64, times: u64, error: io::ErrorKind) {
        let from = self.counts[call as usize] + nth;
        self.faults.push(Fault { call, from, times, error });
    }

    /// Counts the call and says what becomes of it; an error if all has ended before.
    fn enter(&mut self, call: Call) -> io::Result<Fate> {
        let count = self.counts[call as usize];
        self.counts[call as usize] += 1;
        if self.off {
            return Err(ended());
        }
        if call.changes_the_disk() {
            let now = self.changes;
            self.changes += 1;
            if let Some((_, ending)) = self.ends_at.filter(|(at, _)| *at <= now && !self.undisturbed) {
                self.off = true;
                return Ok(Fate::Ends(ending));
            }
        }
        let hit = |fault: &&Fault| fault.call == call && count >= fault.from && count - fault.from < fault.times;
        let failure = self.faults.iter().find(hit).map(|fault| io::Error::new(fault.error, "injected"));
        Ok(failure.map_or(Fate::Succeeds, Fate::Fails))
    }

    /// As [`enter`](Self::enter), of a file: remembers which one failed.
    fn enter_file(&mut self, call: Call, file: u64) -> io::Result<Fate> {
        let fate = self.enter(call)?;
        if let Fate::Fails(_) = fate {
            self.failed = self.names.iter().find(|(_, named)| **named == file).map(|(name, _)| name.clone());
        }
        Ok(fate)
    }

    /// With [`stutter`](super::FaultyStorage::stutter): how much of a transfer of `wanted` bytes comes about.
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

    fn size(&self, file: u64) -> u64 {
        self.files.get(&file).map_or(0, |contents| contents.current.len() as u64)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.names.values().map(|file| self.size(*file)).sum()
    }

    pub(super) fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.enter(Call::List)?.or_fails()?;
        Ok(self.names.iter().map(|(name, file)| (name.clone(), self.size(*file))).collect())
    }

    pub(super) fn open(&mut self, name: &str, create: bool) -> io::Result<u64> {
        let ending = self.enter(if create { Call::Create } else { Call::Open })?.or_fails()?;
        let file = match (self.names.get(name).copied(), create) {
            (Some(_), true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, false) => return Err(io::ErrorKind::NotFound.into()),
            (Some(file), false) => file,
            (None, true) => {
                let file = self.next_file;
                self.next_file += 1;
                self.files.insert(file, Contents::default());
                self.names.insert(name.to_owned(), file);
                file
            }
        };
        ending.map_or(Ok(file), |_| Err(ended()))
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let ending = self.enter(Call::Remove)?.or_fails()?;
        self.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        ending.map_or(Ok(()), |_| Err(ended()))
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let ending = self.enter(Call::Rename)?.or_fails()?;
        let file = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), file);
        ending.map_or(Ok(()), |_| Err(ended()))
    }

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
        let ending = self.enter(Call::SyncDir)?.or_fails()?;
        // The system may go on with what a killed process had asked for.
        if ending.is_none() || ending == Some(Ending::Process) && self.random(2) == 0 {
            self.synced_names = self.names.clone();
        }
        ending.map_or(Ok(()), |_| Err(ended()))
    }

    pub(super) fn len(&mut self, file: u64) -> io::Result<u64> {
        self.enter_file(Call::Len, file)?.or_fails()?;
        Ok(self.size(file))
    }

    pub(super) fn read_at(&mut self, file: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.enter_file(Call::Read, file)?.or_fails()?;
        let count = self.allowed(Call::Read, buffer.len())?;
        let evicts = self.files.get(&file).is_some_and(|contents| !contents.given_up.is_empty()) && self.random(8) == 0;
        let Some(contents) = self.files.get_mut(&file) else { return Err(io::ErrorKind::NotFound.into()) };
        if evicts {
            contents.evict();
        }
        Ok(copy_out(&contents.current, &mut buffer[..count], offset))
    }

    pub(super) fn write_at(&mut self, file: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let fate = self.enter_file(Call::Write, file)?;
        let mut count = match fate {
            Fate::Succeeds => self.allowed(Call::Write, bytes.len())?,
            // Some of it may have been written.
            Fate::Fails(_) | Fate::Ends(_) => self.random(bytes.len() as u64 + 1) as usize,
        };
        if let Some(capacity) = self.capacity {
            let end = self.size(file) + capacity.saturating_sub(self.bytes());
            count = count.min(usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX));
            if count == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let Some(contents) = self.files.get_mut(&file) else { return Err(io::ErrorKind::NotFound.into()) };
        copy_in(&mut contents.current, &bytes[..count], offset);
        let written = offset as usize / SECTOR..(offset as usize + count).div_ceil(SECTOR);
        for sector in written {
            contents.dirty.insert(sector);
            contents.given_up.remove(&sector);
        }
        match fate {
            Fate::Succeeds => Ok(count),
            Fate::Fails(error) => Err(error),
            Fate::Ends(_) => Err(ended()),
        }
    }

    /// Where it fails, some sectors are written, and the others count as clean: the next sync does not write them.
    pub(super) fn sync(&mut self, file: u64) -> io::Result<()> {
        let fate = self.enter_file(Call::Sync, file)?;
        let whole = match fate {
            Fate::Succeeds => true,
            Fate::Fails(_) | Fate::Ends(Ending::Power) => false,
            Fate::Ends(Ending::Process) => self.random(2) == 0,
        };
        let Some(mut contents) = self.files.remove(&file) else { return Err(io::ErrorKind::NotFound.into()) };
        if whole {
            contents.sync();
        } else if let Fate::Fails(_) = fate {
            let most = self.random(5);
            for sector in std::mem::take(&mut contents.dirty) {
                if self.random(4) < most {
                    contents.sync_sector(sector);
                } else {
                    contents.given_up.insert(sector);
                }
            }
        }
        self.files.insert(file, contents);
        match fate {
            Fate::Succeeds => Ok(()),
            Fate::Fails(error) => Err(error),
            Fate::Ends(_) => Err(ended()),
        }
    }

    /// Everything as it is, for another process. This one answers nothing from now on.
    pub(super) fn restart(&mut self) -> Self {
        let names = self.names.clone();
        let seed = self.random(u64::MAX);
        self.off = true;
        Self {
            files: std::mem::take(&mut self.files),
            next_file: self.next_file,
            names,
            synced_names: self.synced_names.clone(),
            capacity: self.capacity,
            random: seed,
            ..Self::default()
        }
    }

    /// What is found when the power is back. This one answers nothing from now on.
    pub(super) fn crash(&mut self) -> Self {
        self.off = true;
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
            let kept = self.torn(*file, &contents);
            files.insert(*file, Contents { current: kept.clone(), synced: kept, ..Contents::default() });
        }
        let (random, capacity) = (self.random(u64::MAX), self.capacity);
        Self {
            files,
            next_file: self.next_file,
            synced_names: names.clone(),
            names,
            capacity,
            random,
            ..Self::default()
        }
    }

    fn torn(&mut self, file: u64, contents: &Contents) -> Vec<u8> {
        let mut kept = contents.synced.clone();
        let before = kept.len();
        let grown = contents.current.len().saturating_sub(before);
        let length = match self.random(3) {
            0 => before,
            1 => before + grown,
            _ => before + self.random(grown as u64 + 1) as usize,
        };
        kept.resize(length, 0);
        if self.random(8) == 0 {
            self.expose_old_blocks(file, &mut kept, before);
        }
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

    /// A file that has grown, and whose new blocks were not written: they hold what another file held there.
    fn expose_old_blocks(&mut self, file: u64, kept: &mut [u8], from: usize) {
        let others: Vec<u64> = self.files.keys().copied().filter(|other| *other != file).collect();
        if others.is_empty() || from == 0 {
            return; // a file that was just made holds nothing but its header
        }
        let other = others[self.random(others.len() as u64) as usize];
        let old = &self.files[&other].current;
        let end = kept.len().min(old.len());
        if from < end {
            kept[from..end].copy_from_slice(&old[from..end]);
        }
    }
}

impl Contents {
    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.sync_sector(sector);
        }
        self.synced.resize(self.current.len(), 0);
    }

    fn sync_sector(&mut self, sector: usize) {
        let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.current.len());
        if self.synced.len() < range.end {
            self.synced.resize(range.end, 0);
        }
        self.synced[range.clone()].copy_from_slice(&self.current[range]);
    }

    /// The cache lets go what was given up: from now on it reads as it is on the disk.
    fn evict(&mut self) {
        for sector in std::mem::take(&mut self.given_up) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.current.len());
            for at in range {
                self.current[at] = self.synced.get(at).copied().unwrap_or(0);
            }
        }
    }
}
