//! Rows 2a to 2d: durable publishing through the log, against the file system alone.

use std::{collections::VecDeque, path::Path, thread};

use oncue_log::{AppendError, Batch, Log, Lsn, Options, TopicId, storage::FileStorage};

use crate::{
    events,
    measure::{Plan, Result, Sample, Stopwatch, quantile},
    raw::{self, Raw},
    report::{Row, Target},
};

/// Events of one append.
const BATCH: usize = 32;
/// What an event takes in the log: its header and its data.
const RECORD_BYTES: usize = 20 + events::DATA_BYTES;
/// What a frame adds.
const FRAME_BYTES: usize = 104;
/// How much of a file is written over and over by the best raw writer.
const ZEROED_BYTES: u64 = 256 << 20;
const PAYLOAD: [u8; events::DATA_BYTES] = [7; events::DATA_BYTES];

pub(crate) fn open(directory: &Path) -> Result<(Log, TopicId)> {
    let storage = Box::new(FileStorage::open(directory)?);
    let log = Log::open(storage, Options::default(), 0, &mut |_| Ok(()))?.log;
    let (topic, made) = log.create_topic(events::TOPIC, b"", 0)?;
    log.wait_durable(made.end)?;
    Ok((log, topic))
}

/// One producer that keeps at most `window` bytes unacknowledged.
pub(crate) struct Producer<'a> {
    log: &'a Log,
    topic: TopicId,
    batch: Batch,
    /// Where what is unacknowledged ends, and since when.
    open: VecDeque<(Lsn, Stopwatch)>,
    most_open: usize,
    /// From before a batch is filled until its acknowledgement is seen, in microseconds.
    pub(crate) waits: Vec<f64>,
    pub(crate) batches: u64,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(log: &'a Log, topic: TopicId, window: usize) -> Self {
        let most_open = (window / (BATCH * RECORD_BYTES)).max(1);
        let (open, waits) = (VecDeque::with_capacity(most_open), Vec::new());
        Self { log, topic, batch: Batch::new(), open, most_open, waits, batches: 0 }
    }

    /// Fills a batch and appends it; waits first if the window is full.
    pub(crate) fn publish(&mut self) -> Result<()> {
        if self.open.len() == self.most_open {
            self.wait_for_one()?;
        }
        let since = Stopwatch::start();
        self.batch.clear();
        for _ in 0..BATCH {
            self.batch.event(self.topic, 0, &[&PAYLOAD]);
        }
        loop {
            match self.log.append(&self.batch, 1) {
                Ok(ticket) => {
                    self.open.push_back((ticket.end, since));
                    self.batches += 1;
                    return Ok(());
                }
                Err(AppendError::Full) if !self.open.is_empty() => self.wait_for_one()?,
                Err(failed) => return Err(failed.into()),
            }
        }
    }

    fn wait_for_one(&mut self) -> Result<()> {
        if let Some((end, _)) = self.open.front() {
            self.log.wait_durable(*end)?;
        }
        let durable = self.log.durable();
        while let Some((_, since)) = self.open.front().filter(|(end, _)| *end <= durable) {
            self.waits.push(since.micros());
            self.open.pop_front();
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }
}

/// Durable events per second of several producers, and their 99th percentile wait in microseconds.
fn publish(directory: &Path, producers: usize, window: usize, seconds: f64) -> Result<(f64, f64)> {
    let directory = directory.join("log");
    let (log, topic) = open(&directory)?;
    let watch = Stopwatch::start();
    let produce = || -> Result<(u64, Vec<f64>)> {
        let mut producer = Producer::new(&log, topic, window / producers);
        while watch.seconds() < seconds {
            producer.publish()?;
        }
        producer.finish()?;
        Ok((producer.batches, producer.waits))
    };
    let ended: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..producers).map(|_| scope.spawn(produce)).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let elapsed = watch.seconds();
    let (mut batches, mut waits) = (0, Vec::new());
    for ended in ended {
        let (count, more) = ended.map_err(|_| "a producer panicked")??;
        batches += count;
        waits.extend(more);
    }
    drop(log);
    raw::remove(&directory)?;
    Ok(((batches * BATCH as u64) as f64 / elapsed, quantile(&mut waits, 0.99)))
}

/// 2a and 2b: one producer with a window, against the file system with chunks of that size.
pub(crate) fn windows(plan: &Plan, directory: &Path, id: &'static str) -> Result<Vec<Row>> {
    let growing = id == "2a";
    let mut rows = Vec::new();
    let cases: &[(usize, f64)] = if growing { &[(1, 1.3)] } else { &[(1, 0.85), (4, 0.95)] };
    for (mebibytes, ratio) in cases {
        let window = mebibytes << 20;
        let chunk = vec![3; window];
        let path = directory.join("raw");
        let mut zeroed = if growing { None } else { Some(Raw::zeroed(path.clone(), ZEROED_BYTES)?) };
        let rounds = plan.rounds(&format!("{id} ({mebibytes} MiB)"), || {
            let (ours, p99) = publish(directory, 1, window, plan.seconds)?;
            let chunks = match &mut zeroed {
                Some(raw) => raw.rate(&chunk, plan.seconds)?,
                None => Raw::growing(path.clone())?.rate(&chunk, plan.seconds)?,
            };
            raw::settle(directory)?;
            let against = chunks * (window - FRAME_BYTES) as f64 / RECORD_BYTES as f64;
            Ok(Sample { p99: Some(p99), ..Sample::of(ours, against) })
        })?;
        let settings = format!(
            "{}, one producer, {BATCH} events an append, window {mebibytes} MiB (most bytes unacknowledged); fdatasync before \
             each acknowledgement. Ours fills each batch anew, checksums and rolls over segments of 64 MiB; the other side \
             checksums and writes a chunk of {mebibytes} MiB that is there already (the same bytes an event, headers \
             included), and syncs before the next.",
            events::PAYLOAD
        );
        let against =
            if growing { "append to a fresh file + fdatasync" } else { "pwrite into written blocks + fdatasync" };
        let case = if *mebibytes == 1 { "1 MiB" } else { "4 MiB" };
        let what = "Durable publish";
        rows.push(Row {
            id,
            case,
            what,
            against,
            unit: "events/s",
            target: Target::at_least(*ratio),
            settings,
            rounds,
        });
    }
    Ok(rows)
}

