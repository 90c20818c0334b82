//! What follows a failed attempt.

use std::time::Duration;

use oncue::{
    Timestamp,
    event::DEFAULT_TOPIC,
    handler::{HandlerError, HandlerExt as _},
    policy::{self, ErrorClass},
    transport::{
        Action, Attempt, Limit, MemberSpec, OnDeadLetter, Publish, Settlement, Start, SubscriptionInfo,
        SubscriptionSpec,
    },
};

use crate::{
    Bench, Failure, Seen, Step,
    failure::{ensure, ensure_eq},
    noting,
    seen::keys,
};

/// Case 7. A failed attempt is followed by another of the same event, which knows that it is the second; then the event
/// is handled, and not again.
///
/// # Errors
/// It is not.
pub async fn retry(bench: &Bench) -> Result<(), Failure> {
    Failure::of_parts([("retried", retried(bench).await), ("settled twice", settled_twice(bench).await)])
}

/// A settlement that is repeated, or comes late, changes nothing: not the counts, and not the event's end.
async fn settled_twice(bench: &Bench) -> Result<(), Failure> {
    let transport = bench.transport_at("-twice").await?;
    let events = vec![Step::new("key", 0).envelope()?, Step::new("key", 1).envelope()?];
    transport.publish(&Publish { topic: DEFAULT_TOPIC.into(), events, source: None }).await?;
    let id = || "by-hand".to_owned();
    let (types, on_dead_letter) = (Vec::new(), OnDeadLetter::Continue);
    let member = MemberSpec { id: id(), types, start: Start::Earliest, on_dead_letter, ..MemberSpec::default() };
    let spec =
        SubscriptionSpec { topic: DEFAULT_TOPIC.to_owned(), members: vec![member], ..SubscriptionSpec::default() };
    let mut consumer = transport.subscribe(spec).await?.consumer;
    let mut given = Vec::new();
    while given.len() < 2 {
        bench.wait("two events", consumer.next(Limit { events: 2, bytes: usize::MAX }, &mut given)).await?;
    }
    let (read, ended) = (bench.clock().now(), bench.clock().now());
    let settlement = |action, number| Settlement {
        position: given[0].position,
        member: 0,
        action,
        attempt: Attempt { number, class: None, read, ended },
        error: None,
        written: None,
    };
    let ack = settlement(Action::Ack, 1);
    bench.wait("an ack twice in one batch", consumer.settle(vec![ack.clone(), ack.clone()])).await?;
    for late in
        [ack, settlement(Action::Retry(ended), 1), settlement(Action::DeadLetter, 1), settlement(Action::Release, 0)]
    {
        bench.wait("a late settlement", consumer.settle(vec![late])).await?;
    }
    let stats = stats(&transport.inspect().subscriptions(), &id())?;
    ensure_eq!((stats.acked, stats.retried, stats.dead), (1, 0, 0), "acked, retried, dead");
    let mut more = Vec::new();
    let again = consumer.next(Limit { events: 2, bytes: usize::MAX }, &mut more);
    ensure!(bench.within(Duration::from_millis(20), again).await.is_none(), "it was delivered again");
    drop(consumer);
    Ok(transport.close().await?)
}

async fn retried(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let flaky = noting("flaky", &seen, |_, attempt| match attempt {
        1 => Err(HandlerError::transient("not yet")),
        _ => Ok(()),
    });
    let bus = bench.app().await?.on(flaky.retry(policy::fixed(Duration::from_millis(5)))).start().await?;
    let numbers: Vec<u32> = (0..4).collect();
    bench.publish(&bus, "key", 0..4).await?;
    bench.idle(&bus).await?;
    let promised: Vec<_> = numbers.iter().flat_map(|number| [(*number, 1), (*number, 2)]).collect();
    ensure_eq!(seen.of("flaky", "key"), promised, "number and attempt of each call");
    let stats = stats(&bus.inspect().subscriptions(), "flaky")?;
    ensure_eq!((stats.acked, stats.retried, stats.dead), (4, 4, 0), "acked, retried, dead");
    bench.shutdown(bus).await
}

fn stats(known: &[SubscriptionInfo], id: &str) -> Result<oncue::metrics::HandlerStats, Failure> {
    let found = known.iter().find(|known| known.id == id);
    found.map(|known| known.stats.clone()).ok_or_else(|| Failure::new(format!("there is no subscription `{id}`")))
}

/// Case 8. Every event fails several times for several subscriptions at once; all of them come through in the end, each
/// attempt once, and the subscriptions do not disturb one another.
///
/// # Errors
/// They do not.
pub async fn storm(bench: &Bench) -> Result<(), Failure> {
    let failures = 3;
    let keys = keys(bench.size(20, 100));
    let seen = Seen::new(bench);
    let mut app = bench.app().await?;
    for subscriber in 0..3 {
        let id = format!("storm-{subscriber}");
        let answer = move |_: &Step, attempt| match attempt {
            attempt if attempt <= failures => Err(HandlerError::transient("not yet")),
            _ => Ok(()),
        };
        app = app.on(noting(&id, &seen, answer).retry(policy::fixed(Duration::from_millis(2)).jitter(1.0)));
    }
    let bus = app.start().await?;
    for key in &keys {
        bench.publish(&bus, key, 0..1).await?;
    }
    bench.idle(&bus).await?;
    let promised: Vec<_> = (1..=failures + 1).map(|attempt| (0, attempt)).collect();
    for subscriber in 0..3 {
        for key in &keys {
            ensure_eq!(
                seen.of(&format!("storm-{subscriber}"), key),
                promised,
                "attempts of `storm-{subscriber}`, key {key}"
            );
        }
    }
    bench.shutdown(bus).await
}

