//! Several events at once, published and handled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Envelope, Timestamp,
    event::{DEFAULT_TOPIC, MAX_HOPS},
    handler::{Batch, HandlerError, HandlerExt as _, Registration},
    policy,
    transport::{Publish, PublishError},
};
use parking_lot::Mutex;

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    seen::{accepting, keys},
};

/// Longer than any case may take.
const LONG: Duration = Duration::from_secs(3_600);

/// Case 23. A batch is published in its order, as a whole or not at all where the transport can; else the result tells
/// which item failed. An empty batch is nothing. A handler of batches is given as many events as it takes, or those that
/// came while it waited; each event has an outcome of its own, and one that fails holds up those of its key alone.
///
/// # Errors
/// It is not.
pub async fn batches(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([
        ("published", published(bench).await),
        ("filled", filled(bench).await),
        ("partly filled", partly_filled(bench).await),
        ("one item fails", one_fails(bench).await),
    ])
}

async fn published(bench: &Bench) -> Result<(), Failure> {
    let count = bench.size(100, 5_000);
    let seen = Seen::new(bench);
    let bus = bench.app_at("-published").await?.on(accepting("all", &seen)).start().await?;
    ensure_eq!(bus.publish_all(DEFAULT_TOPIC, Vec::new(), None).await?.len(), 0, "receipts of an empty batch");
    let receipts = bench.publish(&bus, "key", 0..count).await?;
    ensure_eq!(receipts.len(), count as usize, "one receipt for each event");
    let positions: Vec<_> = receipts.iter().map(oncue::Receipt::position).collect();
    let ascend = positions.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(ascend, "positions of a key do not ascend: {positions:?}");
    bench.idle(&bus).await?;

    let mut broken = (0..3).map(|number| Step::new("broken", number).envelope()).collect::<Result<Vec<_>, _>>()?;
    broken[1] = Envelope::builder("step").key("broken").hops(MAX_HOPS + 1).data("{}").build()?;
    let refused = bus.transport().publish(&Publish { topic: DEFAULT_TOPIC.into(), events: broken, source: None }).await;
    ensure!(
        matches!(refused, Err(PublishError::Invalid { index: 1, .. })),
        "the second is not acceptable: {refused:?}"
    );
    bench.publish(&bus, "after", 0..1).await?;
    bench.idle(&bus).await?;
    if bench.capabilities().atomic_publish {
        ensure_eq!(seen.of("all", "broken"), [], "events of a batch that was refused");
    }
    ensure_eq!(seen.of("all", "after").len(), 1, "events after that");
    let given = seen.of("all", "key");
    ensure_eq!(given.len(), count as usize, "events of the batch");
    seen.in_order()?;
    bench.shutdown(bus).await
}

/// The calls of a batch handler: when, and the events of each as key, number and attempt.
type Calls = Arc<Mutex<Vec<(Timestamp, Vec<(String, u32, u32)>)>>>;

fn gathering(
    bench: &Bench,
    calls: &Calls,
    answer: impl Fn(&Step, u32) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
) -> Registration {
    let (clock, calls) = (bench.clock().clone(), Arc::clone(calls));
    let handle = move |batch: Batch<Step>| {
        let items = batch.iter().map(|item| (item.event.key.clone(), item.event.number, item.attempt)).collect();
        calls.lock().push((clock.now(), items));
        let answers: Vec<_> = batch.iter().map(|item| answer(&item.event, item.attempt)).collect();
        async move {
            tokio::task::yield_now().await;
            answers
        }
    };
    handle.named("gathers")
}

fn items(calls: &Calls) -> Vec<(String, u32, u32)> {
    calls.lock().iter().flat_map(|(_, items)| items.clone()).collect()
}

