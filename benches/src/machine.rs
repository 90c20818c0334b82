//! What the figures were measured on.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use oncue::Clock;

use crate::{
    measure::{Result, median},
    raw::Raw,
};

/// File systems that keep nothing: syncing them costs nothing either.
const NO_DISK: &[&str] = &["tmpfs", "ramfs", "devtmpfs"];

/// The machine, the disk, the day and the code.
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
    file_system: String,
    sync_micros: f64,
    date: String,
    commit: String,
}

impl Machine {
    /// Looks at the machine, and at the disk below a directory.
    pub(crate) fn look(directory: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |path: &str, name: &str| {
            let text = read(path);
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let file_system = file_system(directory)?;
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system,
            sync_micros: sync_micros(directory)?,
            date: Clock::system().now().to_rfc3339(),
            commit: commit(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory, kernel, file_system, sync_micros, date, commit } = self;
        writeln!(f, "- CPU: {cpu}, {cores} cores; memory {memory}; kernel {kernel}")?;
        writeln!(f, "- disk: {file_system}; 4 KiB written and synced in a file of zeros: median {sync_micros:.0} µs")?;
        writeln!(f, "- measured {date}, commit {commit}")
    }
}

/// Type and device of the file system that holds a directory.
fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = |line: &str| {
        let mut fields = line.split(' ').map(str::to_owned);
        Some((fields.next()?, PathBuf::from(fields.next()?), fields.next()?))
    };
    let holding = mounts.lines().filter_map(mount).filter(|(_, at, _)| directory.starts_with(at));
    let nearest = holding.max_by_key(|(_, at, _)| at.components().count());
    let (device, at, kind) = nearest.ok_or("the directory is on no file system that is mounted")?;
    if NO_DISK.contains(&&*kind) {
        return Err(format!("{} is on {kind}, which is no disk: give --dir on one", directory.display()).into());
    }
    Ok(format!("{kind} on {device} at {}", at.display()))
}

fn sync_micros(directory: &Path) -> Result<f64> {
    let mut raw = Raw::zeroed(directory.join("probe"), 4 << 20)?;
    let block = [1; 4096];
    let times: Result<Vec<f64>> = (0..200).map(|_| raw.timed(&block)).collect();
    Ok(median(times?))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}
