//! State by key.

use std::{collections::BTreeMap, time::Duration};

use oncue::{
    App, Bus, Event,
    event::DEFAULT_TOPIC,
    handler::{
        HandlerError, HandlerExt as _,
        extract::{Context, Keyed},
    },
    policy,
};
use serde::{Deserialize, Serialize};

use crate::{Bench, Failure, Step, failure::ensure_eq, seen::keys};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "counted", key = key)]
struct Counted {
    key: String,
    total: u64,
}

/// Adds up numbers, and tells the sum; each third event fails at first, and what it added is forgotten.
fn counting(app: App) -> App {
    let count = |step: Step, context: Context, mut total: Keyed<u64>| async move {
        *total += u64::from(step.number);
        if step.number.is_multiple_of(3) && context.attempt() == 1 {
            return Err(HandlerError::transient("not yet"));
        }
        if step.number % 2 == 1 {
            tokio::task::yield_now().await;
        }
        Ok(Counted { key: step.key, total: *total.get() })
    };
    app.on(count.named("count").retry(policy::fixed(Duration::from_millis(3))))
        .on((|_: Counted| async {}).named("told"))
}

/// Case 46. A counter kept by key counts each event once, however often it is tried and whatever is killed; what it
/// emits with that is emitted once.
///
/// # Errors
/// It does not.
pub async fn counts_once(bench: &Bench) -> Result<(), Failure> {
    let (keys, rounds, numbers) = (keys(8), 3, bench.size(10, 100));
    let mut bus = counting(bench.app().await?).start().await?;
    for round in 0..rounds {
        for key in &keys {
            bench.publish(&bus, key, round * numbers..(round + 1) * numbers).await?;
        }
        if bench.capabilities().durable && round < 2 {
            bench.acked(&bus, "count", u64::from(numbers)).await?;
            bench.crash(bus);
            bus = counting(bench.app().await?).start().await?;
        }
    }
    bench.idle(&bus).await?;
    let last = u64::from(rounds * numbers);
    let promised: BTreeMap<String, String> =
        keys.iter().map(|key| (key.clone(), (last * (last - 1) / 2).to_string())).collect();
    let states: BTreeMap<String, String> = bus
        .inspect()
        .states("count")?
        .into_iter()
        .map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    ensure_eq!(states, promised, "sums by key");
    let told = totals(&bus)?;
    for key in &keys {
        let promised: Vec<u64> = (0..last).map(|number| number * (number + 1) / 2).collect();
        ensure_eq!(told.get(key).cloned().unwrap_or_default(), promised, "sums told of {key}");
    }
    bench.shutdown(bus).await
}

/// The sums that were emitted, by key, in order.
fn totals(bus: &Bus) -> Result<BTreeMap<String, Vec<u64>>, Failure> {
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, event) in bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)? {
        if event.event_type() == "counted" {
            let counted: Counted = event.decode()?;
            told.entry(counted.key).or_default().push(counted.total);
        }
    }
    Ok(told)
}
