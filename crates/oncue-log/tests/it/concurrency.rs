//! Many threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread;

use oncue_log::storage::{FileStorage, MemoryStorage};
use oncue_log::{Batch, Options, Writer};

use crate::support::{event, log, publish, read_from, topic};

#[test]
fn many_publishers_share_syncs_and_keep_their_order() {
    const THREADS: u64 = 16;
    const EACH: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let log = log(FileStorage::open(dir.path()).unwrap(), Options::default());
    let orders = topic(&log, "orders");
    thread::scope(|scope| {
        for publisher in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut batch = Batch::new();
                    batch.event(orders, 0, &[&publisher.to_le_bytes(), &number.to_le_bytes()]);
                    let ticket = if publisher % 2 == 0 {
                        log.append_durable(&batch, 1).unwrap()
                    } else {
                        let ticket = log.append(&batch, 1).unwrap();
                        log.wait_durable(ticket.end).unwrap();
                        ticket
                    };
                    assert!(log.durable() >= ticket.end);
                    assert_eq!(log.record(ticket.lsn).unwrap().offset, ticket.offset, "durable means readable");
                }
            });
        }
    });
    assert!(log.stats().syncs < THREADS * EACH, "syncs are shared: {:?}", log.stats());
    let mut next = [0; THREADS as usize];
    let all = read_from(&log, orders, 0, 100).unwrap();
    for record in &all {
        let field = |at: usize| u64::from_le_bytes(record.data[at..at + 8].try_into().unwrap());
        assert_eq!(field(8), next[field(0) as usize]);
        next[field(0) as usize] += 1;
    }
    assert_eq!(all.len() as u64, THREADS * EACH);
}

#[test]
fn inline_writers_take_turns() {
    let log = log(MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let orders = topic(&log, "orders");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..500u32 {
                    let ticket = log.append(&event(orders, &number.to_le_bytes()), 1).unwrap();
                    assert!(log.durable() >= ticket.end, "an inline append is durable when it returns");
                }
            });
        }
    });
    assert_eq!(read_from(&log, orders, 0, 100).unwrap().len(), 2000);
}

#[test]
fn who_waits_for_what_is_written_on_demand_misses_nothing() {
    const EACH: u64 = 5000;
    let log =
        log(MemoryStorage::new(), Options { writer: Writer::OnDemand, tail_bytes: 64 << 10, ..Options::default() });
    let orders = topic(&log, "orders");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut cursor, mut out) = (log.cursor(orders, 0), Vec::new());
                while (out.len() as u64) < 2 * EACH {
                    let durable = log.durable();
                    if log.read(&mut cursor, 100, usize::MAX, &mut out).unwrap() == 0 {
                        log.wait_durable(durable + 1).unwrap();
                    }
                }
                assert!((0..).zip(&out).all(|(offset, record)| record.offset == offset));
            });
            scope.spawn(|| {
                for _ in 0..EACH {
                    log.append(&event(orders, &[7; 300]), 1).unwrap();
                }
            });
        }
    });
}

#[test]
fn readers_follow_a_writer_through_rolls_and_evictions() {
    let options = Options { segment_bytes: 64 << 10, tail_bytes: 8 << 10, ..Options::default() };
    let log = log(MemoryStorage::new(), options);
    let (orders, noise) = (topic(&log, "orders"), topic(&log, "noise"));
    const COUNT: u64 = 5000;
    thread::scope(|scope| {
        for step in [1, 7, 1000] {
            let log = log.clone();
            scope.spawn(move || {
                let mut cursor = log.cursor(orders, 0);
                let mut out = Vec::new();
                while (out.len() as u64) < COUNT {
                    if log.read(&mut cursor, step, 10_000, &mut out).unwrap() == 0 {
                        thread::yield_now();
                    }
                }
                assert!(out.iter().enumerate().all(|(place, record)| record.offset == place as u64));
            });
        }
        for number in 0..COUNT {
            log.append(&event(orders, &[number as u8; 100]), 1).unwrap();
            let last = log.append(&event(noise, &[0; 50]), 1).unwrap();
            if number % 64 == 0 {
                log.wait_durable(last.end).unwrap();
            }
        }
    });
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_is_woken_when_its_frame_is_durable() {
    let log = log(MemoryStorage::new(), Options::default());
    let orders = topic(&log, "orders");
    for number in 0..200 {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let ticket = log.append(&event(orders, b"x"), number).unwrap();
        if log.poll_durable(ticket.end, &waker) == Poll::Pending {
            let _the_same_again = log.poll_durable(ticket.end, &waker);
            log.wait_durable(ticket.end).unwrap();
            while count.0.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(log.poll_durable(ticket.end, &waker), Poll::Ready(Ok(())));
    }
}

#[test]
fn the_last_handle_may_go_in_a_waker() {
    struct Holder(parking_lot_free::Slot);
    impl Wake for Holder {
        fn wake(self: Arc<Self>) {
            self.0.take();
        }
    }
    let storage = MemoryStorage::new();
    let log = log(storage.clone(), Options::default());
    let orders = topic(&log, "orders");
    let holder = Arc::new(Holder(parking_lot_free::Slot::new(log.clone())));
    let waker = Waker::from(Arc::clone(&holder));
    let ticket = log.append(&event(orders, b"x"), 1).unwrap();
    let pending = log.poll_durable(ticket.end, &waker) == Poll::Pending;
    drop(log);
    while pending && !holder.0.is_empty() {
        thread::yield_now();
    }
}

/// A slot for a log that a waker drops.
mod parking_lot_free {
    use std::sync::Mutex;

    use oncue_log::Log;

    pub(super) struct Slot(Mutex<Option<Log>>);

    impl Slot {
        pub(super) fn new(log: Log) -> Self {
            Self(Mutex::new(Some(log)))
        }

        pub(super) fn take(&self) {
            let taken = self.0.lock().unwrap().take();
            drop(taken);
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.lock().unwrap().is_none()
        }
    }
}

#[test]
fn a_slow_publisher_gets_each_event_at_once() {
    let log = log(MemoryStorage::new(), Options::default());
    let orders = topic(&log, "orders");
    for offset in 0..100 {
        assert_eq!(publish(&log, orders, b"x"), offset);
        assert_eq!(read_from(&log, orders, offset, 1).unwrap().len(), 1);
    }
}
