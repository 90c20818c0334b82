//! A broker in memory: what is written once for all brokers is tested on it without a server, and with its faults.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, Runtime},
    sync::watch,
};

use crate::{
    clock::{Clock, Timestamp},
    event::Envelope,
    transport::{
        BoxFuture, Capabilities, Position, Published,
        broker::{Broker, BrokerError, Extent, LedgerName},
    },
};

/// Partitions of each topic.
const PARTITIONS: u16 = 4;
/// Payload of the largest event.
const MAX_EVENT_BYTES: usize = 896 * 1024;
/// The largest record.
const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// A broker in this process. Several may be connected to it, as processes are to a server.
pub struct MemoryBroker {
    stored: Arc<Stored>,
    /// Its own: what is asked of a broker is done elsewhere.
    runtime: Option<Runtime>,
}

struct Stored {
    clock: Clock,
    kept: Mutex<Kept>,
    growth: watch::Sender<u64>,
}

/// All of it, in one order: an offset is a number of that.
#[derive(Default)]
struct Kept {
    last: u64,
    topics: BTreeMap<String, Topic>,
    ledgers: BTreeMap<LedgerName, BTreeMap<u64, Bytes>>,
}

#[derive(Default)]
struct Topic {
    events: BTreeMap<u64, (u16, Envelope)>,
    /// Where the event of a source and an id stands.
    known: HashMap<(String, String), Position>,
}

impl MemoryBroker {
    /// An empty one.
    ///
    /// # Errors
    /// The operating system gives it no thread.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("memory-broker").enable_all().build()?;
        let stored = Stored { clock, kept: Mutex::default(), growth: watch::Sender::new(0) };
        Ok(Self { stored: Arc::new(stored), runtime: Some(runtime) })
    }

    /// Somebody connects to it.
    #[must_use]
    pub fn connect(&self) -> Arc<MemoryConnection> {
        let runtime = self.runtime.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone());
        let (left, lost) = (AtomicU64::new(u64::MAX), AtomicU32::new(0));
        Arc::new(MemoryConnection { stored: Arc::clone(&self.stored), runtime, left, lost })
    }

    /// How many records a ledger has.
    #[must_use]
    pub fn records_of(&self, subscription: &str, partition: u16) -> usize {
        let name = LedgerName { subscription: subscription.to_owned(), partition };
        self.stored.kept.lock().ledgers.get(&name).map_or(0, BTreeMap::len)
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One that is connected, and what goes wrong with that.
pub struct MemoryConnection {
    stored: Arc<Stored>,
    runtime: Handle,
    /// So much gets through before it is cut.
    left: AtomicU64,
    /// Confirmations that are to be lost.
    lost: AtomicU32,
}

impl MemoryConnection {
    /// Nothing gets through any more.
    pub fn cut(&self) {
        self.cut_after(0);
    }

    /// Nothing gets through any more after so many requests.
    pub fn cut_after(&self, requests: u64) {
        self.left.store(requests, Ordering::SeqCst);
    }

    /// It gets through again.
    pub fn mend(&self) {
        self.cut_after(u64::MAX);
        self.stored.stir();
    }

    /// The next so many appends and publications are done, and it is not told.
    pub fn lose_confirmations(&self, count: u32) {
        self.lost.store(count, Ordering::SeqCst);
    }

    /// What is kept, if it gets through.
    fn ask<T>(&self, answer: impl FnOnce(&mut Kept) -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            u64::MAX => Some(left),
            left => left.checked_sub(1),
        });
        if left.is_err() {
            return Err(BrokerError::Failed("the connection is cut".to_owned()));
        }
        answer(&mut self.stored.kept.lock())
    }

    /// It was done: is it told?
    fn confirm<T>(&self, done: T) -> Result<T, BrokerError> {
        self.stored.stir();
        let is_lost = self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_lost { Err(BrokerError::Failed("no confirmation came".to_owned())) } else { Ok(done) }
    }
}