/// Case 10. A retry is not earlier than the policy promised. After the last attempt, and at once on a rejection, the
/// event is a dead letter that keeps the bytes and each attempt's time, class and error; a panic and a timeout are
/// failures of their event alone.
///
/// # Errors
/// It is not.
pub async fn schedule_and_dead_letter(bench: &Bench) -> Result<(), Failure> {
    const DELAYS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(40)];
    let seen = Seen::new(bench);
    let doomed = noting("doomed", &seen, |step, attempt| match (step.key.as_str(), attempt) {
        ("good", _) => Ok(()),
        ("rejected", _) => Err(HandlerError::reject("never this one")),
        ("panics", _) => panic!("boom"),
        (_, attempt) => Err(HandlerError::throttled(format!("attempt {attempt} failed"))),
    });
    let hangs = |step: Step| async move {
        if step.key == "good" {
            return;
        }
        std::future::pending::<()>().await;
    };
    let app = bench.app().await?.on(doomed.retry(policy::list(DELAYS)));
    let hangs = hangs.named("hangs").timeout(Duration::from_millis(10)).retry(policy::never());
    let bus = app.on(hangs).start().await?;
    let keys = ["exhausted", "rejected", "panics", "good"];
    for key in keys {
        bench.publish(&bus, key, 0..1).await?;
    }
    bench.idle(&bus).await?;
    let dead = bus.inspect().dead_letters("doomed")?;
    for (key, attempts, class, error) in [
        ("exhausted", 3, ErrorClass::Throttled, "attempt 3 failed"),
        ("rejected", 1, ErrorClass::Permanent, "never this one"),
        ("panics", 3, ErrorClass::Panic, "boom"),
    ] {
        let Some(dead) = dead.iter().find(|dead| dead.envelope.key() == Some(key)) else {
            return Err(Failure::new(format!("key {key}: no dead letter")));
        };
        ensure_eq!(dead.envelope.decode::<Step>()?, Step::new(key, 0), "the bytes of the dead letter");
        let numbers: Vec<_> = dead.history.iter().map(|attempt| attempt.number).collect();
        ensure_eq!(numbers, (1..=attempts).collect::<Vec<_>>(), "attempts in the dead letter of {key}");
        let Some(last) = dead.history.last() else { continue };
        ensure_eq!(last.class, class, "class of the last error of {key}");
        ensure!(last.error.contains(error), "the last error of {key}: {}", last.error);
        ensure!(dead.history.iter().all(|attempt| attempt.read <= attempt.ended), "times of {key}: {:?}", dead.history);
    }
    ensure_eq!(dead.len(), 3, "dead letters of `doomed`");
    on_schedule(&seen, "exhausted", &DELAYS)?;
    let hung = bus.inspect().dead_letters("hangs")?;
    let timeouts = hung.iter().filter(|dead| dead.history.iter().all(|attempt| attempt.class == ErrorClass::Timeout));
    ensure_eq!(timeouts.count(), 3, "dead letters of `hangs`, by timeout");
    bench.shutdown(bus).await
}

fn on_schedule(seen: &Seen, key: &str, delays: &[Duration]) -> Result<(), Failure> {
    let times: Vec<(Timestamp, Timestamp)> =
        seen.notes().iter().filter(|note| note.key == key).filter_map(|note| Some((note.began, note.ended?))).collect();
    ensure_eq!(times.len(), delays.len() + 1, "attempts of {key}");
    for (pair, delay) in times.windows(2).zip(delays) {
        let waited = pair[1].0.since(pair[0].1);
        ensure!(waited >= *delay, "{key}: tried again after {waited:?}, {delay:?} was promised");
    }
    Ok(())
}

/// Case 11. A handler that the end of the grace time cancels leaves no outcome: no ack, no attempt, no dead letter; the
/// event is delivered again at the next start, as its first attempt.
///
/// # Errors
/// It does.
pub async fn cancelled(bench: &Bench) -> Result<(), Failure> {
    let seen = Seen::new(bench);
    let stuck = {
        let seen = seen.clone();
        move |step: Step| {
            let running = seen.begin("stuck", &step, 1);
            async move {
                std::future::pending::<()>().await;
                drop(running);
            }
        }
    };
    let bus = bench.app().await?.on(stuck.named("stuck")).start().await?;
    bench.publish(&bus, "key", 0..2).await?;
    seen.began(bench, 1).await;
    bench.wait("the shutdown", bus.shutdown_within(Duration::from_millis(10))).await?;
    seen.ended(bench, 1).await;
    let known = bus.inspect().subscriptions();
    let stats = stats(&known, "stuck")?;
    ensure_eq!(
        (stats.acked, stats.retried, stats.dead, stats.deferred),
        (0, 0, 0, 0),
        "outcomes of a cancelled handler"
    );
    ensure_eq!(known[0].lag, 2, "events that are not settled");
    drop(bus);
    if !bench.capabilities().durable {
        return Ok(());
    }
    let again = noting("stuck", &seen, |_, _| Ok(()));
    let bus = bench.app().await?.on(again).start().await?;
    bench.idle(&bus).await?;
    ensure_eq!(seen.of("stuck", "key"), [(0, 1), (0, 1), (1, 1)], "number and attempt of each call");
    bench.shutdown(bus).await
}
