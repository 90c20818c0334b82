//! How much flows, and from where.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use oncue::{
    App, Envelope,
    event::DEFAULT_TOPIC,
    handler::HandlerExt as _,
    transport::{Consumer, Delivered, MemberSpec, OnDeadLetter, SettleError, Settlement, Start, SubscriptionSpec},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    seen::{accepting, keys},
    tap::{Tap, Tapped},
};

/// Most events of a subscription that the bus holds.
pub(super) const MOST_EVENTS: usize = 4_096;
/// Most bytes of them, but for a last event.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Case 16. A new subscription is given what was published before it, and is told how much that is; one that starts with
/// the latest is given only what comes.
///
/// # Errors
/// It is not.
pub async fn history(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(4), bench.size(25, 2_500));
    let seen = Seen::new(bench);
    let transport = bench.transport().await?;
    let first = App::with_transport(Arc::clone(&transport), bench.clock().clone()).start().await?;
    for key in &keys {
        bench.publish(&first, key, 0..numbers).await?;
    }
    let (id, types, on_dead_letter) = ("by-hand".to_owned(), Vec::new(), OnDeadLetter::Continue);
    let member = MemberSpec { id, types, start: Start::Earliest, on_dead_letter, ..MemberSpec::default() };
    let spec =
        SubscriptionSpec { topic: DEFAULT_TOPIC.to_owned(), members: vec![member], ..SubscriptionSpec::default() };
    let told = transport.subscribe(spec).await?.created;
    ensure_eq!(told, [Some(u64::from(numbers) * keys.len() as u64)], "earlier events that it is told of");
    // Another app on the same transport, as a handler added later is.
    let app = App::with_transport(transport, bench.clock().clone());
    let bus = app.on(accepting("all", &seen)).on(accepting("new", &seen).start(Start::Latest)).start().await?;
    for key in &keys {
        bench.publish(&bus, key, numbers..numbers + 1).await?;
    }
    bench.idle(&bus).await?;
    seen.complete("all", &keys, numbers + 1, true)?;
    for key in &keys {
        ensure_eq!(seen.of("new", key), [(numbers, 1)], "from the latest on, key {key}");
    }
    seen.in_order()?;
    drop(first);
    bench.shutdown(bus).await
}

/// Case 18. What is published while nobody handles it waits, and is delivered when somebody does.
///
/// # Errors
/// It is not.
pub async fn receiver_down(bench: &Bench) -> Result<(), Failure> {
    let (keys, numbers) = (keys(4), bench.size(25, 500));
    let seen = Seen::new(bench);
    let transport = bench.transport().await?;
    let app = || App::with_transport(Arc::clone(&transport), bench.clock().clone());
    let up = app().on(accepting("sometimes", &seen)).start().await?;
    for key in &keys {
        bench.publish(&up, key, 0..1).await?;
    }
    bench.idle(&up).await?;
    // Its handlers go with it, the transport stays.
    drop(up);
    let publisher = app().start().await?;
    for number in 1..numbers {
        for key in &keys {
            bench.publish(&publisher, key, number..number + 1).await?;
        }
    }
    ensure_eq!(seen.count("sometimes"), keys.len(), "calls while it is down");
    let up = loop {
        match app().on(accepting("sometimes", &seen)).start().await {
            Ok(up) => break up,
            // Its last holder is still going; the deadline tells if it never goes.
            Err(error) => bench.wait(error.to_string(), bench.clock().sleep(Duration::from_millis(1))).await,
        }
    };
    bench.idle(&up).await?;
    seen.complete("sometimes", &keys, numbers, true)?;
    seen.in_order()?;
    drop(publisher);
    bench.shutdown(up).await
}

/// Case 19. A handler is never called more often at once than its concurrency allows; when all places are taken nothing
/// starts, and when one is free the next does.
///
/// # Errors
/// It is.
pub async fn busy(bench: &Bench) -> Result<(), Failure> {
    const PLACES: usize = 3;
    let keys = keys(bench.size(100, 5_000));
    let seen = Seen::new(bench);
    let gate = watch::Sender::new(0_usize);
    let most = Arc::new(AtomicUsize::new(0));
    let handle = {
        let (seen, gate, most) = (seen.clone(), gate.clone(), Arc::clone(&most));
        move |step: Step| {
            let running = seen.begin("busy", &step, 1);
            most.fetch_max(seen.running(), Ordering::SeqCst);
            let (mut gate, turn) = (gate.subscribe(), seen.count("busy"));
            async move {
                // An error means that the case is over.
                let _ = gate.wait_for(|open| *open >= turn).await;
                drop(running);
            }
        }
    };
    let bus = bench.app().await?.on(handle.named("busy").concurrency(PLACES)).start().await?;
    for key in &keys {
        bench.publish(&bus, key, 0..1).await?;
    }
    for free in 0..10 {
        gate.send_replace(free);
        seen.began(bench, free + PLACES).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        ensure_eq!(seen.count("busy"), free + PLACES, "calls when {free} of them may end");
    }
    gate.send_replace(usize::MAX);
    bench.idle(&bus).await?;
    ensure_eq!(most.load(Ordering::SeqCst), PLACES, "calls at once");
    seen.complete("busy", &keys, 1, true)?;
    bench.shutdown(bus).await
}

