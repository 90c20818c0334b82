//! Appending, reading, opening again.

use std::task::{Poll, Waker};

use oncue_log::storage::{FaultyStorage, FileStorage, MemoryStorage};
use oncue_log::{
    AppendError, Batch, Durability, KIND_EVENT, KIND_TOPIC, MAX_BATCH_BYTES, MAX_EVENT_BYTES, Options, ReadError,
    TopicId, Writer,
};

use crate::support::{data, event, log, open, publish, read_from, replayed, small, topic};

#[test]
fn what_was_appended_is_read_back() {
    let log = log(MemoryStorage::new(), Options::default());
    let (orders, audit) = (topic(&log, "orders"), topic(&log, "audit"));
    let mut batch = Batch::new();
    batch.event(orders, 3, &[b"he", b"ad", b"body"]);
    batch.state(17, &[b"settled"]);
    batch.event(audit, 0, &[]);
    batch.event(orders, 4, &[b"second"]);
    let ticket = log.append(&batch, 99).unwrap();
    assert_eq!((ticket.lsn, ticket.end, ticket.offset), (2, 6, 0));
    log.wait_durable(ticket.end).unwrap();

    let read = read_from(&log, orders, 0, 10).unwrap();
    assert_eq!(data(&read), [b"headbody".to_vec(), b"second".to_vec()]);
    assert_eq!((read[0].partition, read[0].offset, read[0].lsn, read[0].time), (3, 0, 2, 99));
    assert_eq!((read[1].partition, read[1].offset, read[1].lsn, read[1].kind), (4, 1, 5, KIND_EVENT));
    assert_eq!(read_from(&log, audit, 0, 10).unwrap().len(), 1);
    assert_eq!(log.record(3).unwrap().data, "settled");
    let kinds: Vec<u8> = log.scan(0).map(|record| record.unwrap().kind).collect();
    assert_eq!(kinds, [KIND_TOPIC, KIND_TOPIC, KIND_EVENT, 17, KIND_EVENT, KIND_EVENT]);
    assert!(matches!(log.record(6), Err(ReadError::NotDurable { lsn: 6, durable: 6 })));
    assert!(matches!(read_from(&log, TopicId(9), 0, 1), Err(ReadError::UnknownTopic { .. })));
}

#[test]
fn it_is_all_there_after_opening_again() {
    let inline = Options { writer: Writer::Inline, durability: Durability::Os, ..small() };
    let on_demand = Options { writer: Writer::OnDemand, ..small() };
    for options in [Options::default(), inline, on_demand] {
        let storage = MemoryStorage::new();
        let first = log(storage.clone(), options.clone());
        let orders = topic(&first, "orders");
        for number in 0..100u32 {
            publish(&first, orders, &number.to_le_bytes());
        }
        let id = first.log_id();
        first.close(5).unwrap();
        drop(first);

        let (opened, checkpoint, records) = replayed(storage, options).unwrap();
        assert_eq!((opened.report.log_id, opened.report.clean, checkpoint), (id, true, None));
        assert_eq!((records.len(), opened.report.next_lsn), (101, 101));
        assert!(records.windows(2).all(|pair| pair[0].lsn + 1 == pair[1].lsn));
        let log = opened.log;
        assert_eq!(log.topics()[0].next_offset, 100);
        assert_eq!(topic(&log, "orders"), orders);
        assert_eq!(publish(&log, orders, b"next"), 100);
        assert_eq!(read_from(&log, orders, 50, 7).unwrap().len(), 51);
    }
}

