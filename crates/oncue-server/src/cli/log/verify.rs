//! `oncue log verify`.

use clap::Args;
use oncue::transport::maintenance::{self, Verified, VerifiedSegment};
use serde_json::{Value, json};

use super::{LogError, counted, progress::Bar, rfc3339, second};
use crate::{
    cli::{
        CommandError,
        view::{View, ViewError},
    },
    columns::{Column, columns},
    number::grouped,
};

/// Read a log in full and name every spot that is damaged
///
/// Every segment is read from its first byte on: checksums, epochs, numbers without gaps, indexes and checkpoints against
/// the records, and whether each record can be understood. Opening a log reads only what came since its newest checkpoint,
/// and refuses at the first damage; this goes on behind it. Nothing is changed.
///
/// An end that a crash left half written is no damage: nobody was told that it was there, and opening the log cuts it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log verify --data ./data\n  \
                        oncue log verify --data ./data --json | jq '.damage[] | {file, offset, reason}'\n\n\
                        Of each damaged spot it says the file, the offset in bytes, the reason, and how many records are \
                        lost there.\n\
                        Exit codes: 0 everything holds; 1 something is damaged, or cannot be read; 2 there is no such \
                        directory or log.")]
pub(super) struct Verify {
    #[command(flatten)]
    view: View,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let directory = &self.view.data;
        let mut bar = Bar::default();
        let verified = maintenance::verify(directory, &mut |progress| bar.show(progress));
        drop(bar);
        let verified = verified.map_err(|error| LogError::View(ViewError::opening(error, directory)))?;
        self.view.tell(&json(&verified), || text(&verified))?;
        match verified.log.damaged {
            0 => Ok(()),
            damaged => Err(LogError::Damaged { damaged, directory: directory.clone() }.into()),
        }
    }
}

fn json(verified: &Verified) -> Value {
    let log = &verified.log;
    let segment = |segment: &VerifiedSegment| {
        json!({
            "file": segment.file,
            "epoch": segment.epoch,
            "bytes": segment.bytes,
            "used": segment.end,
            "first_lsn": segment.first_lsn,
            "next_lsn": segment.next_lsn,
            "frames": segment.frames,
            "records": segment.records,
            "first_time": rfc3339(segment.first_time),
            "last_time": rfc3339(segment.last_time),
            "sealed": segment.sealed,
        })
    };
    let damage = log.damage.iter().map(|spot| {
        json!({
            "file": spot.file,
            "offset": spot.offset,
            "bytes": spot.bytes,
            "reason": spot.reason,
            "records": spot.records,
        })
    });
    let torn = log.torn.as_ref().map(|torn| json!({"file": torn.file, "offset": torn.offset, "bytes": torn.bytes}));
    let topics =
        verified.topics.iter().map(|topic| json!({"name": topic.name, "events": topic.events, "bytes": topic.bytes}));
    json!({
        "whole": log.is_whole(),
        "log_id": format!("{:016x}", log.log_id),
        "damaged": log.damaged,
        "damage": damage.collect::<Value>(),
        "torn": torn,
        "unused": log.unused,
        "closed": log.clean,
        "frames": log.frames(),
        "records": log.records(),
        "next_lsn": log.next_lsn(),
        "checkpoint": log.checkpoint,
        "kinds": verified.kinds,
        "topics": topics.collect::<Value>(),
        "segments": log.segments.iter().map(segment).collect::<Value>(),
        "spares": log.spares,
        "others": log.others,
    })
}

fn text(verified: &Verified) -> String {
    let log = &verified.log;
    let mut out = segments(&log.segments);
    out.push('\n');
    let topics: Vec<Vec<String>> = verified
        .topics
        .iter()
        .map(|topic| vec![topic.name.clone(), grouped(topic.events), grouped(topic.bytes)])
        .collect();
    out += &columns(&[Column::Text("TOPIC"), Column::Number("EVENTS"), Column::Number("BYTES")], &topics);
    out.push('\n');
    let kinds: Vec<Vec<String>> =
        verified.kinds.iter().map(|(kind, count)| vec![(*kind).to_owned(), grouped(*count)]).collect();
    out += &columns(&[Column::Text("RECORDS"), Column::Number("")], &kinds);
    out.push('\n');
    for other in &log.others {
        out += &format!("{other} is no file of the log; it is left alone.\n");
    }
    if let Some(unused) = &log.unused {
        out +=
            &format!("{unused} was being made and never held anything: opening the log removes it. Nothing is lost.\n");
    }
    if let Some(torn) = &log.torn {
        out += &format!(
            "{} ends torn at offset {}: {} were written half, or are being written. Nobody was told that they are there, and \
             opening the log cuts them.\n",
            torn.file,
            torn.offset,
            counted(torn.bytes, "byte", "bytes")
        );
    }
    if !log.clean && !log.segments.is_empty() {
        out += "The log is not closed: a process has it open, or ended otherwise.\n";
    }
    for spot in &log.damage {
        out += &format!("DAMAGED {spot}\n");
    }
    let more = log.damaged - log.damage.len() as u64;
    if more > 0 {
        out += &format!("… and {}.\n", counted(more, "spot more", "spots more"));
    }
    let read = [
        counted(log.segments.len() as u64, "segment", "segments"),
        counted(log.frames(), "frame", "frames"),
        counted(log.records(), "record", "records"),
    ]
    .join(", ");
    let bytes = counted(log.segments.iter().map(|segment| segment.end).sum(), "byte", "bytes");
    out += &match log.damaged {
        0 => format!("Everything holds: {read}, {bytes}.\n"),
        damaged => format!("{}; the rest holds: {read}.\n", counted(damaged, "damaged spot", "damaged spots")),
    };
    out
}

fn segments(segments: &[VerifiedSegment]) -> String {
    let heading = [
        Column::Text("SEGMENT"),
        Column::Number("BYTES"),
        Column::Number("USED"),
        Column::Number("RECORDS"),
        Column::Number("FIRST"),
        Column::Number("NEXT"),
        Column::Text("FROM"),
        Column::Text("TO"),
    ];
    let row = |segment: &VerifiedSegment| {
        let numbers = [segment.bytes, segment.end, segment.records, segment.first_lsn, segment.next_lsn].map(grouped);
        let times = [second(segment.first_time), second(segment.last_time)];
        std::iter::once(segment.file.clone()).chain(numbers).chain(times).collect()
    };
    columns(&heading, &segments.iter().map(row).collect::<Vec<_>>())
}
