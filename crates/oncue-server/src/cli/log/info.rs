//! `oncue log info`.

use clap::Args;
use oncue::{
    Clock, Timestamp,
    transport::maintenance::{self, Hold, LogInfo, SegmentInfo, TopicSpace},
};
use serde_json::{Value, json};

use super::{LogError, counted, rfc3339, second};
use crate::{
    cli::{
        CommandError,
        view::{View, ViewError},
    },
    columns::{Column, columns},
    number::{grouped, time},
};

/// The version of the format that is written.
const FORMAT: u8 = 1;

/// Show what a log takes on disk, and what holds old segments
///
/// What topics keep is shown by `oncue ls topics`. Here is what `settled` would keep: all that a subscription is not
/// through with; a topic without subscriptions keeps all of its events, since one may come. A limit of age or bytes does
/// not ask for that. A segment of which more than half is of no use is written again; one of which all is, goes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log info --data ./data\n  \
                        oncue log info --data ./data --json | jq '.holds[0]'\n\n\
                        `oncue log verify` reads everything, and counts the bytes of each topic.\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory or log.")]
pub(super) struct Info {
    #[command(flatten)]
    view: View,
}

impl Info {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let clock = Clock::system();
        let info = maintenance::info(&self.view.data, &clock);
        let info = info.map_err(|error| LogError::View(ViewError::opening(error, &self.view.data)))?;
        let now = clock.now();
        self.view.tell(&json(&info, now), || text(&info, now))
    }
}

fn json(info: &LogInfo, now: Timestamp) -> Value {
    let segment = |segment: &SegmentInfo| {
        json!({
            "file": segment.file,
            "epoch": segment.epoch,
            "bytes": segment.bytes,
            "used": segment.used,
            "first_lsn": segment.first_lsn,
            "next_lsn": segment.next_lsn,
            "first_time": rfc3339(segment.first_time),
            "last_time": rfc3339(segment.last_time),
            "sealed": segment.sealed,
        })
    };
    let topic = |topic: &TopicSpace| {
        json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "first_offset": topic.first_offset,
            "next_offset": topic.next_offset,
            "segments": topic.segments,
            "subscriptions": topic.subscriptions,
        })
    };
    let hold = |hold: &Hold| {
        json!({
            "topic": hold.topic,
            "subscription": hold.subscription,
            "offset": hold.offset,
            "events": hold.events,
            "since": hold.since.to_rfc3339(),
            "segment": hold.segment,
            "lsn": hold.lsn,
        })
    };
    let checkpoint = info.checkpoint.map(|known| {
        json!({
            "lsn": known.lsn,
            "time": known.time.to_rfc3339(),
            "age_s": now.since(known.time).as_secs_f64(),
            "records_since": known.records_since,
        })
    });
    json!({
        "format": FORMAT,
        "log_id": format!("{:016x}", info.log_id),
        "bytes": info.bytes,
        "spare_bytes": info.spare_bytes,
        "next_lsn": info.next_lsn,
        "checkpoint": checkpoint,
        "segments": info.segments.iter().map(segment).collect::<Value>(),
        "topics": info.topics.iter().map(topic).collect::<Value>(),
        "holds": info.holds.iter().map(hold).collect::<Value>(),
        "free_segments": info.free_segments,
        "free_bytes": info.free_bytes,
    })
}

fn text(info: &LogInfo, now: Timestamp) -> String {
    let age = |at: Timestamp| time(now.since(at));
    let checkpoint = info.checkpoint.map_or_else(
        || "none: opening replays all of it".to_owned(),
        |known| {
            let since = counted(known.records_since, "record", "records");
            format!("at {}, {} ago; opening replays {since}", grouped(known.lsn), age(known.time))
        },
    );
    let rows = [
        ("log", format!("{:016x}", info.log_id)),
        ("format", FORMAT.to_string()),
        ("bytes", format!("{}, of these {} spare", grouped(info.bytes), grouped(info.spare_bytes))),
        ("records", grouped(info.next_lsn)),
        ("checkpoint", checkpoint),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut out = columns(&[Column::Text("LOG"), Column::Text("")], &rows);
    out.push('\n');
    out += &segments(&info.segments);
    out.push('\n');
    out += &topics(&info.topics);
    out.push('\n');
    out += &holds(&info.holds, &age);
    out.push('\n');
    out += &held_back(info);
    out
}

fn segments(segments: &[SegmentInfo]) -> String {
    let heading = [
        Column::Text("SEGMENT"),
        Column::Number("BYTES"),
        Column::Number("USED"),
        Column::Number("FIRST"),
        Column::Number("NEXT"),
        Column::Number("TOPICS"),
        Column::Text("FROM"),
        Column::Text("TO"),
    ];
    let row = |segment: &SegmentInfo| {
        let topics = segment.topics.len() as u64;
        let numbers = [segment.bytes, segment.used, segment.first_lsn, segment.next_lsn, topics].map(grouped);
        let times = [second(segment.first_time), second(segment.last_time)];
        std::iter::once(segment.file.clone()).chain(numbers).chain(times).collect()
    };
    columns(&heading, &segments.iter().map(row).collect::<Vec<_>>())
}

fn topics(topics: &[TopicSpace]) -> String {
    let heading = [
        Column::Text("TOPIC"),
        Column::Number("PARTITIONS"),
        Column::Number("FIRST OFFSET"),
        Column::Number("NEXT OFFSET"),
        Column::Number("SEGMENTS"),
        Column::Number("SUBSCRIPTIONS"),
    ];
    let row = |topic: &TopicSpace| {
        let counts = [topic.segments as u64, topic.subscriptions as u64];
        let numbers = [topic.partitions.into(), topic.first_offset, topic.next_offset].into_iter().chain(counts);
        std::iter::once(topic.name.clone()).chain(numbers.map(grouped)).collect()
    };
    columns(&heading, &topics.iter().map(row).collect::<Vec<_>>())
}

fn holds(holds: &[Hold], age: &dyn Fn(Timestamp) -> String) -> String {
    let heading = [
        Column::Text("HELD BY"),
        Column::Text("TOPIC"),
        Column::Number("FROM OFFSET"),
        Column::Number("EVENTS"),
        Column::Number("AGE"),
        Column::Text("SEGMENT"),
    ];
    let row = |hold: &Hold| {
        let by = hold.subscription.clone().unwrap_or_else(|| "(no subscription)".to_owned());
        let numbers = [grouped(hold.offset), grouped(hold.events), age(hold.since)];
        let [offset, events, age] = numbers;
        vec![by, hold.topic.clone(), offset, events, age, hold.segment.clone()]
    };
    columns(&heading, &holds.iter().map(row).collect::<Vec<_>>())
}

/// What holds the oldest segment, in words.
fn held_back(info: &LogInfo) -> String {
    let free = format!(
        "{}, {}, can go with `retention=settled`.\n",
        counted(info.free_segments as u64, "segment", "segments"),
        counted(info.free_bytes, "byte", "bytes")
    );
    let Some(oldest) = info.segments.get(info.free_segments).filter(|segment| segment.sealed) else {
        return free;
    };
    let why = match info.holds.first().filter(|hold| hold.segment == oldest.file) {
        Some(Hold { subscription: Some(subscription), topic, offset, .. }) => {
            format!("`{subscription}` is not through with offset {} of `{topic}`", grouped(*offset))
        }
        Some(Hold { topic, .. }) => format!("`{topic}` has no subscription, so it keeps all of its events"),
        None => "no checkpoint stands for all of it yet".to_owned(),
    };
    format!("{free}{} is held: {why}.\n", oldest.file)
}