/// Counts what was handed out and not settled.
#[derive(Default)]
struct Held {
    events: Mutex<std::collections::HashMap<(u16, u64), usize>>,
    most: AtomicUsize,
    most_bytes: AtomicUsize,
}

impl Tap for Held {
    fn delivered(&self, events: &mut Vec<Delivered>) {
        let mut held = self.events.lock();
        for event in events.iter() {
            held.insert((event.position.partition(), event.position.offset()), event.envelope.encoded_bytes());
        }
        self.most.fetch_max(held.len(), Ordering::SeqCst);
        self.most_bytes.fetch_max(held.values().sum(), Ordering::SeqCst);
    }

    fn settle(&self, inner: &dyn Consumer, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        let mut held = self.events.lock();
        for settlement in &batch {
            held.remove(&(settlement.position.partition(), settlement.position.offset()));
        }
        drop(held);
        inner.settle(batch)
    }
}

/// Case 35. A handler that stalls holds a bounded number of events and bytes, however many wait; publishing goes on, and
/// another subscription is not held up.
///
/// # Errors
/// It is.
pub async fn stalled(bench: &Bench) -> Result<(), Failure> {
    let small = |number: u32| Step::new(&format!("key-{}", number % 5_000), number).envelope().map_err(Failure::from);
    let bytes = bench.capabilities().max_event_bytes.min(1024 * 1024);
    let large = |_| Ok(Envelope::builder("large").data(vec![0; bytes]).build()?);
    Failure::of_parts([
        ("many", stalled_at(bench, "-many", bench.size(10_000, 1_000_000), 1_000, small).await),
        ("large", stalled_at(bench, "-large", bench.size(48, 400), 8, large).await),
    ])
}

async fn stalled_at(
    bench: &Bench,
    place: &str,
    count: u32,
    batch: u32,
    event: impl Fn(u32) -> Result<Envelope, Failure>,
) -> Result<(), Failure> {
    let held = Arc::new(Held::default());
    let transport = bench.transport_at(place).await?;
    let tapped = Arc::new(Tapped::new(Arc::clone(&transport), Arc::clone(&held) as Arc<dyn Tap>));
    let stalls = (|_: Envelope| std::future::pending::<()>()).named("stalls").types(["step", "large"]).concurrency(4);
    let stalled = App::with_transport(tapped, bench.clock().clone()).on(stalls).start().await?;
    let quick = (|_: &Envelope| {}).named("quick").inline().types(["step", "large"]);
    let bus = App::with_transport(transport, bench.clock().clone()).on(quick).start().await?;
    for first in (0..count).step_by(batch as usize) {
        let events = (first..first + batch).map(&event).collect::<Result<_, _>>()?;
        bench.publish_all(&bus, events).await?;
    }
    bench.acked(&bus, "quick", u64::from(count)).await?;
    while held.most.load(Ordering::SeqCst) <= 4 {
        bench.wait("events to be read ahead", bench.clock().sleep(Duration::from_millis(1))).await;
    }
    let (most, most_bytes) = (held.most.load(Ordering::SeqCst), held.most_bytes.load(Ordering::SeqCst));
    ensure!(most <= MOST_EVENTS, "{most} events are held: {MOST_EVENTS} are the most");
    let bound = MOST_BYTES + 1024 * 1024 + 4_096;
    ensure!(most_bytes <= bound, "{most_bytes} bytes are held: {MOST_BYTES} and an event are the most");
    bench.note(format!("held {most} of {count} events, {most_bytes} bytes"));
    // Both are of one transport, which the first to go closes: by then nobody else is to read from it.
    bench.wait("a handler to be served no more", bus.unsubscribe("quick")).await?;
    bench.wait("the shutdown of a stalled app", stalled.shutdown_within(Duration::from_millis(10))).await?;
    bench.shutdown(bus).await
}
