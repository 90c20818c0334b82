//! Events that wait for their time, that come too late, and that are in a hurry.

use std::{sync::Arc, time::Duration};

use oncue::{
    App, Bus, Envelope, EventOutcome, Timestamp,
    event::EnvelopeBuilder,
    handler::{HandlerExt as _, Registration},
    transport::{Order, Ordered},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Bench, Failure,
    failure::{ensure, ensure_eq},
};

/// Longer than any case may take.
const LONG: Duration = Duration::from_secs(600);

/// Case 22. An event is not delivered before its time, nor when its time is over: that is counted. With an order of
/// priority the most urgent event is next, with LIFO the newest, and no key is turned round unless that was asked for.
///
/// # Errors
/// It is.
pub async fn schedule(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([
        ("delay", delay(bench).await),
        ("time to live", time_to_live(bench).await),
        ("priority", priority(bench).await),
        ("LIFO", lifo(bench).await),
    ])
}

/// What a handler was given, and when.
type Given = Arc<Mutex<Vec<(String, Timestamp)>>>;

fn taking(id: &str, bench: &Bench, given: &Given, opened: &watch::Receiver<bool>) -> Registration {
    let (clock, given, opened) = (bench.clock().clone(), Arc::clone(given), opened.clone());
    let handle = move |event: Envelope| {
        given.lock().push((event.id().to_owned(), clock.now()));
        let mut opened = opened.clone();
        async move {
            if event.id() == "gate" {
                // An error means that the case is over.
                let _ = opened.wait_for(|open| *open).await;
            }
        }
    };
    handle.named(id).types(["timed"])
}

fn timed(id: &str, key: &str) -> EnvelopeBuilder {
    Envelope::builder("timed").id(id).source("/timed").key(key)
}

async fn publish(bench: &Bench, bus: &Bus, events: Vec<EnvelopeBuilder>) -> Result<Vec<oncue::Receipt>, Failure> {
    let events = events.into_iter().map(EnvelopeBuilder::build).collect::<Result<_, _>>()?;
    bench.publish_all(bus, events).await
}

fn ids(given: &Given) -> Vec<String> {
    given.lock().iter().map(|(id, _)| id.clone()).collect()
}

/// Waits until the wall clock says a time.
async fn clock_says(bench: &Bench, time: Timestamp) {
    while bench.clock().now() < time {
        let left = time.since(bench.clock().now());
        bench.wait(format!("the clock to say {time}"), bench.clock().sleep(left)).await;
    }
}

async fn delay(bench: &Bench) -> Result<(), Failure> {
    const DELAY: Duration = Duration::from_millis(60);
    let (given, (_open, opened)) = (Given::default(), watch::channel(true));
    let app = || async {
        Ok::<_, Failure>(bench.app_at("-delay").await?.on(taking("timely", bench, &given, &opened)).start().await?)
    };
    let mut bus = app().await?;
    let begun = bench.clock().now();
    let later = begun.after(DELAY / 2);
    let events = vec![
        timed("delayed", "a").delay(DELAY),
        timed("at a time", "a").not_before(later),
        timed("in the past", "b").not_before(begun),
        timed("at once", "a"),
    ];
    // What has no time to wait for passes what waits, also within its key.
    for receipt in publish(bench, &bus, events).await?.into_iter().skip(2) {
        let outcome = bench.wait("an event that need not wait", receipt.outcome_of("timely", LONG)).await?;
        ensure_eq!(outcome, EventOutcome::Acked, "the outcome of an event that need not wait");
    }
    if bench.capabilities().durable {
        bench.crash(bus);
        bus = app().await?;
    }
    bench.idle(&bus).await?;
    let given = given.lock().clone();
    ensure_eq!(given.len(), 4, "events that were delivered");
    for (id, earliest) in [("delayed", begun.after(DELAY)), ("at a time", later), ("at once", begun)] {
        let Some((_, at)) = given.iter().find(|(known, _)| known == id) else {
            return Err(Failure::new(format!("`{id}` was never delivered")));
        };
        ensure!(*at >= earliest, "`{id}` was delivered {:?} before its time", earliest.since(*at));
    }
    bench.shutdown(bus).await
}

