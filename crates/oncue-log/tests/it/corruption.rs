//! Bytes that changed: each change is noticed, or harmless; none is silent.

use oncue_log::storage::{MemoryStorage, Storage};
use oncue_log::{Damage, OpenError, Options, ReadError, Record};

use crate::support::{event, log, open, publish, read_from, replayed, small, topic};

const FIRST: &str = "00000000000000000001.seg";
const SECOND: &str = "00000000000000000002.seg";

/// How many events a log has whose bits are flipped: `ONCUE_BITS_EVENTS`, or a few.
fn events() -> u8 {
    std::env::var("ONCUE_BITS_EVENTS").map_or(24, |text| text.parse().unwrap())
}

/// A few segments with a checkpoint in the middle; closed or left as a crash leaves it.
fn sample(closed: bool) -> (MemoryStorage, Vec<Record>) {
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), small());
    let (orders, audit) = (topic(&log, "orders"), topic(&log, "audit"));
    let events = events();
    for number in 0..events {
        publish(&log, if number % 3 == 0 { audit } else { orders }, &[number; 150]);
        if number == events / 2 {
            log.checkpoint(b"state", 1).unwrap();
        }
    }
    let all = log.scan(0).map(Result::unwrap).collect();
    let left = if closed { storage.clone() } else { storage.copy() };
    drop(log);
    (left, all)
}

/// The oracle: an error, or everything as it was, or a cut end that is reported. `cut`: an end may be missing without more
/// report than that the log was not closed.
fn detected_or_harmless(storage: &MemoryStorage, all: &[Record], cut: bool, context: &str) {
    let (opened, _, replayed) = match replayed(storage.clone(), small()) {
        Ok(opened) => opened,
        Err(OpenError::Damaged(_) | OpenError::Unsupported { .. }) => return,
        Err(error) => panic!("{context}: {error}"),
    };
    let report = &opened.report;
    if report.next_lsn < all.len() as u64 {
        let told = report.torn.is_some() || report.removed.is_some() || cut && !report.clean;
        assert!(told, "{context}: {} of {} left, in silence", report.next_lsn, all.len());
    }
    for record in replayed {
        assert_eq!(record, all[record.lsn as usize], "{context}");
    }
    for record in opened.log.scan(0) {
        match record {
            Ok(record) => assert_eq!(record, all[record.lsn as usize], "{context}"),
            Err(ReadError::Damaged(_)) => {}
            Err(error) => panic!("{context}: {error}"),
        }
    }
    for topic in opened.log.topics() {
        match read_from(&opened.log, topic.id, 0, 5) {
            Ok(records) => {
                assert_eq!(records.len() as u64, topic.next_offset, "{context}");
                assert!(records.iter().all(|record| *record == all[record.lsn as usize]), "{context}");
            }
            Err(ReadError::Damaged(_)) => {}
            Err(error) => panic!("{context}: {error}"),
        }
    }
}

fn every_bit(closed: bool) {
    let (storage, all) = sample(closed);
    let files = storage.list().unwrap();
    assert!(files.len() > 1, "{files:?}");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in 0..threads {
            let (storage, all, files) = (&storage, &all, &files);
            scope.spawn(move || {
                for (name, _) in files {
                    let original = storage.contents(name).unwrap();
                    for bit in (part..original.len() * 8).step_by(threads) {
                        let broken = storage.copy();
                        let mut bytes = original.clone();
                        bytes[bit / 8] ^= 1 << (bit % 8);
                        broken.replace(name, bytes);
                        detected_or_harmless(&broken, all, false, &format!("{name}, bit {bit}"));
                    }
                }
            });
        }
    });
    println!("{} bits of {} files", files.iter().map(|(_, bytes)| bytes * 8).sum::<u64>(), files.len());
}

#[test]
fn every_bit_flipped_after_a_clean_close() {
    every_bit(true);
}

#[test]
fn every_bit_flipped_after_a_crash() {
    every_bit(false);
}

#[test]
fn cut_at_every_byte() {
    for closed in [true, false] {
        let (storage, all) = sample(closed);
        for (name, _) in &storage.list().unwrap() {
            let original = storage.contents(name).unwrap();
            for length in 0..original.len() {
                let broken = storage.copy();
                broken.replace(name, original[..length].to_vec());
                detected_or_harmless(&broken, &all, true, &format!("{name}, cut to {length}"));
            }
        }
    }
}

