//! The other side of the durable rows: a file, written and synced with nothing in between.

use std::{
    fs::{self, File},
    hint::black_box,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::measure::{Result, Stopwatch};

/// A file that is checksummed (CRC-32C), written and synced, chunk by chunk. Removed when dropped.
pub(crate) struct Raw {
    file: File,
    path: PathBuf,
    at: u64,
    /// Where writing starts over: what is overwritten was allocated before. Nothing: the file grows.
    length: Option<u64>,
}

impl Raw {
    /// An empty file, which grows as it is written.
    pub(crate) fn growing(path: PathBuf) -> Result<Self> {
        Ok(Self { file: File::create(&path)?, path, at: 0, length: None })
    }

    /// A file whose `length` bytes are written already, and synced.
    pub(crate) fn zeroed(path: PathBuf, length: u64) -> Result<Self> {
        const CHUNK: u64 = 1 << 20;
        let file = File::create(&path)?;
        let zeros = vec![0; 1 << 20];
        for chunk in 0..length.div_ceil(CHUNK) {
            file.write_all_at(&zeros, chunk * CHUNK)?;
        }
        file.sync_all()?;
        Ok(Self { file, path, at: 0, length: Some(length) })
    }

    /// Makes a chunk durable.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<()> {
        black_box(crc32c::crc32c(chunk));
        if self.length.is_some_and(|length| self.at + chunk.len() as u64 > length) {
            self.at = 0;
        }
        self.file.write_all_at(chunk, self.at)?;
        self.file.sync_data()?;
        self.at += chunk.len() as u64;
        Ok(())
    }

    /// Makes a chunk durable; how long it took, in microseconds.
    pub(crate) fn timed(&mut self, chunk: &[u8]) -> Result<f64> {
        let watch = Stopwatch::start();
        self.write(chunk)?;
        Ok(watch.micros())
    }

    /// Makes chunks durable for so long, one after the other; how many per second.
    pub(crate) fn rate(&mut self, chunk: &[u8], seconds: f64) -> Result<f64> {
        let (mut chunks, watch) = (0_u64, Stopwatch::start());
        while watch.seconds() < seconds {
            self.write(chunk)?;
            chunks += 1;
        }
        Ok(chunks as f64 / watch.seconds())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What cannot be removed goes with the directory.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes out what the file system still holds back, so that no round pays for the one before.
pub(crate) fn settle(directory: &Path) -> Result<()> {
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(())
}

/// Removes a directory and waits until that is over.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory)?;
    settle(directory.parent().unwrap_or(Path::new("/")))
}
