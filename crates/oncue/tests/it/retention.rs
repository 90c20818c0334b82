//! A log that drops what is settled stays small, and loses nothing that is wanted.

mod overtaken;
mod space;

use std::sync::Arc;

use bytes::Bytes;
use oncue::{
    App, Bus, Clock, Envelope, ManualClock, Timestamp,
    handler::{
        HandlerError,
        extract::{Keyed, State},
    },
    prelude::*,
    transport::{LogTransport, LogUrl, Start},
};
use oncue_log::{Options, storage::FaultyStorage};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "filled", key = key)]
struct Filled {
    key: String,
    number: u64,
    filler: String,
}

#[handler]
async fn sum(filled: Filled, mut total: Keyed<u64>) -> Result<(), HandlerError> {
    if filled.key == "bad" {
        return Err(HandlerError::reject("bad"));
    }
    *total += filled.number;
    Ok(())
}

fn app(url: &str) -> (Arc<LogTransport>, App) {
    let url: LogUrl = url.parse().unwrap();
    let transport = Arc::new(LogTransport::open(&url, Clock::system()).unwrap());
    (transport.clone(), App::with_transport(transport, Clock::system()))
}

/// Ten keys that begin with `key`, or that key alone if there is one event.
fn batch(key: &str, numbers: std::ops::Range<u64>) -> Vec<Envelope> {
    let name = |number| if numbers.end - numbers.start == 1 { key.to_owned() } else { format!("{key}{}", number % 10) };
    let filled = |number| Filled { key: name(number), number, filler: "x".repeat(4000) };
    numbers.clone().map(|number| Envelope::of(&filled(number)).unwrap()).collect()
}

async fn publish(bus: &Bus, key: &str, numbers: std::ops::Range<u64>) -> oncue::Result<()> {
    bus.publish_all("events", batch(key, numbers), None).await.map(|_| ())
}