/// One segment with three synced frames of an event each; where they begin.
fn three_frames() -> (MemoryStorage, Vec<usize>) {
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), Options { segment_bytes: 1 << 20, ..small() });
    let orders = topic(&log, "orders");
    let mut starts = Vec::new();
    for number in 0..3u8 {
        starts.push(storage.contents(FIRST).unwrap().len());
        publish(&log, orders, &[number; 100]);
    }
    let crashed = storage.copy();
    drop(log);
    (crashed, starts)
}

fn flip(storage: &MemoryStorage, name: &str, at: usize) {
    let mut bytes = storage.contents(name).unwrap();
    bytes[at] ^= 0x10;
    storage.replace(name, bytes);
}

#[test]
fn a_torn_tail_is_cut_and_reported_and_a_damaged_middle_is_refused() {
    let (storage, starts) = three_frames();
    let torn = storage.copy();
    flip(&torn, FIRST, starts[2] + 130);
    let report = open(torn.clone(), small()).unwrap().report;
    let tail = report.torn.unwrap();
    assert_eq!((tail.file.as_str(), tail.offset, report.next_lsn), (FIRST, starts[2] as u64, 3));
    assert!(open(torn, small()).unwrap().report.torn.is_none(), "it was zeroed");

    let damaged = storage.copy();
    flip(&damaged, FIRST, starts[1] + 130);
    let before = damaged.contents(FIRST);
    let Err(OpenError::Damaged(Damage { file, offset, reason })) = open(damaged.clone(), small()) else { panic!() };
    assert_eq!((file.as_str(), offset), (FIRST, starts[1] as u64));
    assert!(reason.contains("checksum"), "{reason}");
    assert_eq!(damaged.contents(FIRST), before, "nothing was changed");
}

#[test]
fn a_payload_that_imitates_a_frame_is_none() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let orders = topic(&first, "orders");
    let at = storage.contents(FIRST).unwrap().len();
    // A frame of the same log as its payload, moved to where that payload will lie: its place and checksum do not hold.
    let mut imitation = storage.contents(FIRST).unwrap()[152..at].to_vec();
    let position = (at + 104 + 20) as u64;
    imitation[32..40].copy_from_slice(&position.to_le_bytes());
    imitation[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    publish(&first, orders, &imitation);
    let crashed = storage.copy();
    drop(first);
    flip(&crashed, FIRST, at + 60); // the frame around it is torn
    let opened = open(crashed, small()).unwrap();
    assert!(opened.report.torn.is_some());
    assert_eq!(opened.log.topics()[0].next_offset, 0);
}

#[test]
fn old_bytes_do_not_come_back() {
    let (storage, starts) = three_frames();
    // The second frame torn, the third whole: as when both were written at once, and neither acknowledged.
    let mut bytes = storage.contents(FIRST).unwrap();
    bytes.truncate(starts[1]);
    let valid = storage.contents(FIRST).unwrap()[starts[2]..].to_vec();
    bytes.resize(starts[2], 0);
    bytes.extend(valid);
    let alone = storage.copy();
    alone.replace(FIRST, bytes);
    assert!(open(alone, small()).is_err(), "it was written later than what is missing was synced");

    flip(&storage, FIRST, starts[2] + 1);
    let log = log(storage.clone(), small());
    let orders = topic(&log, "orders");
    assert_eq!(publish(&log, orders, b"short"), 2);
    let crashed = storage.copy();
    drop(log);
    let opened = open(crashed, small()).unwrap();
    assert!(opened.report.torn.is_none(), "nothing is left behind the new frame");
    assert_eq!(read_from(&opened.log, orders, 2, 10).unwrap()[0].data, "short");
}