/// What 2c tries: producers, and bytes that they may have unacknowledged together.
const LOADS: [(usize, usize); 8] = [
    (2, 256 << 10),
    (2, 512 << 10),
    (2, 1 << 20),
    (2, 2 << 20),
    (4, 256 << 10),
    (4, 512 << 10),
    (4, 1 << 20),
    (4, 2 << 20),
];
const P99_MICROS: f64 = 1000.0;

/// 2c: the fastest of several loads whose acknowledgements come in time.
pub(crate) fn in_time(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut tried = Vec::new();
    for (producers, window) in LOADS {
        let (rate, p99) = publish(directory, producers, window, plan.seconds / 2.0)?;
        eprintln!("2c tries {producers} producers, {} KiB: {rate:.0} events/s, p99 {p99:.0} µs", window >> 10);
        tried.push((rate, p99, producers, window));
    }
    let fastest = tried.iter().filter(|(_, p99, ..)| *p99 <= P99_MICROS).max_by(|one, other| one.0.total_cmp(&other.0));
    let soonest = tried.iter().min_by(|one, other| one.1.total_cmp(&other.1));
    let (_, _, producers, window) = *fastest.or(soonest).ok_or("no load was tried")?;
    let rounds = plan.rounds("2c", || {
        let (ours, p99) = publish(directory, producers, window, plan.seconds)?;
        Ok(Sample { ours, against: None, p99: Some(p99) })
    })?;
    let settings = format!(
        "{}, {producers} producers, {BATCH} events an append, {} KiB unacknowledged at most, all producers together; fdatasync \
         before each acknowledgement. Closed loop: a producer whose window is full waits. p99: from before a batch is filled \
         until its producer sees the acknowledgement. The load is the fastest of {} tried whose p99 was in time.",
        events::PAYLOAD,
        window >> 10,
        LOADS.len(),
    );
    let target = Target { p99: Some(P99_MICROS), ..Target::default() }.absolute(3_000_000.0);
    let what = "Durable publish with acknowledgements in time";
    Ok(vec![Row { id: "2c", case: "", what, against: "", unit: "events/s", target, settings, rounds }])
}

/// How many of one side come in a row: few, so that both see the same disk.
const IN_A_ROW: usize = 25;

/// Measures two waits in turns; the medians, and the 99th percentile of the first.
pub(crate) fn in_turns(
    seconds: f64,
    mut ours: impl FnMut() -> Result<f64>,
    mut against: impl FnMut() -> Result<f64>,
) -> Result<Sample> {
    let (mut our_times, mut other_times, watch) = (Vec::new(), Vec::new(), Stopwatch::start());
    while watch.seconds() < 2.0 * seconds {
        for _ in 0..IN_A_ROW {
            our_times.push(ours()?);
        }
        for _ in 0..IN_A_ROW {
            other_times.push(against()?);
        }
    }
    let sample = Sample::of(quantile(&mut our_times, 0.5), quantile(&mut other_times, 0.5));
    Ok(Sample { p99: Some(quantile(&mut our_times, 0.99)), ..sample })
}

/// 2d: one event at a time.
pub(crate) fn one_at_a_time(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut raw = Raw::zeroed(directory.join("raw"), 64 << 20)?;
    let bytes = [3; FRAME_BYTES + RECORD_BYTES];
    let at = directory.join("log");
    let (log, topic) = open(&at)?;
    let mut batch = Batch::new();
    let rounds = plan.rounds("2d", || {
        let ours = || {
            let watch = Stopwatch::start();
            batch.clear();
            batch.event(topic, 0, &[&PAYLOAD]);
            log.wait_durable(log.append(&batch, 1)?.end)?;
            Ok(watch.micros())
        };
        in_turns(plan.seconds, ours, || raw.timed(&bytes))
    })?;
    drop(log);
    raw::remove(&at)?;
    let settings = format!(
        "{}, one event in flight, p50 of each round; fdatasync for each event. Ours hands over to the writer thread and back; \
         the other side checksums, writes and syncs {} bytes where it is. In turns of {IN_A_ROW}.",
        events::PAYLOAD,
        bytes.len()
    );
    Ok(vec![Row {
        id: "2d",
        case: "",
        what: "One event in flight, p50",
        against: "one pwrite + fdatasync of the same bytes in a file of zeros, p50",
        unit: "µs",
        target: Target::at_most(1.15),
        settings,
        rounds,
    }])
}
