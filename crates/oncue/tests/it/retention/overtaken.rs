//! Limits of age and of bytes drop what is not settled too: whoever is overtaken goes on, and knows what it missed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use oncue::{
    App, Bus, Envelope, EventOutcome, ManualClock, Timestamp,
    alert::{AlertKind, Alerts},
    config::Config,
    handler::{HandlerError, extract::State},
    policy,
    prelude::*,
    transport::{LogTransport, OnDeadLetter, Retention, RetentionFrom, SubscriptionInfo},
};
use oncue_log::{Options, storage::FaultyStorage};
use tokio::sync::Semaphore;

use super::Filled;

const HOUR: Duration = Duration::from_secs(3_600);

type Seen = Arc<Mutex<Vec<u64>>>;

/// Small segments, and few of them in memory.
pub(super) fn small() -> Options {
    Options { segment_bytes: 16 << 10, checkpoint_bytes: 8 << 10, tail_bytes: 4 << 10, ..Options::default() }
}

/// A log that a clock and a storage of the test's stand under; to be opened again.
struct World {
    clock: ManualClock,
    storage: FaultyStorage,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
        Self { clock, storage: FaultyStorage::new(7) }
    }

    fn app(&self, query: &str) -> App {
        let url = format!("memory:?{query}").parse().unwrap();
        let storage = Box::new(self.storage.clone());
        let log = LogTransport::on_storage(url, storage, small(), self.clock.clock()).unwrap();
        App::with_transport(Arc::new(log), self.clock.clock())
    }
}

fn filled(key: &str, number: u64) -> Envelope {
    Envelope::of(&Filled { key: key.to_owned(), number, filler: String::new() }).unwrap()
}

async fn publish(bus: &Bus, key: &str, numbers: std::ops::Range<u64>) {
    bus.publish_all("events", numbers.map(|number| filled(key, number)).collect(), None).await.unwrap();
}

fn info(bus: &Bus, id: &str) -> SubscriptionInfo {
    bus.inspect().subscriptions().into_iter().find(|info| info.id == id).unwrap()
}

#[handler]
async fn slow(filled: Filled, State(seen): State<Seen>) {
    seen.lock().unwrap().push(filled.number);
}

#[handler]
async fn fast(_: Filled) {}

