//! Publishers, the writer thread and those who wait, in many orders: `cargo xtask interleavings`. The code is the log's own;
//! its locks and threads are shuttle's, which also tells of a thread that nobody wakes any more.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};

use oncue_log::storage::{File, MemoryStorage, Storage};
use oncue_log::{AppendError, Fenced, Log, Options, TopicId};
use shuttle::thread::{self, Thread};

use crate::support::{event, log, topic};

/// Orders that each test tries: random ones, and as many with few changes of threads, at places that matter most.
fn in_many_orders(test: impl Fn() + Send + Sync + Copy + 'static) {
    let orders = std::env::var("ONCUE_ORDERS").map_or(1_000, |text| text.parse().unwrap());
    shuttle::check_random(test, orders);
    shuttle::check_pct(test, orders, 3);
}

/// Memory that knows which events were synced, and fails a sync if it is told to.
#[derive(Clone, Default)]
struct Watched {
    under: MemoryStorage,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// By what is in them: `EVENT` and a number.
    written: BTreeSet<u64>,
    synced: BTreeSet<u64>,
    largest: usize,
    syncs: u64,
    fail_at: Option<u64>,
}

const EVENT: &[u8; 8] = b"an event";

struct WatchedFile {
    file: Box<dyn File>,
    seen: Arc<Mutex<Seen>>,
}