impl Stored {
    fn stir(&self) {
        self.growth.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Kept {
    fn topic(&mut self, name: &str) -> &mut Topic {
        self.topics.entry(name.to_owned()).or_default()
    }

    fn append(&mut self, topic: &str, partition: u16, event: &Envelope, now: Timestamp) -> Published {
        let position = Position::new(partition, self.last + 1, 0);
        let known = self.topic(topic).known.entry((event.source().to_owned(), event.id().to_owned()));
        let first = *known.or_insert(position);
        if first == position {
            self.last += 1;
            let event = event.clone().published_at(now);
            self.topic(topic).events.insert(position.offset(), (partition, event));
        }
        Published { position: first, duplicate: first != position }
    }
}

/// The answer, after others had their turn: of a server nobody has it at once.
fn done<T: Send + 'static>(answer: Result<T, BrokerError>) -> BoxFuture<'static, Result<T, BrokerError>> {
    async move {
        tokio::task::yield_now().await;
        answer
    }
    .boxed()
}

impl Broker for MemoryConnection {
    fn url(&self) -> String {
        "memory-broker:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            atomic_publish: true,
            atomic_settle: false,
            deduplicates: true,
            history: true,
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u16, BrokerError>> {
        done(self.ask(|kept| {
            kept.topic(name);
            Ok(PARTITIONS)
        }))
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<(String, u16)>, BrokerError>> {
        done(self.ask(|kept| Ok(kept.topics.keys().map(|name| (name.clone(), PARTITIONS)).collect())))
    }

    fn extent<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<Extent, BrokerError>> {
        done(self.ask(|kept| {
            let mut offsets =
                kept.topic(topic).events.iter().filter(|(_, (of, _))| *of == partition).map(|(offset, _)| *offset);
            let Some(first) = offsets.next() else { return Ok(Extent { first: 0, next: 0, events: 0 }) };
            let (last, later) = offsets.fold((first, 0), |(_, count), offset| (offset, count + 1));
            Ok(Extent { first, next: last + 1, events: 1 + later })
        }))
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        events: &'a [(u16, Envelope)],
    ) -> BoxFuture<'a, Result<Vec<Published>, BrokerError>> {
        let now = self.stored.clock.now();
        let published = self.ask(|kept| {
            Ok(events.iter().map(|(partition, event)| kept.append(topic, *partition, event, now)).collect())
        });
        done(published.and_then(|published| self.confirm(published)))
    }

    fn events<'a>(
        &'a self,
        topic: &'a str,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Position, Envelope)>, BrokerError>> {
        done(self.ask(|kept| {
            let found = kept.topic(topic).events.range(from..);
            let found = found.filter(|(_, (of, _))| partition.is_none_or(|partition| *of == partition));
            Ok(found.take(limit).map(|(offset, (of, event))| (Position::new(*of, *offset, 0), event.clone())).collect())
        }))
    }

    fn since<'a>(
        &'a self,
        topic: &'a str,
        partition: u16,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, BrokerError>> {
        done(self.ask(|kept| {
            let mut events = kept.topic(topic).events.iter();
            let found = events.find(|(_, (of, event))| *of == partition && event.published() >= time);
            Ok(found.map(|(offset, _)| *offset))
        }))
    }

    fn append<'a>(
        &'a self,
        ledger: &'a LedgerName,
        record: Bytes,
        after: u64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        if record.len() > MAX_RECORD_BYTES {
            return done(Err(BrokerError::TooLarge { bytes: record.len(), limit: MAX_RECORD_BYTES }));
        }
        let appended = self.ask(|kept| {
            let next = kept.last + 1;
            let records = kept.ledgers.entry(ledger.clone()).or_default();
            if records.last_key_value().map_or(0, |(last, _)| *last) != after {
                return Err(BrokerError::Moved);
            }
            records.insert(next, record);
            kept.last = next;
            Ok(next)
        });
        done(appended.and_then(|offset| self.confirm(offset)))
    }

    fn records<'a>(
        &'a self,
        ledger: &'a LedgerName,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, Bytes)>, BrokerError>> {
        done(self.ask(|kept| {
            let found = kept.ledgers.get(ledger).into_iter().flat_map(|records| records.range(from..));
            Ok(found.take(limit).map(|(offset, record)| (*offset, record.clone())).collect())
        }))
    }

    fn purge<'a>(&'a self, ledger: &'a LedgerName, before: u64) -> BoxFuture<'a, Result<(), BrokerError>> {
        done(self.ask(|kept| {
            if let Some(records) = kept.ledgers.get_mut(ledger) {
                *records = records.split_off(&before);
            }
            Ok(())
        }))
    }

    fn ledgers(&self) -> BoxFuture<'_, Result<Vec<LedgerName>, BrokerError>> {
        done(self.ask(|kept| Ok(kept.ledgers.keys().cloned().collect())))
    }

    fn heard(&self, topic: &str, partition: u16) -> u64 {
        let mut kept = self.stored.kept.lock();
        let last = kept.topic(topic).events.iter().rev().find(|(_, (of, _))| *of == partition);
        last.map_or(0, |(offset, _)| offset + 1)
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.stored.growth.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
