//! Every record of a log as a line of JSON.

use std::{ops::ControlFlow, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use oncue_log::{Found, Record, Refusal};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    super::lesson::{Lost, Waits},
    super::records::{Ack, Change, Dead, End, Lesson, Redrive, Service, Settle, Trial},
    super::state::State,
    super::trial::Worked,
    look_at,
    meaning::{Meaning, Understood, name_of},
    storage,
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    policy::Routed,
    transport::{OpenError, RouteChoice, StateChange},
};

/// The kinds of lines that a dump has.
pub const KINDS: [&str; 24] = [
    "topic",
    "drop",
    "event",
    "settle",
    "retry",
    "dead_letter",
    "keyed_state",
    "event_type",
    "subscription",
    "source",
    "redrive",
    "discard",
    "reset",
    "remove",
    "remember",
    "window",
    "dropped",
    "lesson",
    "service",
    "trial",
    "checkpoint_part",
    "checkpoint",
    "unknown",
    "damage",
];

/// What of a log is dumped.
#[derive(Clone, Debug, Default)]
pub struct DumpFilter {
    /// Only the definition and the events of this topic, and what was done with them.
    pub topic: Option<String>,
    /// Only records with this lsn or a higher one.
    pub from: Option<u64>,
    /// Only records with a lower lsn than this.
    pub to: Option<u64>,
    /// Only lines of these kinds; empty: of all.
    pub kinds: Vec<String>,
}

/// A line of a dump.
#[derive(Clone, Copy, Debug)]
pub struct DumpLine<'a> {
    /// One JSON object, without the line's end.
    pub json: &'a str,
}

/// What was dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Lines.
    pub lines: u64,
    /// Spots of the log that are damaged, those that the filter leaves out included.
    pub damaged: u64,
}

/// Gives every record of the log in a directory to `line`, as one JSON object each, in the order of the log. The same log gives
/// the same lines. What is damaged is a line of its own, and the dump goes on behind it. Works beside whatever process has
/// the log open, and writes nothing.
///
/// # Errors
/// The directory holds no log or cannot be read; a segment was trimmed while it was read.
pub fn dump(
    directory: &Path,
    filter: &DumpFilter,
    line: &mut dyn FnMut(DumpLine<'_>) -> ControlFlow<()>,
) -> Result<Dumped, OpenError> {
    let (snapshot, _) = look_at(directory)?;
    let mut meaning = Meaning::default();
    let mut lines = 0;
    let mut look = |found: Found<'_>| {
        let told = tell(&mut meaning, filter, &found).map_err(Refusal::Damaged)?;
        if let Found::Record { record, .. } = &found
            && filter.to.is_some_and(|to| record.lsn >= to)
        {
            return Err(Refusal::Stop);
        }
        let Some(told) = told else { return Ok(()) };
        lines += 1;
        match line(DumpLine { json: &told }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Refusal::Stop),
        }
    };
    let log = oncue_log::verify(&snapshot, &mut look).map_err(storage)?;
    Ok(Dumped { lines, damaged: log.damaged })
}

/// The line for what was found, if it is to be told.
fn tell(meaning: &mut Meaning, filter: &DumpFilter, found: &Found<'_>) -> Result<Option<String>, String> {
    let (kind, lsn, told) = match found {
        Found::Record { record, file, offset } => {
            let understood = meaning.record(record)?;
            let mut told = head(record, file, *offset);
            let topic = describe(meaning, record, &understood, &mut told);
            if filter.topic.is_some() && filter.topic != topic {
                return Ok(None);
            }
            (name_of(record.kind), Some(record.lsn), told)
        }
        Found::Checkpoint { of_lsn, topics, .. } => {
            let state = meaning.found(found)?;
            let mut told = Map::new();
            told.insert("lsn".to_owned(), json!(of_lsn));
            let topics = topics.iter().map(|(name, next)| json!({"name": name, "next_offset": next}));
            told.insert("topics".to_owned(), topics.collect());
            told.insert("subscriptions".to_owned(), state.as_ref().map_or(Value::Null, subscriptions));
            ("checkpoint", Some(*of_lsn), told)
        }
        Found::Damage(spot) => {
            meaning.found(found)?;
            let mut told = Map::new();
            for (name, value) in [
                ("file", json!(spot.file)),
                ("frame", json!(spot.offset)),
                ("bytes", json!(spot.bytes)),
                ("reason", json!(spot.reason)),
                ("records", json!(spot.records)),
            ] {
                told.insert(name.to_owned(), value);
            }
            ("damage", None, told)
        }
        Found::Segment { .. } => return Ok(None),
    };
    let is_wanted = lsn
        .is_none_or(|lsn| filter.from.is_none_or(|from| lsn >= from) && filter.to.is_none_or(|to| lsn < to))
        && (filter.kinds.is_empty() || filter.kinds.iter().any(|wanted| wanted == kind))
        && (filter.topic.is_none() || !matches!(found, Found::Checkpoint { .. }));
    Ok(is_wanted.then(|| write(kind, told)))
}

