//! Verifying: all of a log is read, every spot is found, and nothing is written.

use std::collections::BTreeMap;

use oncue_log::storage::{FileStorage, MemoryStorage, Snapshot, Storage};
use oncue_log::{DamagedSpot, Found, KIND_CHECKPOINT, KIND_TOPIC, Log, Options, Record, Refusal, Writer, verify};
use proptest::prelude::*;

use crate::snapshot::{nth, publish_some};
use crate::support::{Random, event, log, open, publish, small, topic, verified};

const FIRST: &str = "00000000000000000001.seg";
const SECOND: &str = "00000000000000000002.seg";

/// A log of several segments with two topics, state and two checkpoints, and its records.
fn sample(closed: bool) -> (MemoryStorage, Vec<Record>) {
    written(closed, 48)
}

/// The same, with so many events.
fn written(closed: bool, events: u8) -> (MemoryStorage, Vec<Record>) {
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), small());
    let (orders, audit) = (topic(&log, "orders"), topic(&log, "audit"));
    for number in 0..events {
        let mut batch = event(if number % 3 == 0 { audit } else { orders }, &[number; 150]);
        batch.state(17, &[b"settled"]);
        log.append(&batch, i64::from(number)).unwrap();
        if number % 20 == 10 {
            log.checkpoint(b"state", 1).unwrap();
        }
    }
    let all = log.scan(0).map(Result::unwrap).collect();
    let left = if closed { storage.clone() } else { storage.copy() };
    drop(log);
    (left, all)
}

fn flip(storage: &MemoryStorage, name: &str, at: usize) {
    let mut bytes = storage.contents(name).unwrap();
    bytes[at] ^= 0x10;
    storage.replace(name, bytes);
}

#[test]
fn a_whole_log_is_whole_and_shown_in_full() {
    for closed in [true, false] {
        let (storage, all) = sample(closed);
        let (report, records) = verified(&storage);
        assert!(report.is_whole() && report.damage.is_empty() && report.torn.is_none(), "{report:?}");
        assert_eq!(records, all);
        assert_eq!((report.records(), report.next_lsn(), report.clean), (all.len() as u64, all.len() as u64, closed));
        assert!(report.segments.len() > 3 && report.segments.iter().rev().skip(1).all(|segment| segment.sealed));
        assert_eq!(report.log_id, open(storage.copy(), small()).unwrap().log.log_id());
        let newest = all.iter().rev().find(|record| record.kind == KIND_CHECKPOINT).unwrap();
        assert_eq!(report.checkpoint, Some(newest.lsn));
        let first = &report.segments[0];
        assert_eq!((first.first_lsn, first.first_time, first.epoch), (0, Some(1), 1));
    }
}

#[test]
fn a_log_that_was_trimmed_is_whole() {
    let (storage, _) = sample(false);
    let log = log(storage.clone(), small());
    let ticket = log.checkpoint(b"more", 1).unwrap();
    assert!(log.trim(ticket.lsn).unwrap() > 0);
    publish(&log, topic(&log, "orders"), b"behind");
    let (report, records) = verified(&storage);
    assert!(report.is_whole(), "{report:?}");
    assert!(report.segments[0].epoch > 1 && records[0].lsn > 0);
    assert_eq!(report.checkpoint, Some(ticket.lsn));
}

#[test]
fn checkpoints_are_shown_with_their_topics() {
    let (storage, _) = sample(true);
    let mut shown = Vec::new();
    let mut look = |found: Found<'_>| {
        if let Found::Checkpoint { of_lsn, topics, opaque } = found {
            shown.push((of_lsn, topics.to_vec(), opaque.to_vec()));
        }
        Ok(())
    };
    verify(&storage, &mut look).unwrap();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|(.., opaque)| opaque == b"state"));
    assert_eq!(shown[0].1, [("orders".to_owned(), 7), ("audit".to_owned(), 4)]);
}

#[test]
fn a_flipped_bit_in_any_byte_that_means_something_is_found() {
    for closed in [true, false] {
        let (storage, all) = written(closed, 20);
        let (whole, _) = verified(&storage);
        assert_eq!(whole.segments.len(), 2);
        for (place, segment) in whole.segments.iter().enumerate() {
            let original = storage.contents(&segment.file).unwrap();
            for bit in (0..segment.end as usize).map(|byte| byte * 8 + byte % 8) {
                let broken = storage.copy();
                let mut bytes = original.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                broken.replace(&segment.file, bytes);
                let (report, records) = verified(&broken);
                let context = format!("{}, bit {bit}: {report:?}", segment.file);
                // The last synced frames of a log that was not closed, and the closing one, look like a torn end.
                let newest = place + 1 == whole.segments.len();
                assert!(!report.is_whole() || newest && report.torn.is_some(), "{context}");
                let at = (bit / 8) as u64;
                for spot in &report.damage {
                    assert!(
                        spot.file == segment.file && spot.offset <= at && at < spot.offset + spot.bytes,
                        "{context}"
                    );
                }
                assert!(report.damage.len() <= 1, "{context}");
                let lost: u64 = report.damage.iter().map(|spot| spot.records).sum();
                // Behind what says that it is of a newer version, nothing tells how much there was.
                let newer = newest && report.damage.iter().any(|spot| spot.reason.contains("format version"));
                if report.torn.is_none() && !newer {
                    assert_eq!(records.len() as u64 + lost, all.len() as u64, "{context}");
                }
                assert!(records.iter().all(|record| *record == all[record.lsn as usize]), "{context}");
            }
        }
    }
}

