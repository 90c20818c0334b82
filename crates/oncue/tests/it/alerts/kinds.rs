//! Kinds of alerts that are about more than one subscription: the disk, breakers, what nobody serves, what stopped.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Clock, Envelope, HealthCause,
    alert::{AlertKind, AlertStatus, Alerts, Condition, Watched},
    handler::{HandlerError, HandlerExt, extract::State},
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl},
};
use oncue_log::{
    Options, Writer,
    storage::{Call, FaultyStorage, File, MemoryStorage, Storage},
};
use tokio::sync::Semaphore;

use super::{Charged, MINUTE, SECOND, charge, charged, clock, next, on, paging, told};
use AlertKind::{BreakerOpen, Detached, Disk, HandlerStopped, Lag, Parked};
use AlertStatus::{Raised, Recovered};

/// Memory that says how much of it is free.
struct Sized {
    memory: MemoryStorage,
    free: Arc<AtomicU64>,
}

impl Storage for Sized {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.memory.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Box<dyn File>> {
        self.memory.open(name, create)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.memory.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.free.load(Ordering::Relaxed)))
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_is_told_of_whoever_fills_it() {
    let clock = clock();
    let free = Arc::new(AtomicU64::new(2_000_000));
    let storage = Sized { memory: MemoryStorage::new(), free: Arc::clone(&free) };
    let options = Options { writer: Writer::Inline, ..Options::default() };
    let transport = LogTransport::on_storage(LogUrl::memory(), Box::new(storage), options, clock.clock()).unwrap();
    let alerts = Alerts { disk_free_below: Some(1_000_000), ..Alerts::default() };
    let (app, mut pages) = on(Arc::new(transport), &clock, alerts);
    let bus = app.start().await.unwrap();
    assert_eq!(bus.check_alerts().await, []);
    assert_eq!(bus.inspect().storage().free, Some(2_000_000));
    free.store(999_999, Ordering::Relaxed);
    clock.advance(5 * SECOND);
    assert_eq!(told(&next(&mut pages).await), (Disk, Raised, "memory:", 999_999));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_watched_lags_or_is_served_by_nobody_is_told() {
    let clock = clock();
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let breaker = Watched::new(move || {
        let (subject, text) = ("bank".to_owned(), "the bank is not called".to_owned());
        let condition = Condition { kind: BreakerOpen, subject, value: 5, threshold: 5, text };
        is_open.load(Ordering::Relaxed).then_some(condition)
    });
    let alerts = Alerts { watched: vec![breaker], lag: Some(2), ..Alerts::default() };
    let (app, mut pages) = paging(&clock, alerts);
    let bus = app.on(charge).start().await.unwrap();
    assert_eq!(bus.check_alerts().await, []);
    open.store(true, Ordering::Relaxed);
    bus.check_alerts().await;
    assert_eq!(told(&next(&mut pages).await), (BreakerOpen, Raised, "bank", 5));

    bus.unsubscribe("charge").await.unwrap();
    bus.check_alerts().await;
    for key in ["a", "b"] {
        bus.publish(charged(key)).await.unwrap();
    }
    clock.advance(5 * SECOND);
    assert_eq!(told(&next(&mut pages).await), (Lag, Raised, "charge", 2), "although nobody reads");
    clock.advance(5 * MINUTE);
    assert_eq!(told(&next(&mut pages).await), (Detached, Raised, "charge", 2));
    bus.subscribe(charge).await.unwrap();
    bus.idle().await.unwrap();
    bus.check_alerts().await;
    clock.advance(30 * SECOND);
    let ended = [next(&mut pages).await, next(&mut pages).await];
    assert!(ended.iter().all(|alert| alert.status == Recovered && alert.subject == "charge"), "{ended:?}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_circuit_breaker_that_opens_is_told_of_until_it_closes() {
    #[handler(retry = policy::fixed(SECOND))]
    async fn pay(_: Charged, State(gate): State<Arc<Semaphore>>) -> Result<(), HandlerError> {
        gate.try_acquire().map(drop).map_err(|_| HandlerError::transient("the bank is closed"))
    }
    let clock = clock();
    let gate = Arc::new(Semaphore::new(0));
    let bank = middleware::circuit_breaker("bank").window(1).minimum(1).open_for(20 * SECOND);
    let (app, mut pages) = paging(&clock, Alerts::default());
    let bus = app.state(Arc::clone(&gate)).on(pay.layer(bank.clone())).start().await.unwrap();
    bus.check_alerts().await;
    bus.publish(charged("a")).await.unwrap();
    let (mut told_of, mut reasons) = (Vec::new(), Vec::new());
    while told_of.len() < 2 {
        if told_of.len() == 1 {
            gate.add_permits(1);
            reasons.extend(bus.health().reasons);
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        clock.advance(SECOND);
        told_of.extend(pages.try_recv());
    }
    let told_of: Vec<_> = told_of.iter().map(told).collect();
    assert_eq!(told_of, [(BreakerOpen, Raised, "bank", 1), (BreakerOpen, Recovered, "bank", 1)]);
    assert_eq!((reasons[0].cause, &*reasons[0].subject), (HealthCause::Alert(BreakerOpen), "bank"));
    bus.idle().await.unwrap();
    assert_eq!(bus.health().reasons, []);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_stopped_is_known_although_nothing_can_be_published() {
    let storage = FaultyStorage::new(7);
    let options = Options::default();
    let transport =
        LogTransport::on_storage(LogUrl::memory(), Box::new(storage.clone()), options, Clock::system()).unwrap();
    let bus =
        App::with_transport(Arc::new(transport), Clock::system()).on(charge).alerts(Alerts::default()).start().await;
    let bus = bus.unwrap();
    bus.publish(charged("a")).await.unwrap();
    bus.idle().await.unwrap();
    storage.fail(Call::Sync, 0, io::ErrorKind::StorageFull);
    bus.publish(charged("b")).await.unwrap_err();
    bus.idle().await.unwrap_err();
    let active = bus.check_alerts().await;
    assert_eq!(active.iter().map(told).collect::<Vec<_>>(), [(HandlerStopped, Raised, "charge", 1)]);
    assert!(bus.inspect().storage().fenced.is_some());
    bus.shutdown().await.unwrap_err();
}

#[tokio::test]
async fn more_parked_keys_than_can_be_kept_are_told_of() {
    #[handler(retry = policy::fixed(60 * MINUTE), concurrency = 64)]
    async fn never(_: Charged) -> Result<(), HandlerError> {
        Err(HandlerError::transient("the bank is closed"))
    }
    let clock = clock();
    let (app, mut pages) = paging(&clock, Alerts { retry_storm: None, ..Alerts::default() });
    let bus = app.on(never).start().await.unwrap();
    for block in 0..101_u32 {
        let event = |number: u32| Envelope::of(&charged(&(block * 1_000 + number).to_string())).unwrap();
        bus.publish_all("events", (0..1_000).map(event).collect(), None).await.unwrap();
    }
    loop {
        let info = bus.inspect().subscriptions().into_iter().find(|info| info.id == "never").unwrap();
        if info.full {
            assert!((100_000..=105_000).contains(&info.parked_keys), "{}", info.parked_keys);
            break;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
    bus.check_alerts().await;
    let page = next(&mut pages).await;
    assert_eq!((page.kind, page.status, &*page.subject), (Parked, Raised, "never"));
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}
