//! Receipts that are written down: taken up again by another bus, or by an observer beside it.

use std::{sync::Arc, time::Duration};

use oncue::{
    App, ManualClock, Observer, Timestamp,
    handler::{HandlerError, HandlerExt as _},
    prelude::*,
    transport::{self, EventAddress, InspectError, Start},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const LONG: Duration = Duration::from_secs(60);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order", key = id)]
struct Order {
    id: String,
}

fn order(id: &str) -> Order {
    Order { id: id.to_owned() }
}

/// A log in a directory, with the address of an event in it that nobody handled yet.
async fn published() -> (tempfile::TempDir, String, EventAddress) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = App::open(&url).await.unwrap().start().await.unwrap();
    bus.publish(order("before")).await.unwrap();
    let receipt = bus.publish(order("o-1")).await.unwrap();
    let written = serde_json::to_string(&receipt.address()).unwrap();
    assert!(written.contains(r#""topic":"events","position":""#), "{written}");
    drop(receipt);
    bus.shutdown().await.unwrap();
    (directory, url, serde_json::from_str(&written).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_waits_until_the_handler_is_through() {
    let (_directory, url, event) = published().await;
    let open = watch::Sender::new(false);
    let gate = open.clone();
    let handle = move |_: Order| {
        let mut gate = gate.subscribe();
        async move { gate.wait_for(|open| *open).await.map(|_| ()).map_err(|_| HandlerError::reject("never")) }
    };
    let bus = App::open(&url).await.unwrap().on(handle.named("gated")).start().await.unwrap();
    let observer = Observer::new(&url).unwrap();
    assert_eq!(observer.outcome_of(&event, "gated", Duration::ZERO).await.unwrap(), EventOutcome::Pending);
    let (waiting, receipt) = (observer.outcome_of(&event, "gated", LONG), bus.receipt(&event).unwrap());
    let opening = async { open.send_replace(true) };
    let (outcome, _) = tokio::join!(waiting, opening);
    assert_eq!(outcome.unwrap(), EventOutcome::Acked);
    assert_eq!(receipt.outcome_of("gated", LONG).await.unwrap(), EventOutcome::Acked);
    assert_eq!((receipt.id(), receipt.position(), receipt.address()), (&*event.id, event.position, event.clone()));
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_outcome_says_so() {
    let (_directory, url, event) = published().await;
    let (early, late) = (|_: Order| async {}, |_: Order| async {});
    let app = App::open(&url).await.unwrap().on(early.named("early")).on(late.named("late").start(Start::Latest));
    let bus = app.start().await.unwrap();
    let observer = Observer::new(&url).unwrap();
    let all = observer.outcomes(&event, LONG).await.unwrap();
    assert_eq!(all, [("early".to_owned(), EventOutcome::Acked)], "`late` began after it");
    let refused = |outcome: oncue::Result<EventOutcome>| match outcome {
        Err(oncue::Error::Inspect(error)) => error,
        other => panic!("{other:?}"),
    };
    let late = refused(observer.outcome_of(&event, "late", LONG).await);
    assert!(matches!(late, InspectError::NotTaken { .. }), "{late}");
    let nobody = refused(observer.outcome_of(&event, "nobody", LONG).await);
    assert!(matches!(nobody, InspectError::UnknownSubscription(_)), "{nobody}");
    for wrong in [
        EventAddress { id: "another".into(), ..event.clone() },
        EventAddress { position: "0-999@0".parse().unwrap(), ..event.clone() },
    ] {
        let unknown = refused(observer.outcome_of(&wrong, "early", LONG).await);
        assert!(matches!(unknown, InspectError::UnknownEvent { .. }), "{unknown}");
        assert!(matches!(bus.receipt(&wrong), Err(InspectError::UnknownEvent { .. })));
    }
    let topic = EventAddress { topic: "none".into(), ..event };
    assert!(matches!(bus.receipt(&topic), Err(InspectError::UnknownTopic(_))));
    bus.shutdown().await.unwrap();
}

#[test]
fn a_log_in_memory_has_no_outside() {
    let refused = Observer::new("memory:").unwrap_err().to_string();
    assert!(refused.contains("only the process that has a log in memory"), "{refused}");
}

/// A look that takes 20 ms is followed by 200 ms without one; the time it is asked for is kept to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_takes_a_tenth_of_the_time() {
    let (_directory, url, event) = published().await;
    let bus = App::open(&url).await.unwrap();
    let bus = bus.on((|_: Order| std::future::pending::<()>()).named("stuck")).start().await.unwrap();
    let manual = ManualClock::new(Timestamp::from_micros(0));
    let looks = Arc::new(Mutex::new(Vec::new()));
    let (clock, moved, noted) = (manual.clock(), manual.clone(), Arc::clone(&looks));
    let observer = Observer::with(clock.clone(), move || {
        noted.lock().push(clock.monotonic().as_millis());
        moved.advance(Duration::from_millis(20));
        transport::inspect(&url, &oncue::Clock::system())
    });
    let asked = tokio::spawn(async move { observer.outcome_of(&event, "stuck", Duration::from_millis(500)).await });
    while !asked.is_finished() {
        if let Some(next) = manual.until_next() {
            manual.advance(next);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap().unwrap(), EventOutcome::Pending);
    assert_eq!(*looks.lock(), [0, 220, 440, 500]);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}