#[test]
fn an_event_that_is_appended_alone_is_as_one_of_a_batch() {
    for writer in [Writer::Thread, Writer::Inline, Writer::OnDemand] {
        let log = log(MemoryStorage::new(), Options { writer, ..Options::default() });
        let (orders, audit) = (topic(&log, "orders"), topic(&log, "audit"));
        publish(&log, orders, b"in a batch");
        let alone = log.append_event(orders, 3, &[b"al", b"", b"one"], 99).unwrap();
        assert_eq!((alone.lsn, alone.end, alone.offset), (3, 4, 1));
        assert_eq!(log.append_event(audit, 0, &[], 99).unwrap().offset, 0);
        assert_eq!(publish(&log, orders, b"in a batch"), 2);
        let read = read_from(&log, orders, 0, 10).unwrap();
        assert_eq!((read.len(), read[1].lsn, read[1].partition, &read[1].data[..]), (3, 3, 3, &b"alone"[..]));
        assert_eq!(read_from(&log, audit, 0, 10).unwrap().len(), 1);
        let large = vec![0; MAX_EVENT_BYTES + 1];
        assert!(matches!(log.append_event(orders, 0, &[&large], 1), Err(AppendError::TooLarge { .. })));
        for unknown in [0, 3] {
            let refused = log.append_event(TopicId(unknown), 0, &[b"x"], 1);
            assert!(matches!(refused, Err(AppendError::UnknownTopic { topic: TopicId(id) }) if id == unknown));
        }
        log.close(1).unwrap();
        assert!(matches!(log.append_event(orders, 0, &[b"x"], 1), Err(AppendError::Closed)));
        assert_eq!(read_from(&log, orders, 0, 10).unwrap().len(), 3, "what was refused left nothing");
    }
}

#[test]
fn what_is_written_on_demand_counts_as_durable_at_once_and_shares_a_frame() {
    let log = log(MemoryStorage::new(), Options { writer: Writer::OnDemand, ..Options::default() });
    let orders = topic(&log, "orders");
    let frames = log.stats().frames;
    for number in 0..100_u64 {
        let ticket = log.append(&event(orders, &number.to_le_bytes()), 1).unwrap();
        assert_eq!((ticket.offset, log.durable()), (number, ticket.end));
    }
    assert_eq!(log.record(log.durable() - 1).unwrap().offset, 99, "who reads, has it written");
    assert_eq!(log.stats().frames, frames + 1);
    let large = vec![7; 2 << 20];
    for offset in 100..120 {
        let ticket = log.append(&event(orders, &large), 1).unwrap();
        assert_eq!(ticket.offset, offset, "what waits is bounded, and none is refused");
    }
    assert_eq!(read_from(&log, orders, 0, 7).unwrap().len(), 120);
    assert_eq!(log.topics()[0].next_offset, 120);
}

#[test]
fn opening_and_closing_adds_nothing() {
    let storage = MemoryStorage::new();
    let name = "00000000000000000001.seg";
    publish_one(&storage);
    let before = storage.contents(name);
    for _ in 0..3 {
        log(storage.clone(), small()).close(1).unwrap();
    }
    assert_eq!(storage.contents(name), before);
}

fn publish_one(storage: &MemoryStorage) {
    let log = log(storage.clone(), small());
    let orders = topic(&log, "orders");
    publish(&log, orders, b"one");
}

#[test]
fn dropping_closes() {
    let storage = MemoryStorage::new();
    publish_one(&storage);
    assert!(open(storage, small()).unwrap().report.clean);
}

#[test]
fn limits_of_reading_are_kept() {
    let log = log(MemoryStorage::new(), small());
    let orders = topic(&log, "orders");
    for _ in 0..10 {
        publish(&log, orders, &[7; 100]);
    }
    let mut cursor = log.cursor(orders, 0);
    let mut out = Vec::new();
    assert_eq!(log.read(&mut cursor, 3, usize::MAX, &mut out).unwrap(), 3);
    assert_eq!(log.read(&mut cursor, 100, 250, &mut out).unwrap(), 2);
    assert_eq!(log.read(&mut cursor, 100, 1, &mut out).unwrap(), 1, "one that is larger than the limit comes alone");
    assert_eq!(log.read(&mut cursor, 0, 1000, &mut out).unwrap(), 0);
    assert_eq!(log.read(&mut cursor, 100, 1000, &mut out).unwrap(), 4);
    assert_eq!(log.read(&mut cursor, 100, 1000, &mut out).unwrap(), 0);
    assert_eq!(cursor.offset(), 10);
    publish(&log, orders, b"later");
    assert_eq!(log.read(&mut cursor, 100, 1000, &mut out).unwrap(), 1);
    assert!(out.iter().enumerate().all(|(place, record)| record.offset == place as u64));
}

