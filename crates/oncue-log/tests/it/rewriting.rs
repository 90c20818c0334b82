//! Rewriting segments: what is wanted is there with the positions and bytes that it had, nothing else comes back, and a loss
//! of power at any call leaves the old or the new.

use std::collections::{BTreeMap, HashMap};

use oncue_log::storage::{FaultyStorage, MemoryStorage, Snapshot};
use oncue_log::{Batch, KIND_EVENT, KIND_STATE, Log, Options, Record, TopicId, Wanted};
use proptest::prelude::*;

use crate::support::{Random, log, open, small};

/// A log of three topics and state records, what is in it, and what of that is wanted.
struct Filled {
    log: Log,
    all: BTreeMap<u64, Record>,
    wanted: Wanted,
}

fn options(tail: usize) -> Options {
    Options { tail_bytes: tail, ..small() }
}

/// `keep`: how many of a hundred are wanted, of each topic and of the state.
fn fill(log: Log, random: &mut Random, keep: [u64; 4], batches: u64) -> Filled {
    let topics: Vec<TopicId> = ["a", "b", "c"].iter().map(|name| log.create_topic(name, b"", 1).unwrap().0).collect();
    for time in 0..batches {
        let mut batch = Batch::new();
        for _ in 0..=random.below(4) {
            let data = random.bytes(150);
            match random.below(4) as usize {
                3 => batch.state(20, &[&data]),
                topic => batch.event(topics[topic], 7, &[&data]),
            }
        }
        log.append(&batch, time as i64).unwrap();
        if random.below(40) == 0 {
            log.checkpoint(&random.bytes(300), time as i64).unwrap();
        }
    }
    log.checkpoint(b"state", batches as i64).unwrap();
    let fillers = log.stats().segments + 2;
    while log.stats().segments < fillers {
        let mut batch = Batch::new();
        batch.event(topics[0], 0, &[&[1; 400]]);
        log.append(&batch, batches as i64).unwrap();
    }
    let mut wanted = Wanted { upto: u64::MAX, ..Wanted::default() };
    let mut offsets = HashMap::from([(topics[0], Vec::new()), (topics[2], Vec::new())]);
    let all: BTreeMap<_, _> = log.scan(0).map(|record| record.unwrap()).map(|record| (record.lsn, record)).collect();
    for record in all.values() {
        let its = if record.kind == KIND_EVENT { record.topic.0 as usize - 1 } else { 3 };
        if random.below(100) < keep[its] {
            match offsets.get_mut(&record.topic) {
                Some(of_topic) if record.kind == KIND_EVENT => of_topic.push(record.offset..record.offset + 1),
                _ if record.kind >= KIND_STATE => wanted.states.push(record.lsn),
                _ => {}
            }
        }
    }
    wanted.events = offsets;
    // Of the second topic all is wanted but what is dropped.
    let next = log.topics()[1].next_offset;
    log.drop_events(topics[1], next * (100 - keep[1]) / 100, 1).unwrap();
    Filled { log, all, wanted }
}

impl Filled {
    fn is_wanted(&self, record: &Record, firsts: &[u64]) -> bool {
        match record.kind {
            KIND_EVENT => {
                let offset = record.offset;
                let of_topic = self.wanted.events.get(&record.topic);
                offset >= firsts[record.topic.0 as usize - 1]
                    && of_topic.is_none_or(|ranges| ranges.iter().any(|range| range.contains(&offset)))
            }
            KIND_STATE.. => self.wanted.states.contains(&record.lsn),
            _ => false,
        }
    }

    /// All that is wanted is there, by scan, by topic, by lsn; all that is there is as it was.
    fn check(&self, log: &Log, context: &str) {
        let topics = log.topics();
        let firsts: Vec<u64> = topics.iter().map(|topic| topic.first_offset).collect();
        let found: BTreeMap<u64, Record> = log
            .scan(log.scan(0).next().unwrap().map_or_else(first_of, |record| record.lsn))
            .map(|record| record.unwrap_or_else(|error| panic!("{context}: {error}")))
            .map(|record| (record.lsn, record))
            .collect();
        for (lsn, record) in &self.all {
            match found.get(lsn) {
                Some(there) => assert_eq!(there, record, "{context}"),
                None => assert!(!self.is_wanted(record, &firsts), "{context}: {record:?} is gone"),
            }
            match log.record(*lsn) {
                Ok(there) => assert_eq!((&there, found.get(lsn)), (record, Some(record)), "{context}"),
                Err(oncue_log::ReadError::Trimmed { .. }) => assert!(!found.contains_key(lsn), "{context}: {lsn}"),
                Err(error) => panic!("{context}: {error}"),
            }
        }
        for topic in &topics {
            let events: Vec<&Record> = found
                .values()
                .filter(|record| (record.kind, record.topic) == (KIND_EVENT, topic.id))
                .filter(|record| record.offset >= topic.first_offset)
                .collect();
            let mut out = Vec::new();
            let mut cursor = log.cursor(topic.id, topic.first_offset);
            while log.read(&mut cursor, 3, 500, &mut out).unwrap_or_else(|error| panic!("{context}: {error}")) > 0 {}
            assert_eq!(out.iter().collect::<Vec<_>>(), events, "{context}");
            assert_eq!(cursor.offset(), topic.next_offset, "{context}: it knows that nothing is left");
        }
    }
}

