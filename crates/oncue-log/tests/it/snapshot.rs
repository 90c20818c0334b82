//! Looking at a log while somebody else writes it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use oncue_log::storage::{FileStorage, LockError, Snapshot, Storage};
use oncue_log::{Durability, Log, OpenError, Opened, Options, ReadError, Record, TopicId, Writer};

use crate::support::{Random, event, log, open, publish, read_from, replayed, small, topic};

/// What event `number` holds: something of its own, of a length of its own.
pub(crate) fn nth(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let mut data = number.to_le_bytes().to_vec();
    data.extend(random.bytes(300));
    data
}

pub(crate) fn publish_some(log: &Log, orders: TopicId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        publish(log, orders, &nth(number));
    }
}

/// Asserts that a snapshot holds the events from the first that is left to some end, and returns that.
pub(crate) fn prefix(opened: &Opened, replayed: &[Record], context: &str) -> Result<u64, ReadError> {
    let Some(info) = opened.log.topics().into_iter().next() else { return Ok(0) };
    let events = read_from(&opened.log, info.id, info.first_offset, 7)?;
    assert_eq!(events.len() as u64, info.next_offset - info.first_offset, "{context}");
    for (record, offset) in events.iter().zip(info.first_offset..) {
        assert_eq!((record.offset, record.data.to_vec()), (offset, nth(offset)), "{context}");
    }
    for record in replayed.iter().filter(|record| record.kind == oncue_log::KIND_EVENT) {
        assert_eq!(record.data, nth(record.offset), "{context}");
    }
    Ok(info.next_offset)
}

/// Every file with its bytes.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(file).collect();
    files.sort();
    files
}

#[test]
fn a_snapshot_sees_all_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writer = log(FileStorage::open(dir.path()).unwrap(), small());
    let orders = topic(&writer, "orders");
    publish_some(&writer, orders, 0..40);
    let before = contents(dir.path());
    for _ in 0..2 {
        let (opened, _, records) = replayed(Snapshot::open(dir.path()).unwrap(), small()).unwrap();
        assert_eq!(prefix(&opened, &records, "").unwrap(), 40);
        // Even written to, closed and trimmed it stays in memory.
        publish(&opened.log, TopicId(1), &nth(40));
        opened.log.checkpoint(b"state", 1).unwrap();
        assert!(opened.log.trim(u64::MAX).unwrap() > 0);
        opened.log.close(1).unwrap();
        assert_eq!(contents(dir.path()), before);
    }
    publish(&writer, orders, &nth(40));
}

#[test]
fn a_torn_tail_is_reported_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let writer = log(FileStorage::open(dir.path()).unwrap(), Options { segment_bytes: 1 << 20, ..small() });
    let orders = topic(&writer, "orders");
    publish_some(&writer, orders, 0..5);
    let end = open(Snapshot::open(dir.path()).unwrap(), small()).unwrap().report;
    assert_eq!((end.torn, end.clean), (None, false));
    // The first half of a frame, as one sees it that is being written.
    let segment = dir.path().join("00000000000000000001.seg");
    let whole = fs::read(&segment).unwrap();
    publish(&writer, orders, &nth(5));
    let mut half = fs::read(&segment).unwrap();
    let mut changed = (0..half.len()).filter(|at| whole.get(*at) != Some(&half[*at]));
    let (first, last) = (changed.clone().next().unwrap(), changed.next_back().unwrap());
    half[(first + last) / 2..=last].fill(0);
    drop(writer);
    fs::write(&segment, &half).unwrap();
    let (opened, _, records) = replayed(Snapshot::open(dir.path()).unwrap(), small()).unwrap();
    assert!(opened.report.torn.is_some());
    assert_eq!(prefix(&opened, &records, "").unwrap(), 5);
    assert_eq!(fs::read(&segment).unwrap(), half);
}

