//! What is waited for while the disk is slow.

use std::{io, time::Duration};

use futures_util::future::FutureExt as _;
use oncue_log::{
    Options,
    storage::{File, MemoryStorage, Storage},
};
use parking_lot::Mutex;

use super::*;
use crate::{
    clock::Clock,
    policy::ErrorClass,
    transport::{
        Action, Attempt, Inspect as _, Limit, LogTransport, LogUrl, MemberSpec, OnDeadLetter, Publish, Settlement,
        SubscriptionSpec, Transport as _, Written,
    },
};

/// A disk that makes nothing durable while somebody holds the lock.
struct Slow(MemoryStorage, Arc<Mutex<()>>);

struct SlowFile(Box<dyn File>, Arc<Mutex<()>>);

impl Storage for Slow {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.0.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        Ok(Box::new(SlowFile(self.0.open(name, create)?, Arc::clone(&self.1))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let _let_through = self.1.lock();
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

const ONE: Limit = Limit { events: 1, bytes: usize::MAX };

/// A log with two events of one key, the first of which is a dead letter that holds it.
async fn held(disk: &Arc<Mutex<()>>, spec: &SubscriptionSpec) -> (LogTransport, Position) {
    let storage = Box::new(Slow(MemoryStorage::new(), Arc::clone(disk)));
    let transport = LogTransport::on_storage(LogUrl::memory(), storage, Options::default(), Clock::system()).unwrap();
    let mut consumer = transport.subscribe(spec.clone()).await.unwrap().consumer;
    let events = ["first", "second"].map(|data| Envelope::builder("step").key("k").data(data).build().unwrap());
    let publish = Publish { topic: "events".into(), events: events.to_vec(), source: None };
    transport.publish(&publish).await.unwrap();
    let mut given = Vec::new();
    consumer.next(ONE, &mut given).await.unwrap();
    let (class, time) = (Some(ErrorClass::Permanent), Timestamp::default());
    let attempt = Attempt { number: 1, class, read: time, ended: time };
    let (position, action) = (given[0].position, Action::DeadLetter);
    consumer
        .settle(vec![Settlement { position, member: 0, action, attempt, error: None, written: None }])
        .await
        .unwrap();
    (transport, position)
}

/// It is resolved before it was read anew: what that means to its key, it means when it is durable.
#[tokio::test]
async fn a_key_goes_on_when_the_resolution_of_its_dead_letter_is_durable_and_not_before() {
    for (resolution, next) in [(Resolution::Discard, "second"), (Resolution::Redrive, "first")] {
        let member = MemberSpec { id: "held".into(), on_dead_letter: OnDeadLetter::Hold, ..MemberSpec::default() };
        let spec = SubscriptionSpec { topic: "events".into(), members: vec![member], ..SubscriptionSpec::default() };
        let disk = Arc::new(Mutex::new(()));
        let (transport, position) = held(&disk, &spec).await;
        let mut consumer = transport.subscribe(spec).await.unwrap().consumer;
        let (inner, mut given) = (&transport.inner, Vec::new());
        let slow = disk.lock();
        let (number, _) = inner.find("held").unwrap();
        let (change, letter) = inner.resolve("held", number, position, resolution).unwrap();
        inner.write(number, &[change], &[letter]).unwrap();
        for _ in 0..3 {
            assert!(consumer.next(ONE, &mut given).now_or_never().is_none(), "a crash may take it back");
        }
        drop(slow);
        consumer.next(ONE, &mut given).await.unwrap();
        assert_eq!(given[0].envelope.data(), next);
    }
}

/// Whoever wrote it has gone, and tells nobody that it is durable: that is progress all the same.
#[tokio::test]
async fn what_is_being_written_is_progress_when_it_is_durable_whoever_is_left() {
    progresses_though_its_writer_is_gone(false).await;
}

/// Also where it is durable by the time that it is waited for.
#[tokio::test]
async fn what_became_durable_between_asking_and_waiting_is_progress() {
    progresses_though_its_writer_is_gone(true).await;
}

async fn progresses_though_its_writer_is_gone(is_late: bool) {
    let spec = SubscriptionSpec {
        topic: "events".into(),
        members: vec![MemberSpec { id: "gone".into(), ..MemberSpec::default() }],
        ..SubscriptionSpec::default()
    };
    let disk = Arc::new(Mutex::new(()));
    let storage = Box::new(Slow(MemoryStorage::new(), Arc::clone(&disk)));
    let transport = LogTransport::on_storage(LogUrl::memory(), storage, Options::default(), Clock::system()).unwrap();
    let mut consumer = transport.subscribe(spec).await.unwrap().consumer;
    let event = Envelope::builder("step").build().unwrap();
    let publish = Publish { topic: "events".into(), events: vec![event.clone()], source: None };
    transport.publish(&publish).await.unwrap();
    let mut given = Vec::new();
    consumer.next(ONE, &mut given).await.unwrap();
    let attempt = Attempt { number: 1, class: None, read: Timestamp::default(), ended: Timestamp::default() };
    let written = Some(Box::new(Written { emits: vec![("events".to_owned(), event)], ..Written::default() }));
    let (position, action) = (given[0].position, Action::Ack);
    let slow = disk.lock();
    drop(consumer.settle(vec![Settlement { position, member: 0, action, attempt, error: None, written }]));
    drop(consumer);
    let progress = transport.progress();
    assert_eq!(transport.inner.unsettled(), 1, "what was emitted is being written");
    drop(slow);
    if is_late {
        let end = transport.inner.shared.lock().events_end;
        transport.inner.durable(end).await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), progress).await.expect("it is durable");
    assert_eq!(transport.inner.unsettled(), 0, "nobody serves it any more");
}
