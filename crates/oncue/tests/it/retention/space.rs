//! The space of what is dropped is given back, and nothing that is wanted goes with it: whatever fails, and whenever.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{
    App, Bus, Clock, Envelope, ManualClock, Timestamp,
    handler::{
        HandlerError,
        extract::{Keyed, State},
    },
    policy,
    prelude::*,
    transport::{LogTransport, Retention},
};
use oncue_log::storage::{Call, FaultyStorage};

use super::{Filled, overtaken::small};

/// Keeps a value that is too large for checkpoints, and gives up on some.
#[handler(on = "filled", topic = "busy")]
async fn busy(filled: Filled, mut kept: Keyed<(u64, String)>) -> Result<(), HandlerError> {
    if filled.number % 50 == 7 {
        return Err(HandlerError::reject("never"));
    }
    *kept = (filled.number, "x".repeat(600));
    Ok(())
}

fn app(storage: &FaultyStorage, query: &str) -> Option<(Arc<LogTransport>, App)> {
    app_at(&Clock::system(), storage, query)
}

fn app_at(clock: &Clock, storage: &FaultyStorage, query: &str) -> Option<(Arc<LogTransport>, App)> {
    let url = format!("memory:?{query}").parse().unwrap();
    let log = LogTransport::on_storage(url, Box::new(storage.clone()), small(), clock.clone()).ok()?;
    let log = Arc::new(log);
    Some((Arc::clone(&log), App::with_transport(log, clock.clone())))
}

fn filled(number: u64) -> Envelope {
    let key = format!("key{}", number % 5);
    Envelope::of(&Filled { key, number, filler: "x".repeat(200) }).unwrap()
}

/// All that a topic holds, by offset.
fn held(bus: &Bus, topic: &str) -> BTreeMap<u64, u64> {
    let number = |event: &Envelope| serde_json::from_slice::<Filled>(event.data()).unwrap().number;
    let events = bus.inspect().browse(topic, 0, usize::MAX).unwrap();
    events.into_iter().map(|(position, event)| (position.offset(), number(&event))).collect()
}

#[tokio::test]
async fn a_topic_that_is_kept_for_long_does_not_hold_the_space_of_the_others() {
    let storage = FaultyStorage::new(3);
    let (log, app) = app(&storage, "retention=forever").unwrap();
    let bus = app.retention("busy", Retention::forever().bytes(20_000)).on(busy).start().await.unwrap();
    let mut audited = BTreeMap::new();
    for round in 0..60 {
        let receipt = bus.publish_to("audit", filled(round)).await.unwrap();
        audited.insert(receipt.address().position.offset(), round);
        let batch = (round * 20..(round + 1) * 20).map(filled).collect();
        bus.publish_all("busy", batch, None).await.unwrap();
        bus.idle().await.unwrap();
    }
    bus.retain().await.unwrap();
    let (written, left) = (log.log().stats().bytes, log.log().stats().stored_bytes);
    assert_eq!(held(&bus, "audit"), audited, "all of it, where it was");
    let kept = held(&bus, "busy");
    assert!((50..=80).contains(&kept.len()), "{} events of 270 bytes in 20,000", kept.len());
    assert!(kept.iter().all(|(offset, number)| offset == number));
    // 60 events of 300 bytes and as many of the other topic; letters, values, and what came since the checkpoint, wherever
    // that stands.
    assert!(left < written / 3, "{written} bytes were written, {left} are left");
    assert_eq!(bus.inspect().dead_letters("busy").unwrap().len(), 1200 / 50);
    assert_eq!(bus.inspect().states("busy").unwrap().len(), 5);
    bus.shutdown().await.unwrap();
}

type Seen = Arc<Mutex<Vec<u64>>>;

/// Comes late to the same topic.
#[handler(on = "filled", topic = "busy")]
async fn lazy(filled: Filled, State(seen): State<Seen>) {
    seen.lock().unwrap().push(filled.number);
}

/// Fails twice, then waits for a year.
#[handler(on = "filled", topic = "audit", retry = policy::list([Duration::from_millis(1), Duration::from_secs(365 * 86_400)]))]
async fn patient(filled: Filled) -> Result<(), HandlerError> {
    if filled.number == 3 { Err(HandlerError::transient("not yet")) } else { Ok(()) }
}

const BUSY: u64 = 300;
const AUDITED: u64 = 12;

/// Topics, settled and not, letters, states and attempts; nothing is dropped yet.
async fn fill(storage: &FaultyStorage) -> Bus {
    let (_, app) = app(storage, "retention=forever").unwrap();
    let bus = app.state(Seen::default()).on(busy).on(lazy).on(patient).start().await.unwrap();
    bus.pause("lazy").await.unwrap();
    for round in 0..AUDITED {
        bus.publish_to("audit", filled(round)).await.unwrap();
        let each = BUSY / AUDITED;
        bus.publish_all("busy", (round * each..(round + 1) * each).map(filled).collect(), None).await.unwrap();
    }
    let of = |bus: &Bus, id: &str| bus.inspect().subscriptions().into_iter().find(|info| info.id == id).unwrap();
    while of(&bus, "busy").lag > 0 || of(&bus, "patient").stats.retried < 2 {
        tokio::task::yield_now().await;
    }
    bus
}

