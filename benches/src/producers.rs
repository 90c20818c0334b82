//! Producers of the durable rows, and the retention that frees what they wrote.

use std::{collections::VecDeque, path::Path, sync::mpsc, thread};

use oncue_log::{AppendError, Batch, Log, Lsn, Options, TopicId, storage::FileStorage};

use crate::{
    events,
    measure::{Result, Stopwatch, quantile},
};

/// Events of one append.
pub(crate) const BATCH: usize = 32;
/// What an event takes in the log: its header and its data.
pub(crate) const RECORD_BYTES: usize = 20 + events::DATA_BYTES;
pub(crate) const PAYLOAD: [u8; events::DATA_BYTES] = [7; events::DATA_BYTES];
/// What retention leaves, at least, in records; and how many come between two times that it looks.
const KEPT: u64 = (64 << 20) / RECORD_BYTES as u64;
const LOOK: u64 = (16 << 20) / RECORD_BYTES as u64;

/// A log on a disk, to be written to.
pub(crate) struct Target {
    pub(crate) log: Log,
    pub(crate) topics: Vec<TopicId>,
    /// Whether what is older than the newest 64 MiB or so is trimmed while it is written.
    retained: bool,
}

impl Target {
    pub(crate) fn open(directory: &Path, topics: usize, retained: bool) -> Result<Self> {
        let storage = Box::new(FileStorage::open(directory)?);
        let log = Log::open(storage, Options::default(), 0, &mut |_| Ok(()))?.log;
        let mut made = Vec::new();
        for number in 0..topics {
            made.push(log.create_topic(&format!("{}-{number}", events::TOPIC), b"", 0)?);
        }
        let topics = made.iter().map(|(topic, _)| *topic).collect();
        if let Some((_, last)) = made.last() {
            log.wait_durable(last.end)?;
        }
        Ok(Self { log, topics, retained })
    }

    /// Durable events per second of several producers, and their 99th percentile wait in microseconds.
    pub(crate) fn publish(&self, producers: usize, window: usize, seconds: f64) -> Result<(f64, f64)> {
        let watch = Stopwatch::start();
        let (look, looks) = mpsc::sync_channel(1);
        let produce = |look: mpsc::SyncSender<Lsn>| -> Result<(u64, Vec<f64>)> {
            let mut producer = Producer::new(&self.log, &self.topics, window / producers);
            let mut next = self.log.durable() + LOOK;
            while watch.seconds() < seconds {
                producer.publish()?;
                if self.retained && producer.end >= next {
                    // If retention is at it already, it comes again.
                    look.try_send(producer.end).ok();
                    next = producer.end + LOOK;
                }
            }
            producer.finish()?;
            Ok((producer.batches, producer.waits))
        };
        let (ended, retention) = thread::scope(|scope| {
            let produce = &produce;
            let threads: Vec<_> = (0..producers)
                .map(|_| {
                    let look = look.clone();
                    scope.spawn(move || produce(look))
                })
                .collect();
            drop(look);
            let retention = scope.spawn(move || self.retain(looks));
            let ended: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            (ended, retention.join())
        });
        retention.map_err(|_| "retention panicked")??;
        let elapsed = watch.seconds();
        let (mut batches, mut waits) = (0, Vec::new());
        for ended in ended {
            let (count, more) = ended.map_err(|_| "a producer panicked")??;
            batches += count;
            waits.extend(more);
        }
        Ok(((batches * BATCH as u64) as f64 / elapsed, quantile(&mut waits, 0.99)))
    }

    /// Trims what is old, whenever it is told how far the log is.
    fn retain(&self, looks: mpsc::Receiver<Lsn>) -> Result<()> {
        for end in looks {
            self.log.wait_durable(self.log.checkpoint(b"", 1)?.end)?;
            self.log.trim(end.saturating_sub(KEPT))?;
        }
        Ok(())
    }
}

/// One producer that keeps at most `window` bytes unacknowledged.
pub(crate) struct Producer<'a> {
    log: &'a Log,
    topics: &'a [TopicId],
    /// The topic that comes next.
    turn: usize,
    batch: Batch,
    /// Where what is unacknowledged ends, and since when.
    open: VecDeque<(Lsn, Stopwatch)>,
    most_open: usize,
    /// From before a batch is filled until its acknowledgement is seen, in microseconds.
    waits: Vec<f64>,
    batches: u64,
    /// Where the last batch ends.
    end: Lsn,
}

impl<'a> Producer<'a> {
    fn new(log: &'a Log, topics: &'a [TopicId], window: usize) -> Self {
        let most_open = (window / (BATCH * RECORD_BYTES)).max(1);
        let (open, waits) = (VecDeque::with_capacity(most_open), Vec::new());
        Self { log, topics, turn: 0, batch: Batch::new(), open, most_open, waits, batches: 0, end: 0 }
    }

    /// Fills a batch and appends it; waits first if the window is full.
    fn publish(&mut self) -> Result<()> {
        if self.open.len() == self.most_open {
            self.wait_for_one()?;
        }
        let since = Stopwatch::start();
        self.batch.clear();
        for _ in 0..BATCH {
            self.batch.event(self.topics[self.turn], 0, &[&PAYLOAD]);
            self.turn = if self.turn + 1 == self.topics.len() { 0 } else { self.turn + 1 };
        }
        loop {
            match self.log.append(&self.batch, 1) {
                Ok(ticket) => {
                    self.open.push_back((ticket.end, since));
                    self.end = ticket.end;
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

    fn finish(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }
}