#[test]
fn a_misplaced_block_or_segment_is_refused() {
    let (storage, _) = sample(true);
    let swapped = storage.copy();
    swapped.replace(FIRST, storage.contents(SECOND).unwrap());
    assert!(matches!(open(swapped, small()), Err(OpenError::Damaged(_))));

    let (other, _) = sample(true);
    let foreign = storage.copy();
    foreign.replace(SECOND, other.contents(SECOND).unwrap());
    let Err(OpenError::Damaged(damage)) = open(foreign, small()) else { panic!() };
    assert!(damage.reason.contains("another log"), "{damage}");

    let gap = MemoryStorage::new();
    let three = log(gap.clone(), small());
    let orders = topic(&three, "orders");
    while three.stats().segments < 3 {
        publish(&three, orders, &[0; 500]);
    }
    drop(three);
    let without_the_first = gap.copy();
    gap.remove(SECOND).unwrap();
    let Err(OpenError::Damaged(damage)) = open(gap, small()) else { panic!() };
    assert_eq!(damage.file, SECOND);
    without_the_first.remove(FIRST).unwrap();
    assert!(open(without_the_first, small()).is_err(), "no checkpoint makes up for it");
}

/// Two frames of one segment as long as each other, each where the other was.
#[test]
fn frames_that_changed_places_are_refused() {
    let (storage, starts) = three_frames();
    let mut bytes = storage.contents(FIRST).unwrap();
    let (one, two) = bytes.split_at_mut(starts[1]);
    one[starts[0]..].swap_with_slice(&mut two[..starts[1] - starts[0]]);
    storage.replace(FIRST, bytes);
    let Err(OpenError::Damaged(damage)) = open(storage, small()) else { panic!("it opened") };
    assert_eq!((damage.file.as_str(), damage.offset), (FIRST, starts[0] as u64));
    assert!(damage.reason.contains("a frame of another place"), "{damage}");
}

/// A length that no frame has, in the last frame and in one before.
#[test]
fn a_huge_length_takes_no_memory_and_is_noticed() {
    for (frame, torn) in [(2, true), (1, false)] {
        for length in [u32::MAX, (16 << 20) + 1, 16 << 20] {
            let (storage, starts) = three_frames();
            let mut bytes = storage.contents(FIRST).unwrap();
            bytes[starts[frame] + 12..starts[frame] + 16].copy_from_slice(&length.to_le_bytes());
            storage.replace(FIRST, bytes);
            match open(storage, small()) {
                Ok(opened) => assert_eq!(opened.report.torn.unwrap().offset, starts[frame] as u64),
                Err(error) => assert!(!torn && matches!(error, OpenError::Damaged(_)), "{frame} {length}: {error}"),
            }
        }
    }
}

#[test]
fn what_lies_before_and_behind_damage_in_an_old_segment_stays_readable() {
    let storage = MemoryStorage::new();
    let options = || Options { segment_bytes: 1 << 20, tail_bytes: 0, ..small() };
    let first = log(storage.clone(), options());
    let orders = topic(&first, "orders");
    while first.stats().segments < 3 {
        publish(&first, orders, &[1; 20_000]);
    }
    first.checkpoint(b"", 1).unwrap();
    drop(first);
    flip(&storage, FIRST, 500_000);
    let log = open(storage, options()).unwrap().log;
    let (mut found, mut damages) = (0, 0);
    for record in log.scan(0) {
        match record {
            Ok(_) => found += 1,
            Err(ReadError::Damaged(damage)) => {
                assert_eq!(damage.file, FIRST);
                damages += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(damages, 1);
    assert!(found > log.durable() - 10, "only what the damage touched, and up to the next indexed frame: {found}");
    let next = log.topics()[0].next_offset;
    assert_eq!(read_from(&log, orders, 60, 100).unwrap().len() as u64, next - 60);
    assert!(read_from(&log, orders, 0, 100).is_err());
}

#[test]
fn a_damaged_index_only_costs_time() {
    let (storage, all) = sample(true);
    let bytes = storage.contents(FIRST).unwrap();
    flip(&storage, FIRST, bytes.len() - 3);
    let log = open(storage, Options { tail_bytes: 0, ..small() }).unwrap().log;
    assert_eq!(log.scan(0).map(Result::unwrap).collect::<Vec<_>>(), all);
    for record in &all {
        assert_eq!(&log.record(record.lsn).unwrap(), record);
    }
    let orders = topic(&log, "orders");
    assert_eq!(read_from(&log, orders, 3, 2).unwrap().len(), 13);
    log.append(&event(orders, b"more"), 1).unwrap();
}
