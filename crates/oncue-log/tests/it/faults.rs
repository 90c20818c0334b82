//! Calls that fail: the log is fenced, says why, and what was durable stays.

use std::io::ErrorKind;
use std::task::{Poll, Waker};

use oncue_log::storage::{Call, FaultyStorage};
use oncue_log::{AppendError, OpenError, Options, ReadError, Writer};

use crate::model::Model;
use crate::support::{Random, data, event, log, open, publish, publish_many, read_from, replayed, small, topic};

const STEPS: usize = 60;

/// The model's work up to the first error; whether the log was fenced, or said that trimming stopped.
fn work(disk: &FaultyStorage, model: &mut Model, random: &mut Random) -> Option<(bool, [u64; Call::ALL.len()])> {
    let (opened, checkpoint, records) = replayed(disk.clone(), small()).ok()?;
    model.check(&opened, checkpoint.as_deref(), &records);
    let mut trimming = false;
    for _ in 0..STEPS {
        if let Err(error) = model.step(&opened.log, random) {
            trimming = error.contains("trimming stopped") && error.contains("injected");
            break;
        }
    }
    disk.heal();
    let counts = Call::ALL.map(|call| disk.calls(call));
    model.check_reading(&opened.log);
    let fenced = opened.log.fenced();
    if let Some(reason) = &fenced {
        let reported = opened.log.append(&oncue_log::Batch::new(), 1).unwrap_err();
        assert_eq!(reported, AppendError::Fenced { reason: reason.clone() });
        assert!(opened.log.close(1).is_err());
        assert!(reason.contains("injected"), "{reason}");
    }
    Some((fenced.is_some() || trimming, counts))
}

#[test]
fn every_call_fails_once() {
    let counts = {
        let disk = FaultyStorage::new(0);
        work(&disk, &mut Model::default(), &mut Random(7)).unwrap().1
    };
    let mut spares = 0;
    for (call, count) in Call::ALL.into_iter().zip(counts) {
        for nth in 0..count {
            let (disk, mut model) = (FaultyStorage::new(nth), Model::default());
            model.context = format!("{call:?} {nth}");
            disk.fail(call, nth, ErrorKind::Other);
            let fenced = work(&disk, &mut model, &mut Random(7));
            let prepared = disk.failed().is_some_and(|name| name.ends_with(".spare"));
            spares += u64::from(prepared);
            if matches!(call, Call::Write | Call::Sync) && !prepared {
                assert_ne!(
                    fenced.map(|(fenced, _)| fenced),
                    Some(false),
                    "{}: a failed write or sync fences",
                    model.context
                );
            }
            disk.heal();
            // The next process; and what is there when the power has gone after all that.
            let next = disk.restart();
            let (opened, checkpoint, records) = replayed(next.clone(), small()).unwrap();
            model.check(&opened, checkpoint.as_deref(), &records);
            let (opened, checkpoint, records) = replayed(next.crash(), small()).unwrap();
            model.check(&opened, checkpoint.as_deref(), &records);
        }
    }
    assert!(spares > 10, "files for segments to come failed too: {spares}");
}

#[test]
fn the_next_segments_file_costs_few_syncs_however_small_the_frames() {
    let (disk, segment_bytes) = (FaultyStorage::new(0), 2 << 20);
    let log = log(disk.clone(), Options { segment_bytes, ..small() });
    let orders = topic(&log, "orders");
    while log.stats().bytes < segment_bytes - (4 << 10) {
        publish(&log, orders, &[1; 1024]);
    }
    let prepared = disk.calls(Call::Sync) - log.stats().syncs;
    assert!((4..=16).contains(&prepared), "{prepared} syncs for a file of {segment_bytes} bytes");
}

#[test]
fn a_sync_that_fails_once_and_then_succeeds_is_not_trusted() {
    let disk = FaultyStorage::new(1);
    let log = log(disk.clone(), small());
    let orders = topic(&log, "orders");
    publish(&log, orders, b"durable");
    disk.fail(Call::Sync, 0, ErrorKind::Other);
    let ticket = log.append(&event(orders, b"lost"), 1).unwrap();
    let syncs = disk.calls(Call::Sync);
    let reason = log.wait_durable(ticket.end).unwrap_err().reason;
    assert!(reason.contains("sync 00000000000000000001.seg"), "{reason}");
    assert_eq!(log.append(&event(orders, b"refused"), 1), Err(AppendError::Fenced { reason }));
    assert!(matches!(log.poll_durable(ticket.end, Waker::noop()), Poll::Ready(Err(_))));
    assert!(matches!(log.poll_space(Waker::noop()), Poll::Ready(Err(_))));
    assert_eq!(disk.calls(Call::Sync), syncs, "no second try");
    assert_eq!(read_from(&log, orders, 0, 10).unwrap().len(), 1);
    assert_eq!(log.durable(), ticket.lsn);
}