impl Storage for Watched {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.under.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        Ok(Box::new(WatchedFile { file: self.under.open(name, create)?, seen: Arc::clone(&self.seen) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.under.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.under.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.under.sync_dir()
    }

    fn fill_ahead(&self) -> bool {
        false
    }
}

impl File for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        thread::yield_now();
        let numbers = bytes.windows(16).filter(|window| window[..8] == *EVENT);
        let mut seen = self.seen.lock().unwrap();
        seen.written.extend(numbers.map(|window| u64::from_le_bytes(window[8..].try_into().unwrap())));
        seen.largest = seen.largest.max(bytes.len());
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let written = self.seen.lock().unwrap().written.clone();
        thread::yield_now();
        let mut seen = self.seen.lock().unwrap();
        seen.syncs += 1;
        if seen.fail_at.is_some_and(|at| seen.syncs > at) {
            return Err(io::Error::other("injected"));
        }
        seen.synced.extend(written);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// Parks until it is ready.
fn wait<T>(mut poll: impl FnMut(&Waker) -> Poll<T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match poll(&waker) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Appends, waiting for space, and waits until it is durable: by polling, or, odd numbers, as a thread that writes itself.
fn publish(log: &Log, orders: TopicId, number: u64) -> Result<u64, AppendError> {
    let batch = event(orders, &[&EVENT[..], &number.to_le_bytes()].concat());
    loop {
        let appended = if number % 2 == 1 { log.append_durable(&batch, 1) } else { log.append(&batch, 1) };
        match appended {
            Ok(ticket) => return Ok(wait(|waker| log.poll_durable(ticket.end, waker)).map(|()| ticket.end)?),
            Err(AppendError::Full) => wait(|waker| log.poll_space(waker))?,
            Err(error) => return Err(error),
        }
    }
}

/// Each thread publishes two events.
fn publishers(log: &Log, orders: TopicId, storage: &Watched, count: u64) -> Vec<thread::JoinHandle<Vec<AppendError>>> {
    let start = |publisher: u64| {
        let (log, storage) = (log.clone(), storage.clone());
        thread::spawn(move || {
            let mut refused = Vec::new();
            for number in [2 * publisher, 2 * publisher + 1] {
                match publish(&log, orders, number) {
                    Ok(end) => {
                        assert!(
                            storage.seen.lock().unwrap().synced.contains(&number),
                            "acknowledged before it was synced"
                        );
                        assert!(log.durable() >= end);
                        log.record(end - 1).expect("durable means readable");
                    }
                    Err(error) => refused.push(error),
                }
            }
            refused
        })
    };
    (0..count).map(start).collect()
}

fn join(threads: Vec<thread::JoinHandle<Vec<AppendError>>>) -> Vec<AppendError> {
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

/// A writer thread behind a queue that takes a few events.
fn options() -> Options {
    Options { pending_bytes: 80, tail_bytes: 1 << 20, ..Options::default() }
}

/// Nobody comes later whose frame would wake it too.
#[test]
fn who_is_the_last_to_wait_is_woken() {
    in_many_orders(|| {
        let log = log(Watched::default(), options());
        let ticket = log.append(&event(topic(&log, "orders"), b"one"), 1).unwrap();
        wait(|waker| log.poll_durable(ticket.end, waker)).unwrap();
    });
}

#[test]
fn who_writes_itself_leaves_nobody_behind() {
    in_many_orders(|| {
        let log = log(Watched::default(), options());
        let orders = topic(&log, "orders");
        let other = log.clone();
        let other = thread::spawn(move || other.append_durable(&event(orders, b"one"), 1).unwrap());
        let ticket = log.append(&event(orders, b"two"), 1).unwrap();
        wait(|waker| log.poll_durable(ticket.end, waker)).unwrap();
        let end = other.join().unwrap().end;
        assert!(log.durable() >= end);
    });
}

#[test]
fn nobody_waits_for_ever_and_nothing_is_acknowledged_before_it_is_synced() {
    in_many_orders(|| {
        let storage = Watched::default();
        let log = log(storage.clone(), options());
        let orders = topic(&log, "orders");
        assert_eq!(join(publishers(&log, orders, &storage, 3)), []);
        assert_eq!(log.topics()[0].next_offset, 6);
    });
}

#[test]
fn no_more_is_written_at_once_than_may_wait() {
    in_many_orders(|| {
        let storage = Watched::default();
        let log = log(storage.clone(), options());
        let orders = topic(&log, "orders");
        storage.seen.lock().unwrap().largest = 0;
        join(publishers(&log, orders, &storage, 3));
        let largest = storage.seen.lock().unwrap().largest;
        assert!(largest <= 104 + 80, "{largest} bytes in one frame");
    });
}

#[test]
fn a_fence_wakes_everybody() {
    for fail_at in 2..5 {
        in_many_orders_of(fail_at, |fail_at| {
            let storage = Watched::default();
            let log = log(storage.clone(), options());
            let orders = topic(&log, "orders");
            storage.seen.lock().unwrap().fail_at = Some(fail_at);
            for error in join(publishers(&log, orders, &storage, 2)) {
                assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
            }
            let Some(reason) = log.fenced() else { return };
            assert!(reason.contains("injected"));
            assert_eq!(wait(|waker| log.poll_space(waker)), Err(Fenced { reason }));
        });
    }
}

fn in_many_orders_of(fail_at: u64, test: impl Fn(u64) + Send + Sync + Copy + 'static) {
    in_many_orders(move || test(fail_at));
}

#[test]
fn closing_wakes_everybody() {
    in_many_orders(|| {
        let storage = Watched::default();
        let log = log(storage.clone(), options());
        let orders = topic(&log, "orders");
        let threads = publishers(&log, orders, &storage, 2);
        let closer = thread::spawn({
            let log = log.clone();
            move || log.close(1)
        });
        for error in join(threads) {
            assert_eq!(error, AppendError::Closed);
        }
        assert_eq!(closer.join().unwrap(), Ok(()));
        assert!(log.is_closed());
        let seen = storage.seen.lock().unwrap();
        assert_eq!(seen.written, seen.synced, "what was taken was written and synced");
    });
}

#[test]
fn the_last_handle_closes_the_log() {
    in_many_orders(|| {
        let storage = Watched::default();
        let log = log(storage.clone(), options());
        let orders = topic(&log, "orders");
        let threads = publishers(&log, orders, &storage, 2);
        drop(log);
        assert_eq!(join(threads), []);
        assert!(crate::support::open(storage.under, options()).unwrap().report.clean);
    });
}