/// With all the time in the world, only full batches are called.
async fn filled(bench: &Bench) -> Result<(), Failure> {
    const SIZE: usize = 4;
    let calls = Calls::default();
    let handler = gathering(bench, &calls, |_, _| Ok(())).batch(SIZE).batch_wait(LONG);
    let bus = bench.app_at("-filled").await?.on(handler).start().await?;
    let keys = keys(11);
    for key in &keys[..3] {
        bench.publish(&bus, key, 0..1).await?;
    }
    bench.until(&bus, "gathers", "three events in hand", |known| known.in_flight == 3).await?;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    ensure_eq!(calls.lock().len(), 0, "calls with {SIZE} events to a batch, and three events");
    for key in &keys[3..] {
        bench.publish(&bus, key, 0..1).await?;
    }
    bench.acked(&bus, "gathers", 8).await?;
    bench.until(&bus, "gathers", "three more events in hand", |known| known.in_flight == 3).await?;
    let sizes: Vec<usize> = calls.lock().iter().map(|(_, items)| items.len()).collect();
    ensure_eq!(sizes, [SIZE, SIZE], "events of each batch, of 11 events");
    for key in &keys[..1] {
        bench.publish(&bus, key, 1..2).await?;
    }
    bench.idle(&bus).await?;
    let mut given: Vec<String> = items(&calls).into_iter().map(|(key, ..)| key).collect();
    given.sort_unstable();
    let mut promised = [&keys[..], &keys[..1]].concat();
    promised.sort_unstable();
    ensure_eq!(given, promised, "keys of the events in full batches");
    bench.shutdown(bus).await
}

/// What is there when the time is over is called, and not earlier.
async fn partly_filled(bench: &Bench) -> Result<(), Failure> {
    const WAIT: Duration = Duration::from_millis(30);
    let calls = Calls::default();
    let handler = gathering(bench, &calls, |_, _| Ok(())).batch(1_000).batch_wait(WAIT);
    let bus = bench.app_at("-partly").await?.on(handler).start().await?;
    let begun = bench.clock().now();
    bench.publish(&bus, "key", 0..5).await?;
    bench.idle(&bus).await?;
    let first = calls.lock().first().map(|(at, _)| at.since(begun));
    ensure!(first.is_some_and(|waited| waited >= WAIT), "a batch that was not full was called after {first:?}");
    let numbers: Vec<u32> = items(&calls).into_iter().map(|(_, number, _)| number).collect();
    ensure_eq!(numbers, [0, 1, 2, 3, 4], "one key's events in batches");
    bench.shutdown(bus).await
}

/// Outcomes are of events, not of batches.
async fn one_fails(bench: &Bench) -> Result<(), Failure> {
    let calls = Calls::default();
    let answer = |step: &Step, attempt| match (step.key.as_str(), step.number, attempt) {
        ("flaky", 1, 1) => Err(HandlerError::transient("not yet")),
        ("doomed", 1, _) => Err(HandlerError::reject("never")),
        _ => Ok(()),
    };
    let handler = gathering(bench, &calls, answer).batch(100).batch_wait(Duration::from_millis(5));
    let handler = handler.retry(policy::fixed(Duration::from_millis(5)));
    let app: App = bench.app_at("-one-fails").await?.on(handler);
    let bus: Bus = app.start().await?;
    let mut steps = Vec::new();
    for number in 0..3 {
        for key in ["flaky", "doomed", "good"] {
            steps.push(Step::new(key, number).envelope()?);
        }
    }
    bench.publish_all(&bus, steps).await?;
    bench.idle(&bus).await?;
    let mut of_key: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
    for (key, number, attempt) in items(&calls) {
        of_key.entry(key).or_default().push((number, attempt));
    }
    for key in ["good", "doomed"] {
        ensure_eq!(of_key.get(key).cloned().unwrap_or_default(), [(0, 1), (1, 1), (2, 1)], "calls with key {key}");
    }
    // Those behind the one that fails are handled after it, whether they were in the same batch or not.
    let flaky = of_key.remove("flaky").unwrap_or_default();
    let settled: Vec<(u32, u32)> = flaky.iter().copied().filter(|call| *call != (1, 1)).collect();
    ensure!(flaky.starts_with(&[(0, 1), (1, 1)]), "calls with the key whose second event fails: {flaky:?}");
    ensure!(settled.ends_with(&[(1, 2), (2, 1)]), "calls with the key whose second event fails: {flaky:?}");
    let known = bus.inspect().subscriptions();
    let stats: Vec<_> = known.iter().map(|known| (known.stats.acked, known.stats.retried, known.stats.dead)).collect();
    ensure_eq!(stats, [(8, 1, 1)], "acked, retried, dead");
    bench.shutdown(bus).await
}
