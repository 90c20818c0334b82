//! The second process of case 33: it publishes and handles until it is killed.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> Result<(), oncue_conformance::Failure> {
//! // What the program does that `Suite::worker` starts with a URL and a number.
//! oncue_conformance::worker::main("file:data", 0).await
//! # }
//! ```

use std::{collections::BTreeMap, io::Write as _, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock, Event,
    event::DEFAULT_TOPIC,
    handler::{
        HandlerError, HandlerExt as _,
        extract::{Context, Keyed},
    },
    policy,
    transport::{self, Transport},
};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Step,
    failure::{ensure, ensure_eq},
    seen::keys,
};

/// Publishers, each with a key of its own.
const PUBLISHERS: u32 = 4;

/// What is kept of a key.
#[derive(Serialize, Deserialize, Default, Debug, PartialEq, Eq)]
struct Tally {
    /// Events handled.
    count: u64,
    /// The number of the last one.
    last: Option<u32>,
    /// Events that were not after the one before.
    out_of_order: u64,
}

/// Emitted for each step.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "tallied", key = key)]
struct Tallied {
    key: String,
    number: u32,
}

/// Publishes steps numbered from `from` on to the transport of a URL (`memory:`, `file:`), handles them, and writes key and
/// number of each that was acknowledged as a line to the standard output. Ends only with an error.
///
/// # Errors
/// The transport does not open, or fails.
pub async fn main(url: &str, from: u32) -> Result<(), Failure> {
    let (url, clock) = (url.to_owned(), Clock::system());
    let opening = clock.clone();
    let transport = tokio::task::spawn_blocking(move || transport::open(&url, opening)).await??;
    run(transport, clock, from).await
}

/// As [`main`], on a transport that is open: for those that no URL of the library names.
///
/// # Errors
/// The transport fails.
pub async fn run(transport: Arc<dyn Transport>, clock: Clock, from: u32) -> Result<(), Failure> {
    let bus = handlers(App::with_transport(transport, clock)).start().await?;
    let mut publishing = tokio::task::JoinSet::new();
    for key in keys(PUBLISHERS) {
        publishing.spawn(publish(bus.clone(), key, from));
    }
    match publishing.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

async fn publish(bus: Bus, key: String, from: u32) -> Result<(), Failure> {
    for number in from.. {
        bus.publish(Step::new(&key, number)).await?;
        // One write, which a kill does not part.
        std::io::stdout().lock().write_all(format!("{key} {number}\n").as_bytes())?;
    }
    Ok(())
}

/// Counts the steps of each key, and what was emitted for them; each fifth step fails at first.
pub(crate) fn handlers(app: App) -> App {
    let tally = |step: Step, context: Context, mut tally: Keyed<Tally>| async move {
        tally.count += 1;
        tally.out_of_order += u64::from(tally.last.is_some_and(|last| last >= step.number));
        tally.last = Some(step.number);
        if step.number.is_multiple_of(5) && context.attempt() == 1 {
            return Err(HandlerError::transient("not yet"));
        }
        if step.number % 2 == 1 {
            tokio::task::yield_now().await;
        }
        Ok(Tallied { key: step.key, number: step.number })
    };
    let told = |_: Tallied, mut count: Keyed<u64>| async move { *count += 1 };
    app.on(tally.named("tally").retry(policy::fixed(Duration::from_millis(1)))).on(told.named("told"))
}

/// Whether what workers left is whole, once all of it is handled: `acknowledged` by key.
///
/// # Errors
/// Something is lost, repeated or out of order.
pub(crate) fn check(bus: &Bus, acknowledged: &BTreeMap<String, Vec<u32>>) -> Result<(), Failure> {
    let mut published: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut emitted: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (position, event) in bus.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX)? {
        let half = |error| Failure::from(error).at(format!("the event at {position}"));
        if event.event_type() == "step" {
            let step: Step = event.decode().map_err(half)?;
            published.entry(step.key).or_default().push(step.number);
        } else {
            let tallied: Tallied = event.decode().map_err(half)?;
            emitted.entry(tallied.key).or_default().push(tallied.number);
        }
    }
    for (key, numbers) in acknowledged {
        let kept = published.get(key).map_or(&[][..], Vec::as_slice);
        let lost: Vec<&u32> = numbers.iter().filter(|number| kept.binary_search(number).is_err()).collect();
        ensure!(
            lost.is_empty(),
            "key {key}: {} of {} acknowledged events are lost: {lost:?}",
            lost.len(),
            numbers.len()
        );
    }
    for (key, numbers) in &published {
        ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "key {key} was published out of order: {numbers:?}");
        ensure_eq!(emitted.remove(key).unwrap_or_default(), *numbers, "key {key}: what was emitted for its events");
    }
    ensure!(emitted.is_empty(), "emitted for events that nobody published: {emitted:?}");
    let dead = bus.inspect().dead_letters("tally")?.len();
    ensure_eq!(dead, 0, "dead letters");
    let promised =
        |numbers: &Vec<u32>| Tally { count: numbers.len() as u64, last: numbers.last().copied(), out_of_order: 0 };
    let tallies = published.iter().map(|(key, numbers)| (key.clone(), promised(numbers))).collect::<BTreeMap<_, _>>();
    ensure_eq!(states::<Tally>(bus, "tally")?, tallies, "what is kept of each key");
    let counts = published.iter().map(|(key, numbers)| (key.clone(), numbers.len() as u64)).collect();
    ensure_eq!(states::<u64>(bus, "told")?, counts, "how many emitted events of each key were counted");
    Ok(())
}

fn states<T: serde::de::DeserializeOwned>(bus: &Bus, handler: &str) -> Result<BTreeMap<String, T>, Failure> {
    let states = bus.inspect().states(handler)?;
    states.into_iter().map(|(key, state)| Ok((key, serde_json::from_slice(&state)?))).collect()
}