#[test]
fn who_waits_for_the_writer_thread_learns_of_the_fence() {
    for nth in 0..20 {
        let disk = FaultyStorage::new(1);
        let log = log(disk.clone(), Options { writer: Writer::Thread, pending_bytes: 300, ..small() });
        let orders = topic(&log, "orders");
        // From there on: one alone may hit the file that is prepared for the next segment, which costs nothing but time.
        disk.fail_from(if nth % 2 == 0 { Call::Sync } else { Call::Write }, nth, ErrorKind::Other);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let ticket = match log.append(&event(orders, &[1; 50]), 1) {
                            Ok(ticket) => ticket,
                            Err(AppendError::Full) => {
                                std::thread::yield_now();
                                continue;
                            }
                            Err(AppendError::Fenced { .. }) => return,
                            Err(error) => panic!("{error}"),
                        };
                        if log.wait_durable(ticket.end).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        assert_eq!(read_from(&log, orders, 0, 10).unwrap().len() as u64, log.durable().saturating_sub(1));
    }
}

#[test]
fn a_full_disk_fences_and_trimming_frees_it() {
    let mut lengths = Vec::new();
    for seed in 0..16 {
        let disk = FaultyStorage::new(seed);
        let log = log(disk.clone(), small());
        let orders = topic(&log, "orders");
        for _ in 0..200 {
            publish(&log, orders, &[1; 100]);
        }
        let whole = log.checkpoint(b"state", 1).unwrap();
        log.wait_durable(whole.end).unwrap();
        disk.fail_from(Call::Write, 0, ErrorKind::StorageFull);
        let ticket = log.append(&event(orders, b"too much"), 1).unwrap();
        log.wait_durable(ticket.end).unwrap_err();
        assert!(log.trim(whole.lsn).unwrap() > 3);
        disk.heal();
        drop(log);
        let log = open(disk, small()).unwrap().log;
        let offset = publish(&log, orders, b"goes on");
        // A write that fails may have written all of it: then it is there, although nobody was told so.
        let left = data(&read_from(&log, orders, 200, 9).unwrap());
        let expected = [b"too much".to_vec(), b"goes on".to_vec()];
        assert_eq!((offset, &left[..]), (200 + left.len() as u64 - 1, &expected[2 - left.len()..]), "seed {seed}");
        lengths.push(left.len());
    }
    assert!(lengths.contains(&1) && lengths.contains(&2), "both come about: {lengths:?}");
}

/// A segment that could not go is the first to go the next time: a hole between segments is damage.
#[test]
fn trimming_that_fails_at_any_call_leaves_no_hole() {
    for call in Call::ALL {
        for nth in 0..6 {
            let disk = FaultyStorage::new(nth);
            let log = log(disk.clone(), small());
            let orders = topic(&log, "orders");
            publish_many(&log, orders, 200);
            let whole = log.checkpoint(b"state", 1).unwrap();
            disk.fail(call, nth, ErrorKind::Other);
            let context = format!("{call:?} {nth}");
            if log.trim(100).is_err() {
                disk.heal();
                log.trim(100).unwrap();
            }
            disk.heal();
            let first = log.topics()[0].first_offset;
            assert!(first > 80, "{context}: {first}");
            log.trim(whole.lsn).unwrap();
            let after = open(disk.crash(), small()).unwrap().log;
            assert!(after.topics()[0].first_offset > 150, "{context}");
            let left = read_from(&after, orders, after.topics()[0].first_offset, 9).unwrap();
            assert_eq!(left.last().unwrap().offset, 199, "{context}");
        }
    }
}

#[test]
fn a_read_that_fails_once_is_an_error_once() {
    let disk = FaultyStorage::new(1);
    let log = log(disk.clone(), Options { tail_bytes: 0, ..small() });
    let orders = topic(&log, "orders");
    publish_many(&log, orders, 100);
    for nth in 0..20 {
        for call in [Call::Open, Call::Read] {
            // What was read before is not kept from being opened again.
            (1..100).step_by(7).for_each(|lsn| drop(log.record(lsn).unwrap()));
            disk.fail(call, nth, ErrorKind::Other);
            let first = read_from(&log, orders, nth, 9);
            assert!(matches!(&first, Ok(_) | Err(ReadError::Storage(_))), "{call:?} {nth}: {first:?}");
            disk.heal();
            assert_eq!(read_from(&log, orders, nth, 9).unwrap().len() as u64, 100 - nth, "{call:?} {nth}");
        }
    }
}

#[test]
fn interrupted_and_short_transfers_are_completed() {
    let disk = FaultyStorage::new(1);
    disk.stutter();
    for round in 0..3 {
        let (opened, _, records) = replayed(disk.clone(), small()).unwrap();
        let orders = topic(&opened.log, "orders");
        assert_eq!(records.len(), if round == 0 { 0 } else { 1 + 100 * round });
        for number in 0..100u32 {
            publish(&opened.log, orders, &number.to_le_bytes());
        }
        assert_eq!(read_from(&opened.log, orders, 0, 9).unwrap().len(), 100 * (round + 1));
    }
}

#[test]
fn a_refused_record_is_named() {
    let disk = FaultyStorage::new(1);
    let first = log(disk.clone(), small());
    let orders = topic(&first, "orders");
    publish(&first, orders, b"one");
    drop(first);
    let refuse = &mut |replay: oncue_log::Replay<'_>| match replay {
        oncue_log::Replay::Record(record) if record.lsn == 1 => Err("unreadable".to_owned()),
        _ => Ok(()),
    };
    let Err(error) = oncue_log::Log::open(Box::new(disk), small(), 1, refuse) else { panic!("it opened") };
    assert!(matches!(&error, OpenError::Replay { lsn: 1, reason } if reason == "unreadable"), "{error}");
}
