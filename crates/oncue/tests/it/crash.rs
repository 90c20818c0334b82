//! Crashes at random writes, with a model as oracle: what was acknowledged, the order per key, each event's effect once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope,
    handler::{
        HandlerError,
        extract::{Context, Keyed},
    },
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl},
};
use oncue_log::{Options, storage::FaultyStorage};
use serde::{Deserialize, Serialize};

const KEYS: u64 = 5;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "added", key = key)]
struct Added {
    key: String,
    number: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "counted", key = key)]
struct Counted {
    key: String,
    number: u64,
}

/// Keeps every number it acked, in order; fails some attempts, and some events for good.
#[handler(retry = policy::fixed(Duration::ZERO).max_attempts(4), concurrency = 4)]
async fn keep(added: Added, context: Context, mut kept: Keyed<Vec<u64>>) -> Result<Counted, HandlerError> {
    if added.number.is_multiple_of(3) {
        tokio::task::yield_now().await;
    }
    kept.push(added.number);
    match added.number % 7 {
        1 if context.attempt() < 3 => Err(HandlerError::transient("not yet")),
        2 => Err(HandlerError::reject("never")),
        _ => Ok(Counted { key: added.key, number: added.number }),
    }
}

/// Counts what the first one emitted.
#[handler]
async fn tally(counted: Counted, mut total: Keyed<u64>) {
    *total += counted.number;
}

/// `feed_from`: from how many subscriptions on one reader reads for all of them.
async fn open(storage: &FaultyStorage, feed_from: u64) -> Option<Bus> {
    let options = Options { segment_bytes: 32 << 10, checkpoint_bytes: 16 << 10, ..Options::default() };
    let url: LogUrl = format!("memory:?retention=forever&feed_from={feed_from}").parse().unwrap();
    let transport = LogTransport::on_storage(url, Box::new(storage.clone()), options, Clock::system()).ok()?;
    App::with_transport(Arc::new(transport), Clock::system()).on(keep).on(tally).start().await.ok()
}

fn event(number: u64) -> Envelope {
    let added = Added { key: format!("k{}", number % KEYS), number };
    Envelope::builder_of(&added).unwrap().id(number.to_string()).source("/test").build().unwrap()
}

/// Publishes until something fails; gives the numbers that were acknowledged.
async fn publish_until_failure(bus: &Bus, from: u64, random: &mut fastrand::Rng) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for first in (from..from + 400).step_by(4) {
        let numbers = first..first + random.u64(1..=4);
        let events = numbers.clone().map(event).collect();
        if bus.publish_all("events", events, None).await.is_err() {
            break;
        }
        acknowledged.extend(numbers);
    }
    acknowledged
}

async fn one_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut storage = FaultyStorage::new(seed);
    let feed_from = 1 + seed % 2 * 7;
    let mut acknowledged = Vec::new();
    let mut next = 0;
    for _ in 0..4 {
        storage.power_off_at(random.u64(1..250));
        if let Some(bus) = open(&storage, feed_from).await {
            acknowledged.extend(publish_until_failure(&bus, next, &mut random).await);
            if storage.is_on() && random.bool() {
                // Sometimes the handlers get to the end of it before the power goes.
                let _ = bus.idle().await;
            }
        }
        next += 1000;
        storage = storage.crash();
    }
    let bus = open(&storage, feed_from).await.expect("without faults the log opens");
    bus.idle().await.unwrap();
    check(&bus, &acknowledged, seed);
    bus.shutdown().await.unwrap();
}

fn check(bus: &Bus, acknowledged: &[u64], seed: u64) {
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut stored = Vec::new();
    let mut emitted = Vec::new();
    for (_, event) in bus.inspect().browse("events", 0, usize::MAX).unwrap() {
        if event.event_type() == "added" {
            let added: Added = event.decode().unwrap();
            stored.push(added.number);
            if added.number % 7 != 2 {
                expected.entry(added.key).or_default().push(added.number);
            }
        } else {
            emitted.push(event.decode::<Counted>().unwrap().number);
        }
    }
    for number in acknowledged {
        assert!(stored.contains(number), "seed {seed}: {number} was acknowledged and is lost");
    }
    let states = bus.inspect().states("keep").unwrap();
    let kept: BTreeMap<String, Vec<u64>> =
        states.iter().map(|(key, value)| (key.clone(), serde_json::from_slice(value).unwrap())).collect();
    assert_eq!(kept, expected, "seed {seed}: each event once, in the order of its key");
    let mut all: Vec<u64> = expected.values().flatten().copied().collect();
    all.sort_unstable();
    emitted.sort_unstable();
    assert_eq!(emitted, all, "seed {seed}: one emitted event for each");
    let total: u64 = bus
        .inspect()
        .states("tally")
        .unwrap()
        .iter()
        .map(|(_, value)| serde_json::from_slice::<u64>(value).unwrap())
        .sum();
    assert_eq!(total, all.iter().sum::<u64>(), "seed {seed}: each emitted event counted once");
    let dead = bus.inspect().dead_letters("keep").unwrap();
    assert_eq!(dead.len(), stored.iter().filter(|number| *number % 7 == 2).count(), "seed {seed}");
}

#[test]
fn after_crashes_at_random_writes_nothing_acknowledged_is_lost_and_nothing_counts_twice() {
    for seed in 0..60 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let history = tokio::time::timeout(Duration::from_secs(60), one_history(seed)).await;
            assert!(history.is_ok(), "seed {seed} hangs");
        });
    }
}
