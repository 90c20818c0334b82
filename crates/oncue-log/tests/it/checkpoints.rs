//! Rolling, checkpoints, trimming.

use std::io::ErrorKind;

use oncue_log::storage::{Call, FaultyStorage, MemoryStorage, Storage};
use oncue_log::{Log, Options, ReadError, TopicId};

use crate::support::{log, open, publish, read_from, replayed, small, topic};

fn fill(log: &Log, orders: TopicId, count: u64) {
    for _ in 0..count {
        publish(log, orders, &[5; 100]);
    }
}

#[test]
fn replay_starts_from_the_newest_checkpoint() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let orders = topic(&first, "orders");
    for round in 0..5u8 {
        fill(&first, orders, 60);
        let ticket = first.checkpoint(&[round; 10], 1).unwrap();
        first.wait_durable(ticket.end).unwrap();
    }
    fill(&first, orders, 3);
    drop(first);
    let (opened, checkpoint, records) = replayed(storage, small()).unwrap();
    assert_eq!(checkpoint, Some(vec![4; 10]));
    assert_eq!(records.len(), 3);
    assert!(opened.report.segments_scanned <= 2, "{:?}", opened.report);
    assert_eq!(opened.log.topics()[0].next_offset, 303);
    assert_eq!(read_from(&opened.log, orders, 0, 50).unwrap().len(), 303, "older events are all there");
}

#[test]
fn the_newest_checkpoint_is_read_whole_also_of_a_log_that_takes_no_more() {
    let storage = FaultyStorage::new(1);
    let first = log(storage.clone(), Options { segment_bytes: 4 << 20, ..Options::default() });
    let orders = topic(&first, "orders");
    assert_eq!(first.newest_checkpoint().unwrap(), None);
    fill(&first, orders, 3);
    let opaque: Vec<u8> = (0..1_200_000u32).map(|byte| byte as u8).collect();
    let ticket = first.checkpoint(&opaque, 1).unwrap();
    first.wait_durable(ticket.end).unwrap();
    fill(&first, orders, 3);
    storage.fail_from(Call::Write, 0, ErrorKind::StorageFull);
    let lost = first.checkpoint(&[7], 1).unwrap();
    first.wait_durable(lost.end).unwrap_err();
    let (of_lsn, read) = first.newest_checkpoint().unwrap().unwrap();
    assert_eq!((of_lsn, read == opaque), (ticket.lsn, true), "in three parts; what came later never was");
}

#[test]
fn a_checkpoint_is_due_by_bytes() {
    let options = Options { checkpoint_bytes: 10_000, ..small() };
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), options.clone());
    let orders = topic(&first, "orders");
    assert!(!first.checkpoint_due());
    fill(&first, orders, 100);
    assert!(first.checkpoint_due());
    first.checkpoint(&[1; 5000], 1).unwrap();
    fill(&first, orders, 100);
    assert!(!first.checkpoint_due(), "four times the last one's size");
    drop(first);
    let again = log(storage, options);
    assert!(!again.checkpoint_due());
    fill(&again, orders, 100);
    assert!(again.checkpoint_due());
}

#[test]
fn trimming_drops_whole_segments_below_the_checkpoint() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let (orders, rare) = (topic(&first, "orders"), topic(&first, "rare"));
    publish(&first, rare, b"early");
    fill(&first, orders, 100);
    assert_eq!(first.trim(u64::MAX).unwrap(), 0, "nothing restates it yet");
    let whole = first.checkpoint(b"state", 1).unwrap();
    assert_eq!(first.trim(0).unwrap(), 0);
    let mut behind = first.cursor(orders, 0);
    first.read(&mut behind, 1, 1000, &mut Vec::new()).unwrap();
    let segments = first.stats().segments;
    let removed = first.trim(50).unwrap() + first.trim(u64::MAX).unwrap();
    assert!(removed > 2 && removed == segments - first.stats().segments);

    for (log, reopened) in [(first, false), (log(storage.clone(), small()), true)] {
        let topics = log.topics();
        let start = topics[0].first_offset;
        assert!(start > 50 && topics[0].next_offset == 100, "{topics:?}");
        assert_eq!((topics[1].first_offset, topics[1].next_offset), (1, 1), "reopened: {reopened}");
        assert_eq!(read_from(&log, orders, start, 9).unwrap().len() as u64, 100 - start);
        let gap = read_from(&log, orders, 3, 9).unwrap_err();
        assert!(matches!(gap, ReadError::Trimmed { wanted: 3, first, .. } if first == start), "{gap}");
        assert!(matches!(log.record(1), Err(ReadError::Trimmed { .. })));
        assert!(log.record(whole.lsn).is_ok());
        assert_eq!(publish(&log, rare, b"late"), 1);
        if !reopened {
            let gap = log.read(&mut behind, 100, 10_000, &mut Vec::new());
            assert!(matches!(gap, Ok(_) | Err(ReadError::Trimmed { .. })));
            drop(log);
            let (_, checkpoint, _) = replayed(storage.copy(), small()).unwrap();
            assert_eq!(checkpoint.unwrap(), b"state");
            break;
        }
    }
}

