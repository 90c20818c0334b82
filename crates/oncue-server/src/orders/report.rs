//! What a run found out, read from the log: the same however often the run was interrupted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use oncue::{
    Event as _,
    metrics::HandlerStats,
    transport::{DeadLetter, Inspect, InspectError},
};
use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap as _};

use super::{
    HANDLERS,
    event::{OrderAnomaly, OrderState},
    handlers::Sale,
    place::{Places, SOURCE},
};

/// Events that are read from the log at once.
const BROWSED: usize = 1_000;

/// What a run found out. As text ([`Display`](std::fmt::Display)) for people, as [JSON](Self::to_json) for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events taken in: neither duplicates nor those that handlers emitted.
    pub events: u64,
    /// Orders that they are about.
    pub orders: u64,
    /// Lines that hold no event.
    pub malformed: u64,
    /// Events that came again.
    pub duplicates: u64,
    /// The line after which this run went on; 0 if it began at the beginning.
    pub resumed_from: u64,
    /// How many orders ended in each state.
    pub states: Counts,
    /// Steps against the rule.
    pub anomalies: Anomalies,
    /// What became of the events, by handler.
    pub handlers: Handlers,
    /// Average response time and percentiles over all handlers, in milliseconds since publishing.
    pub art_ms: ArtMillis,
    /// Events per second that handlers were through with, all handlers together.
    pub throughput_per_s: Option<f64>,
    /// What only people are told.
    #[serde(skip)]
    pub(super) details: Details,
}

/// Names with how often each occurs, the most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(String, u64)>);

/// Steps against the rule.
#[derive(Clone, Debug, Serialize)]
pub struct Anomalies {
    /// All of them.
    pub total: u64,
    /// Orders that took one or more.
    pub orders: u64,
    /// By step, such as `canceled→shipped`.
    pub by_step: Counts,
}

/// Each handler's counts, by its id.
#[derive(Clone, Debug, Default)]
pub struct Handlers(pub Vec<(String, HandlerCounts)>);

/// What became of the events of one handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HandlerCounts {
    /// Handled.
    pub acked: u64,
    /// Failed attempts that were followed by another.
    pub retried: u64,
    /// Given up on.
    pub dead: u64,
}

/// Response times in milliseconds; nothing where nothing was handled.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ArtMillis {
    /// `Σ Tᵢ / n`.
    pub mean: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// 99 of 100 events took at most this long.
    pub p99: Option<f64>,
}

/// What only people are told.
#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    /// Each handler's counts and times.
    pub(super) stats: Vec<(String, HandlerStats)>,
    /// All handlers' together.
    pub(super) all: HandlerStats,
    /// Cents by day.
    pub(super) sales: BTreeMap<String, u64>,
    /// Dead letters by handler and reason, each with how many there are and one of them.
    pub(super) dead: BTreeMap<(String, String), (u64, DeadSample)>,
    /// What was read.
    pub(super) inputs: Vec<String>,
    /// Where all of this is kept, if it is.
    pub(super) kept: Option<PathBuf>,
}

/// One dead letter.
#[derive(Clone, Debug, Default)]
pub(super) struct DeadSample {
    pub(super) event_id: String,
    pub(super) attempts: usize,
}

impl Report {
    /// Reads the report from what the log knows.
    pub(super) fn read(log: &dyn Inspect, resumed_from: u64, kept: Option<PathBuf>) -> Result<Self, InspectError> {
        let source = log.source(SOURCE);
        let places = Places::parse(&source.place).map_err(InspectError::Storage)?;
        let states: Vec<(String, OrderState)> = values(log, "track_order")?;
        let mut all = HandlerStats::default();
        let mut known: BTreeMap<String, HandlerStats> =
            log.subscriptions().into_iter().map(|known| (known.id, known.stats)).collect();
        let stats: Vec<_> =
            HANDLERS.iter().map(|id| ((*id).to_owned(), known.remove(*id).unwrap_or_default())).collect();
        stats.iter().for_each(|(_, stats)| all.merge(stats));
        let counts =
            |stats: &HandlerStats| HandlerCounts { acked: stats.acked, retried: stats.retried, dead: stats.dead };
        let millis = |time: Option<std::time::Duration>| time.map(|time| rounded(time.as_secs_f64() * 1e3, 1e3));
        Ok(Self {
            events: source.accepted,
            orders: states.len() as u64,
            malformed: places.malformed(),
            duplicates: source.duplicates,
            resumed_from,
            states: Counts::of(states.iter().map(|(_, state)| state.name())),
            anomalies: anomalies(log)?,
            handlers: Handlers(stats.iter().map(|(id, stats)| (id.clone(), counts(stats))).collect()),
            art_ms: ArtMillis {
                mean: millis(all.art_since_published()),
                p50: millis(all.percentile(0.5)),
                p99: millis(all.percentile(0.99)),
            },
            throughput_per_s: all.throughput().map(|rate| rounded(rate, 10.0)),
            details: Details {
                sales: sales(log)?,
                dead: dead_letters(log, &stats)?,
                inputs: places.inputs().map(str::to_owned).collect(),
                stats,
                all,
                kept,
            },
        })
    }

