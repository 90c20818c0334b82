//! A snapshot whose writer goes on in the middle of any call that reading it makes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oncue_log::storage::{File, MemoryStorage, Snapshot, Storage};

use oncue_log::Options;

use crate::snapshot::{nth, prefix, publish_some};
use crate::support::{log, publish, replayed, small, topic};

/// Memory under a reader, that lets the writer go on in the middle of one of its calls.
#[derive(Clone)]
struct Interleaved {
    under: MemoryStorage,
    calls: Arc<AtomicUsize>,
    at: usize,
    /// Where a read is parted, in sixteenths of what it yields; the second part may be read first.
    part: usize,
    backwards: bool,
    go_on: Arc<dyn Fn() + Send + Sync>,
}

impl Interleaved {
    fn is_now(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) == self.at
    }

    fn call(&self) {
        if self.is_now() {
            (self.go_on)();
        }
    }
}

impl Storage for Interleaved {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let listed = self.under.list();
        self.call();
        listed
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        assert!(!create, "nothing is written below");
        let file = self.under.open(name, false)?;
        Ok(Box::new(InterleavedFile { storage: self.clone(), file }))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        panic!("nothing is written below")
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        panic!("nothing is written below")
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

struct InterleavedFile {
    storage: Interleaved,
    file: Box<dyn File>,
}

impl File for InterleavedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Interleaved { part, backwards, go_on, .. } = &self.storage;
        if !self.storage.is_now() {
            return self.file.read_at(buffer, offset);
        }
        // As much as there is before the writer goes on, in two parts, of which the later sees what it wrote.
        let there = usize::try_from(self.file.len()?.saturating_sub(offset)).unwrap().min(buffer.len());
        let (low, high) = buffer[..there].split_at_mut(there * part / 16);
        let middle = offset + low.len() as u64;
        let (first, second) =
            if *backwards { ((high, middle), (low, offset)) } else { ((low, offset), (high, middle)) };
        self.file.read_at(first.0, first.1)?;
        go_on();
        self.file.read_at(second.0, second.1)?;
        Ok(there)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("nothing is written below")
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let length = self.file.len();
        self.storage.call();
        length
    }
}

/// Memory that is filled with zeros ahead, as a disk is.
struct Filled(MemoryStorage);

impl Storage for Filled {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.0.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        self.0.open(name, create)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

/// Where the writer goes on.
#[derive(Clone, Copy, Debug)]
struct Moment {
    call: usize,
    part: usize,
    backwards: bool,
}

/// Opens a snapshot of `memory` while `go_on` happens; returns where its events end, and how many calls that took.
fn look(
    memory: MemoryStorage,
    moment: Moment,
    go_on: impl Fn() + Send + Sync + 'static,
    context: &str,
) -> (u64, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let Moment { call: at, part, backwards } = moment;
    let storage = Interleaved { under: memory, calls: Arc::clone(&calls), at, part, backwards, go_on: Arc::new(go_on) };
    let (opened, _, records) =
        replayed(Snapshot::over(storage), small()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let end = prefix(&opened, &records, context).unwrap_or_else(|error| panic!("{context}: {error}"));
    (end, calls.load(Ordering::Relaxed))
}

/// Does something at every moment that reading has.
fn at_every_moment(mut act: impl FnMut(Moment) -> usize) {
    let calls = act(Moment { call: usize::MAX, part: 0, backwards: false });
    for call in 0..calls {
        for part in 0..16 {
            for backwards in [false, true] {
                act(Moment { call, part, backwards });
            }
        }
    }
}

fn while_a_writer_goes_on(filled: bool, segment_bytes: u64, more: u64) {
    at_every_moment(|moment| {
        let memory = MemoryStorage::new();
        let options = Options { segment_bytes, ..small() };
        let writer = if filled { log(Filled(memory.clone()), options) } else { log(memory.clone(), options) };
        let orders = topic(&writer, "orders");
        publish_some(&writer, orders, 0..12);
        let go_on = move || {
            for number in 12..12 + more {
                publish(&writer, orders, &nth(number));
                if number == 13 {
                    writer.checkpoint(&[2; 100], 1).unwrap();
                }
            }
        };
        let context = format!("filled {filled}, segments of {segment_bytes}, {more} more, {moment:?}");
        let (end, calls) = look(memory, moment, go_on, &context);
        assert!((12..=12 + more).contains(&end), "{context}: {end}");
        calls
    });
}

#[test]
fn nothing_durable_is_missed_while_segments_roll() {
    for more in [1, 3, 12, 40] {
        while_a_writer_goes_on(true, 4096, more);
        while_a_writer_goes_on(false, 4096, more);
    }
}

#[test]
fn nothing_durable_is_missed_while_a_segment_grows() {
    for more in [1, 3, 12] {
        while_a_writer_goes_on(true, 16 << 10, more);
        while_a_writer_goes_on(false, 16 << 10, more);
    }
}

#[test]
fn a_segment_that_is_being_made_is_not_damage() {
    at_every_moment(|moment| {
        let memory = MemoryStorage::new();
        let writer = log(memory.clone(), small());
        let orders = topic(&writer, "orders");
        let mut number = 0;
        while memory.contents("00000000000000000002.seg").is_none_or(|bytes| bytes.len() < 1_000) {
            publish(&writer, orders, &nth(number));
            number += 1;
        }
        // As the writer makes it: first its name, then its header, then frames.
        let made = memory.contents("00000000000000000002.seg").unwrap();
        memory.replace("00000000000000000002.seg", Vec::new());
        let file = memory.open("00000000000000000002.seg", false).unwrap();
        let context = format!("{moment:?}");
        let go_on = move || assert_eq!(file.write_at(&made, 0).unwrap(), made.len());
        let (end, calls) = look(memory, moment, go_on, &context);
        assert!((1..=number).contains(&end), "{context}: {end} of {number}");
        calls
    });
}