#[test]
fn after_opening_a_trimmed_log_topics_begin_where_they_did() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let (orders, rare) = (topic(&first, "orders"), topic(&first, "rare"));
    publish(&first, rare, b"early");
    fill(&first, orders, 100);
    first.checkpoint(b"", 1).unwrap();
    fill(&first, orders, 100);
    assert!(first.trim(60).unwrap() > 0);
    let before = first.topics();
    drop(first);
    let again = log(storage, small());
    assert_eq!(again.topics(), before);
    assert_eq!(publish(&again, rare, b"late"), 1);
    assert_eq!(read_from(&again, rare, 1, 1).unwrap().len(), 1);
}

#[test]
fn a_checkpoint_in_parts_that_a_crash_cut_counts_for_nothing() {
    let (mut cut, mut whole) = (0, 0);
    for at in (0..120).step_by(4) {
        let disk = FaultyStorage::new(at);
        let options = || Options { segment_bytes: 1 << 20, ..small() };
        let first = log(disk.clone(), options());
        let orders = topic(&first, "orders");
        fill(&first, orders, 5);
        let old = first.checkpoint(b"old", 1).unwrap();
        first.wait_durable(old.end).unwrap();
        fill(&first, orders, 5);
        disk.power_off_at(at);
        let new = first.checkpoint(&vec![9; 3_000_000], 1).unwrap();
        let acknowledged = first.wait_durable(new.end).is_ok();
        drop(first);
        let (opened, checkpoint, records) = replayed(disk.crash(), options()).unwrap();
        if checkpoint.as_deref() == Some(b"old") {
            assert!(!acknowledged && records.len() == 5, "{}", records.len());
            cut += 1;
        } else {
            assert_eq!(checkpoint.unwrap().len(), 3_000_000);
            whole += 1;
        }
        assert_eq!(opened.log.topics()[0].next_offset, 10);
    }
    assert!(cut > 3 && whole > 3, "{cut} {whole}");
}

#[test]
fn a_segment_whose_making_was_interrupted_is_removed() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let orders = topic(&first, "orders");
    fill(&first, orders, 10);
    drop(first);
    let next = "00000000000000000002.seg";
    for torn in [vec![], vec![0; 5000], b"ONQF and then nothing".to_vec()] {
        let storage = storage.copy();
        storage.replace(next, torn);
        let opened = open(storage.clone(), small()).unwrap();
        assert_eq!(opened.report.removed.as_deref(), Some(next));
        fill(&opened.log, orders, 60);
        assert_eq!(read_from(&opened.log, orders, 0, 9).unwrap().len(), 70);
    }
    storage.replace(next, vec![1; 5000]);
    assert!(open(storage, small()).is_err(), "something was in it");
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_own() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let orders = topic(&first, "orders");
    for size in [10, 50_000, 10, 20_000, 20_000] {
        publish(&first, orders, &vec![3; size]);
    }
    drop(first);
    let again = log(storage.clone(), Options { tail_bytes: 0, ..small() });
    assert_eq!(read_from(&again, orders, 0, 2).unwrap().len(), 5);
    assert!(storage.list().unwrap().len() > 3);
}
