//! The oracle: a list of everything appended, and how much of it was acknowledged.

use std::collections::{BTreeSet, HashMap};

use oncue_log::storage::MemoryStorage;
use oncue_log::{
    AppendError, Batch, KIND_CHECKPOINT, KIND_DROP, KIND_EVENT, KIND_STATE, KIND_TOPIC, Log, Opened, ReadError, Record,
    Ticket, TopicId, TopicInfo, Wanted,
};
use proptest::prelude::*;

use crate::support::{Random, replayed, small};

pub(crate) struct Model {
    pub(crate) context: String,
    /// False: acknowledged does not mean synced, so that power lost may lose it.
    pub(crate) synced: bool,
    /// Of so many records, one is read by its lsn too.
    pub(crate) sample: u64,
    /// Space is given back often.
    pub(crate) retains: bool,
    records: Vec<Expected>,
    /// Where the log may end: between batches.
    ends: BTreeSet<u64>,
    acknowledged: u64,
    /// Checkpoints, by lsn: where their last part ends, and what they say.
    snapshots: HashMap<u64, (u64, Vec<u8>)>,
    /// What trimming has removed for good: nothing below comes back.
    gone: u64,
    /// What trimming may have removed: nothing from here on is missing.
    kept: u64,
    /// What was not wanted any more when segments were removed or rewritten: it may be missing.
    unwanted: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Expected {
    kind: u8,
    topic: u32,
    partition: u16,
    offset: u64,
    data: Vec<u8>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            context: String::new(),
            synced: true,
            sample: 1,
            retains: false,
            records: Vec::new(),
            ends: BTreeSet::from([0]),
            acknowledged: 0,
            snapshots: HashMap::new(),
            gone: 0,
            kept: 0,
            unwanted: BTreeSet::new(),
        }
    }
}

