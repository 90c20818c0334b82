//! Alerts of a running app: raised once, recovered once, and never because of themselves.

mod kinds;

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Envelope, ManualClock, Timestamp,
    alert::{Alert, AlertKind, AlertStatus, Alerts, RetryStorm, TOPIC},
    filter::Filter,
    handler::{HandlerError, HandlerExt, extract::State},
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl, OnDeadLetter, Transport},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use AlertKind::{DeadLetter, RetryStorm as Storm, Stuck};
use AlertStatus::{Raised, Recovered};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(type = "charged", key = key)]
struct Charged {
    key: String,
}

fn charged(key: &str) -> Charged {
    Charged { key: key.into() }
}

#[handler(retry = policy::never())]
async fn charge(charged: Charged) -> Result<(), HandlerError> {
    if charged.key.starts_with("bad") { Err(HandlerError::reject("no such account")) } else { Ok(()) }
}

type Pager = mpsc::Sender<Alert>;

#[handler]
async fn page(alert: Alert, State(pager): State<Pager>) {
    pager.send(alert).await.unwrap();
}

/// A clock, a log in memory, and an app on it that pages.
fn paging(clock: &ManualClock, alerts: Alerts) -> (App, mpsc::Receiver<Alert>) {
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap());
    on(transport, clock, alerts)
}

fn on(transport: Arc<dyn Transport>, clock: &ManualClock, alerts: Alerts) -> (App, mpsc::Receiver<Alert>) {
    let (pager, pages) = mpsc::channel(100);
    (App::with_transport(transport, clock.clock()).state(pager).on(page).alerts(alerts), pages)
}

/// The next page; one that does not come is a failure, not a test that hangs.
async fn next(pages: &mut mpsc::Receiver<Alert>) -> Alert {
    tokio::time::timeout(MINUTE, pages.recv()).await.expect("somebody is paged").unwrap()
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000))
}

fn told(alert: &Alert) -> (AlertKind, AlertStatus, &str, u64) {
    (alert.kind, alert.status, &alert.subject, alert.value)
}

/// What was published to the topic of alerts.
fn published(bus: &Bus) -> Vec<Alert> {
    let events = bus.inspect().browse(TOPIC, 0, 1_000).unwrap_or_default();
    events.iter().map(|(_, event)| event.decode().unwrap()).collect()
}

