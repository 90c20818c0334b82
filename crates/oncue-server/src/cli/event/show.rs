//! `oncue event show`: everything that the log tells of one event.

use std::{collections::HashSet, fmt::Write as _, time::Duration};

use clap::Args;
use oncue::{
    Envelope, Timestamp,
    transport::{EventHandling, FailedAttempt, Inspect, InspectError, Position, Stage},
};
use serde_json::{Value, json};

use super::lineage::{Family, Lineage, correlation_of};
use crate::{
    cli::{
        CommandError, envelope,
        view::{View, ViewError, each_event},
    },
    columns::{Column, columns, plain},
    number::{grouped, time},
};

/// Show an event: its attributes and data, what each handler made of it, what caused it and what it caused
///
/// Ids are unique per source only: every event with this id is shown. All events of the log are read to find them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue event show 0199f3b2-7c41-7d09-8a3e-5f2b1c9d4e60 --data ./data\n  \
                        oncue event show 3-120@0 --data ./data\n  \
                        oncue event show o-17-created --data ./data --json | jq '.events[0].subscriptions'\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such event, directory or log.")]
pub(super) struct Show {
    /// The event's id, or where it stands, as `oncue ls events` prints it
    id: String,

    #[command(flatten)]
    view: View,
}

/// What is known of an event.
struct Shown {
    topic: String,
    position: Position,
    event: Envelope,
    handlings: Vec<EventHandling>,
    lineage: Lineage,
}

impl Show {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let shown = self.view.look(|log| self.find(log))?;
        let json = json!({ "id": self.id, "events": shown.iter().map(json).collect::<Value>() });
        self.view.tell(&json, || shown.iter().map(text).collect::<Vec<_>>().join("\n"))
    }

    fn find(&self, log: &dyn Inspect) -> Result<Vec<Shown>, ViewError> {
        let topics = log.topics();
        let (mut found, at) = (Vec::new(), self.id.parse::<Position>().ok());
        each_event(log, &topics, |topic, position, event| {
            if event.id() == self.id || at == Some(position) {
                found.push((topic.to_owned(), position, event.clone()));
            }
        })?;
        if found.is_empty() {
            return Err(ViewError::UnknownEvent { id: self.id.clone(), directory: self.view.data.clone() });
        }
        let correlations: HashSet<_> = found.iter().map(|(_, _, event)| correlation_of(event).to_owned()).collect();
        let families = Family::read(log, &topics, &correlations)?;
        let shown = |(topic, position, event): (String, Position, Envelope)| -> Result<Shown, InspectError> {
            let handlings = log.handling(&topic, position)?;
            let lineage = families.get(correlation_of(&event)).map(|family| family.lineage(&event)).unwrap_or_default();
            Ok(Shown { topic, position, event, handlings, lineage })
        };
        Ok(found.into_iter().map(shown).collect::<Result<_, _>>()?)
    }
}

/// Tᵢ: from generation, or publishing, to the end of the attempt that finished the event.
fn response_time(event: &Envelope, handling: &EventHandling) -> Option<Duration> {
    let is_finished = matches!(handling.stage, Stage::Settled | Stage::Dead);
    Some(handling.ended.filter(|_| is_finished)?.since(event.time().unwrap_or_else(|| event.published())))
}

/// The part of it since publishing.
fn time_in_system(event: &Envelope, handling: &EventHandling) -> Option<Duration> {
    response_time(event, handling)?;
    Some(handling.ended?.since(event.published()))
}

