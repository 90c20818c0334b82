//! What the tests share: small logs, and reading all of one.

use oncue_log::storage::Storage;
use oncue_log::{
    Batch, Found, Log, OpenError, Opened, Options, ReadError, Record, Replay, TopicId, Verification, Writer, verify,
};

/// Small enough that a few events roll, and written by the caller, so that every run is the same.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 4096, tail_bytes: 2048, writer: Writer::Inline, ..Options::default() }
}

pub(crate) fn open(storage: impl Storage + 'static, options: Options) -> Result<Opened, OpenError> {
    Log::open(Box::new(storage), options, 1, &mut |_| Ok(()))
}

pub(crate) fn log(storage: impl Storage + 'static, options: Options) -> Log {
    open(storage, options).unwrap().log
}

/// The log, its checkpoint, and the records replayed.
pub(crate) type Replayed = (Opened, Option<Vec<u8>>, Vec<Record>);

/// Opens, and keeps what replay hands over.
pub(crate) fn replayed(storage: impl Storage + 'static, options: Options) -> Result<Replayed, OpenError> {
    let (mut checkpoint, mut records) = (None, Vec::new());
    let opened = Log::open(Box::new(storage), options, 1, &mut |replay| {
        match replay {
            Replay::Checkpoint(bytes) => {
                assert!(checkpoint.is_none() && records.is_empty(), "at most once, and first");
                checkpoint = Some(bytes.to_vec());
            }
            Replay::Record(record) => records.push(record.clone()),
        }
        Ok(())
    })?;
    Ok((opened, checkpoint, records))
}

pub(crate) fn topic(log: &Log, name: &str) -> TopicId {
    log.create_topic(name, b"", 1).unwrap().0
}

pub(crate) fn event(topic: TopicId, data: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.event(topic, 0, &[data]);
    batch
}

/// Appends one event and waits for it.
pub(crate) fn publish(log: &Log, topic: TopicId, data: &[u8]) -> u64 {
    let ticket = log.append(&event(topic, data), 1).unwrap();
    log.wait_durable(ticket.end).unwrap();
    ticket.offset
}

/// Events of 100 bytes, each waited for.
pub(crate) fn publish_many(log: &Log, topic: TopicId, count: u64) {
    for _ in 0..count {
        publish(log, topic, &[1; 100]);
    }
}

/// A topic's events from an offset on, `step` at a time.
pub(crate) fn read_from(log: &Log, topic: TopicId, offset: u64, step: usize) -> Result<Vec<Record>, ReadError> {
    let mut cursor = log.cursor(topic, offset);
    let mut out = Vec::new();
    while log.read(&mut cursor, step, usize::MAX, &mut out)? > 0 {}
    Ok(out)
}

/// What verifying a log says, and the records that it shows.
pub(crate) fn verified(storage: &dyn Storage) -> (Verification, Vec<Record>) {
    let mut records = Vec::new();
    let mut look = |found: Found<'_>| {
        if let Found::Record { record, .. } = found {
            records.push(record.clone());
        }
        Ok(())
    };
    let report = verify(storage, &mut look).unwrap();
    (report, records)
}

pub(crate) fn data(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(|record| record.data.to_vec()).collect()
}

/// `SplitMix64`: the tests' own randomness, so that a seed says everything.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    pub(crate) fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