fn first_of(error: oncue_log::ReadError) -> u64 {
    match error {
        oncue_log::ReadError::Trimmed { first, .. } => first,
        other => panic!("{other}"),
    }
}

/// Rewrites as long as it pays; returns how often it did.
fn rewrite_all(log: &Log, wanted: &Wanted) -> usize {
    let mut times = 0;
    while log.rewrite(wanted).unwrap().is_some() {
        times += 1;
        assert!(times < 1000, "it comes to an end");
    }
    times
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_wanted_stays_where_it_was(
        seed: u64, keep in [0_u64..101, 0_u64..101, 0_u64..40, 0_u64..30], batches in 50_u64..300, tail in 0_usize..9000,
    ) {
        let storage = MemoryStorage::new();
        let mut random = Random(seed);
        let filled = fill(log(storage.clone(), options(tail)), &mut random, keep, batches);
        let mut reading: Vec<_> = filled.log.topics().iter().map(|topic| filled.log.cursor(topic.id, topic.first_offset)).collect();
        let mut read = Vec::new();
        for cursor in &mut reading {
            filled.log.read(cursor, 1 + random.below(20) as usize, 3000, &mut read).unwrap();
        }
        let mut scan = filled.log.scan(0);
        let scanned: Vec<u64> = scan.by_ref().take(30).map(|record| record.unwrap().lsn).collect();
        let mut wanted = filled.wanted.clone();
        rewrite_all(&filled.log, &filled.wanted);
        filled.check(&filled.log, "rewritten");
        // Less is wanted, and it is rewritten again, beside those who read.
        wanted.states.retain(|lsn| lsn % 3 == 0);
        let filled = Filled { wanted, ..filled };
        rewrite_all(&filled.log, &filled.wanted);
        filled.check(&filled.log, "rewritten twice");
        let firsts: Vec<u64> = filled.log.topics().iter().map(|topic| topic.first_offset).collect();
        for mut cursor in reading {
            let (topic, from) = (cursor.topic(), cursor.offset());
            let mut out = Vec::new();
            while filled.log.read(&mut cursor, 5, 900, &mut out).unwrap() > 0 {}
            let all = filled.all.values().filter(|record| (record.kind, record.topic) == (KIND_EVENT, topic));
            for record in all.filter(|record| record.offset >= from && filled.is_wanted(record, &firsts)) {
                prop_assert!(out.contains(record), "who reads comes by it: {:?}", record);
            }
            prop_assert!(out.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        }
        let rest: Vec<u64> = scan.map(|record| record.unwrap().lsn).collect();
        let lsns = [&scanned[..], &rest].concat();
        prop_assert!(lsns.windows(2).all(|pair| pair[0] < pair[1]));
        filled.log.drop_segments(&filled.wanted).unwrap();
        filled.check(&filled.log, "the oldest removed");

        let verified = oncue_log::verify(&Snapshot::over(storage.clone()), &mut |_| Ok(())).unwrap();
        prop_assert!(verified.is_whole(), "{:?}", verified.damage);
        let (filled, tail) = (Filled { log: log(storage.copy(), options(tail)), ..filled }, tail);
        filled.check(&filled.log, "opened again");
        drop(log(storage, options(tail)));
    }
}

#[test]
fn one_topic_that_is_kept_does_not_hold_the_others() {
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), Options { segment_bytes: 64 << 10, tail_bytes: 0, ..small() });
    let (kept, other) = (log.create_topic("kept", b"", 1).unwrap().0, log.create_topic("other", b"", 1).unwrap().0);
    let mut wanted_bytes = 0;
    for number in 0..6000 {
        let mut batch = Batch::new();
        batch.event(if number % 100 == 0 { kept } else { other }, 0, &[&[number as u8; 480]]);
        wanted_bytes += if number % 100 == 0 { 480 + 20 } else { 0 };
        log.append(&batch, 1).unwrap();
    }
    log.checkpoint(b"", 1).unwrap();
    let before = log.stats();
    for _ in 0..400 {
        let mut batch = Batch::new();
        batch.state(20, &[&[0; 480]]);
        log.append(&batch, 1).unwrap();
    }
    log.drop_events(other, u64::MAX, 1).unwrap();
    let wanted = Wanted { upto: u64::MAX, ..Wanted::default() };
    rewrite_all(&log, &wanted);
    log.checkpoint(b"", 1).unwrap();
    let newest = 2 * (64 << 10) + 400 * (480 + 124); // what is not below the checkpoint, or written since
    let after = log.stats();
    let left = after.stored_bytes.saturating_sub(newest);
    assert!(before.stored_bytes > 3_000_000, "{before:?}");
    assert!(left * 2 < wanted_bytes * 5, "{left} bytes for {wanted_bytes} wanted: {after:?}");
    assert!(after.segments < 10, "{after:?}");
}