#[test]
fn every_one_of_several_spots_is_found() {
    let (storage, all) = sample(true);
    let (whole, _) = verified(&storage);
    // One in each of the middle of the first segment, its index, the third one's header and a frame of the newest.
    let index = whole.segments[0].end as usize - 20;
    let third = &whole.segments[2].file;
    flip(&storage, FIRST, 700);
    flip(&storage, FIRST, index);
    flip(&storage, third, 50);
    let newest = &whole.segments.last().unwrap().file;
    flip(&storage, newest, 200);
    let (report, records) = verified(&storage);
    let files: Vec<&str> = report.damage.iter().map(|spot| spot.file.as_str()).collect();
    assert_eq!(files, [FIRST, FIRST, third, newest], "{report:?}");
    let lost: u64 = report.damage.iter().map(|spot| spot.records).sum();
    assert!(lost > 0 && records.len() as u64 + lost == all.len() as u64, "{report:?}");
    assert_eq!((report.damage[2].offset, report.damage[2].records), (0, 0));
    assert!(report.damage[2].reason.contains("header") && report.damage[1].reason.contains("index"), "{report:?}");
}

#[test]
fn a_missing_segment_is_named() {
    let (storage, _) = sample(true);
    storage.remove(SECOND).unwrap();
    let (report, _) = verified(&storage);
    let [DamagedSpot { file, records, .. }] = &report.damage[..] else { panic!("{report:?}") };
    assert!(file == SECOND && *records > 0, "{report:?}");
}

#[test]
fn what_the_reader_refuses_is_damage_at_the_frame_of_the_record() {
    let (storage, all) = sample(true);
    let (mut refused, mut place) = (None, None);
    let mut look = |found: Found<'_>| match found {
        Found::Record { record, file, offset } if record.lsn == 30 => {
            place = Some((file.to_owned(), offset));
            Err(Refusal::Damaged("not understood".to_owned()))
        }
        Found::Damage(spot) => {
            refused = Some(spot.clone());
            Ok(())
        }
        _ => Ok(()),
    };
    let report = verify(&storage, &mut look).unwrap();
    assert_eq!((report.damaged, report.records()), (1, all.len() as u64));
    let spot = refused.unwrap();
    assert_eq!((Some((spot.file.clone(), spot.offset)), &spot), (place, &report.damage[0]));
    assert!(spot.reason.contains("lsn 30") && spot.reason.contains("not understood"), "{spot}");
}

#[test]
fn whoever_has_seen_enough_stops() {
    let (storage, _) = sample(true);
    let mut seen = 0;
    let mut look = |found: Found<'_>| {
        seen += u64::from(matches!(found, Found::Record { .. }));
        if seen == 5 { Err(Refusal::Stop) } else { Ok(()) }
    };
    let report = verify(&storage, &mut look).unwrap();
    assert!(report.segments.len() == 1 && report.is_whole(), "{report:?}");
    assert_eq!(seen, 5);
}

#[test]
fn a_segment_that_was_being_made_is_no_damage() {
    let (storage, all) = sample(false);
    let (whole, _) = verified(&storage);
    let name = format!("{:020}.seg", whole.segments.len() + 1);
    storage.replace(&name, vec![0; 500]);
    let (report, records) = verified(&storage);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.unused, records.len()), (Some(name), all.len()));
}

#[test]
fn other_files_are_listed_and_no_damage() {
    let (storage, _) = sample(true);
    storage.replace("notes.txt", b"mine".to_vec());
    storage.replace("00000000000000000009.seg.spare", vec![7; 100]);
    let (report, _) = verified(&storage);
    assert!(report.is_whole());
    assert_eq!(
        (report.others, report.spares),
        (vec!["notes.txt".into()], vec!["00000000000000000009.seg.spare".into()])
    );
}

proptest! {
    /// Verifying says what opening says: a torn end is one, and what opening refuses is damage.
    #[test]
    fn what_opening_cannot_read_is_found(seed in any::<u64>(), flips in 1_usize..4, closed in any::<bool>()) {
        let (storage, _) = sample(closed);
        let mut random = Random(seed);
        for _ in 0..flips {
            let files = storage.list().unwrap();
            let (name, length) = &files[random.below(files.len() as u64) as usize];
            flip(&storage, name, random.below(*length) as usize);
        }
        let (report, _) = verified(&storage);
        match open(storage, small()) {
            Ok(opened) => prop_assert!(opened.report.torn == report.torn || !report.is_whole(), "{:?}", report),
            Err(error) => prop_assert!(!report.is_whole(), "{} {:?}", error, report),
        }
    }
}

/// Every file with its bytes.
fn contents(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let files = storage.list().unwrap().into_iter();
    files.map(|(name, _)| (name.clone(), storage.contents(&name).unwrap())).collect()
}

#[test]
fn nothing_is_written() {
    let (storage, _) = sample(false);
    flip(&storage, FIRST, 700);
    let before = contents(&storage);
    verified(&storage);
    assert_eq!(contents(&storage), before);
}

#[test]
fn beside_a_process_that_writes_a_log_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 8 << 10, writer: Writer::Thread, ..small() };
    let writer: Log = log(FileStorage::open(dir.path()).unwrap(), options);
    let orders = topic(&writer, "orders");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| publish_some(&writer, orders, 0..600));
        let mut rounds = 0;
        while rounds < 20 || !writing.is_finished() {
            let before = writer.durable();
            let (report, records) = verified(&Snapshot::open(dir.path()).unwrap());
            assert!(report.is_whole(), "{report:?}");
            assert!(records.len() as u64 >= before, "{} of {before}", records.len());
            for record in records.iter().filter(|record| record.kind != KIND_TOPIC) {
                assert_eq!(record.data, nth(record.offset));
            }
            rounds += 1;
        }
    });
}
