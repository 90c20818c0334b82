//! Events that a client pulls.

use std::{collections::BTreeMap, time::Duration};

use oncue::{
    Bus, LeaseError, Pulled, Puller,
    handler::Outcome,
    policy::{self, ErrorClass},
    transport::Action,
};

use crate::{
    Bench, Failure, Step,
    failure::{ensure, ensure_eq},
    seen::keys,
};

/// Longer than a case may take.
const LONG: Duration = Duration::from_secs(3_600);

/// How long is waited for what must not come.
const SHORT: Duration = Duration::from_millis(30);

/// A lease that a client lets run out, or extends in time.
const LEASE: Duration = Duration::from_millis(400);

/// Case 41. A client gets up to as many events as it asks for, one of a key at a time, and settles each by its token, once.
/// It may extend its lease; one that is over is a failed attempt, and its token is worth nothing. What a client holds that
/// goes is given to the next one.
///
/// # Errors
/// It does not.
pub async fn pull(bench: &Bench) -> Result<(), Failure> {
    let bus = bench.app().await?.start().await?;
    Failure::of_parts([
        ("settled", settled(bench, &bus).await),
        ("leases", leases(bench, &bus).await),
        ("given back", given_back(bench, &bus).await),
    ])?;
    bench.shutdown(bus).await
}

async fn open(bus: &Bus, id: &str, lease: Duration) -> Result<Puller, Failure> {
    let retry = policy::fixed(Duration::from_millis(50)).max_attempts(1_000);
    Ok(bus.pull(id).types(["step"]).topic(id).lease(lease).retry(retry).open().await?)
}

async fn publish(bus: &Bus, topic: &str, key: &str, numbers: std::ops::Range<u32>) -> Result<(), Failure> {
    let steps = numbers.map(|number| Step::new(key, number).envelope()).collect::<Result<Vec<_>, _>>()?;
    bus.publish_all(topic, steps, None).await?;
    Ok(())
}

async fn one(bench: &Bench, puller: &Puller) -> Result<Pulled, Failure> {
    let mut pulled = bench.wait(format!("`{}` to give an event", puller.id()), puller.next(1, LONG)).await;
    ensure_eq!(pulled.len(), 1, "events, when one was asked for");
    Ok(pulled.remove(0))
}

fn told(pulled: &Pulled) -> Result<(String, u32, u32), Failure> {
    let step: Step = pulled.envelope.decode()?;
    Ok((step.key, step.number, pulled.attempt))
}

async fn ack(puller: &Puller, pulled: &Pulled) -> Result<(), Failure> {
    ensure_eq!(puller.settle(&pulled.token, Outcome::Ack).await?, Action::Ack, "what follows from an ack");
    Ok(())
}

async fn nothing(puller: &Puller, when: &str) -> Result<(), Failure> {
    let more = puller.next(10, SHORT).await.iter().map(told).collect::<Result<Vec<_>, _>>()?;
    ensure_eq!(more, [], "events {when}");
    Ok(())
}

async fn settled(bench: &Bench, bus: &Bus) -> Result<(), Failure> {
    let (keys, numbers) = (keys(3), bench.size(4, 100));
    let puller = open(bus, "settles", LONG).await?;
    nothing(&puller, "before one is published").await?;
    for key in &keys {
        publish(bus, "settles", key, 0..numbers).await?;
    }
    let mut held = BTreeMap::new();
    while held.len() < keys.len() {
        let pulled = bench.wait("the first event of each key", puller.next(2, LONG)).await;
        ensure!((1..=2).contains(&pulled.len()), "{} events, 1 or 2 were promised", pulled.len());
        for pulled in pulled {
            let (key, number, attempt) = told(&pulled)?;
            ensure_eq!((number, attempt), (0, 1), "number and attempt of the first of {key}");
            held.insert(key, pulled);
        }
    }
    nothing(&puller, "while one of each key is held").await?;
    let fail = Outcome::Fail { class: ErrorClass::Transient, error: "busy".into() };
    let follows = puller.settle(&held[&keys[0]].token, fail).await?;
    ensure!(matches!(follows, Action::Retry(_)), "from a failure follows {follows:?}");
    let again = one(bench, &puller).await?;
    ensure_eq!(told(&again)?, (keys[0].clone(), 0, 2), "what is next of a key whose first event failed");
    ack(&puller, &again).await?;
    let reject = Outcome::Reject { class: ErrorClass::Permanent, error: "never".into() };
    let follows = puller.settle(&held[&keys[1]].token, reject).await?;
    ensure_eq!(follows, Action::DeadLetter, "what follows from a rejection");
    ack(&puller, &held[&keys[2]]).await?;
    let twice = puller.settle(&held[&keys[2]].token, Outcome::Ack).await;
    ensure_eq!(twice, Err(LeaseError::Over), "settled a second time");
    let mut next: BTreeMap<String, u32> = keys.iter().map(|key| (key.clone(), 1)).collect();
    for _ in 0..(numbers - 1) * 3 {
        let pulled = one(bench, &puller).await?;
        let (key, number, attempt) = told(&pulled)?;
        let promised = next.entry(key.clone()).or_default();
        ensure_eq!((number, attempt), (*promised, 1), "number and attempt of what is next of {key}");
        *promised += 1;
        ack(&puller, &pulled).await?;
    }
    nothing(&puller, "when all is settled").await?;
    let known = bus.inspect().subscriptions();
    let stats = known.iter().find(|known| known.id == "settles").map(|known| &known.stats);
    let counts = stats.map(|stats| (stats.acked, stats.retried, stats.dead));
    ensure_eq!(counts, Some((u64::from(3 * numbers) - 1, 1, 1)), "acked, retried and dead");
    Ok(puller.close().await?)
}

