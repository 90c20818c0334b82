//! Layers around handlers that are served: their order, what they hold back, and what a stop does to calls that wait.

mod breaker;
mod stops;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, Envelope, Group, ManualClock, Timestamp,
    handler::{HandlerExt, Invocation, Layer, Next, Outcome},
    metrics::HandlerStats,
    prelude::*,
    transport::{LogTransport, LogUrl},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(type = "step", key = key)]
struct Step {
    key: String,
    number: u32,
}

/// What a handler saw: the key, the number, the attempt, the time in seconds.
type Call = (String, u32, u32, u64);

/// What handlers saw, in its order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Call>>>);

impl Seen {
    fn of(&self, key: &str) -> Vec<(u32, u32)> {
        self.0.lock().iter().filter(|seen| seen.0 == key).map(|seen| (seen.1, seen.2)).collect()
    }

    fn times(&self) -> Vec<u64> {
        self.0.lock().iter().map(|seen| seen.3).collect()
    }
}

#[handler(concurrency = 4)]
async fn record(step: Delivery<Step>, State(seen): State<Seen>, State(manual): State<ManualClock>) {
    let seconds = manual.clock().monotonic().as_secs();
    seen.0.lock().push((step.key.clone(), step.number, step.attempt, seconds));
}

/// Counts the calls that come to it.
fn count(calls: &Arc<AtomicU32>) -> impl Layer + use<> {
    let calls = Arc::clone(calls);
    move |invocation: Invocation, next: Next| {
        calls.fetch_add(1, Ordering::SeqCst);
        next.run(invocation)
    }
}

fn manual() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_000_000_000))
}

fn on(url: &LogUrl, manual: &ManualClock, seen: &Seen) -> App {
    let transport = LogTransport::open(url, manual.clock()).unwrap();
    App::with_transport(Arc::new(transport), manual.clock()).state(seen.clone()).state(manual.clone())
}

