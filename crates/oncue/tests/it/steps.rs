//! The wall clock is stepped while something waits: schedules follow it, timeouts do not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, ManualClock, Timestamp,
    handler::{HandlerError, Registration},
    metrics::HandlerStats,
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp::from_micros(1_000_000_000_000);

async fn start(handler: Registration) -> (ManualClock, Bus) {
    let manual = ManualClock::new(START);
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap());
    let bus = App::with_transport(transport, manual.clock()).on(handler).start().await.unwrap();
    (manual, bus)
}

/// Fails its first call, and tells how often it was called.
fn fails_once(calls: &Arc<AtomicU32>) -> Registration {
    let calls = Arc::clone(calls);
    let work = move |_: Envelope| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Err(HandlerError::transient("busy")) } else { Ok(()) }
    };
    work.named("work").types(["job"]).inline().retry(policy::fixed(HOUR))
}

fn stats(bus: &Bus) -> HandlerStats {
    bus.inspect().subscriptions()[0].stats.clone()
}

async fn until(bus: &Bus, what: impl Fn(&HandlerStats) -> bool) {
    while !what(&stats(bus)) {
        bus.check().unwrap();
        tokio::task::yield_now().await;
    }
}

/// Lets everything run that can, for so many seconds.
async fn pass(clock: &ManualClock, seconds: u32) {
    for _ in 0..seconds {
        clock.advance(SECOND);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_step_forward_past_a_retry_brings_it_within_a_second() {
    let calls = Arc::default();
    let (clock, bus) = start(fails_once(&calls)).await;
    bus.publish(Envelope::builder("job").build().unwrap()).await.unwrap();
    until(&bus, |stats| stats.retried == 1).await;
    clock.set_wall(START.after(HOUR));
    clock.advance(SECOND);
    until(&bus, |stats| stats.acked == 1).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_step_back_makes_a_retry_wait_for_its_wall_time_and_loses_nothing() {
    let calls = Arc::default();
    let (clock, bus) = start(fails_once(&calls)).await;
    bus.publish(Envelope::builder("job").key("k").build().unwrap()).await.unwrap();
    bus.publish(Envelope::builder("job").key("k").build().unwrap()).await.unwrap();
    until(&bus, |stats| stats.retried == 1).await;
    clock.set_wall(Timestamp::from_micros(0));
    pass(&clock, 10).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "its key waits with it");
    clock.set_wall(START.after(HOUR));
    clock.advance(SECOND);
    until(&bus, |stats| stats.acked == 2).await;
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_delayed_event_comes_by_the_wall_clock() {
    let (clock, bus) = start((|_: Envelope| ()).named("work").types(["job"]).inline()).await;
    let later = || Envelope::builder("job").not_before(START.after(HOUR)).build().unwrap();
    bus.publish(later()).await.unwrap();
    clock.set_wall(Timestamp::from_micros(0));
    bus.publish(later()).await.unwrap();
    pass(&clock, 10).await;
    assert_eq!(stats(&bus).acked, 0);
    clock.set_wall(START.after(HOUR));
    clock.advance(SECOND);
    until(&bus, |stats| stats.acked == 2).await;
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_expires_by_the_wall_clock() {
    let (clock, bus) = start((|_: Envelope| ()).named("work").types(["job"]).inline().paused()).await;
    for _ in 0..2 {
        bus.publish(Envelope::builder("job").expires(START.after(HOUR)).build().unwrap()).await.unwrap();
    }
    bus.publish(Envelope::builder("job").expires(START.after(3 * HOUR)).build().unwrap()).await.unwrap();
    clock.set_wall(START.after(2 * HOUR));
    bus.resume("work").await.unwrap();
    until(&bus, |stats| stats.expired == 2 && stats.acked == 1).await;
    // Back again: what is over stays over.
    clock.set_wall(START);
    bus.publish(Envelope::builder("job").expires(START.after(HOUR)).build().unwrap()).await.unwrap();
    until(&bus, |stats| stats.expired == 2 && stats.acked == 2).await;
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_timeout_does_not_notice_a_step() {
    let hangs = |_: Envelope| std::future::pending::<()>();
    let (clock, bus) = start(hangs.named("work").types(["job"]).timeout(10 * SECOND).retry(policy::never())).await;
    bus.publish(Envelope::builder("job").build().unwrap()).await.unwrap();
    until(&bus, |_| bus.inspect().subscriptions()[0].in_flight == 1).await;
    clock.set_wall(START.after(24 * HOUR));
    pass(&clock, 5).await;
    clock.set_wall(Timestamp::from_micros(0));
    pass(&clock, 4).await;
    assert_eq!(stats(&bus).dead, 0, "nine seconds");
    clock.advance(SECOND);
    until(&bus, |stats| stats.dead == 1).await;
    bus.shutdown().await.unwrap();
}
