//! A disk in memory that fails and loses power as told: for tests of the log and of what is built on it.

mod disk;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use self::disk::{Disk, Ending, SECTOR};
use super::{File, Storage, write_all};

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
/// 512-byte sectors, whole or torn, in any combination that the seed picks; files whose names were not synced may be
/// missing, or have the name that they had before. [`restart`](Self::restart) yields it as another process finds it.
///
/// A sync that fails writes some sectors and gives the others up, as operating systems do: they can be read for a while,
/// and a later sync does not write them.
#[derive(Clone)]
pub struct FaultyStorage {
    disk: Arc<Mutex<Disk>>,
}

impl FaultyStorage {
    /// An empty disk; `seed` decides what a crash keeps.
    pub fn new(seed: u64) -> Self {
        Self::of(Disk::new(seed))
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)) }
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
        (disk.stutter, disk.capacity, disk.ends_at) = (false, None, None);
    }

    /// Makes every other read and write be interrupted by a signal, and the rest come out short.
    pub fn stutter(&self) {
        self.disk.lock().stutter = true;
    }

    /// Lets the files hold no more than `bytes` together: a write stops short there, the next one fails with
    /// [`StorageFull`](io::ErrorKind::StorageFull). Removed files give their space back. `None`: no bound.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// Loses power in the `nth` call from now on that changes the disk: it and every later call fail.
    pub fn power_off_at(&self, nth: u64) {
        let mut disk = self.disk.lock();
        disk.ends_at = Some((disk.changes + nth, Ending::Power));
    }

    /// Kills the process in the `nth` call from now on that changes the disk: it and every later call fail.
    pub fn kill_at(&self, nth: u64) {
        let mut disk = self.disk.lock();
        disk.ends_at = Some((disk.changes + nth, Ending::Process));
    }

    /// Runs `work` with neither power lost nor the process killed meanwhile, whatever other threads do: an end that falls
    /// into it comes with the first call afterwards that changes the disk. `None`, and `work` does not run, if all has
    /// ended before.
    pub fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut disk = self.disk.lock();
            if disk.off {
                return None;
            }
            disk.undisturbed = true;
        }
        let result = work();
        self.disk.lock().undisturbed = false;
        Some(result)
    }

    /// Whether the power is on, and the process alive.
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

    /// How many bytes the files hold together.
    pub fn bytes(&self) -> u64 {
        self.disk.lock().bytes()
    }

    /// Turns the power off and returns the disk as it is found afterwards. This one answers nothing but errors from then on.
    #[must_use]
    pub fn crash(&self) -> Self {
        Self::of(self.disk.lock().crash())
    }

    /// Ends the process and returns the disk as the next one finds it: all that was written, synced or not. This one answers
    /// nothing but errors from then on.
    #[must_use]
    pub fn restart(&self) -> Self {
        Self::of(self.disk.lock().restart())
    }
}

impl Storage for FaultyStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.lock().list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        let file = self.disk.lock().open(name, create)?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.disk), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.lock().remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.lock().rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.lock().sync_dir()
    }
}

struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    file: u64,
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.lock().read_at(self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.lock().write_at(self.file, bytes, offset)
    }

    /// Up to the end of a sector, as a disk that is written in whole blocks.
    fn append(&self, bytes: &[u8], blank: usize, offset: u64) -> io::Result<()> {
        let end = (offset as usize + bytes.len() + blank).next_multiple_of(SECTOR);
        let mut whole = bytes.to_vec();
        whole.resize(end - offset as usize, 0);
        write_all(self, &whole, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().sync(self.file)
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.lock().len(self.file)
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

    #[test]
    fn an_end_waits_for_work_that_it_must_not_disturb() {
        let disk = FaultyStorage::new(1);
        let file = disk.open("a", true).unwrap();
        disk.power_off_at(1);
        disk.undisturbed(|| (0..3).for_each(|_| file.sync().unwrap())).unwrap();
        assert!(file.sync().is_err() && !disk.is_on());
        assert!(disk.undisturbed(|| ()).is_none());
    }

    #[test]
    fn what_a_failed_sync_gave_up_is_not_written_by_the_next() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = FaultyStorage::new(seed);
            let file = disk.open("a", true).unwrap();
            disk.sync_dir().unwrap();
            file.write_at(&[1; 2000], 0).unwrap();
            disk.fail(Call::Sync, 0, io::ErrorKind::Other);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            let mut found = vec![0; 2000];
            disk.crash().open("a", false).unwrap().read_at(&mut found, 0).unwrap();
            lost += u64::from(found.contains(&0));
        }
        assert!((10..50).contains(&lost), "{lost}");
    }

    #[test]
    fn a_killed_process_leaves_all_that_it_wrote() {
        let disk = FaultyStorage::new(1);
        let file = disk.open("a", true).unwrap();
        file.write_at(&[1; 2000], 0).unwrap();
        let after = disk.restart();
        assert!(file.sync().is_err(), "the old process is gone");
        assert_eq!(after.open("a", false).unwrap().len().unwrap(), 2000);
        assert!(after.crash().list().unwrap().iter().all(|(_, length)| *length <= 2000));
    }

    #[test]
    fn a_full_disk_takes_what_fits_until_something_is_removed() {
        let disk = FaultyStorage::new(1);
        disk.limit(Some(3000));
        let (one, two) = (disk.open("a", true).unwrap(), disk.open("b", true).unwrap());
        one.write_at(&[1; 2000], 0).unwrap();
        assert_eq!(two.write_at(&[1; 2000], 0).unwrap(), 1000);
        assert_eq!(two.write_at(&[1], 1000).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(two.write_at(&[2; 10], 0).unwrap(), 10, "what is there is overwritten");
        disk.remove("a").unwrap();
        assert_eq!((two.write_at(&[1; 2000], 1000).unwrap(), disk.bytes()), (2000, 3000));
    }
}
