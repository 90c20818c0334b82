//! The retry policy that is computed, in the app: outages, restarts, costs that make no sense.

use std::{
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Clock, PausedClock, Timestamp,
    policy::{self, Costs, Optimal},
    prelude::*,
    testing::{self, TIME_OF_START, TestApp},
    transport::{LogTransport, LogUrl, Transport as _},
};
use oncue_log::{Options, Writer, storage::MemoryStorage};
use parking_lot::Mutex;

const OUTAGE: Duration = Duration::from_secs(120);
const EVENTS: usize = 40;

/// A bank that may be down, and when it was called.
#[derive(Clone, Default)]
struct Bank {
    down: Arc<AtomicBool>,
    running: Arc<Mutex<usize>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Clone, Debug)]
struct Call {
    at: Timestamp,
    at_once: usize,
    worked: bool,
}

impl Bank {
    async fn call(&self, clock: Clock) -> Result<(), HandlerError> {
        let at_once = {
            let mut running = self.running.lock();
            *running += 1;
            *running
        };
        let at = clock.now();
        clock.sleep(Duration::from_millis(50)).await;
        *self.running.lock() -= 1;
        let worked = !self.down.load(Ordering::SeqCst);
        self.calls.lock().push(Call { at, at_once, worked });
        if worked { Ok(()) } else { Err(HandlerError::transient("the bank is down")) }
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }
}

async fn charge(_: Envelope, State(bank): State<Bank>, State(clock): State<Clock>) -> Result<(), HandlerError> {
    bank.call(clock).await
}

async fn refund(_: Envelope, State(bank): State<Bank>, State(clock): State<Clock>) -> Result<(), HandlerError> {
    bank.call(clock).await
}

fn bank_policy() -> Optimal {
    policy::optimal().dependency("bank")
}

fn shop(app: App, bank: &Bank) -> App {
    app.state(bank.clone())
        .on(charge.named("charge").types(["order.created"]).retry(bank_policy()))
        .on(refund.named("refund").types(["order.canceled"]).retry(bank_policy()))
}