#[tokio::test]
async fn what_is_too_old_goes_settled_or_not_and_who_was_not_through_is_told_how_much_it_missed() {
    let world = World::new();
    let seen = Seen::default();
    let start = || world.app("retain=10h").state(Arc::clone(&seen)).on(slow).on(fast);
    let bus = start().start().await.unwrap();
    publish(&bus, "a", 0..2).await;
    bus.idle().await.unwrap();
    bus.pause("slow").await.unwrap();
    publish(&bus, "a", 2..10).await;
    let lost = bus.publish_to("events", filled("b", 10)).await.unwrap();
    bus.idle().await.unwrap();
    world.clock.advance(9 * HOUR);
    bus.retain().await.unwrap();
    assert_eq!(bus.inspect().topics()[0].first_offset, 0, "nothing is 10 hours old");
    world.clock.advance(2 * HOUR);
    publish(&bus, "a", 11..14).await;
    bus.idle().await.unwrap();
    bus.retain().await.unwrap();
    let topic = &bus.inspect().topics()[0];
    assert_eq!((topic.first_offset, topic.next_offset), (11, 14));
    assert_eq!((info(&bus, "slow").missed, info(&bus, "slow").lag), (9, 3));
    assert_eq!((info(&bus, "fast").missed, info(&bus, "fast").lag), (0, 0), "it was through with them");
    assert_eq!(lost.outcome_of("slow", HOUR).await.unwrap(), EventOutcome::Missed);
    assert_eq!(lost.outcome_of("fast", HOUR).await.unwrap(), EventOutcome::Acked);
    bus.resume("slow").await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 11, 12, 13]);
    bus.shutdown().await.unwrap();
    let bus = start().start().await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!((info(&bus, "slow").missed, info(&bus, "slow").lag), (9, 0), "it is remembered");
    assert_eq!(seen.lock().unwrap().len(), 5, "and nothing comes twice");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_age_is_kept_by_itself_as_the_clock_moves() {
    let world = World::new();
    let bus = world.app("retain=10h").on(fast).start().await.unwrap();
    publish(&bus, "a", 0..5).await;
    bus.idle().await.unwrap();
    bus.retain().await.unwrap();
    // An hour is the most that an event goes late; the pass runs beside the test, and tells of its progress.
    let dropped = async {
        loop {
            let progress = bus.transport().progress();
            if bus.inspect().topics()[0].first_offset == 5 {
                break;
            }
            world.clock.advance(HOUR);
            tokio::select! {
                () = progress => {}
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), dropped).await.expect("the events go");
    bus.shutdown().await.unwrap();
}

/// Handles what it has a permit for.
#[handler(retry = policy::fixed(HOUR), concurrency = 8)]
async fn gated(
    filled: Filled,
    State(gate): State<Arc<Semaphore>>,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    gate.acquire().await.expect("never closed").forget();
    seen.lock().unwrap().push(filled.number);
    if filled.key == "late" { Err(HandlerError::transient("not yet")) } else { Ok(()) }
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_what_waits_behind_it_is_missed() {
    let world = World::new();
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Seen::default());
    let app = world.app("retain=10h").state(Arc::clone(&gate)).state(Arc::clone(&seen)).on(gated);
    let bus = app.start().await.unwrap();
    publish(&bus, "late", 0..3).await;
    publish(&bus, "a", 3..6).await;
    // The first of `late` fails and waits for its retry; then the first of `a` is under way.
    gate.add_permits(1);
    while seen.lock().unwrap().is_empty() || info(&bus, "gated").retrying + info(&bus, "gated").in_flight < 2 {
        tokio::task::yield_now().await;
    }
    let under_way = info(&bus, "gated").in_flight;
    world.clock.advance(11 * HOUR);
    publish(&bus, "late", 6..7).await;
    publish(&bus, "a", 7..8).await;
    bus.retain().await.unwrap();
    assert!(info(&bus, "gated").missed >= 5, "{}", info(&bus, "gated").missed);
    assert_eq!(bus.inspect().topics()[0].first_offset, 6);
    gate.add_permits(100);
    while info(&bus, "gated").stats.acked == 0 || info(&bus, "gated").lag > 1 {
        tokio::task::yield_now().await;
    }
    let numbers = seen.lock().unwrap().clone();
    assert!(numbers.contains(&6) && numbers.contains(&7), "it goes on with what is kept: {numbers:?}");
    let acked = numbers.iter().filter(|number| (3..6).contains(*number)).count() as u64;
    assert!(acked <= under_way, "only what was under way: {numbers:?}");
    assert_eq!(info(&bus, "gated").missed, 6 - acked, "what was finished was not missed: {numbers:?}");
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[handler(retry = policy::fixed(HOUR).max_attempts(3), on_dead_letter = OnDeadLetter::Hold)]
async fn strict(filled: Filled, State(seen): State<Seen>) -> Result<(), HandlerError> {
    seen.lock().unwrap().push(filled.number);
    if filled.number == 0 { Err(HandlerError::transient("no such account")) } else { Ok(()) }
}

#[tokio::test]
async fn dead_letters_and_what_they_hold_outlive_their_events() {
    let world = World::new();
    let seen = Seen::default();
    let start = || world.app("retention=forever").state(Arc::clone(&seen)).on(strict);
    let bus = start().start().await.unwrap();
    publish(&bus, "a", 0..1).await;
    while info(&bus, "strict").dead == 0 {
        world.clock.advance(HOUR);
        tokio::task::yield_now().await;
    }
    world.clock.advance(11 * HOUR);
    publish(&bus, "a", 1..2).await;
    publish(&bus, "b", 2..3).await;
    bus.set_retention("events", Retention::forever().age(10 * HOUR)).await.unwrap();
    bus.retain().await.unwrap();
    assert_eq!(bus.inspect().topics()[0].first_offset, 1);
    bus.idle().await.unwrap();
    assert_eq!(info(&bus, "strict").missed, 0, "a copy is kept");
    bus.shutdown().await.unwrap();
    let bus = start().start().await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 0, 0, 2], "the key is held, also after a restart");
    let dead = bus.dead_letters("strict").list().unwrap();
    assert_eq!((dead.len(), dead[0].history.len()), (1, 3));
    bus.dead_letters("strict").discard(dead[0].position).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 0, 0, 2, 1], "and goes on then");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn run_time_wins_over_the_file_the_code_and_the_url() {
    let world = World::new();
    let hours = |hours: u32| Retention::forever().age(hours * HOUR);
    let start = || async {
        let bus =
            world.app("retain=1h").retention("coded", hours(2)).retention("filed", hours(2)).start().await.unwrap();
        let file = "[topics.filed]\nretain = \"3h\"\n[topics.set]\nretain = \"3h\"\nretention = \"settled\"\n";
        bus.reload(Config::parse(file, "oncue.toml").unwrap()).await.unwrap();
        bus
    };
    let kept = |bus: &Bus| -> Vec<(String, Retention, RetentionFrom)> {
        let topics = bus.inspect().topics().into_iter();
        topics.map(|topic| (topic.name, topic.retention, topic.retention_from)).collect()
    };
    let bus = start().await;
    for topic in ["plain", "coded", "filed", "set"] {
        bus.publish_to(topic, filled("a", 1)).await.unwrap();
    }
    bus.set_retention("set", Retention::settled().bytes(5)).await.unwrap();
    let of = |name: &str, retention, from| (name.to_owned(), retention, from);
    let expected = [
        of("plain", hours(1), RetentionFrom::Url),
        of("coded", hours(2), RetentionFrom::Code),
        of("filed", hours(3), RetentionFrom::Config),
        of("set", Retention::settled().bytes(5), RetentionFrom::RunTime),
    ];
    assert_eq!(kept(&bus), expected);
    bus.shutdown().await.unwrap();
    let bus = start().await;
    assert_eq!(kept(&bus), expected, "after a restart");
    bus.set_retention("set", None).await.unwrap();
    assert_eq!(kept(&bus)[3], of("set", Retention::settled().age(3 * HOUR), RetentionFrom::Config));
    bus.reload(Config::default()).await.unwrap();
    assert_eq!(kept(&bus)[3], of("set", hours(1), RetentionFrom::Url));
    assert!(bus.set_retention("no name", None).await.unwrap_err().to_string().contains("no name"));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_is_overtaken_is_alerted_once_and_the_alert_recovers() {
    let world = World::new();
    let app = world.app("retain=10h").state(Seen::default()).on(slow).alerts(Alerts::default());
    let bus = app.start().await.unwrap();
    bus.pause("slow").await.unwrap();
    publish(&bus, "a", 0..4).await;
    world.clock.advance(11 * HOUR);
    bus.retain().await.unwrap();
    let missed = |alerts: Vec<oncue::alert::Alert>| {
        let of_kind = alerts.into_iter().filter(|alert| alert.kind == AlertKind::Missed);
        of_kind.map(|alert| (alert.subject, alert.value)).collect::<Vec<_>>()
    };
    assert_eq!(missed(bus.check_alerts().await), [("slow".to_owned(), 4)]);
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(missed(bus.check_alerts().await).len(), 1, "it has not been over for long enough");
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(missed(bus.check_alerts().await), []);
    bus.shutdown().await.unwrap();
    let bus = world.app("retain=10h").state(Seen::default()).on(slow).alerts(Alerts::default()).start().await.unwrap();
    assert_eq!(missed(bus.check_alerts().await), [], "it was told of before");
    bus.shutdown().await.unwrap();
}
