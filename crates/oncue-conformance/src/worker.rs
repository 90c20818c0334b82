//! Other processes: in case 33 one publishes and handles until it is killed; in case 40 one publishes and goes, and
//! another handles.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> Result<(), oncue_conformance::Failure> {
//! // What the program does that `Suite::worker` starts with a URL and a task.
//! oncue_conformance::worker::main("file:data", "tally:0".parse()?).await
//! # }
//! ```

use std::{collections::BTreeMap, fmt, io::Write as _, str::FromStr, sync::Arc, time::Duration};

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
    cases::outcome,
    failure::{ensure, ensure_eq},
    seen::keys,
};

/// What a process says that handles.
pub(crate) const HANDLING: &str = "handling";
/// Publishers, each with a key of its own.
const PUBLISHERS: u32 = 4;

/// What another process does. As text it is the last argument of [`Suite::worker`](crate::Suite::worker)'s command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Publishes steps numbered from here on, handles them, and writes key and number of each that was acknowledged as a
    /// line to the standard output; until it is killed.
    Tally(u32),
    /// Publishes a step, writes the address of its receipt to the standard output, and ends.
    Publish,
    /// Handles steps as case 40 expects, and says so with a line on the standard output; until it is killed.
    Handle,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tally(from) => write!(f, "tally:{from}"),
            Self::Publish => f.write_str("publish"),
            Self::Handle => f.write_str("handle"),
        }
    }
}

impl FromStr for Task {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let tally = || text.strip_prefix("tally:")?.parse().ok().map(Self::Tally);
        match text {
            "publish" => Ok(Self::Publish),
            "handle" => Ok(Self::Handle),
            _ => tally().ok_or_else(|| Failure::new(format!("`{text}` is no task: tally:NUMBER, publish or handle"))),
        }
    }
}

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

/// Does something on the transport of a URL (`memory:`, `file:`).
///
/// # Errors
/// The transport does not open, or fails.
pub async fn main(url: &str, task: Task) -> Result<(), Failure> {
    let (url, clock) = (url.to_owned(), Clock::system());
    let opening = clock.clone();
    let transport = tokio::task::spawn_blocking(move || transport::open(&url, opening)).await??;
    run(transport, clock, task).await
}

/// As [`main`], on a transport that is open: for those that no URL of the library names.
///
/// # Errors
/// The transport fails.
pub async fn run(transport: Arc<dyn Transport>, clock: Clock, task: Task) -> Result<(), Failure> {
    let app = App::with_transport(transport, clock);
    match task {
        Task::Tally(from) => tally(app, from).await,
        Task::Publish => {
            let bus = app.start().await?;
            let receipt = bus.publish(Step::new("key", 1)).await?;
            tell(&serde_json::to_string(&receipt.address())?)?;
            drop(receipt);
            Ok(bus.shutdown().await?)
        }
        Task::Handle => {
            let _bus = outcome::handlers(app).start().await?;
            tell(HANDLING)?;
            std::future::pending().await
        }
    }
}

/// A line to the standard output: one write, which a kill does not part.
fn tell(line: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().lock().write_all(format!("{line}\n").as_bytes())?)
}

async fn tally(app: App, from: u32) -> Result<(), Failure> {
    let bus = handlers(app).start().await?;
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
        tell(&format!("{key} {number}"))?;
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