#[tokio::test]
async fn a_dead_letter_pages_at_once_and_its_end_does_later() {
    let clock = clock();
    let (app, mut pages) = paging(&clock, Alerts::default());
    let bus = app.on(charge.on_dead_letter(OnDeadLetter::Hold)).start().await.unwrap();
    bus.publish(charged("bad")).await.unwrap();
    let page = next(&mut pages).await;
    assert_eq!(told(&page), (DeadLetter, Raised, "charge", 1), "without any time passing");
    assert!(page.text.contains("1 of them hold"), "{}", page.text);
    assert_eq!(bus.alerts(), [page]);

    bus.publish(charged("bad too")).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(bus.check_alerts().await[0].value, 2, "a further one is counted");
    bus.dead_letters("charge").discard_matching(&Filter::exact("partitionkey", "bad")).await.unwrap();
    bus.dead_letters("charge").discard_matching(&Filter::exact("partitionkey", "bad too")).await.unwrap();
    bus.check_alerts().await;
    clock.advance(29 * SECOND);
    assert_eq!(bus.check_alerts().await.len(), 1, "gone for 29 s only");
    clock.advance(SECOND);
    let page = next(&mut pages).await;
    assert_eq!(told(&page), (DeadLetter, Recovered, "charge", 2));
    assert_eq!(bus.check_alerts().await, []);

    bus.idle().await.unwrap();
    clock.advance(MINUTE);
    bus.check_alerts().await;
    assert_eq!(clock.until_next(), None, "when all is quiet, nothing waits for a time");
    assert_eq!(published(&bus).len(), 2);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_alerts_nobody_is_alerted() {
    let clock = clock();
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap());
    let bus = App::with_transport(transport, clock.clock()).on(charge).start().await.unwrap();
    bus.publish(charged("bad")).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!((bus.check_alerts().await, bus.alerts()), (vec![], vec![]));
    assert!(bus.inspect().browse(TOPIC, 0, 1).is_err(), "not even the topic exists");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_hangs_is_stuck_until_it_goes_on() {
    #[handler]
    async fn hang(_: Charged, State(gate): State<Arc<Semaphore>>) {
        gate.acquire().await.unwrap().forget();
    }
    let clock = clock();
    let gate = Arc::new(Semaphore::new(0));
    let (app, mut pages) = paging(&clock, Alerts::default());
    let bus = app.state(Arc::clone(&gate)).on(hang).start().await.unwrap();
    bus.publish(charged("a")).await.unwrap();
    let mut looks = 0;
    let stuck = loop {
        bus.check_alerts().await;
        match pages.try_recv() {
            Ok(alert) => break alert,
            Err(_) => clock.advance(clock.until_next().expect("its time is waited for")),
        }
        looks += 1;
        tokio::task::yield_now().await;
    };
    assert_eq!(told(&stuck), (Stuck, Raised, "hang", 300));
    assert!(looks < 10, "{looks} looks in 5 minutes in which nothing happened");
    gate.add_permits(1);
    bus.idle().await.unwrap();
    bus.check_alerts().await;
    clock.advance(30 * SECOND);
    assert_eq!(told(&next(&mut pages).await), (Stuck, Recovered, "hang", 300));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn among_many_readers_of_a_topic_the_one_that_hangs_is_stuck() {
    let clock = clock();
    let hang = |_: Envelope| std::future::pending::<()>();
    let pass = |_: Envelope| std::future::ready(());
    let (mut app, mut pages) = paging(&clock, Alerts::default());
    for number in 0..9 {
        app = app.on(pass.named(format!("pass{number}")).types([format!("type{number}")]));
    }
    let bus = app.on(hang.named("hang").types(["type3"])).start().await.unwrap();
    bus.check_alerts().await;
    for number in 0..200_u64 {
        bus.publish(Envelope::builder(format!("type{}", number % 9)).build().unwrap()).await.unwrap();
        clock.advance(SECOND);
        while bus.inspect().subscriptions().iter().any(|info| info.id != "hang" && info.topic != TOPIC && info.lag > 0)
        {
            tokio::task::yield_now().await;
        }
    }
    clock.advance(103 * SECOND);
    assert_eq!(bus.check_alerts().await.iter().map(told).collect::<Vec<_>>(), [(Stuck, Raised, "hang", 300)]);
    assert_eq!(next(&mut pages).await.subject, "hang");
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_waits_for_its_time_or_behind_a_dead_letter_is_not_stuck_and_what_retries_is() {
    #[handler(retry = policy::fixed(MINUTE).max_attempts(1_000))]
    async fn again(charged: Charged) -> Result<(), HandlerError> {
        if charged.key == "later" { Err(HandlerError::transient("not yet")) } else { Ok(()) }
    }
    let clock = clock();
    let alerts = Alerts { dead_letters: false, retry_storm: None, ..Alerts::default() };
    let (app, _pages) = paging(&clock, alerts);
    let app = app.on(charge.on_dead_letter(OnDeadLetter::Hold)).on(again).on(charge.named("spare"));
    let bus = app.start().await.unwrap();
    let oldest = |id: &str| bus.inspect().subscriptions().into_iter().find(|info| info.id == id).unwrap().oldest;
    let first = clock.clock().now();
    for key in ["bad", "bad"] {
        bus.publish(charged(key)).await.unwrap();
        clock.advance(SECOND);
    }
    let tomorrow = clock.clock().now().after(24 * 60 * MINUTE);
    let scheduled = Envelope::builder_of(&charged("tomorrow")).unwrap().not_before(tomorrow).build().unwrap();
    bus.publish(scheduled).await.unwrap();
    clock.advance(10 * MINUTE);
    assert_eq!(bus.check_alerts().await, []);
    assert_eq!((oldest("charge"), oldest("again")), (None, None));

    let began = clock.clock().now();
    bus.publish(charged("later")).await.unwrap();
    while bus.inspect().subscriptions().iter().all(|info| info.retrying == 0) {
        tokio::task::yield_now().await;
    }
    assert_eq!((oldest("charge"), oldest("again")), (None, Some(began)));
    clock.advance(5 * MINUTE);
    let active = bus.check_alerts().await;
    assert_eq!(active.iter().map(told).collect::<Vec<_>>(), [(Stuck, Raised, "again", 300)]);
    assert_eq!(active[0].since, began);

    bus.unsubscribe("charge").await.unwrap();
    assert_eq!(
        oldest("charge"),
        Some(first.after(SECOND)),
        "of one that nobody serves, what its dead letter holds is old"
    );
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_is_handled_again_after_a_dead_letter_is_not_stuck_at_once() {
    #[handler(retry = policy::never())]
    async fn second_time(charged: Charged, State(gate): State<Arc<Semaphore>>) -> Result<(), HandlerError> {
        let permit = gate.try_acquire().map_err(|_| HandlerError::reject("closed"))?;
        permit.forget();
        if charged.key == "hang" { std::future::pending().await } else { Ok(()) }
    }
    let clock = clock();
    let gate = Arc::new(Semaphore::new(0));
    let (app, _pages) = paging(&clock, Alerts { dead_letters: false, ..Alerts::default() });
    let bus = app.state(Arc::clone(&gate)).on(second_time.on_dead_letter(OnDeadLetter::Hold)).start().await.unwrap();
    bus.publish(charged("hang")).await.unwrap();
    bus.idle().await.unwrap();
    bus.check_alerts().await;
    clock.advance(60 * MINUTE);
    gate.add_permits(1);
    assert_eq!(bus.dead_letters("second_time").redrive_all().await.unwrap(), 1);
    while gate.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let info = bus.inspect().subscriptions().into_iter().find(|info| info.id == "second_time").unwrap();
    assert_eq!((info.in_flight, info.oldest), (1, None));
    assert_eq!(bus.check_alerts().await, []);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn many_failures_are_a_storm() {
    #[handler(retry = policy::fixed(60 * MINUTE), concurrency = 8)]
    async fn flaky(charged: Charged) -> Result<(), HandlerError> {
        if charged.key.starts_with("good") { Ok(()) } else { Err(HandlerError::transient("no")) }
    }
    let clock = clock();
    let storm = RetryStorm { attempts: 20, ..RetryStorm::default() };
    let (app, mut pages) = paging(&clock, Alerts { retry_storm: Some(storm), ..Alerts::default() });
    let bus = app.on(flaky).start().await.unwrap();
    bus.check_alerts().await;
    let keys = (0..19).map(|number| format!("good{number}")).chain((0..20).map(|number| format!("bad{number}")));
    let events = keys.map(|key| Envelope::of(&charged(&key)).unwrap()).collect();
    bus.publish_all("events", events, None).await.unwrap();
    while bus.inspect().subscriptions().iter().all(|info| info.stats.retried < 20) {
        tokio::task::yield_now().await;
    }
    // Nothing is asked for: the look comes by itself, some seconds after the first failure.
    tokio::task::yield_now().await;
    clock.advance(5 * SECOND);
    assert_eq!(told(&next(&mut pages).await), (Storm, Raised, "flaky", 51));
    clock.advance(70 * SECOND);
    bus.check_alerts().await;
    clock.advance(30 * SECOND);
    assert_eq!(told(&next(&mut pages).await), (Storm, Recovered, "flaky", 51));
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_pager_that_fails_is_no_reason_to_page() {
    #[handler(retry = policy::never())]
    async fn broken(_: Alert) -> Result<(), HandlerError> {
        Err(HandlerError::reject("no signal"))
    }
    let clock = clock();
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap());
    let app = App::with_transport(transport, clock.clock()).on(charge).on(broken);
    let bus = app.alerts(Alerts { lag: Some(1), ..Alerts::default() }).start().await.unwrap();
    bus.publish(charged("bad")).await.unwrap();
    for _ in 0..20 {
        bus.idle().await.unwrap();
        bus.check_alerts().await;
        clock.advance(MINUTE);
    }
    let active = bus.check_alerts().await;
    let dead: Vec<_> = active.iter().map(|alert| (alert.kind, &*alert.subject)).collect();
    assert_eq!(dead, [(DeadLetter, "broken"), (DeadLetter, "charge")], "both are known");
    assert!(published(&bus).iter().all(|alert| alert.subject == "charge"), "one is published");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_and_a_second_instance_raise_nothing_twice() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    for run in 0..4 {
        let transport: Arc<dyn Transport> =
            Arc::new(LogTransport::open(&LogUrl::file(dir.path()), clock.clock()).unwrap());
        let (app, _pages) = on(Arc::clone(&transport), &clock, Alerts::default());
        let bus = app.on(charge).start().await.unwrap();
        let second = App::with_transport(transport, clock.clock()).alerts(Alerts::default()).start().await.unwrap();
        tokio::join!(bus.check_alerts(), second.check_alerts());
        if run == 0 {
            bus.publish(charged("bad")).await.unwrap();
            bus.idle().await.unwrap();
        }
        // Active at once, after 29 s and after 30 s; the dead letter is discarded at the end of the second run.
        let active = match run {
            0 | 1 => [1, 1, 1],
            2 => [1, 1, 0],
            _ => [0, 0, 0],
        };
        for (seconds, active) in [0, 29, 1].into_iter().zip(active) {
            clock.advance(seconds * SECOND);
            let (one, other) = tokio::join!(bus.check_alerts(), second.check_alerts());
            assert_eq!((one.len(), other.len()), (active, active), "run {run}");
        }
        let told: Vec<_> = published(&bus).iter().map(|alert| alert.status).collect();
        let expected: &[AlertStatus] = if run < 2 { &[Raised] } else { &[Raised, Recovered] };
        assert_eq!(told, expected, "run {run}");
        if run == 1 {
            bus.dead_letters("charge").discard_matching(&Filter::exact("partitionkey", "bad")).await.unwrap();
        }
        drop(second);
        bus.shutdown().await.unwrap();
        clock.advance(60 * MINUTE);
    }
}