fn json(shown: &Shown) -> Value {
    let Shown { topic, position, event, handlings, lineage } = shown;
    let rfc3339 = |time: Option<Timestamp>| time.map(Timestamp::to_rfc3339);
    let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    let subscription = |handling: &EventHandling| {
        json!({
            "subscription": handling.subscription,
            "stage": handling.stage,
            "attempts": handling.attempts,
            "read": rfc3339(handling.read),
            "ended": rfc3339(handling.ended),
            "due": rfc3339(handling.due),
            "response_ms": millis(response_time(event, handling)),
            "since_published_ms": millis(time_in_system(event, handling)),
            "failed": handling.failed.iter().map(envelope::failed).collect::<Value>(),
        })
    };
    json!({
        "topic": topic,
        "position": position.to_string(),
        "offset": position.offset(),
        "published": event.published().to_rfc3339(),
        "event": envelope::json(event),
        "data_bytes": event.data().len(),
        "subscriptions": handlings.iter().map(subscription).collect::<Value>(),
        "lineage": lineage.json(),
    })
}

fn text(shown: &Shown) -> String {
    let Shown { topic, position, event, handlings, lineage } = shown;
    let said = vec![vec!["topic".to_owned(), format!("{topic}, position {position}")]];
    let mut out = envelope::text(said, event);
    if handlings.is_empty() {
        out += "\nNo handler takes it.\n";
    } else {
        out.push('\n');
        out += &handled(event, handlings);
    }
    let alone = lineage.ancestors.is_empty() && lineage.descendants.is_empty();
    match event.causation_id() {
        None if alone => out += "\nNothing caused it, and it caused nothing.\n",
        Some(cause) if lineage.ancestors.is_empty() => {
            // Writing into a text cannot fail.
            let _written =
                write!(out, "\nLINEAGE (its cause {} is not in the log)\n{}", plain(cause), lineage.text(event));
        }
        _ => {
            let _written = write!(out, "\nLINEAGE\n{}", lineage.text(event));
        }
    }
    out
}

fn handled(event: &Envelope, handlings: &[EventHandling]) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let row = |handling: &EventHandling| {
        vec![
            handling.subscription.clone(),
            stage(handling),
            grouped(handling.attempts.into()),
            or_dash(handling.read.map(|read| format!("{read:.6}"))),
            or_dash(response_time(event, handling).map(time)),
            or_dash(time_in_system(event, handling).map(time)),
        ]
    };
    let heading = [
        Column::Text("HANDLER"),
        Column::Text("STAGE"),
        Column::Number("ATTEMPTS"),
        Column::Text("rᵢ"),
        Column::Number("Tᵢ"),
        Column::Number("SINCE PUBLISHED"),
    ];
    let mut out = columns(&heading, &handlings.iter().map(row).collect::<Vec<_>>());
    for handling in handlings {
        for FailedAttempt { number, error, read, ended, .. } in &handling.failed {
            let took = time(ended.since(*read));
            // Writing into a text cannot fail.
            let _written =
                writeln!(out, "  {}, attempt {number} failed after {took}: {}", handling.subscription, plain(error));
        }
    }
    out
}

fn stage(handling: &EventHandling) -> String {
    match (handling.stage, handling.due) {
        (Stage::Pending, _) => "pending".to_owned(),
        (Stage::Retrying, Some(due)) => format!("retrying at {due}"),
        (Stage::Retrying, None) => "retrying".to_owned(),
        (Stage::Settled, _) => "settled".to_owned(),
        (Stage::Skipped, _) => "skipped".to_owned(),
        (Stage::Expired, _) => "expired: its time to live was over".to_owned(),
        (Stage::Dead, _) => "dead letter".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_finished_events_only() {
        let at = |micros| Some(Timestamp::from_micros(micros));
        let event = Envelope::builder("t").time(Timestamp::from_micros(1_000)).build().unwrap();
        let mut handling = EventHandling {
            subscription: "a".to_owned(),
            stage: Stage::Settled,
            attempts: 1,
            read: at(2_000),
            ended: at(5_000),
            due: None,
            failed: Vec::new(),
        };
        // Not published yet: that time is the beginning of 1970.
        assert_eq!(response_time(&event, &handling), Some(Duration::from_micros(4_000)));
        assert_eq!(time_in_system(&event, &handling), Some(Duration::from_micros(5_000)));
        handling.stage = Stage::Retrying;
        assert_eq!((response_time(&event, &handling), time_in_system(&event, &handling)), (None, None));
    }
}