#[test]
fn what_is_too_large_or_unknown_is_refused_whole() {
    let log = log(MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let orders = topic(&log, "orders");
    let large = vec![0; MAX_EVENT_BYTES + 1];
    assert!(matches!(log.append(&event(orders, &large), 1), Err(AppendError::TooLarge { limit: MAX_EVENT_BYTES, .. })));
    let mut batch = event(orders, &large[..MAX_EVENT_BYTES]);
    batch.event(orders, 0, &[&large[..MAX_EVENT_BYTES]]);
    assert!(matches!(log.append(&batch, 1), Err(AppendError::TooLarge { limit: MAX_BATCH_BYTES, .. })));
    batch.clear();
    batch.event(orders, 0, &[b"x"]);
    batch.event(TopicId(2), 0, &[b"x"]);
    let unknown = AppendError::UnknownTopic { topic: TopicId(2) };
    assert_eq!(log.append(&batch, 1), Err(unknown));
    assert_eq!(log.append(&event(TopicId(0), b""), 1), Err(AppendError::UnknownTopic { topic: TopicId(0) }));
    assert_eq!(
        log.create_topic(&"n".repeat(2000), b"", 1).unwrap_err(),
        AppendError::TooLarge { bytes: 2000, limit: 1024 }
    );
    assert_eq!(publish(&log, orders, b"first"), 0, "nothing of the refused was appended");
    assert_eq!(publish(&log, orders, &large[..MAX_EVENT_BYTES]), 1);
    assert_eq!(read_from(&log, orders, 1, 1).unwrap()[0].data.len(), MAX_EVENT_BYTES);
}

#[test]
fn topics_are_made_once_and_keep_their_metadata() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let (id, made) = first.create_topic("orders", b"v1", 1).unwrap();
    let (again, ticket) = first.create_topic("orders", b"v2", 1).unwrap();
    assert_eq!((id, ticket.lsn, ticket.end), (again, 0, made.end));
    assert_eq!(first.topics()[0].metadata, "v1");
    first.set_metadata(id, b"v3", 1).unwrap();
    assert!(first.set_metadata(TopicId(7), b"", 1).is_err());
    drop(first);
    let topics = log(storage, small()).topics();
    assert_eq!((topics[0].name.as_str(), &topics[0].metadata[..], topics.len()), ("orders", b"v3".as_slice(), 1));
}

#[test]
fn a_closed_log_takes_nothing_and_still_reads() {
    let log = log(MemoryStorage::new(), Options::default());
    let orders = topic(&log, "orders");
    let ticket = log.append(&event(orders, b"last"), 1).unwrap();
    log.close(1).unwrap();
    log.close(2).unwrap();
    assert!(log.durable() >= ticket.end, "closing writes what waits");
    assert_eq!(log.append(&event(orders, b"later"), 1), Err(AppendError::Closed));
    assert_eq!(read_from(&log, orders, 0, 10).unwrap().len(), 1);
}

#[test]
fn the_tail_in_memory_and_the_segments_say_the_same() {
    let storage = MemoryStorage::new();
    for tail_bytes in [0, 1000, 1 << 20] {
        let log = log(storage.copy(), Options { tail_bytes, ..small() });
        let orders = topic(&log, "orders");
        for number in 0..300u32 {
            publish(&log, orders, &number.to_le_bytes());
        }
        assert!(log.stats().segments > 3);
        for from in [0, 1, 150, 299, 300] {
            let read = read_from(&log, orders, from, 13).unwrap();
            let expected: Vec<Vec<u8>> = (from as u32..300).map(|number| number.to_le_bytes().to_vec()).collect();
            assert_eq!(data(&read), expected, "tail {tail_bytes}, from {from}");
        }
        for lsn in 1..=300 {
            assert_eq!(log.record(lsn).unwrap().offset, lsn - 1);
        }
    }
}

