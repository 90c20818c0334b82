//! Rows 5 and 12: Oncue on brokers, against the client libraries that it uses, used by hand, and against `RustStream`.

#[cfg(feature = "kafka")]
mod kafka;
mod measured;
mod message;
mod nats;
mod ours;
mod rabbitmq;
#[cfg(feature = "broker-rivals")]
mod ruststream;
pub(crate) mod scaling;
mod zeromq;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::runtime::Runtime;

use self::{
    measured::{Client, Measured, measure},
    ours::{Node, Ours},
};
use crate::{
    events,
    measure::{Plan, Result, Rounds, Sample, quantile},
    report::{Row, Target},
    running,
};

/// Events that one call publishes, all of them confirmed before the next call.
const BATCH: usize = 256;
/// Calls under way: so many batches are sent and not confirmed.
const PUBLISHERS: usize = 4;
/// Most events that are delivered and not acknowledged, where the broker counts them.
const WINDOW: usize = 4096;
/// Events are of so many keys, if they have any; a topic of ours has partitions for them.
const KEYS: u64 = 64;
const PARTITIONS: u16 = 4;

/// Whether events have keys, and when the next one of a key starts on our side: the others start it once the last one is
/// handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    None,
    /// Once the last one is handled.
    Pipelined,
    /// Once the last one is settled.
    Strict,
}

impl Keys {
    fn text(self) -> String {
        let when = match self {
            Self::None => return "no key".to_owned(),
            Self::Pipelined => "once the last one is handled (`pipelined`)",
            Self::Strict => "once the last one is settled on our side, once it is handled on the other",
        };
        format!("{KEYS} keys, {PARTITIONS} partitions; the next event of a key starts {when}")
    }
}

/// Where one side of one round publishes and handles: nothing was there before.
#[derive(Clone, Debug)]
struct Place {
    url: String,
    name: String,
    /// For who keeps something himself.
    directory: PathBuf,
    keys: Keys,
}

impl Place {
    fn keyed(&self) -> bool {
        self.keys != Keys::None
    }

    fn fresh(url: &str, directory: &Path, keys: Keys) -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{number}", std::process::id());
        Self { url: url.to_owned(), directory: directory.join(&name), name, keys }
    }
}

/// The names of a broker's rows.
macro_rules! cases {
    ($of:literal) => {
        [
            concat!($of, " publish"),
            concat!($of, " publish CPU"),
            concat!($of, " handle"),
            concat!($of, " handle CPU"),
            concat!($of, " one"),
        ]
    };
}

/// What a broker's rows say.
struct Compared {
    id: &'static str,
    name: &'static str,
    cases: [&'static str; 5],
    against: &'static str,
    theirs: &'static str,
    keys: Keys,
    /// For throughput, and for the processor's time, in microseconds more or as a ratio.
    targets: (Target, Target),
}

const WHAT: [&str; 5] = [
    "Publishing in batches, each confirmed: throughput",
    "The same: processor time of the process, per event",
    "Handling what waits, each event acknowledged: throughput",
    "The same: processor time of the process, per event",
    "One event in flight: from before it is published until it is confirmed and its handler runs, p50",
];

impl Compared {
    fn rows(&self, rounds: [Rounds; 5]) -> Vec<Row> {
        let (throughput, cpu) = self.targets;
        let units = ["events/s", "µs", "events/s", "µs", "µs"];
        let targets = [throughput, cpu, throughput, cpu, Target::default()];
        let key = self.keys.text();
        let settings = format!(
            "{}, {key}; {PUBLISHERS} publishers, {BATCH} events a call. Each side publishes for the time of a round, then \
             handles all of that, from the first call of its handler until everything is acknowledged; inline handler. {}",
            events::PAYLOAD,
            self.theirs
        );
        let row = |((((case, what), unit), target), rounds)| Row {
            id: self.id,
            case,
            what,
            against: self.against,
            unit,
            target,
            settings: settings.clone(),
            rounds,
        };
        self.cases.into_iter().zip(WHAT).zip(units).zip(targets).zip(rounds).map(row).collect()
    }