#[test]
fn damage_is_an_error_here_too() {
    let dir = tempfile::tempdir().unwrap();
    let writer = log(FileStorage::open(dir.path()).unwrap(), Options { segment_bytes: 1 << 20, ..small() });
    let orders = topic(&writer, "orders");
    publish_some(&writer, orders, 0..5);
    let segment = dir.path().join("00000000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[400] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let error = open(Snapshot::open(dir.path()).unwrap(), small()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn what_was_trimmed_meanwhile_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let writer = log(FileStorage::open(dir.path()).unwrap(), small());
    let orders = topic(&writer, "orders");
    publish_some(&writer, orders, 0..40);
    let snapshot = Snapshot::open(dir.path()).unwrap();
    let read_before = Storage::open(&snapshot, "00000000000000000001.seg", false).unwrap();
    let opened = open(snapshot, small()).unwrap();
    let newest = opened.log.durable() - 1;
    writer.checkpoint(b"", 1).unwrap();
    assert!(writer.trim(newest).unwrap() > 0);
    let error = read_from(&opened.log, orders, 0, 7).err().unwrap();
    assert!(
        matches!(error, ReadError::Storage(_)) && error.to_string().contains("has trimmed it meanwhile"),
        "{error}"
    );
    let error = read_before.read_at(&mut [0; 8], 0).err().unwrap();
    assert!(error.to_string().contains("has trimmed it meanwhile"), "{error}");
    // What is left can be read.
    assert_eq!(opened.log.record(newest).unwrap().lsn, newest);
}

#[test]
fn a_directory_without_a_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Snapshot::open(dir.path().join("missing")).err().unwrap();
    assert!(matches!(&missing, LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound), "{missing}");
    assert!(!dir.path().join("missing").exists());
    let empty = Snapshot::open(dir.path()).err().unwrap();
    assert!(matches!(&empty, LockError::NoLog { .. }), "{empty}");
    fs::write(dir.path().join("thesis.tex"), "important").unwrap();
    let foreign = Snapshot::open(dir.path()).err().unwrap();
    assert!(matches!(&foreign, LockError::Foreign { file, .. } if file == "thesis.tex"), "{foreign}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
}

/// Opens 200 snapshots of `dir`, or more, while a thread appends all the time. Returns how often opening had to be tried again, and
/// how many segments there were.
fn opened_while_written(dir: &Path, options: &Options, retries: usize, trim: bool) -> (usize, u64) {
    const SNAPSHOTS: u64 = 200;
    const EVENTS: u64 = 600;
    // The writer stays this far ahead, so that it is writing whenever a snapshot is taken, and the log stays small.
    const EVENTS_PER_SNAPSHOT: u64 = 40;
    let writer = log(FileStorage::open(dir).unwrap(), options.clone());
    let orders = topic(&writer, "orders");
    publish(&writer, orders, &nth(0));
    let (durable, allowed) = (AtomicU64::new(1), AtomicU64::new(EVENTS_PER_SNAPSHOT));
    let mut again = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 1;
            while allowed.load(Ordering::Acquire) > 0 {
                if number < allowed.load(Ordering::Acquire) {
                    append_some(&writer, orders, &mut number, trim);
                    durable.store(number, Ordering::Release);
                } else {
                    thread::yield_now();
                }
            }
        });
        let _stop = StopOnDrop(&allowed);
        let mut number = 0;
        while number < SNAPSHOTS || durable.load(Ordering::Acquire) < EVENTS {
            let context = format!("snapshot {number}");
            let before = durable.load(Ordering::Acquire);
            allowed.fetch_add(EVENTS_PER_SNAPSHOT, Ordering::AcqRel);
            let mut failed = 0;
            while let Err(error) = look(dir, options, before, &context) {
                assert!(failed < retries && !matches!(error, LookError::Lock(_)), "{context}, try {failed}: {error:?}");
                failed += 1;
            }
            again += failed;
            number += 1;
        }
    });
    let newest = contents(dir).into_iter().rev().find_map(|(name, _)| name.strip_suffix(".seg")?.parse().ok());
    (again, newest.unwrap())
}

/// So that the other thread ends with a panic of this one.
struct StopOnDrop<'a>(&'a AtomicU64);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// A few events in one or more frames; now and then a checkpoint.
fn append_some(writer: &Log, orders: TopicId, number: &mut u64, trim: bool) {
    for _ in 0..1 + *number % 7 {
        writer.append(&event(orders, &nth(*number)), 1).unwrap();
        *number += 1;
    }
    let end = writer.append(&event(orders, &nth(*number)), 1).unwrap().end;
    *number += 1;
    writer.wait_durable(end).unwrap();
    if number.is_multiple_of(5) {
        let ticket = writer.checkpoint(&vec![1; (*number % 2_000) as usize], 1).unwrap();
        writer.wait_durable(ticket.end).unwrap();
        if trim {
            writer.trim(ticket.lsn).unwrap();
        }
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
enum LookError {
    Lock(LockError),
    Open(OpenError),
    Read(ReadError),
}

fn look(dir: &Path, options: &Options, before: u64, context: &str) -> Result<(), LookError> {
    let snapshot = Snapshot::open(dir).map_err(LookError::Lock)?;
    let (opened, _, records) = replayed(snapshot, options.clone()).map_err(LookError::Open)?;
    let end = prefix(&opened, &records, context).map_err(LookError::Read)?;
    assert!(end >= before, "{context}: {end} of at least {before}");
    Ok(())
}

#[test]
fn while_segments_grow_and_roll_every_look_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 8 << 10, writer: Writer::Thread, ..small() };
    let (_, segments) = opened_while_written(dir.path(), &options, 0, false);
    assert!(segments > 10, "{segments}");
}

#[test]
fn while_one_segment_grows_without_syncs_every_look_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 30, durability: Durability::Os, writer: Writer::Thread, ..small() };
    assert_eq!(opened_while_written(dir.path(), &options, 0, false), (0, 1));
}

#[test]
fn while_segments_are_trimmed_and_used_again_a_look_succeeds_after_some_tries() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4 << 10, writer: Writer::Thread, ..small() };
    let (again, segments) = opened_while_written(dir.path(), &options, 20, true);
    assert!(segments > 20, "{segments}");
    println!("tried again {again} times");
}
