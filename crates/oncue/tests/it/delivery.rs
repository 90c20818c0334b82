//! The path of an event through the whole: publish, handle, settle, restart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, Clock, Envelope, EventOutcome, ManualClock, Timestamp,
    handler::{
        Handle, HandlerError, HandlerExt,
        extract::{Context, Keyed, State},
    },
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl, OnDeadLetter},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const WAIT: Duration = Duration::from_secs(20);

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "step", key = key)]
struct Step {
    key: String,
    number: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "stepped", key = key)]
struct Stepped {
    key: String,
    number: u32,
}

fn step(key: &str, number: u32) -> Step {
    Step { key: key.into(), number }
}

/// What handlers saw, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, u32, u32)>>>);

impl Seen {
    fn add(&self, step: &Step, attempt: u32) {
        self.0.lock().push((step.key.clone(), step.number, attempt));
    }

    fn of(&self, key: &str) -> Vec<(u32, u32)> {
        let of_key = |(known, number, attempt): &(String, u32, u32)| (known == key).then_some((*number, *attempt));
        self.0.lock().iter().filter_map(of_key).collect()
    }
}

fn on(url: &LogUrl, clock: &Clock) -> App {
    App::with_transport(Arc::new(LogTransport::open(url, clock.clone()).unwrap()), clock.clone())
}

fn in_memory() -> App {
    on(&LogUrl::memory(), &Clock::system())
}

async fn publish(bus: &Bus, key: &str, numbers: std::ops::Range<u32>) {
    let events = numbers.map(|number| Envelope::of(&step(key, number)).unwrap()).collect();
    bus.publish_all("events", events, None).await.unwrap();
}

#[handler]
async fn record(step: Step, context: Context, State(seen): State<Seen>) {
    seen.add(&step, context.attempt());
}