async fn leases(bench: &Bench, bus: &Bus) -> Result<(), Failure> {
    let puller = open(bus, "leases", LEASE).await?;
    publish(bus, "leases", "key", 0..2).await?;
    let begun = bench.clock().monotonic();
    let first = one(bench, &puller).await?;
    let early = puller.next(10, LEASE / 4).await.len();
    let lasted = bench.clock().monotonic().saturating_sub(begun);
    ensure!(early == 0 || lasted >= LEASE, "it was given again after {lasted:?}, its lease was {LEASE:?}");
    bench.clock().sleep(LEASE).await;
    let second = extended(bench, &puller).await?;
    let (key, number, attempt) = told(&second)?;
    ensure_eq!((key.as_str(), number), ("key", 0), "what is next after its lease was over");
    ensure!(attempt >= 2, "it was given as attempt {attempt} after its lease was over");
    ensure_eq!(second.position, first.position, "where it stands");
    let late = puller.settle(&first.token, Outcome::Ack).await;
    ensure_eq!(late, Err(LeaseError::Over), "settled by the token of a lease that is over");
    ensure_eq!(puller.extend(&first.token, LONG), Err(LeaseError::Over), "a lease that is over, extended");
    let more = puller.next(10, LEASE + LEASE / 2).await.len();
    ensure_eq!(more, 0, "events while the extended lease lasts");
    ack(&puller, &second).await?;
    let last = extended(bench, &puller).await?;
    let (key, number, _) = told(&last)?;
    ensure_eq!((key.as_str(), number), ("key", 1), "what is next of the key");
    ack(&puller, &last).await?;
    Ok(puller.close().await?)
}

/// Takes the next event and extends its lease. Where the machine was too slow for that, its lease is over, and it is taken
/// once more.
async fn extended(bench: &Bench, puller: &Puller) -> Result<Pulled, Failure> {
    loop {
        let asked = bench.clock().monotonic();
        let pulled = one(bench, puller).await?;
        let Err(error) = puller.extend(&pulled.token, LONG) else { return Ok(pulled) };
        let after = bench.clock().monotonic().saturating_sub(asked);
        ensure!(after >= LEASE, "extended {after:?} after it was asked for, with a lease of {LEASE:?}: {error}");
    }
}

async fn given_back(bench: &Bench, bus: &Bus) -> Result<(), Failure> {
    let mut puller = open(bus, "gives-back", LONG).await?;
    publish(bus, "gives-back", "key", 0..2).await?;
    for round in 0..3 {
        let pulled = one(bench, &puller).await?;
        ensure_eq!(told(&pulled)?, ("key".to_owned(), 0, 1), "what is given to puller {round}");
        if round == 0 {
            puller.close().await?;
        } else {
            drop(puller);
            let gone = async {
                while bus.handlers().iter().any(|handler| handler.id == "gives-back") {
                    bench.clock().sleep(Duration::from_millis(1)).await;
                }
            };
            bench.wait("a dropped puller to be gone", gone).await;
        }
        puller = open(bus, "gives-back", LONG).await?;
    }
    for number in 0..2 {
        let pulled = one(bench, &puller).await?;
        ensure_eq!(told(&pulled)?, ("key".to_owned(), number, 1), "what is given to the last puller");
        ack(&puller, &pulled).await?;
    }
    Ok(puller.close().await?)
}
