//! A handler that asks for more time has it, and no more than that.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use oncue::{
    App, Bus, ManualClock, Timestamp,
    handler::{HandlerExt, Registration},
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "job")]
struct Job {
    /// How long the handler asks for; nothing: it does not ask.
    extend: Option<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(3600);

/// A running app whose handler has a timeout of one second and ends when the gate opens; the time does not move by itself.
async fn start(handler: Registration) -> (ManualClock, Bus) {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap());
    let handler = handler.named("work").timeout(SECOND).retry(policy::never());
    let bus = App::with_transport(transport, manual.clock()).on(handler).start().await.unwrap();
    (manual, bus)
}

/// Lets everything run that can.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn counts(bus: &Bus) -> (u64, u64) {
    let stats = &bus.inspect().subscriptions()[0].stats;
    (stats.acked, stats.dead)
}

/// An async handler that tells when it runs, and waits for the gate.
fn waiting() -> (Registration, Arc<Notify>, Arc<Notify>) {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, opened) = (Arc::clone(&started), Arc::clone(&gate));
    let work = move |job: Job, context: Context| {
        let (starting, opened) = (Arc::clone(&starting), Arc::clone(&opened));
        async move {
            assert_eq!(context.time_left(), Some(SECOND));
            if let Some(time) = job.extend {
                context.extend(time);
                assert_eq!(context.time_left(), Some(time.max(SECOND)), "asking for less takes nothing away");
            }
            starting.notify_one();
            opened.notified().await;
        }
    };
    (work.named("work"), started, gate)
}

#[tokio::test]
async fn an_async_handler_survives_until_its_new_deadline_and_no_longer() {
    let (handler, started, _gate) = waiting();
    let (clock, bus) = start(handler).await;
    let receipt = bus.publish(Job { extend: Some(5 * SECOND) }).await.unwrap();
    started.notified().await;
    for _ in 0..49 {
        clock.advance(SECOND / 10);
        settle_down().await;
        assert_eq!(counts(&bus), (0, 0));
    }
    clock.advance(SECOND / 10);
    let outcome = receipt.outcome_of("work", WAIT).await.unwrap();
    assert!(matches!(&outcome, EventOutcome::DeadLettered { error } if error.contains("timeout")), "{outcome:?}");
    let history = &bus.dead_letters("work").list().unwrap()[0].history[0];
    assert_eq!(history.ended.since(history.read), 5 * SECOND);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_async_handler_that_ends_within_its_extension_is_done() {
    let (handler, started, gate) = waiting();
    let (clock, bus) = start(handler).await;
    let receipt = bus.publish(Job { extend: Some(5 * SECOND) }).await.unwrap();
    started.notified().await;
    clock.advance(4 * SECOND);
    settle_down().await;
    gate.notify_one();
    assert_eq!(receipt.outcome_of("work", WAIT).await.unwrap(), EventOutcome::Acked);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn time_asked_for_before_there_is_a_future_counts() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, opened) = (Arc::clone(&started), Arc::clone(&gate));
    let work = move |_: Job, context: Context| {
        context.extend(5 * SECOND);
        let (starting, opened) = (Arc::clone(&starting), Arc::clone(&opened));
        async move {
            starting.notify_one();
            opened.notified().await;
        }
    };
    let (clock, bus) = start(work.named("work")).await;
    let receipt = bus.publish(Job { extend: None }).await.unwrap();
    started.notified().await;
    clock.advance(4 * SECOND);
    settle_down().await;
    assert_eq!(counts(&bus), (0, 0));
    gate.notify_one();
    assert_eq!(receipt.outcome_of("work", WAIT).await.unwrap(), EventOutcome::Acked);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_an_extension_or_with_a_shorter_one_the_timeout_stays() {
    for extend in [None, Some(SECOND / 2)] {
        let (handler, started, _gate) = waiting();
        let (clock, bus) = start(handler).await;
        let receipt = bus.publish(Job { extend }).await.unwrap();
        started.notified().await;
        clock.advance(SECOND - Duration::from_millis(1));
        settle_down().await;
        assert_eq!(counts(&bus), (0, 0));
        clock.advance(Duration::from_millis(1));
        let outcome = receipt.outcome_of("work", WAIT).await.unwrap();
        assert!(matches!(outcome, EventOutcome::DeadLettered { .. }), "{outcome:?}");
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_timeout_without_end_never_comes() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, opened) = (Arc::clone(&started), Arc::clone(&gate));
    let work = move |_: Job| {
        let (starting, opened) = (Arc::clone(&starting), Arc::clone(&opened));
        async move {
            starting.notify_one();
            opened.notified().await;
        }
    };
    let manual = ManualClock::new(Timestamp::from_micros(0));
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap());
    let work = work.named("work").timeout(Duration::MAX).retry(policy::never());
    let bus = App::with_transport(transport, manual.clock()).on(work).start().await.unwrap();
    let receipt = bus.publish(Job { extend: None }).await.unwrap();
    started.notified().await;
    manual.advance(Duration::from_secs(1_000_000_000));
    settle_down().await;
    gate.notify_one();
    assert_eq!(receipt.outcome_of("work", Duration::MAX).await.unwrap(), EventOutcome::Acked);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_blocking_handler_is_late_only_past_its_new_deadline() {
    for (takes, in_time) in [(4 * SECOND, true), (5 * SECOND, false)] {
        let ((starting, started), (open, opened)) = (mpsc::sync_channel(1), mpsc::sync_channel::<()>(1));
        let opened = Arc::new(Mutex::new(opened));
        let work = move |job: Job, context: Context| {
            context.extend(job.extend.unwrap_or_default());
            starting.send(()).unwrap();
            // It blocks, as it may: it is on a thread of its own.
            opened.lock().recv().unwrap();
        };
        let (clock, bus) = start(work.named("work")).await;
        let receipt = bus.publish(Job { extend: Some(5 * SECOND) }).await.unwrap();
        tokio::task::spawn_blocking(move || started.recv()).await.unwrap().unwrap();
        clock.advance(takes);
        settle_down().await;
        assert_eq!(counts(&bus), (0, 0), "its key is held until it returns");
        open.send(()).unwrap();
        let outcome = receipt.outcome_of("work", WAIT).await.unwrap();
        match outcome {
            EventOutcome::Acked => assert!(in_time),
            EventOutcome::DeadLettered { error } => assert!(!in_time && error.contains("timeout"), "{error}"),
            other => panic!("{other:?}"),
        }
        bus.shutdown().await.unwrap();
    }
}