async fn time_to_live(bench: &Bench) -> Result<(), Failure> {
    const LIFE: Duration = Duration::from_millis(20);
    let (given, (open, opened)) = (Given::default(), watch::channel(false));
    let bus = bench.app_at("-expiry").await?.on(taking("timely", bench, &given, &opened)).start().await?;
    publish(bench, &bus, vec![timed("gate", "a")]).await?;
    let expiry = bench.clock().now().after(LIFE);
    let events = vec![
        timed("short-lived", "a").time_to_live(LIFE),
        timed("until a time", "a").expires(expiry),
        timed("too late", "b").expires(Timestamp::from_micros(0)),
        timed("too late, and delayed", "b").time_to_live(LIFE).delay(2 * LIFE),
        timed("long-lived", "a").time_to_live(LONG),
        timed("for ever", "a"),
    ];
    let receipts = publish(bench, &bus, events).await?;
    clock_says(bench, bench.clock().now().after(LIFE)).await;
    open.send_replace(true);
    bench.idle(&bus).await?;
    ensure_eq!(ids(&given), ["gate", "long-lived", "for ever"], "events that were delivered");
    let known = bus.inspect().subscriptions();
    let counts: Vec<_> = known.iter().map(|known| (known.stats.expired, known.stats.acked, known.lag)).collect();
    ensure_eq!(counts, [(4, 3, 0)], "expired, acked, and left");
    let mut outcomes = Vec::new();
    for receipt in &receipts {
        outcomes.push(bench.wait("an outcome", receipt.outcome_of("timely", LONG)).await?);
    }
    let expired = outcomes.iter().map(|outcome| *outcome == EventOutcome::Expired).collect::<Vec<_>>();
    ensure_eq!(expired, [true, true, true, true, false, false], "receipts that tell of it");
    drop(receipts);
    bench.shutdown(bus).await
}

/// One event after the other, in an order of its own; the first one waits until the backlog is complete.
async fn in_turn(
    bench: &Bench,
    place: &str,
    (order, ordered): (Order, Ordered),
    events: Vec<EnvelopeBuilder>,
) -> Result<Vec<String>, Failure> {
    let (given, (open, opened)) = (Given::default(), watch::channel(false));
    let handler = || taking("ranked", bench, &given, &opened).concurrency(1).order(order).ordered(ordered);
    let bus = bench.app_at(place).await?.on(handler()).start().await?;
    publish(bench, &bus, vec![timed("gate", "gate")]).await?;
    bench.until(&bus, "ranked", "the first event in hand", |known| known.in_flight == 1).await?;
    publish(bench, &bus, events).await?;
    open.send_replace(true);
    bench.idle(&bus).await?;
    bench.shutdown(bus).await?;
    Ok(ids(&given).split_off(1))
}

async fn priority(bench: &Bench) -> Result<(), Failure> {
    let levels = [4, 0, 9, 5, 9, 0, 1, 7, 4, 8, 2, 6, 3, 9];
    let mut events: Vec<EnvelopeBuilder> = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        events.push(timed(&format!("{level}-{index}"), &format!("key-{index}")).priority(*level));
    }
    events.push(timed("4-none", "none"));
    // The key's second event is more urgent than all others, and cannot pass the first.
    events.push(timed("0-first", "strict").priority(0));
    events.push(timed("9-second", "strict").priority(9));
    let given = in_turn(bench, "-priority", (Order::Priority, Ordered::Strict), events).await?;
    let place = |id: &str| given.iter().position(|known| known == id);
    ensure!(place("0-first") < place("9-second"), "the second event of a key came before the first: {given:?}");
    let mut promised: Vec<String> =
        levels.iter().enumerate().map(|(index, level)| format!("{level}-{index}")).collect();
    promised.push("4-none".to_owned());
    promised.sort_by_key(|id| std::cmp::Reverse(id.as_bytes()[0]));
    let others: Vec<&String> = given.iter().filter(|id| !["0-first", "9-second"].contains(&id.as_str())).collect();
    ensure_eq!(others, promised.iter().collect::<Vec<_>>(), "highest priority first, and the oldest of each");
    Ok(())
}

async fn lifo(bench: &Bench) -> Result<(), Failure> {
    let names: Vec<String> = (0..20).map(|number| format!("event-{number}")).collect();
    let newest_first: Vec<&String> = names.iter().rev().collect();
    let of_keys = names.iter().map(|name| timed(name, name)).collect();
    let given = in_turn(bench, "-lifo", (Order::Lifo, Ordered::Relaxed), of_keys).await?;
    ensure_eq!(given.iter().collect::<Vec<_>>(), newest_first, "of several keys, the newest first");
    let of_one = names.iter().map(|name| timed(name, "key")).collect();
    let given = in_turn(bench, "-lifo-key", (Order::Lifo, Ordered::Relaxed), of_one).await?;
    ensure_eq!(given.iter().collect::<Vec<_>>(), newest_first, "of one key, the newest first");
    let (given, (_open, opened)) = (Given::default(), watch::channel(true));
    let strict = taking("ranked", bench, &given, &opened).order(Order::Lifo).ordered(Ordered::Strict);
    let transport = bench.transport_at("-lifo-strict").await?;
    let started = App::with_transport(Arc::clone(&transport), bench.clock().clone()).on(strict).start().await;
    ensure!(started.is_err(), "LIFO with strict order within keys was served");
    Ok(transport.close().await?)
}