/// The kind first, then the number, then the rest by name.
fn write(kind: &str, mut told: Map<String, Value>) -> String {
    let mut out = format!("{{\"kind\":\"{kind}\"");
    let lsn = told.remove("lsn");
    let event = told.remove("event");
    for (name, value) in lsn.into_iter().map(|lsn| ("lsn".to_owned(), lsn)).chain(told) {
        out.push(',');
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        out.push_str(&value.to_string());
    }
    if let Some(event) = event.as_ref().and_then(Value::as_str) {
        // As it is written, so that numbers keep their digits.
        out.push_str(",\"event\":");
        out.push_str(event);
    }
    out.push('}');
    out
}

fn head(record: &Record, file: &str, frame: u64) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("lsn".to_owned(), json!(record.lsn));
    told.insert("time".to_owned(), json!(Timestamp::from_micros(record.time).to_rfc3339()));
    told.insert("file".to_owned(), json!(file));
    told.insert("frame".to_owned(), json!(frame));
    told
}

/// Adds what a record says; gives the topic that it is about.
fn describe(
    meaning: &Meaning,
    record: &Record,
    understood: &Understood,
    told: &mut Map<String, Value>,
) -> Option<String> {
    let mut add = |name: &str, value: Value| drop(told.insert(name.to_owned(), value));
    match understood {
        Understood::Topic => {
            let (name, metadata) = record.topic_definition()?;
            add("topic", json!(name));
            add("id", json!(record.topic.0));
            add("metadata", readable(metadata));
            Some(name.to_owned())
        }
        Understood::Part => {
            let (of_lsn, part, parts) = record.checkpoint_part()?;
            add("of_lsn", json!(of_lsn));
            add("part", json!(part));
            add("parts", json!(parts));
            add("bytes", json!(record.data.len()));
            None
        }
        Understood::Drop => {
            let topic = meaning.topic(record.topic.0).map(str::to_owned);
            add("topic", json!(topic));
            add("first_offset", json!(record.offset));
            topic
        }
        Understood::Event(envelope) => {
            let topic = meaning.topic(record.topic.0).map(str::to_owned);
            add("topic", json!(topic));
            add("partition", json!(record.partition));
            add("offset", json!(record.offset));
            add("published", json!(envelope.published().to_rfc3339()));
            add("id_chosen", json!(envelope.id_supplied()));
            add("event", json!(envelope.to_json_line()));
            topic
        }
        Understood::Change(change) => {
            let (subscription, data) = change_of(change);
            let mut topic = None;
            if let Some(number) = subscription {
                add("subscription", json!(meaning.subscription(number)));
                topic = meaning.topic_of(number).map(str::to_owned);
            }
            match data {
                Value::Object(members) => members.into_iter().for_each(|(name, value)| {
                    let name = if name == "subscription" { "number" } else { &name };
                    add(name, named(meaning, name, value));
                }),
                other => add("data", other),
            }
            topic
        }
        Understood::Unknown => {
            add("record_kind", json!(record.kind));
            add("data_base64", json!(BASE64.encode(&record.data)));
            None
        }
    }
}

/// The name of an event type or a topic, in place of its number.
fn named(meaning: &Meaning, name: &str, value: Value) -> Value {
    match (name, value.as_u64().and_then(|number| u32::try_from(number).ok())) {
        ("event_type", Some(number)) => meaning.event_type(number).map_or(value, Value::from),
        ("topic", Some(number)) => meaning.topic(number).map_or(value, Value::from),
        _ => value,
    }
}