    /// Measures two kinds of client on a broker; the rows are skipped where that is not there.
    fn compare<O: Client, R: Client>(
        &self,
        (plan, runtime, directory): (&Plan, &Runtime, &Path),
        url: std::result::Result<String, String>,
    ) -> Result<Vec<Row>> {
        if !is_asked(plan, self.name) {
            return Ok(Vec::new());
        }
        let url = match url {
            Ok(url) => url,
            Err(why) => return Ok(self.rows([(); 5].map(|()| Rounds::skipped(why.clone())))),
        };
        let place = || Place::fresh(&url, directory, self.keys);
        let rounds = plan.rounds_of(self.cases, || {
            let ours = runtime.block_on(measure::<O>([place(), place()], plan.seconds))?;
            let against = runtime.block_on(measure::<R>([place(), place()], plan.seconds))?;
            Ok(samples(ours, against))
        })?;
        Ok(self.rows(rounds))
    }
}

fn samples(mut ours: Measured, mut against: Measured) -> [Sample; 5] {
    let p99 = quantile(&mut ours.times, 0.99);
    let one = Sample::of(quantile(&mut ours.times, 0.5), quantile(&mut against.times, 0.5));
    [
        Sample::of(ours.published.rate, against.published.rate),
        Sample::of(ours.published.cpu, against.published.cpu),
        Sample::of(ours.handled.rate, against.handled.rate),
        Sample::of(ours.handled.cpu, against.handled.cpu),
        Sample { p99: Some(p99), ..one },
    ]
}

/// Whether a broker is to be measured on.
fn is_asked(plan: &Plan, name: &str) -> bool {
    plan.broker.as_deref().is_none_or(|only| only == name)
}

fn targets_of_5() -> (Target, Target) {
    (Target::at_least(0.97), Target::at_most_more(2.0))
}

/// 5: against the clients themselves.
pub(crate) fn against_clients(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let with = (plan, runtime, directory);
    let targets = targets_of_5();
    let nats = Compared {
        id: "5",
        name: "nats",
        cases: cases!("NATS"),
        against: "async-nats 0.51",
        theirs: nats::HOW,
        keys: Keys::None,
        targets,
    };
    let rabbitmq = Compared {
        id: "5",
        name: "rabbitmq",
        cases: cases!("RabbitMQ"),
        against: "lapin 4.12",
        theirs: rabbitmq::HOW,
        ..nats
    };
    let zeromq = Compared {
        id: "5",
        name: "zeromq",
        cases: cases!("ZeroMQ"),
        against: "zeromq 0.7",
        theirs: zeromq::HOW,
        ..nats
    };
    let mut rows = nats.compare::<Ours, nats::Raw>(with, running::url(nats.name))?;
    rows.extend(rabbitmq.compare::<Ours, rabbitmq::Raw>(with, running::url(rabbitmq.name))?);
    #[cfg(feature = "kafka")]
    {
        let kafka = Compared {
            id: "5",
            name: "kafka",
            cases: cases!("Kafka"),
            against: "rdkafka 0.39",
            theirs: kafka::HOW,
            ..nats
        };
        rows.extend(kafka.compare::<Ours, kafka::Raw>(with, running::url(kafka.name))?);
    }
    rows.extend(zeromq.compare::<Node, zeromq::Raw>(with, Ok(String::new()))?);
    Ok(rows)
}

/// 12: with keys against the clients, and against `RustStream` with and without.
#[cfg(feature = "broker-rivals")]
pub(crate) fn against_rivals(plan: &Plan, runtime: &Runtime, directory: &Path) -> Result<Vec<Row>> {
    let with = (plan, runtime, directory);
    let raw = (Target::at_least(0.97), Target::at_most(1.1));
    let none = (Target::default(), Target::default());
    let row = |name, cases, against, theirs, keys, targets| Compared {
        id: "12",
        name,
        cases,
        against,
        theirs,
        keys,
        targets,
    };
    let mut rows = Vec::new();
    for (cases, keys) in [(cases!("NATS RustStream"), Keys::None), (cases!("NATS RustStream keyed"), Keys::Pipelined)] {
        let nats = row("nats", cases, ruststream::ON_NATS, ruststream::HOW_NATS, keys, none);
        rows.extend(nats.compare::<Ours, ruststream::OnNats>(with, running::url("nats"))?);
    }
    let keyed = [(cases!("NATS keyed"), Keys::Pipelined, raw), (cases!("NATS keyed strict"), Keys::Strict, none)];
    for (cases, keys, targets) in keyed {
        let nats = row("nats", cases, "async-nats 0.51", nats::HOW, keys, targets);
        rows.extend(nats.compare::<Ours, nats::Raw>(with, running::url("nats"))?);
    }
    for (cases, keys) in [(cases!("Kafka RustStream"), Keys::None), (cases!("Kafka RustStream keyed"), Keys::Pipelined)]
    {
        let kafka = row("kafka", cases, ruststream::ON_KAFKA, ruststream::HOW_KAFKA, keys, none);
        rows.extend(kafka.compare::<Ours, ruststream::OnKafka>(with, running::url("kafka"))?);
    }
    let keyed = [(cases!("Kafka keyed"), Keys::Pipelined, raw), (cases!("Kafka keyed strict"), Keys::Strict, none)];
    for (cases, keys, targets) in keyed {
        let kafka = row("kafka", cases, "rdkafka 0.39", kafka::HOW, keys, targets);
        rows.extend(kafka.compare::<Ours, kafka::Raw>(with, running::url("kafka"))?);
    }
    Ok(rows)
}