impl Model {
    pub(crate) fn next_lsn(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn durable(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn acknowledged(&mut self, end: u64) {
        self.acknowledged = self.acknowledged.max(end);
    }

    fn topics(&self) -> u32 {
        self.records.iter().filter(|record| record.kind == KIND_TOPIC).map(|record| record.topic).max().unwrap_or(0)
    }

    fn next_offset(&self, topic: u32) -> u64 {
        self.events(topic).count() as u64
    }

    fn events(&self, topic: u32) -> impl Iterator<Item = &Expected> {
        self.records.iter().filter(move |record| record.kind == KIND_EVENT && record.topic == topic)
    }

    /// Something random; an error if the log failed.
    pub(crate) fn step(&mut self, log: &Log, random: &mut Random) -> Result<(), String> {
        let ticket = match random.below(20) {
            0 | 1 if self.topics() < 4 => self.create(log),
            2 => self.checkpoint(log, random),
            3 => return self.trim(log, random),
            5 => return self.keep(log, random),
            7..=9 if self.retains => return self.keep(log, random),
            10 | 11 if self.retains => self.checkpoint(log, random),
            6 if self.topics() > 0 && random.below(3) == 0 => self.drop_events(log, random),
            4 if self.topics() > 0 && random.below(4) == 0 => self.set_metadata(log, random),
            _ => self.append(log, random),
        };
        let ticket = ticket.map_err(|error| error.to_string())?;
        assert_eq!(ticket.end, self.next_lsn(), "{}", self.context);
        if random.below(3) > 0 {
            log.wait_durable(ticket.end).map_err(|fenced| fenced.to_string())?;
            self.acknowledged(ticket.end);
        }
        Ok(())
    }

    fn create(&mut self, log: &Log) -> Result<Ticket, AppendError> {
        let id = self.topics() + 1;
        let (topic, ticket) = log.create_topic(&topic_name(id), b"meta", 1)?;
        assert_eq!(topic, TopicId(id));
        self.define(id, b"meta");
        Ok(ticket)
    }

    fn set_metadata(&mut self, log: &Log, random: &mut Random) -> Result<Ticket, AppendError> {
        let id = 1 + random.below(u64::from(self.topics())) as u32;
        let metadata = random.bytes(20);
        let ticket = log.set_metadata(TopicId(id), &metadata, 1)?;
        self.define(id, &metadata);
        Ok(ticket)
    }

    fn define(&mut self, id: u32, metadata: &[u8]) {
        let name = topic_name(id);
        let data = [&(name.len() as u16).to_le_bytes()[..], name.as_bytes(), metadata].concat();
        self.push(KIND_TOPIC, id, 0, data);
        self.ends.insert(self.next_lsn());
    }

    fn trim(&mut self, log: &Log, random: &mut Random) -> Result<(), String> {
        let before = random.below(self.next_lsn() + 1);
        let trimmed = log.trim(before);
        // Afterwards: a writer thread may have made another checkpoint durable meanwhile.
        self.kept = self.kept.max(before.min(self.restated(log)));
        trimmed.map_err(|error| error.to_string())?;
        self.gone = self.gone.max(first_lsn(log).unwrap_or(0));
        Ok(())
    }

    /// What the newest durable checkpoint stands for.
    fn restated(&self, log: &Log) -> u64 {
        let durable = self.snapshots.iter().filter(|(_, (whole, _))| *whole <= log.durable());
        durable.map(|(lsn, _)| *lsn).max().unwrap_or(0)
    }

    fn drop_events(&mut self, log: &Log, random: &mut Random) -> Result<Ticket, AppendError> {
        let topic = 1 + random.below(u64::from(self.topics())) as u32;
        let below = random.below(self.next_offset(topic) + 2);
        let ticket = log.drop_events(TopicId(topic), below, 1)?;
        assert!(ticket.offset <= below.min(self.next_offset(topic)), "{}", self.context);
        let (kind, offset, data) = (KIND_DROP, ticket.offset, Vec::new());
        self.records.push(Expected { kind, topic, partition: 0, offset, data });
        self.ends.insert(self.next_lsn());
        Ok(ticket)
    }

    /// Up to where a topic's events were dropped, by records below `end`.
    fn dropped(&self, topic: u32, end: u64) -> u64 {
        let drops =
            self.records[..end as usize].iter().filter(|record| (record.kind, record.topic) == (KIND_DROP, topic));
        drops.map(|record| record.offset).max().unwrap_or(0)
    }

    /// Removes and rewrites segments, as far as something random is wanted.
    pub(crate) fn keep(&mut self, log: &Log, random: &mut Random) -> Result<(), String> {
        let mut wanted = Wanted { upto: log.durable(), ..Wanted::default() };
        for topic in 1..=self.topics() {
            let next = self.next_offset(topic);
            let ranges = match random.below(6) {
                0 => std::iter::once(random.below(next + 1)..u64::MAX).collect(),
                1 => (0..next).filter(|_| random.below(4) == 0).map(|offset| offset..offset + 1).collect(),
                _ => continue,
            };
            wanted.events.insert(TopicId(topic), ranges);
        }
        let of_hundred = random.below(60);
        wanted.states = (0..log.durable()).filter(|_| random.below(100) < of_hundred).collect();
        let gone = self.gone;
        let removed = self.remove(log, &wanted, random);
        // Afterwards: a writer thread may have made more durable meanwhile.
        let durable = log.durable();
        let firsts: Vec<u64> = (1..=self.topics()).map(|topic| self.dropped(topic, durable)).collect();
        for lsn in gone..self.restated(log) {
            let Expected { kind, topic, offset, .. } = self.records[lsn as usize];
            let is_wanted = match kind {
                KIND_EVENT => {
                    let of_topic = wanted.events.get(&TopicId(topic));
                    offset >= firsts[topic as usize - 1]
                        && of_topic.is_none_or(|ranges| ranges.iter().any(|range| range.contains(&offset)))
                }
                KIND_STATE.. => wanted.states.binary_search(&lsn).is_ok(),
                _ => false,
            };
            if !is_wanted {
                self.unwanted.insert(lsn);
            }
        }
        removed
    }

    fn remove(&mut self, log: &Log, wanted: &Wanted, random: &mut Random) -> Result<(), String> {
        if random.below(2) == 0 {
            log.drop_segments(wanted).map_err(|error| error.to_string())?;
            self.gone = self.gone.max(first_lsn(log).unwrap_or(0));
        }
        for _ in 0..20 {
            if log.rewrite(wanted).map_err(|error| error.to_string())?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, log: &Log, random: &mut Random) -> Result<Ticket, AppendError> {
        // Now and then one of more parts than fit a frame.
        let opaque = if random.below(80) == 0 { vec![random.below(256) as u8; 1_300_000] } else { random.bytes(500) };
        let ticket = log.checkpoint(&opaque, 1)?;
        assert_eq!(ticket.lsn, self.next_lsn());
        self.snapshots.insert(ticket.lsn, (ticket.end, opaque));
        while self.next_lsn() < ticket.end {
            self.push(KIND_CHECKPOINT, 0, 0, Vec::new());
            self.ends.insert(self.next_lsn());
        }
        Ok(ticket)
    }

    fn append(&mut self, log: &Log, random: &mut Random) -> Result<Ticket, AppendError> {
        let mut batch = Batch::new();
        let mut added = Vec::new();
        for _ in 0..=random.below(5) {
            let most = if random.below(20) == 0 { 3000 } else { 120 };
            let data = random.bytes(most);
            let cut = random.below(data.len() as u64 + 1) as usize;
            let topics = u64::from(self.topics());
            if topics > 0 && random.below(4) > 0 {
                let (topic, partition) = (1 + random.below(topics) as u32, random.below(9) as u16);
                batch.event(TopicId(topic), partition, &[&data[..cut], &data[cut..]]);
                added.push((KIND_EVENT, topic, partition, data));
            } else {
                let kind = 17 + random.below(239) as u8;
                batch.state(kind, &[&data]);
                added.push((kind, 0, 0, data));
            }
        }
        let ticket = log.append(&batch, 1)?;
        assert_eq!(ticket.lsn, self.next_lsn());
        let first = added.iter().find(|(kind, ..)| *kind == KIND_EVENT).map(|(_, topic, ..)| *topic);
        assert_eq!(ticket.offset, first.map_or(0, |topic| self.next_offset(topic)));
        for (kind, topic, partition, data) in added {
            self.push(kind, topic, partition, data);
        }
        self.ends.insert(self.next_lsn());
        Ok(ticket)
    }

    fn push(&mut self, kind: u8, topic: u32, partition: u16, data: Vec<u8>) {
        let offset = if kind == KIND_EVENT { self.next_offset(topic) } else { 0 };
        self.records.push(Expected { kind, topic, partition, offset, data });
    }

    /// What was found must be everything acknowledged, and whole batches; what was not acknowledged and is gone, is gone.
    pub(crate) fn check(&mut self, opened: &Opened, checkpoint: Option<&[u8]>, replayed: &[Record]) {
        self.check_replay(opened, checkpoint, replayed);
        self.check_reading(&opened.log);
    }

    /// As [`check`](Self::check), without reading what was not replayed.
    pub(crate) fn check_replay(&mut self, opened: &Opened, checkpoint: Option<&[u8]>, replayed: &[Record]) {
        let context = self.context.clone();
        let report = &opened.report;
        let end = report.next_lsn;
        assert!(end >= self.acknowledged || !self.synced, "{context}: {end} of {} left", self.acknowledged);
        assert!(self.ends.contains(&end), "{context}: it ends within a batch, at {end}");
        self.records.truncate(end as usize);
        self.ends.retain(|other| *other <= end);
        self.snapshots.retain(|_, (whole, _)| *whole <= end);
        self.unwanted.split_off(&end);
        (self.acknowledged, self.synced) = (end, true);

        let from = report.replayed_from;
        assert_eq!(
            checkpoint,
            self.snapshots.get(&from).map(|(_, opaque)| opaque.as_slice()),
            "{context}: checkpoint of {from}"
        );
        let wanted = (from..end).filter(|lsn| !matches!(self.records[*lsn as usize].kind, KIND_CHECKPOINT | KIND_DROP));
        assert_eq!(
            replayed.iter().map(|record| record.lsn).collect::<Vec<_>>(),
            wanted.collect::<Vec<_>>(),
            "{context}"
        );
        for record in replayed {
            self.same(record);
        }
        assert_eq!(opened.log.durable(), end);
        for topic in opened.log.topics() {
            let defined = |record: &&Expected| record.kind == KIND_TOPIC && record.topic == topic.id.0;
            let data = &self.records.iter().rfind(defined).unwrap().data;
            assert_eq!(data[2..], [topic.name.as_bytes(), &topic.metadata].concat(), "{context}");
        }
        assert_eq!(opened.log.topics().len(), self.topics() as usize, "{context}");
    }

    fn same(&self, record: &Record) {
        let expected = &self.records[record.lsn as usize];
        assert_eq!(record.kind, expected.kind, "{}: lsn {}", self.context, record.lsn);
        if record.kind != KIND_CHECKPOINT {
            let found = Expected {
                kind: record.kind,
                topic: record.topic.0,
                partition: record.partition,
                offset: record.offset,
                data: record.data.to_vec(),
            };
            assert_eq!(&found, expected, "{}: lsn {}", self.context, record.lsn);
        }
    }

    /// Whatever fails while reading, what is read is what was written, and no damage is told where there is none.
    pub(crate) fn check_reading_that_may_fail(&self, log: &Log) {
        for record in log.scan(0) {
            match record {
                Ok(record) => self.same(&record),
                Err(ReadError::Trimmed { .. }) => {}
                Err(ReadError::Storage(_)) => break,
                Err(error) => panic!("{}: {error}", self.context),
            }
        }
    }

    /// By scan, by topic, by lsn: the same, all that is wanted, and no more than is durable.
    pub(crate) fn check_reading(&self, log: &Log) {
        let (context, durable) = (&self.context, log.durable());
        let first = first_lsn(log).unwrap();
        assert!(first >= self.gone, "{context}: trimmed records came back: from {first}, after {}", self.gone);
        let mut found = BTreeSet::new();
        for record in log.scan(first) {
            let record = record.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(found.last().is_none_or(|last| *last < record.lsn), "{context}: {} again", record.lsn);
            self.same(&record);
            found.insert(record.lsn);
        }
        assert!(found.last().is_none_or(|last| *last < durable), "{context}: {found:?} beyond {durable}");
        let missing: Vec<u64> = (self.kept..durable).filter(|lsn| !found.contains(lsn)).collect();
        let lost = missing.iter().find(|lsn| !self.unwanted.contains(lsn));
        assert!(lost.is_none(), "{context}: {lost:?} is gone, of {missing:?}, from {first}");
        for lsn in missing.iter().filter(|lsn| *lsn % self.sample == 0) {
            let read = log.record(*lsn);
            assert!(matches!(read, Err(ReadError::Trimmed { .. })), "{context}: {lsn} is gone, and is {read:?}");
        }
        for topic in log.topics() {
            self.check_topic(log, &topic, &found);
        }
    }

    /// Its events, and where it begins.
    fn check_topic(&self, log: &Log, topic: &TopicInfo, found: &BTreeSet<u64>) {
        let (context, durable) = (format!("{}: {topic:?}", self.context), log.durable() as usize);
        let of_topic = |record: &&Expected| (record.kind, record.topic) == (KIND_EVENT, topic.id.0);
        let before = |lsn: u64| self.records[..lsn as usize].iter().filter(of_topic).count() as u64;
        assert_eq!(topic.next_offset, before(durable as u64), "{context}");
        let dropped = self.dropped(topic.id.0, self.next_lsn());
        assert!(topic.first_offset >= dropped, "{context}: {dropped} were dropped");
        if self.unwanted.is_empty() {
            let gone = before(found.first().copied().unwrap_or(durable as u64));
            assert_eq!(topic.first_offset, gone.max(dropped), "{context}");
        }
        let may_be_gone = |lsn: &u64| *lsn < self.kept || self.unwanted.contains(lsn);
        let events = (0..self.next_lsn()).filter(|lsn| of_topic(&&self.records[*lsn as usize]));
        let skipped = events.take(topic.first_offset as usize).skip(dropped as usize).find(|lsn| !may_be_gone(lsn));
        assert!(skipped.is_none(), "{context}: it begins behind {skipped:?}, which is wanted");
        let (mut cursor, mut out) = (log.cursor(topic.id, topic.first_offset), Vec::new());
        while log.read(&mut cursor, 1 + out.len(), 700, &mut out).unwrap_or_else(|error| panic!("{context}: {error}"))
            > 0
        {}
        let expected = found.iter().filter(|lsn| {
            let record = &self.records[**lsn as usize];
            of_topic(&record) && record.offset >= topic.first_offset
        });
        assert!(out.iter().map(|record| &record.lsn).eq(expected), "{context}");
        assert_eq!(cursor.offset(), topic.next_offset, "{context}");
        for record in out {
            self.same(&record);
            if record.lsn % self.sample == 0 {
                assert_eq!(log.record(record.lsn).unwrap(), record);
            }
        }
    }
}

fn topic_name(id: u32) -> String {
    format!("topic-{id}")
}

/// Where the oldest segment begins, unless reading fails.
fn first_lsn(log: &Log) -> Option<u64> {
    match log.scan(0).next() {
        None | Some(Ok(_)) => Some(0),
        Some(Err(ReadError::Storage(_))) => None,
        Some(Err(ReadError::Trimmed { first, .. })) => Some(first),
        Some(Err(error)) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is done, in whatever order, reading yields what was appended.
    #[test]
    fn it_does_as_the_model(seed: u64, rounds in 1usize..5, steps in 1usize..60, tail in 0usize..5000, segment in 4096u64..20_000) {
        let storage = MemoryStorage::new();
        let mut random = Random(seed);
        let mut model = Model { context: format!("seed {seed}"), ..Model::default() };
        for _ in 0..rounds {
            let options = oncue_log::Options { tail_bytes: tail, segment_bytes: segment, ..small() };
            let (opened, checkpoint, records) = replayed(storage.clone(), options).unwrap();
            prop_assert!(opened.report.torn.is_none());
            model.check(&opened, checkpoint.as_deref(), &records);
            for _ in 0..steps {
                model.step(&opened.log, &mut random).unwrap();
            }
            model.check_reading(&opened.log);
            let from = random.below(model.next_lsn().max(1));
            for record in opened.log.scan(from).flatten() {
                model.same(&record);
            }
        }
    }
}