/// All that is wanted is there, at its place; and who misses something knows it.
async fn check(storage: &FaultyStorage, context: &str) {
    let seen = Seen::default();
    let (_, app) = app(storage, "retention=forever").unwrap_or_else(|| panic!("{context}: it does not open"));
    let bus = app.state(Arc::clone(&seen)).on(busy).on(lazy).on(patient).start().await.unwrap();
    // What was set may have been kept: then a pass runs by itself, and is to be over before anything is compared.
    bus.retain().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(held(&bus, "audit"), (0..AUDITED).map(|number| (number, number)).collect(), "{context}");
    let topic = bus.inspect().topics().into_iter().find(|topic| topic.name == "busy").unwrap();
    let kept: BTreeMap<u64, u64> = (topic.first_offset..BUSY).map(|number| (number, number)).collect();
    assert_eq!(held(&bus, "busy"), kept, "{context}: from {} on", topic.first_offset);
    assert!(kept.len() >= 30, "{context}: {} events are left", kept.len());
    let letters = bus.inspect().dead_letters("busy").unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!((letters.len() as u64, letters[0].history.len()), (BUSY / 50, 1), "{context}");
    let states = bus.inspect().states("busy").unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(states.len(), 5, "{context}");
    let (position, _) = bus.inspect().browse("audit", 3, 1).unwrap()[0];
    let handling = bus.inspect().handling("audit", position).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(handling[0].failed.len(), 2, "{context}: both attempts are told");
    let lazy = bus.inspect().subscriptions().into_iter().find(|info| info.id == "lazy").unwrap();
    // Between the record of who misses what and that of the drop, the power may have gone.
    assert!(lazy.missed >= topic.first_offset && lazy.missed <= BUSY - 30, "{context}: {} are missed", lazy.missed);
    bus.resume("lazy").await.unwrap();
    while bus.inspect().subscriptions().into_iter().any(|info| info.id == "lazy" && info.lag > 0) {
        tokio::task::yield_now().await;
    }
    let mut numbers = seen.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (lazy.missed..BUSY).collect::<Vec<_>>(), "{context}: it goes on behind that");
    bus.shutdown().await.unwrap();
}

/// Every call of a pass that changes the disk is the last one: whatever is left then has all that is wanted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_power_at_any_call_of_a_pass_loses_nothing_that_is_wanted() {
    let mut passed = 0;
    for nth in 0.. {
        let storage = FaultyStorage::new(nth);
        let bus = fill(&storage).await;
        let before = storage.changes();
        storage.power_off_at(nth);
        let few = Retention::forever().bytes(20_000);
        let mut ended = bus.set_retention("busy", few).await.is_ok() && bus.retain().await.is_ok() && storage.is_on();
        let changes = storage.changes() - before;
        if ended {
            storage.heal();
            ended = bus.shutdown().await.is_ok();
        } else {
            drop(bus);
        }
        check(&storage.crash(), &format!("power lost at call {nth} of {changes}")).await;
        if ended {
            passed = nth;
            break;
        }
    }
    assert!(passed > 10, "a pass has more than {passed} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_retention_makes_room_and_writing_goes_on_once_the_log_is_opened_again() {
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let mut storage = FaultyStorage::new(5);
    let start = |storage: FaultyStorage| {
        let clock = clock.clock();
        async move {
            let (log, app) = app_at(&clock, &storage, "retain=10h").unwrap();
            (log, app.on(busy).start().await.unwrap())
        }
    };
    let (log, bus) = start(storage.clone()).await;
    bus.unsubscribe("busy").await.unwrap();
    bus.retain().await.unwrap();
    storage.limit(Some(400_000));
    let mut published = 0;
    let error = loop {
        match bus.publish_to("busy", filled(published)).await {
            Ok(_) => published += 1,
            Err(error) => break error.to_string(),
        }
        assert!(published < 10_000, "400,000 bytes are full some time");
    };
    assert!(error.contains("no more writes"), "{error}");
    assert_eq!(held(&bus, "busy").len() as u64, published, "what was acknowledged is read");
    let full = log.log().stats().stored_bytes;
    bus.retain().await.unwrap();
    assert_eq!(held(&bus, "busy").len() as u64, published, "nothing is too old");
    clock.advance(Duration::from_secs(11 * 3_600));
    bus.retain().await.unwrap();
    let left = log.log().stats().stored_bytes;
    // All that lies below the newest checkpoint.
    assert!(left < full / 3, "{full} bytes before, {left} after");
    drop((log, bus));
    storage = storage.restart();
    storage.limit(Some(400_000));
    let (log, bus) = start(storage).await;
    bus.publish_to("busy", filled(published)).await.unwrap();
    bus.retain().await.unwrap();
    bus.idle().await.unwrap();
    let (info, topic) = (bus.inspect().subscriptions().pop().unwrap(), bus.inspect().topics().pop().unwrap());
    assert!(info.missed > published / 2, "{} of {published} were missed", info.missed);
    assert_eq!(info.missed + info.stats.finished(), topic.next_offset, "each was handled, or is counted as missed");
    assert!(log.log().stats().stored_bytes < 400_000);
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_but_not_durably_keeps_its_space_when_the_disk_is_full() {
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)).clock();
    let storage = FaultyStorage::new(7);
    let (log, app) = app_at(&clock, &storage, "retain=10h").unwrap();
    let bus = app.start().await.unwrap();
    for round in 0..20 {
        bus.publish_all("audit", (round * 20..(round + 1) * 20).map(filled).collect(), None).await.unwrap();
    }
    bus.retain().await.unwrap();
    storage.fail_from(Call::Write, 0, ErrorKind::StorageFull);
    // As a pass does that finds them settled; a crash takes that back, if the settling is not durable either.
    let topic = log.log().topics().into_iter().find(|topic| topic.name == "audit").unwrap();
    let ticket = log.log().drop_events(topic.id, 400, clock.now().as_micros()).unwrap();
    log.log().wait_durable(ticket.end).unwrap_err();
    let before = log.log().stats().stored_bytes;
    bus.retain().await.unwrap();
    assert_eq!(log.log().stats().stored_bytes, before, "nothing durable says that it may go");
}