#[test]
fn a_loss_of_power_at_any_call_leaves_the_old_or_the_new() {
    let keep = [10, 60, 5, 10];
    let calls = {
        let disk = FaultyStorage::new(0);
        let filled = fill(log(disk.clone(), options(0)), &mut Random(5), keep, 120);
        let before = disk.changes();
        assert!(rewrite_all(&filled.log, &filled.wanted) > 1);
        disk.changes() - before
    };
    assert!(calls > 8, "{calls}");
    for nth in 0..calls {
        for seed in 0..4 {
            let context = format!("call {nth}, seed {seed}");
            let disk = FaultyStorage::new(seed * 1000 + nth);
            let filled = fill(log(disk.clone(), options(0)), &mut Random(5), keep, 120);
            disk.power_off_at(nth);
            while filled.log.rewrite(&filled.wanted).is_ok_and(|done| done.is_some()) {}
            let disk = disk.crash();
            let again = open(disk.clone(), options(0)).unwrap_or_else(|error| panic!("{context}: {error}")).log;
            filled.check(&again, &context);
            rewrite_all(&again, &filled.wanted);
            filled.check(&again, &context);
            drop(again);
            let verified = oncue_log::verify(&disk, &mut |_| Ok(())).unwrap();
            assert!(verified.is_whole(), "{context}: {:?}", verified.damage);
        }
    }
}

#[test]
fn what_was_rewritten_is_backed_up_and_restored() {
    for seed in 0..10 {
        let (source, copy, restored) = (MemoryStorage::new(), MemoryStorage::new(), MemoryStorage::new());
        let filled = fill(log(source.clone(), options(0)), &mut Random(seed), [10, 60, 5, 10], 120);
        assert!(rewrite_all(&filled.log, &filled.wanted) > 0, "seed {seed}");
        let made = oncue_log::backup(&source, &copy, 7, &mut |_| {}).unwrap();
        assert!(made.verification.is_whole(), "seed {seed}: {:?}", made.verification.damage);
        oncue_log::restore(&copy, &restored, &mut |_| {}).unwrap();
        filled.check(&log(restored, options(0)), &format!("seed {seed}"));
    }
}

#[test]
fn what_fails_while_it_is_rewritten_changes_nothing_and_fences_nothing() {
    use oncue_log::storage::Call;
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Remove, Call::Read] {
        for nth in 0..12 {
            let disk = FaultyStorage::new(1);
            let filled = fill(log(disk.clone(), options(0)), &mut Random(9), [10, 50, 5, 10], 120);
            disk.fail(call, nth, std::io::ErrorKind::StorageFull);
            while filled.log.rewrite(&filled.wanted).is_ok_and(|done| done.is_some()) {}
            disk.heal();
            let context = format!("{call:?} {nth}");
            assert_eq!(filled.log.fenced(), None, "{context}");
            filled.check(&filled.log, &context);
            rewrite_all(&filled.log, &filled.wanted);
            filled.check(&filled.log, &context);
            let Filled { log: opened, all, wanted } = filled;
            drop(opened);
            let again = Filled { log: log(disk, options(0)), all, wanted };
            again.check(&again.log, &context);
        }
    }
}

#[test]
fn what_could_not_be_removed_goes_before_what_stands_for_it() {
    use oncue_log::storage::Call;
    for (call, nth) in [(Call::Remove, 0), (Call::Remove, 1), (Call::Remove, 2), (Call::SyncDir, 0), (Call::SyncDir, 1)]
    {
        let context = format!("{call:?} {nth}");
        let disk = FaultyStorage::new(nth);
        let filled = fill(log(disk.clone(), options(0)), &mut Random(9), [0, 0, 0, 2], 120);
        disk.fail(call, nth, std::io::ErrorKind::Other);
        let failed = (0..1000).map(|_| filled.log.rewrite(&filled.wanted)).find(|done| !matches!(done, Ok(Some(_))));
        disk.heal();
        // All that was rewritten goes: what was rewritten into it must have gone before.
        assert!(filled.log.trim(u64::MAX).unwrap() > 0, "{context}");
        let again = open(disk.restart(), options(0));
        again.unwrap_or_else(|error| panic!("{context}: {failed:?}, {error}"));
    }
}