fn event(event_type: &str, number: usize) -> Envelope {
    Envelope::builder(event_type).subject(format!("o-{number}")).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_parks_all_events_one_at_a_time_tries_and_then_they_all_come_through() -> testing::Result {
    let bank = Bank::default();
    let test = TestApp::start(|app| shop(app, &bank)).await?;
    for number in 0..20 {
        test.publish(event("order.created", number)).await?;
    }
    test.run_until_idle().await?;
    assert!(bank.calls().iter().all(|call| call.worked));
    bank.down.store(true, Ordering::SeqCst);
    let began = test.now();
    for number in 0..EVENTS {
        test.publish(event("order.created", number)).await?;
        test.publish(event("order.canceled", number)).await?;
    }
    test.advance(OUTAGE).await?;
    let during: Vec<Call> = bank.calls().into_iter().filter(|call| call.at >= began).collect();
    // Those that were called together before anybody could know: as many as both handlers call at once.
    let probes: Vec<&Call> = during.iter().filter(|call| call.at > began.after(Duration::from_millis(60))).collect();
    assert!(during.len() - probes.len() <= 32, "{}", during.len());
    assert!(probes.iter().all(|call| call.at_once == 1), "one at a time: {probes:?}");
    // What exponential delays would have made of 80 events in two minutes: nine attempts each, more than 700.
    assert!((5..100).contains(&probes.len()), "{} in {OUTAGE:?}", probes.len());
    bank.down.store(false, Ordering::SeqCst);
    let over = test.now();
    test.run_until_idle().await?;
    for (handler, events) in [("charge", EVENTS + 20), ("refund", EVENTS)] {
        test.assert_acked(handler, events);
        test.assert_dead(handler, 0);
    }
    let waited = test.now().since(over);
    assert!(waited < OUTAGE / 2, "{waited:?} after it was over");
    let attempts = test.bus().inspect().attempts("charge").unwrap();
    assert!(attempts.outages.cells().iter().any(|cell| cell.over > 0.0), "that it was over was seen");
    assert_eq!(attempts.down_since(), None);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_by_itself_parks_nobody() -> testing::Result {
    let bank = Bank::default();
    let test = TestApp::start(|app| shop(app, &bank)).await?;
    test.fail_with("charge", |call| {
        (call.envelope().key() == Some("o-7")).then(|| HandlerError::transient("its card is odd"))
    });
    for number in 0..EVENTS {
        test.publish(event("order.created", number)).await?;
    }
    test.advance(Duration::from_secs(1)).await?;
    test.assert_acked("charge", EVENTS - 1);
    test.run_until_idle().await?;
    test.assert_dead("charge", 1);
    assert_eq!(test.attempts("charge").iter().filter(|attempt| attempt.event.key() == Some("o-7")).count(), 10);
    Ok(())
}

/// What it answers in a second, and how many calls it may be behind.
const CAPACITY: (f64, f64) = (5.0, 5.0);

/// Until when calls are answered that it has taken, and how many it turned away.
#[derive(Clone, Default)]
struct Busy(Arc<Mutex<(Option<Timestamp>, usize)>>);

async fn ask(_: Envelope, State(busy): State<Busy>, State(clock): State<Clock>) -> Result<(), HandlerError> {
    let answers = {
        let (until, turned_away) = &mut *busy.0.lock();
        let now = clock.now();
        let free = until.map_or(now, |until| until.max(now));
        let answers = free.since(now).as_secs_f64() * CAPACITY.0 <= CAPACITY.1 - 1.0;
        match answers {
            true => *until = Some(free.after(Duration::from_secs_f64(1.0 / CAPACITY.0))),
            false => *turned_away += 1,
        }
        answers
    };
    clock.sleep(Duration::from_millis(20)).await;
    if answers { Ok(()) } else { Err(HandlerError::throttled("too many")) }
}

#[tokio::test(start_paused = true)]
async fn of_many_events_at_once_none_is_lost_where_most_are_turned_away() -> testing::Result {
    const EVENTS: usize = 300;
    let busy = Busy::default();
    let handler = ask.named("ask").types(["order.created"]).retry(policy::optimal());
    let test = TestApp::start(|app| app.state(busy.clone()).on(handler)).await?;
    let began = test.now();
    for number in 0..EVENTS {
        test.publish(event("order.created", number)).await?;
    }
    test.run_until_idle().await?;
    test.assert_acked("ask", EVENTS);
    test.assert_dead("ask", 0);
    let (took, turned_away) = (test.now().since(began).as_secs_f64(), busy.0.lock().1);
    // It cannot be faster than a minute. Of 16 calls at once, most would be turned away, again and again.
    let least = EVENTS as f64 / CAPACITY.0;
    assert!(took < 3.0 * least && turned_away < 3 * EVENTS, "{took} s, at least {least}; {turned_away} turned away");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_what_is_down_is_a_dead_letter_at_its_deadline() -> testing::Result {
    let bank = Bank::default();
    let policy = bank_policy().deadline(Duration::from_secs(30));
    let handler = charge.named("charge").types(["order.created"]).retry(policy);
    let test = TestApp::start(|app| app.state(bank.clone()).on(handler)).await?;
    bank.down.store(true, Ordering::SeqCst);
    for number in 0..EVENTS {
        test.publish(event("order.created", number)).await?;
    }
    let began = test.now();
    test.run_until_idle().await?;
    test.assert_dead("charge", EVENTS);
    assert!(bank.calls().iter().all(|call| call.at.since(began) <= Duration::from_secs(30)));
    let letters = test.bus().inspect().dead_letters("charge").unwrap();
    let waited = |error: &str| error.contains("deadline passed while `bank`");
    assert!(letters.iter().any(|letter| letter.history.last().is_some_and(|last| waited(&last.error))));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_same_is_known_and_an_outage_goes_on() -> oncue::Result<()> {
    let time = PausedClock::new(TIME_OF_START).unwrap();
    // Written at once, by whoever publishes: time does not go on while a disk is busy.
    let (storage, options) = (MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let open = || {
        let (url, storage) = (LogUrl::from_str("memory:")?, Box::new(storage.clone()));
        Ok::<_, oncue::Error>(Arc::new(LogTransport::on_storage(url, storage, options.clone(), time.clock())?))
    };
    let bank = Bank::default();
    let bus = shop(App::with_transport(open()?, time.clock()), &bank).start().await?;
    for number in 0..10 {
        bus.publish(event("order.created", number)).await?;
    }
    bus.idle().await?;
    bank.down.store(true, Ordering::SeqCst);
    for number in 0..EVENTS {
        bus.publish(event("order.created", number)).await?;
    }
    time.advance(Duration::from_secs(20)).await;
    let before = bus.inspect().attempts("charge").unwrap();
    assert!(before.down_since().is_some() && before.odds.worked == 10, "{before:?}");
    bus.shutdown().await?;
    drop(bus);
    let transport = open()?;
    let told = transport.inspect().attempts("charge").unwrap();
    assert!(told.down_since() == before.down_since() && told.counted >= before.counted);
    bank.calls.lock().clear();

    let bus = shop(App::with_transport(transport, time.clock()), &bank).start().await?;
    assert_eq!(bus.inspect().attempts("charge"), Some(told), "the same after the restart");
    time.advance(Duration::from_secs(20)).await;
    let calls = bank.calls();
    assert!(calls.len() < 20 && calls.iter().all(|call| call.at_once == 1), "{calls:?}");
    bank.down.store(false, Ordering::SeqCst);
    bus.idle().await?;
    let info = bus.inspect().subscriptions().into_iter().find(|info| info.id == "charge").unwrap();
    assert_eq!((info.stats.acked, info.dead), (EVENTS as u64 + 10, 0));
    bus.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn costs_that_make_no_sense_are_told_at_the_start_and_what_cannot_be_computed_stops_nothing() -> testing::Result {
    let with = |costs: Costs| charge.named("charge").types(["order.created"]).retry(bank_policy().costs(costs));
    let cheap = Costs { loss: 0.01, ..Costs::default() };
    let refused = TestApp::start(|app| app.state(Bank::default()).on(with(cheap))).await;
    let text = refused.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("charge") && text.contains("every failure would be a dead letter at once"), "{text}");

    let by_default = charge.named("charge").types(["order.created"]);
    let app = |app: App| app.state(Bank::default()).default_policy(bank_policy().costs(cheap)).on(by_default);
    assert!(TestApp::start(app).await.is_err(), "the app's own policy is looked at, too");

    // They are numbers, and their sums are not.
    let huge = Costs { success: 1e308, attempt: 1e308, delay_per_s: 1e308, loss: 1.7e308 };
    let test = TestApp::start(|app| app.state(Bank::default()).on(with(huge))).await?;
    test.fail("charge", 2, HandlerError::transient("no"));
    test.publish(event("order.created", 1)).await?;
    test.run_until_idle().await?;
    test.assert_attempts("charge", 3);
    test.assert_acked("charge", 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_there_by_its_name() -> testing::Result {
    let handler = charge.named("charge").types(["order.created"]).retry("optimal");
    let test = TestApp::start(|app| app.state(Bank::default()).on(handler)).await?;
    test.fail("charge", 1, HandlerError::transient("no"));
    test.publish(event("order.created", 1)).await?;
    test.run_until_idle().await?;
    test.assert_attempts("charge", 2);
    Ok(())
}