/// The subscription that a change speaks of, and what it says.
fn change_of(change: &Change) -> (Option<u32>, Value) {
    match change {
        Change::Settle(Settle { subscription, entries }) => (
            Some(*subscription),
            json!({"subscription": subscription, "entries": entries.iter().map(ack).collect::<Value>()}),
        ),
        Change::Retry(retry) => (Some(retry.subscription), value(retry)),
        Change::DeadLetter(Dead { about, envelope }) => (Some(about.subscription), with_event(value(about), envelope)),
        Change::Redrive(Redrive { about, envelope }) => (Some(about.subscription), with_event(value(about), envelope)),
        Change::Keyed(keyed) => {
            let value = match &keyed.change {
                StateChange::Set(bytes) => readable(bytes),
                StateChange::Clear => Value::Null,
            };
            (Some(keyed.subscription), json!({"subscription": keyed.subscription, "key": keyed.key, "value": value}))
        }
        Change::EventType(event_type) => (None, value(event_type)),
        Change::Subscription(about) => (Some(about.number), value(about)),
        Change::Source(source) => (None, value(source)),
        Change::Discard(discard) => (Some(discard.subscription), value(discard)),
        Change::Reset(reset) => (Some(reset.subscription), value(reset)),
        Change::Remove(remove) => (Some(remove.subscription), value(remove)),
        Change::Remember(remember) => {
            let what = readable(&remember.what);
            (Some(remember.subscription), json!({"subscription": remember.subscription, "remembered": what}))
        }
        Change::Window(window) => (None, value(window)),
        Change::Dropped(dropped) => (None, value(dropped)),
        Change::Lesson(lesson) => {
            let Lesson { subscription, offset, lost, features } = lesson;
            let (lost, waits) = match lost {
                Lost::Known(lost) => (Some(*lost), None),
                Lost::Unknown => (None, None),
                Lost::Waits(waits) => (None, Some(self::waits(waits))),
            };
            let looked_at = features.all().len();
            let mut about =
                json!({"subscription": subscription, "offset": offset, "lost": lost, "features": looked_at});
            if let Some(waits) = waits {
                about["waits"] = waits;
            }
            (Some(*subscription), about)
        }
        Change::Service(service) => {
            let Service { subscription, offset, priority, cost, micros, features } = service;
            let looked_at = features.all().len();
            let about = json!({"subscription": subscription, "offset": offset, "priority": priority, "cost": cost,
                "micros": micros, "features": looked_at});
            (Some(*subscription), about)
        }
        Change::Trial(Trial { subscription, offset, worked, routed }) => {
            let Routed { choice, micros, features } = routed;
            let looked_at = features.all().len();
            let choice = RouteChoice::from(*choice);
            let mut about = json!({"subscription": subscription, "offset": offset, "choice": choice, "micros": micros,
                "features": looked_at});
            match worked {
                Worked::Known(worked) => about["worked"] = json!(worked),
                Worked::Waits(waits) => about["waits"] = self::waits(waits),
            }
            (Some(*subscription), about)
        }
    }
}

fn waits(Waits { key, published, ended }: &Waits) -> Value {
    json!({"key": key, "published": value(published), "ended": value(ended)})
}

fn ack(ack: &Ack) -> Value {
    let end = match ack.end {
        End::Acked => "acked",
        End::Skipped => "skipped",
        End::Expired => "expired",
    };
    json!({
        "offset": ack.offset,
        "end": end,
        "attempts": ack.attempts,
        "event_type": ack.event_type,
        "times": value(&ack.times),
    })
}

fn value<T: Serialize>(of: &T) -> Value {
    // Texts, numbers and lists of them: writing them as JSON cannot fail.
    serde_json::to_value(of).unwrap_or_default()
}

fn with_event(mut about: Value, envelope: &Envelope) -> Value {
    about["event"] = Value::from(envelope.to_json_line());
    about
}

/// JSON as it is, any other bytes in base64.
fn readable(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| json!({"base64": BASE64.encode(bytes)}))
}

fn subscriptions(state: &State) -> Value {
    state
        .known()
        .map(|state| {
            json!({
                "id": state.about.id,
                "settled_below": state.settled.low(),
                "retrying": state.failing.len(),
                "dead": state.dead.len(),
            })
        })
        .collect()
}