    /// One JSON object, and a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Numbers and strings under string keys can always be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The keyed states of a handler, decoded.
fn values<T: DeserializeOwned>(log: &dyn Inspect, handler: &str) -> Result<Vec<(String, T)>, InspectError> {
    let decoded = |(key, bytes): (String, bytes::Bytes)| match serde_json::from_slice(&bytes) {
        Ok(value) => Ok((key, value)),
        Err(error) => Err(InspectError::Storage(format!("the state of `{handler}` for {key}: {error}"))),
    };
    log.states(handler)?.into_iter().map(decoded).collect()
}

fn anomalies(log: &dyn Inspect) -> Result<Anomalies, InspectError> {
    let (mut steps, mut orders) = (Vec::new(), BTreeSet::new());
    let mut from = 0;
    loop {
        let events = match log.browse(OrderAnomaly::TOPIC, from, BROWSED) {
            // The topic is made with the first one.
            Err(InspectError::UnknownTopic(_)) => break,
            events => events?,
        };
        let Some((last, _)) = events.last() else { break };
        from = last.offset() + 1;
        for (_, envelope) in events {
            let anomaly: OrderAnomaly = envelope.decode().map_err(|error| InspectError::Storage(error.to_string()))?;
            steps.push(anomaly.step);
            orders.insert(anomaly.order_id);
        }
    }
    let by_step = Counts::of(steps.iter().map(String::as_str));
    Ok(Anomalies { total: steps.len() as u64, orders: orders.len() as u64, by_step })
}

fn sales(log: &dyn Inspect) -> Result<BTreeMap<String, u64>, InspectError> {
    let mut days = BTreeMap::new();
    for (_, Sale { day, cents }) in values(log, "daily_sales")? {
        let sum: &mut u64 = days.entry(day).or_default();
        *sum = sum.saturating_add(cents);
    }
    Ok(days)
}

type DeadByReason = BTreeMap<(String, String), (u64, DeadSample)>;

fn dead_letters(log: &dyn Inspect, stats: &[(String, HandlerStats)]) -> Result<DeadByReason, InspectError> {
    let mut reasons = DeadByReason::new();
    for (handler, _) in stats.iter().filter(|(_, stats)| stats.dead > 0) {
        for DeadLetter { envelope, history, .. } in log.dead_letters(handler)? {
            let reason = history.last().map(|attempt| attempt.error.clone()).unwrap_or_default();
            let sample = || DeadSample { event_id: envelope.id().to_owned(), attempts: history.len() };
            reasons.entry((handler.clone(), reason)).or_insert_with(|| (0, sample())).0 += 1;
        }
    }
    Ok(reasons)
}

impl Counts {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = BTreeMap::<&str, u64>::new();
        names.for_each(|name| *counts.entry(name).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self(counts)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        map(&self.0, serializer)
    }
}

impl Serialize for Handlers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        map(&self.0, serializer)
    }
}

/// A map in this order.
fn map<S: Serializer, V: Serialize>(pairs: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        out.serialize_entry(name, value)?;
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_most_frequent_first_then_by_name() {
        let counts = Counts::of(["b", "a", "c", "c"].into_iter());
        assert_eq!(serde_json::to_string(&counts).unwrap(), r#"{"c":2,"a":1,"b":1}"#);
        assert_eq!(serde_json::to_string(&Counts::default()).unwrap(), "{}");
    }
}