async fn publish(bus: &Bus, key: &str, numbers: std::ops::Range<u32>) {
    let event = |number| Envelope::of(&Step { key: key.into(), number }).unwrap();
    bus.publish_all("events", numbers.map(event).collect(), None).await.unwrap();
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

async fn reached(calls: &AtomicU32, count: u32) {
    until(|| calls.load(Ordering::SeqCst) >= count).await;
    assert_eq!(calls.load(Ordering::SeqCst), count);
}

fn stats(bus: &Bus, handler: &str) -> HandlerStats {
    bus.inspect().subscriptions().into_iter().find(|known| known.id == handler).unwrap().stats
}

#[tokio::test]
async fn the_apps_layers_are_outside_of_the_groups_and_those_outside_of_the_handlers() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let layer = |name: &'static str| {
        let log = Arc::clone(&log);
        move |invocation: Invocation, next: Next| {
            let log = Arc::clone(&log);
            async move {
                log.lock().push(format!("{name} around {}", invocation.subscription()));
                let outcome = next.run(invocation).await;
                log.lock().push(format!("{name} done"));
                outcome
            }
        }
    };
    let seen = Seen::default();
    let group = Group::new("group").on(record.layer(layer("handler 1")).layer(layer("handler 2")));
    let app = on(&LogUrl::memory(), &manual(), &seen).group(group.layer(layer("group"))).layer(layer("app 1"));
    let bus = app.layer(layer("app 2")).start().await.unwrap();
    publish(&bus, "a", 0..1).await;
    bus.idle().await.unwrap();
    let names = ["app 1", "app 2", "group", "handler 1", "handler 2"];
    let inwards = names.iter().map(|name| format!("{name} around group.record"));
    let outwards = names.iter().rev().map(|name| format!("{name} done"));
    assert_eq!(*log.lock(), inwards.chain(outwards).collect::<Vec<_>>());
    assert_eq!(seen.of("a"), [(0, 1)]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_holds_for_all_handlers_that_share_it() {
    let (manual, seen) = (manual(), Seen::default());
    let limit = middleware::rate_limit(1, Duration::from_secs(1));
    let app = on(&LogUrl::memory(), &manual, &seen);
    let app = app.on(record.layer(limit.clone())).on(record.named("second").layer(limit));
    let bus = app.start().await.unwrap();
    for key in ["a", "b"] {
        publish(&bus, key, 0..2).await;
    }
    while seen.times().len() < 8 {
        // Time passes in halves of what is promised, whether they are ready for it or not.
        manual.advance(Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    bus.idle().await.unwrap();
    let mut times = seen.times();
    times.dedup();
    assert_eq!(times.len(), 8, "no two in one second: {times:?}");
    assert!(times.is_sorted());
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_concurrency_limit_holds_for_all_handlers_that_share_it() {
    #[handler(concurrency = 4)]
    async fn hold(_step: Step, State((gate, running)): State<(Arc<Semaphore>, Arc<AtomicUsize>)>) {
        running.fetch_add(1, Ordering::SeqCst);
        gate.acquire().await.unwrap().forget();
        running.fetch_sub(1, Ordering::SeqCst);
    }
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (limit, came) = (middleware::concurrency_limit(3), Arc::default());
    let app = on(&LogUrl::memory(), &manual(), &Seen::default()).state((Arc::clone(&gate), Arc::clone(&running)));
    let app = app.on(hold.layer(limit.clone())).on(hold.named("second").layer(limit.clone())).layer(count(&came));
    let bus = app.start().await.unwrap();
    for key in ["a", "b", "c", "d"] {
        publish(&bus, key, 0..5).await;
    }
    reached(&came, 8).await;
    for _ in 0..40 {
        until(|| running.load(Ordering::SeqCst) == 3 || came.load(Ordering::SeqCst) == 40).await;
        assert!(running.load(Ordering::SeqCst) <= 3);
        gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    bus.idle().await.unwrap();
    assert_eq!((limit.free(), stats(&bus, "hold").acked, stats(&bus, "second").acked), (3, 20, 20));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_that_need_not_wait_is_no_task_of_its_own() {
    /// A lock that is free, which counts as whatever else can be waited for, and the tasks that took it.
    type Locked = (Arc<tokio::sync::Mutex<()>>, Arc<Mutex<HashSet<tokio::task::Id>>>);
    #[handler]
    async fn lock(_step: Step, State((free, tasks)): State<Locked>) {
        let _held = free.lock().await;
        tasks.lock().insert(tokio::task::id());
    }
    let locked = Locked::default();
    let app = on(&LogUrl::memory(), &manual(), &Seen::default()).state(locked.clone());
    let bus = app.on(lock).on(lock.named("limited").layer(middleware::concurrency_limit(1))).start().await.unwrap();
    let step = |number: u32| Envelope::of(&Step { key: number.to_string(), number }).unwrap();
    bus.publish_all("events", (0..1_000).map(step).collect(), None).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!((stats(&bus, "lock").acked, stats(&bus, "limited").acked), (1_000, 1_000));
    assert_eq!(locked.1.lock().len(), 2, "the dispatchers' own");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_layer_that_puts_an_event_off_uses_up_no_attempt_and_keeps_the_order_of_its_key() {
    let (manual, seen, came) = (manual(), Seen::default(), Arc::new(AtomicU32::new(0)));
    let at = manual.clock().monotonic() + Duration::from_secs(60);
    let closed_until_then = move |invocation: Invocation, next: Next| async move {
        match at.saturating_sub(invocation.binding().clock.monotonic()) {
            Duration::ZERO => next.run(invocation).await,
            left => Outcome::Defer(left),
        }
    };
    let app = on(&LogUrl::memory(), &manual, &seen);
    let bus = app.on(record.layer(count(&came)).layer(closed_until_then)).start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    until(|| stats(&bus, "record").deferred == 1).await;
    manual.advance(Duration::from_secs(60));
    bus.idle().await.unwrap();
    assert_eq!(seen.of("a"), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(came.load(Ordering::SeqCst), 4, "those behind it were not called meanwhile");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_layer_sees_the_first_event_of_a_batch_and_its_answer_is_that_of_all() {
    #[handler(batch = 10, batch_wait = "1s", retry = policy::never())]
    async fn store(steps: Batch<Step>, State(seen): State<Seen>) {
        seen.0.lock().extend(steps.iter().map(|step| (step.key.clone(), step.number, step.attempt, 0)));
    }
    let (manual, seen, firsts) = (manual(), Seen::default(), Arc::new(Mutex::new(Vec::new())));
    let told = Arc::clone(&firsts);
    let odd_ones_out = move |invocation: Invocation, next: Next| {
        let first = invocation.envelope().decode::<Step>().unwrap().number;
        told.lock().push(first);
        async move {
            if first == 0 {
                return next.run(invocation).await;
            }
            Outcome::Reject { class: policy::ErrorClass::Permanent, error: "not this batch".into() }
        }
    };
    let bus = on(&LogUrl::memory(), &manual, &seen).on(store.layer(odd_ones_out)).start().await.unwrap();
    publish(&bus, "a", 0..20).await;
    bus.idle().await.unwrap();
    assert_eq!(*firsts.lock(), [0, 10]);
    assert_eq!(seen.of("a"), (0..10).map(|number| (number, 1)).collect::<Vec<_>>());
    let letters = bus.inspect().dead_letters("store").unwrap();
    assert_eq!(letters.len(), 10);
    assert!(letters.iter().all(|letter| letter.history[0].error == "not this batch"));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn layers_that_cannot_work_are_problems_of_the_start() {
    let app = on(&LogUrl::memory(), &manual(), &Seen::default());
    let app = app.on(record.layer(middleware::concurrency_limit(0))).layer(middleware::timeout(Duration::ZERO));
    let problem = app.start().await.unwrap_err().to_string();
    for part in ["`record`", "middleware.rs", "concurrency limit of 0", "timeout layer"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}