#[tokio::test]
async fn an_event_reaches_every_handler_and_the_receipt_tells() {
    let seen = Seen::default();
    let bus = in_memory().state(seen.clone()).on(record).on(record.named("second")).start().await.unwrap();
    let receipt = bus.publish(step("a", 1)).await.unwrap();
    let outcomes = receipt.outcomes(WAIT).await.unwrap();
    assert_eq!(outcomes, [("record".into(), EventOutcome::Acked), ("second".into(), EventOutcome::Acked)]);
    assert_eq!(seen.of("a"), [(1, 1), (1, 1)]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn order_is_kept_per_key_and_keys_run_in_parallel() {
    #[handler(concurrency = 8)]
    async fn slow(step: Step, State(seen): State<Seen>) {
        for _ in 0..step.number % 5 {
            tokio::task::yield_now().await;
        }
        seen.add(&step, 1);
    }
    let seen = Seen::default();
    let bus = in_memory().state(seen.clone()).on(slow).start().await.unwrap();
    for key in ["a", "b", "c", "d"] {
        publish(&bus, key, 0..50).await;
    }
    bus.idle().await.unwrap();
    for key in ["a", "b", "c", "d"] {
        let expected: Vec<_> = (0..50).map(|number| (number, 1)).collect();
        assert_eq!(seen.of(key), expected, "{key}");
    }
    bus.shutdown().await.unwrap();
}

/// Fails the first attempts of number 0.
#[handler(retry = policy::fixed(Duration::from_secs(60)))]
async fn flaky(step: Step, context: Context, State(seen): State<Seen>) -> Result<Stepped, HandlerError> {
    seen.add(&step, context.attempt());
    if step.number == 0 && context.attempt() < 3 {
        return Err(HandlerError::transient("not yet"));
    }
    Ok(Stepped { key: step.key, number: step.number })
}

#[tokio::test]
async fn a_failing_event_holds_its_key_and_no_other_until_its_retry_succeeds() {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let seen = Seen::default();
    let bus = on(&LogUrl::memory(), &manual.clock()).state(seen.clone()).on(flaky).start().await.unwrap();
    publish(&bus, "bad", 0..5).await;
    publish(&bus, "good", 1..4).await;
    settled(&bus, "flaky", 3).await;
    assert_eq!(seen.of("good"), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(seen.of("bad"), [(0, 1)], "later events of the key wait");
    manual.advance(Duration::from_secs(59));
    tokio::task::yield_now().await;
    assert_eq!(seen.of("bad"), [(0, 1)], "not earlier than promised");
    manual.advance(Duration::from_secs(1));
    retried(&bus, "flaky", 2).await;
    manual.advance(Duration::from_secs(60));
    settled(&bus, "flaky", 8).await;
    assert_eq!(seen.of("bad"), [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(emitted(&bus), 8, "one `stepped` for each, none for a failed attempt");
    manual.advance(Duration::from_secs(1));
    bus.shutdown().await.unwrap();
}

fn emitted(bus: &Bus) -> usize {
    let events = bus.inspect().browse("events", 0, usize::MAX).unwrap();
    events.iter().filter(|(_, event)| event.event_type() == "stepped").count()
}

async fn until(bus: &Bus, what: impl Fn(&oncue::transport::SubscriptionInfo) -> bool, handler: &str) {
    loop {
        bus.check().unwrap();
        if bus.inspect().subscriptions().iter().any(|known| known.id == handler && what(known)) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn settled(bus: &Bus, handler: &str, count: u64) {
    until(bus, |known| known.stats.acked == count, handler).await;
}

async fn retried(bus: &Bus, handler: &str, count: u64) {
    until(bus, |known| known.stats.retried == count, handler).await;
}

#[tokio::test]
async fn attempts_and_parked_keys_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let seen = Seen::default();
    let start = || async { on(&url, &manual.clock()).state(seen.clone()).on(flaky).start().await.unwrap() };
    let bus = start().await;
    publish(&bus, "bad", 0..3).await;
    retried(&bus, "flaky", 1).await;
    bus.shutdown().await.unwrap();
    drop(bus);
    let bus = start().await;
    publish(&bus, "bad", 3..4).await;
    publish(&bus, "good", 1..2).await;
    settled(&bus, "flaky", 1).await;
    assert_eq!(seen.of("bad"), [(0, 1)], "still parked");
    manual.advance(Duration::from_secs(61));
    retried(&bus, "flaky", 2).await;
    manual.advance(Duration::from_secs(61));
    settled(&bus, "flaky", 5).await;
    assert_eq!(seen.of("bad"), [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (3, 1)]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_keeps_its_history_and_the_key_goes_on() {
    #[handler(retry = policy::fixed(Duration::ZERO).max_attempts(2))]
    async fn doomed(step: Step) -> Result<(), HandlerError> {
        if step.number == 0 { Err(HandlerError::transient("never")) } else { Ok(()) }
    }
    let bus = in_memory().on(doomed).start().await.unwrap();
    let receipt = bus.publish(step("a", 0)).await.unwrap();
    publish(&bus, "a", 1..3).await;
    let outcome = receipt.outcome_of("doomed", WAIT).await.unwrap();
    assert_eq!(outcome, EventOutcome::DeadLettered { error: "never".into() });
    bus.idle().await.unwrap();
    let letters = bus.inspect().dead_letters("doomed").unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].position, receipt.position());
    assert_eq!(letters[0].envelope.decode::<Step>().unwrap(), step("a", 0));
    let history: Vec<_> = letters[0].history.iter().map(|attempt| (attempt.number, attempt.error.as_str())).collect();
    assert_eq!(history, [(1, "never"), (2, "never")]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_held_key_waits_behind_its_dead_letter_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let seen = Seen::default();
    let rejecting = |step: Step, State(seen): State<Seen>| async move {
        seen.add(&step, 1);
        if step.number == 0 { Err(HandlerError::reject("no")) } else { Ok(()) }
    };
    for restart in 0..2_u64 {
        let app = on(&url, &Clock::system()).state(seen.clone());
        let bus = app.on(rejecting.named("held").on_dead_letter(OnDeadLetter::Hold)).start().await.unwrap();
        if restart == 0 {
            publish(&bus, "bad", 0..3).await;
        }
        publish(&bus, "good", 1..2).await;
        settled(&bus, "held", restart + 1).await;
        assert_eq!(seen.of("bad"), [(0, 1)]);
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn panics_and_timeouts_are_outcomes_of_that_event_alone() {
    #[handler(retry = policy::never(), timeout = "50ms")]
    async fn fragile(step: Step) {
        match step.number {
            0 => panic!("boom"),
            1 => std::future::pending::<()>().await,
            _ => {}
        }
    }
    let bus = in_memory().on(fragile).start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    bus.idle().await.unwrap();
    let errors: Vec<String> =
        bus.inspect().dead_letters("fragile").unwrap().iter().map(|dead| dead.history[0].error.clone()).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors[0].contains("boom") && errors[1].contains("timeout"), "{errors:?}");
    bus.shutdown().await.unwrap();
}

#[handler]
async fn count(step: Step, mut total: Keyed<u32>) -> Result<(), HandlerError> {
    *total += step.number;
    if step.number == 3 && total.get() % 2 == 1 { Err(HandlerError::reject("odd")) } else { Ok(()) }
}

#[tokio::test]
async fn keyed_state_counts_each_event_once_and_only_acked_ones() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    for round in 1..=3_u32 {
        let bus = on(&url, &Clock::system()).on(count).start().await.unwrap();
        publish(&bus, "a", 1..3).await;
        publish(&bus, "b", 4..5).await;
        bus.idle().await.unwrap();
        let mut states = bus.inspect().states("count").unwrap();
        states.sort();
        let states: Vec<_> = states.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
        let (a, b) = ((3 * round).to_string(), (4 * round).to_string());
        assert_eq!(states, [("a", a.as_bytes()), ("b", b.as_bytes())]);
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn after_waits_for_the_ack_and_skips_behind_a_dead_letter() {
    static ORDER: AtomicU32 = AtomicU32::new(0);
    #[handler(retry = policy::never())]
    async fn first(step: Step, State(seen): State<Seen>) -> Result<(), HandlerError> {
        tokio::task::yield_now().await;
        ORDER.fetch_add(1, Ordering::SeqCst);
        seen.add(&step, 100);
        if step.number == 1 { Err(HandlerError::reject("no")) } else { Ok(()) }
    }
    #[handler]
    async fn beside(step: Step, State(seen): State<Seen>) {
        seen.add(&step, 200);
    }
    #[handler]
    async fn last(step: Step, State(seen): State<Seen>) {
        seen.add(&step, 300);
    }
    let seen = Seen::default();
    let app = in_memory().state(seen.clone());
    let bus = app.on(last.after(first).after(beside)).on(first).on(beside).start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    bus.idle().await.unwrap();
    let seen = seen.of("a");
    for number in 0..3 {
        let at = |who| seen.iter().position(|event| *event == (number, who));
        assert!(at(100).is_some() && at(200).is_some());
        assert_eq!(at(300).is_some(), number != 1, "behind a dead letter it is skipped");
        if let Some(last) = at(300) {
            assert!(at(100) < Some(last) && at(200) < Some(last), "{seen:?}");
        }
    }
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_repeated_id_is_a_duplicate_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let event = || Envelope::builder("step").id("1").source("/test").data(r#"{"key":"a","number":1}"#).build().unwrap();
    let seen = Seen::default();
    let mut first = None;
    for restart in 0..3 {
        let bus = on(&url, &Clock::system()).state(seen.clone()).on(record).start().await.unwrap();
        let receipts = bus.publish_all("events", vec![event(), event()], None).await.unwrap();
        assert_eq!(receipts[0].is_duplicate(), restart > 0);
        assert!(receipts[1].is_duplicate());
        let position = *first.get_or_insert(receipts[0].position());
        assert!(receipts.iter().all(|receipt| receipt.position() == position));
        bus.idle().await.unwrap();
        bus.shutdown().await.unwrap();
    }
    assert_eq!(seen.of("a").len(), 1);
}

#[tokio::test]
async fn blocking_and_object_handlers_handle() {
    struct Adder(Arc<AtomicU32>);
    impl Handle<Step> for Adder {
        async fn handle(&self, event: Step, _: Context) {
            self.0.fetch_add(event.number, Ordering::SeqCst);
        }
    }
    let total = Arc::new(AtomicU32::new(0));
    let blocking = {
        let total = Arc::clone(&total);
        move |step: Step| {
            total.fetch_add(step.number, Ordering::SeqCst);
        }
    };
    let bus = in_memory().on(blocking.named("blocking")).on(Adder(Arc::clone(&total))).start().await.unwrap();
    publish(&bus, "a", 1..5).await;
    bus.idle().await.unwrap();
    assert_eq!(total.load(Ordering::SeqCst), 20);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn shutdown_waits_for_what_runs_and_leaves_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let (started, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let seen = Seen::default();
    let app = on(&url, &Clock::system()).state(seen.clone()).state((Arc::clone(&started), Arc::clone(&gate)));
    #[handler(id = "gated", concurrency = 1)]
    async fn gated(
        step: Step,
        State(seen): State<Seen>,
        State((started, gate)): State<(Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>)>,
    ) {
        started.notify_one();
        gate.notified().await;
        seen.add(&step, 1);
    }
    let bus = app.on(gated).start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    started.notified().await;
    let closing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.shutdown().await }
    });
    tokio::task::yield_now().await;
    gate.notify_one();
    closing.await.unwrap().unwrap();
    assert_eq!(seen.of("a"), [(0, 1)], "the running one ended, the others were not started");
    drop(bus);
    let bus = on(&url, &Clock::system()).state(seen.clone()).on(record.named("gated")).start().await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.of("a"), [(0, 1), (1, 1), (2, 1)]);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn starting_tells_every_problem_at_once() {
    #[handler(retry = "unheard-of")]
    async fn needy(_step: Step, State(_): State<Seen>) {}
    let problem = in_memory().on(needy).on(|_step: Step| async {}).start().await.unwrap_err().to_string();
    for part in ["`needy`", "Seen", "`unheard-of`", "delivery.rs", "without a name"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    let cycle =
        in_memory().state(Seen::default()).on(record.after_id("other")).on(record.named("other").after_id("record"));
    assert!(cycle.start().await.unwrap_err().to_string().contains("record"));
    let bus = in_memory().start().await.unwrap();
    assert!(bus.transport().capabilities().atomic_settle);
    let receipt = bus.publish(step("a", 1)).await.unwrap();
    assert!(receipt.outcome_of("nobody", WAIT).await.unwrap_err().to_string().contains("`nobody`"));
}