#[tokio::test]
async fn what_is_settled_goes_and_what_is_wanted_stays() {
    let (transport, app) = app("memory:");
    let bus = app.on(sum).start().await.unwrap();
    publish(&bus, "early", 6..7).await.unwrap();
    publish(&bus, "bad", 0..1).await.unwrap();
    for round in 0..30 {
        publish(&bus, "busy", round * 500..(round + 1) * 500).await.unwrap();
        bus.idle().await.unwrap();
    }
    bus.retain().await.unwrap();
    let stored = transport.log().stats().stored_bytes;
    assert!(stored <= 3 * (8 << 20), "60 MB passed through, and {stored} bytes are left, in segments of 8 MiB");
    let states = bus.inspect().states("sum").unwrap();
    let total: u64 = states.iter().map(|(_, value)| std::str::from_utf8(value).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!((states.len(), total), (11, (0..15_000).sum::<u64>() + 6));
    let dead = bus.inspect().dead_letters("sum").unwrap();
    assert_eq!((dead.len(), dead[0].history[0].error.as_str()), (1, "bad"));
    assert_eq!(bus.inspect().subscriptions()[0].stats.dead, 1, "writing it again does not count it again");
    let late = bus.inspect().browse("events", 0, 1);
    assert!(late.unwrap().iter().all(|(position, _)| position.offset() > 0), "the beginning is gone");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_nobody_reads_fills_up_and_says_so_until_somebody_does() {
    let (_, app) = app("memory:?max_bytes=20000000");
    let bus = app.start().await.unwrap();
    let mut published = 0;
    let error = loop {
        match publish(&bus, "a", published..published + 500).await {
            Ok(()) => published += 500,
            Err(error) => break error.to_string(),
        }
        assert!(published < 100_000);
    };
    assert!(error.contains("max_bytes"), "{error}");
    assert!(published >= 2_500, "{published} events of 4 kB fit into 20 MB");
}

/// Keeps every number in a value that is too large for checkpoints; gives up on some events.
#[handler]
async fn carry(filled: Filled, mut kept: Keyed<(Vec<u64>, String)>) -> Result<(), HandlerError> {
    if filled.number % 7 == 2 {
        return Err(HandlerError::reject("never"));
    }
    kept.0.push(filled.number);
    kept.1 = "x".repeat(600);
    Ok(())
}

async fn open(storage: &FaultyStorage) -> Option<Bus> {
    let options = Options { segment_bytes: 16 << 10, checkpoint_bytes: 8 << 10, ..Options::default() };
    let url: LogUrl = "memory:?retention=settled".parse().unwrap();
    let transport = LogTransport::on_storage(url, Box::new(storage.clone()), options, Clock::system()).ok()?;
    App::with_transport(Arc::new(transport), Clock::system()).on(carry).start().await.ok()
}

/// Few busy keys, and many quiet ones whose only value must be carried along.
fn numbered(number: u64) -> Envelope {
    let key = if number < 40 { format!("quiet{number}") } else { format!("busy{}", number % 3) };
    Envelope::of(&Filled { key, number, filler: String::new() }).unwrap()
}

/// A copy that was not durable when its original went was lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_segments_go_loses_neither_states_nor_dead_letters() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut storage = FaultyStorage::new(seed);
        let (mut next, mut acknowledged) = (0, Vec::new());
        for _ in 0..3 {
            storage.power_off_at(random.u64(60..500));
            if let Some(bus) = open(&storage).await {
                while next % 10_000 < 2_000 {
                    let batch = (next..next + 4).map(numbered).collect();
                    if bus.publish_all("events", batch, None).await.is_err() {
                        break;
                    }
                    acknowledged.extend(next..next + 4);
                    next += 4;
                }
            }
            next = (next / 10_000 + 1) * 10_000;
            storage = storage.crash();
        }
        let bus = open(&storage).await.expect("without faults the log opens");
        bus.idle().await.unwrap();
        let dead = bus.inspect().dead_letters("carry").unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(dead.len() >= acknowledged.iter().filter(|number| *number % 7 == 2).count(), "seed {seed}");
        let states = bus.inspect().states("carry").unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let kept = |(_, value): &(String, Bytes)| serde_json::from_slice::<(Vec<u64>, String)>(value).unwrap().0;
        let mut kept: Vec<u64> = states.iter().flat_map(kept).collect();
        kept.sort_unstable();
        assert!(kept.is_sorted_by(|one, other| one < other), "seed {seed}: counted twice");
        for number in acknowledged.iter().filter(|number| *number % 7 != 2) {
            assert!(kept.binary_search(number).is_ok(), "seed {seed}: {number} was acknowledged and is lost");
        }
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_log_takes_events_again_when_they_are_settled() {
    #[handler]
    async fn pass(_: Filled, State(gate): State<Arc<tokio::sync::Semaphore>>) {
        gate.acquire().await.expect("never closed").forget();
    }
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (_, app) = app("memory:?max_bytes=20000000");
    let bus = app.state(Arc::clone(&gate)).on(pass).start().await.unwrap();
    for round in 0..3 {
        let mut published = 0;
        while publish(&bus, "a", published..published + 500).await.is_ok() {
            published += 500;
        }
        assert!(published > 0, "round {round}: it is still full");
        gate.add_permits(usize::try_from(published).unwrap());
        bus.idle().await.unwrap();
    }
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_subscription_begins_at_the_first_event_since_a_time_also_where_the_clock_was_stepped_back() {
    let second = |seconds: i64| Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000);
    let clock = ManualClock::new(second(0));
    let transport = Arc::new(LogTransport::open(&"memory:?retention=forever".parse().unwrap(), clock.clock()).unwrap());
    let bus = App::with_transport(transport, clock.clock()).start().await.unwrap();
    for (number, at) in (0..).zip([100, 300, 200, 400]) {
        clock.set_wall(second(at));
        publish(&bus, "key", number..number + 1).await.unwrap();
    }
    for (since, first) in [(0, 0), (100, 0), (101, 1), (250, 1), (300, 1), (301, 3), (400, 3), (401, 4)] {
        let (seen, id) = (Arc::new(std::sync::Mutex::new(Vec::new())), format!("since-{since}"));
        let numbers = Arc::clone(&seen);
        let note = move |event: &Envelope| {
            numbers.lock().unwrap().push(serde_json::from_slice::<Filled>(event.data()).unwrap().number);
        };
        bus.subscribe(note.named(&id).types(["filled"]).inline().start(Start::Since(second(since)))).await.unwrap();
        bus.idle().await.unwrap();
        assert_eq!(*seen.lock().unwrap(), (first..4).collect::<Vec<u64>>(), "since {since}");
    }
    bus.shutdown().await.unwrap();
}