#[test]
fn a_full_queue_pushes_back_and_loses_nothing() {
    // Nobody writes: the thread's log is on a disk whose power is off until the log is fenced.
    let disk = FaultyStorage::new(1);
    let log = log(disk, Options { pending_bytes: 1000, ..Options::default() });
    let orders = topic(&log, "orders");
    let mut accepted = 0;
    let mut refused = 0;
    let waker = Waker::noop();
    while refused < 50 {
        match log.append(&event(orders, &[accepted as u8; 400]), 1) {
            Ok(ticket) => accepted = ticket.end,
            Err(AppendError::Full) => {
                refused += 1;
                while log.poll_space(waker) == Poll::Pending {
                    std::thread::yield_now();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    log.wait_durable(accepted).unwrap();
    assert_eq!(read_from(&log, orders, 0, 100).unwrap().len() as u64, accepted - 1);
}

#[test]
fn larger_than_the_queue_is_taken_alone() {
    let log = log(MemoryStorage::new(), Options { pending_bytes: 10, ..small() });
    let orders = topic(&log, "orders");
    assert_eq!(publish(&log, orders, &[1; 9000]), 0);
}

#[test]
fn on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let (opened, _, records) = replayed(FileStorage::open(dir.path()).unwrap(), Options::default()).unwrap();
        assert_eq!(records.iter().filter(|record| record.kind == KIND_EVENT).count() as u64, round * 500);
        let orders = topic(&opened.log, "orders");
        for number in 0..500u64 {
            let ticket = opened.log.append(&event(orders, &number.to_le_bytes()), 1).unwrap();
            assert_eq!(ticket.offset, round * 500 + number);
        }
    }
}

#[test]
fn dropped_events_are_not_read_and_stay_dropped() {
    let storage = MemoryStorage::new();
    let first = log(storage.clone(), small());
    let topic_id = topic(&first, "t");
    for number in 0..30_u8 {
        publish(&first, topic_id, &[number]);
    }
    let mut before = first.cursor(topic_id, 3);
    let mut out = Vec::new();
    first.read(&mut before, 1, 100, &mut out).unwrap();
    first.drop_events(topic_id, 10, 1).unwrap();
    first.drop_events(topic_id, 7, 1).unwrap();
    let gone = |error| matches!(error, ReadError::Trimmed { what: "offset", first: 10, .. });
    assert!(gone(first.read(&mut before, 1, 100, &mut out).unwrap_err()), "also of who reads on");
    assert!(first.drop_events(TopicId(9), 1, 1).is_err());
    drop(first);
    for checkpoint in [false, true] {
        let again = log(storage.clone(), small());
        assert_eq!(again.topics()[0].first_offset, 10);
        assert!(gone(read_from(&again, topic_id, 9, 5).unwrap_err()));
        assert_eq!(data(&read_from(&again, topic_id, 10, 5).unwrap())[0], [10]);
        if checkpoint {
            again.drop_events(topic_id, 100, 1).unwrap();
            assert_eq!(again.topics()[0].first_offset, 30, "no more than what is durable");
        } else {
            again.checkpoint(b"", 1).unwrap();
        }
    }
}

proptest::proptest! {
    /// Wherever the times stand: below the offset that is found, every event is older; and in its own frame one is not.
    #[test]
    fn the_first_event_since_a_time_is_found_where_times_are_out_of_order(
        times in proptest::collection::vec(0_i64..60, 1..120),
        since in -1_i64..62,
        every in 1_usize..4,
    ) {
        let opened = log(MemoryStorage::new(), small());
        let topics = [topic(&opened, "one"), topic(&opened, "other")];
        let mut expected = Vec::new();
        for (number, time) in times.iter().enumerate() {
            let its = topics[usize::from(number % every != 0)];
            opened.append(&event(its, &[0; 200]), *time).unwrap();
            expected.extend((its == topics[0]).then_some(*time));
        }
        let found = opened.offset_since(topics[0], since).unwrap();
        let first = expected.iter().position(|time| *time >= since).unwrap_or(expected.len());
        proptest::prop_assert_eq!(found, first as u64);
    }
}
