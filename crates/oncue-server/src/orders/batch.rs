//! From lines to batches of events: what is published in one go, and where the input then stands.

use std::{io, thread};

use bytes::Bytes;
use oncue::{Envelope, Event as _, event::MAX_DATA_BYTES};
use tokio::sync::mpsc;

use super::{
    event::OrderEvent,
    lines::{Line, Lines, MAX_LINE_BYTES},
    place::Place,
};

/// Most lines of a batch.
const MAX_BATCH_LINES: u64 = 512;
/// A batch ends with the line that makes it this large.
const MAX_BATCH_BYTES: u64 = 1024 * 1024;
/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// Lines that were read, as events.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their events.
    pub(super) events: Vec<Envelope>,
    /// The lines that hold none.
    pub(super) malformed: Vec<Malformed>,
    /// Where the input stands after these lines.
    pub(super) place: Place,
    /// The malformed line that ends a strict run; it is after the place.
    pub(super) stopped_by: Option<Malformed>,
}

/// A line that holds no event of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Its number, from 1.
    pub(super) line: u64,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// Reads batches on a thread of its own, which may wait for a slow input as long as it likes. The last batch is the last
/// message; an error ends it too.
pub(super) fn read(lines: Lines, begin: Place, strict: bool) -> io::Result<mpsc::Receiver<io::Result<Batch>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let reading = move || {
        let mut batches = Batches { lines, place: begin, strict };
        while let Some(batch) = batches.next().transpose() {
            let is_last = batch.as_ref().map_or(true, |batch| batch.stopped_by.is_some());
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    };
    // Not waited for: it may be inside a read that never returns.
    thread::Builder::new().name("input".to_owned()).spawn(reading)?;
    Ok(receiver)
}

struct Batches {
    lines: Lines,
    place: Place,
    strict: bool,
}

impl Batches {
    /// The next batch; none at the end of the input.
    fn next(&mut self) -> io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        let begin = self.place;
        while let Some(line) = self.lines.next()? {
            let number = self.lines.number();
            match event_of(line) {
                Ok(event) => batch.events.extend(event),
                Err(reason) if self.strict => {
                    batch.stopped_by = Some(Malformed { line: number, reason });
                    break;
                }
                Err(reason) => {
                    self.place.malformed += 1;
                    batch.malformed.push(Malformed { line: number, reason });
                }
            }
            self.place = Place { bytes: self.lines.bytes(), line: number, hash: self.lines.hash(), ..self.place };
            let (lines, bytes) = (number - begin.line, self.place.bytes - begin.bytes);
            // What is there is not held back until more comes.
            if lines >= MAX_BATCH_LINES || bytes >= MAX_BATCH_BYTES || !self.lines.is_next_there() {
                break;
            }
        }
        batch.place = self.place;
        Ok((batch.place != begin || batch.stopped_by.is_some()).then_some(batch))
    }
}

/// The event in a line; none in an empty one.
fn event_of(line: Line) -> Result<Option<Envelope>, String> {
    let line = match line {
        Line::Whole(line) => line,
        Line::TooLong(bytes) => return Err(format!("{bytes} bytes long: the limit is {MAX_LINE_BYTES}")),
    };
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let envelope = Envelope::from_json(&line).map_err(|error| on_one_line(&error.to_string()))?;
    // A type that no handler knows is an event all the same, for handlers to come.
    let envelope = match OrderEvent::TYPES.contains(&envelope.event_type()) {
        true => keyed_by_order(envelope)?,
        false => envelope,
    };
    match envelope.encoded_bytes() {
        bytes if bytes > MAX_DATA_BYTES => Err(format!("an event of {bytes} bytes: the limit is {MAX_DATA_BYTES}")),
        _ => Ok(Some(envelope)),
    }
}

/// An event is one line: which line of it is wrong is no news.
fn on_one_line(reason: &str) -> String {
    reason.replace(" at line 1 column ", " at column ")
}

/// The same event with its order's id as key, whatever its subject says: the order of its events is kept by that.
fn keyed_by_order(envelope: Envelope) -> Result<Envelope, String> {
    let event: OrderEvent =
        envelope.decode().map_err(|error| format!("data of {}: {}", error.event_type, on_one_line(&error.reason)))?;
    let order_id = event.order_id();
    if order_id.is_empty() {
        return Err("the order has no id: `order_id` is empty".to_owned());
    }
    if envelope.key() == Some(order_id) {
        return Ok(envelope);
    }
    let attributes: Vec<_> = envelope.attributes().filter(|(name, _)| *name != "partitionkey").collect();
    let others = attributes.iter().map(|(name, value)| (*name, &**value));
    let data = Bytes::clone(envelope.data());
    Envelope::from_binary(others.chain([("partitionkey", order_id)]), data).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::lines::Tail;

    fn created(id: &str, rest: &str, data: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"order.created"{rest},"data":{data}}}"#)
    }

    fn event(line: &str) -> Result<Option<Envelope>, String> {
        event_of(Line::Whole(line.into()))
    }

    const DATA: &str = r#"{"order_id":"o-1","total_cents":5}"#;

    #[test]
    fn an_event_is_kept_in_order_by_its_order() {
        for rest in ["", r#","subject":"o-1""#, r#","subject":"other""#, r#","subject":"o-1","partitionkey":"x""#] {
            let envelope = event(&created("1", rest, DATA)).unwrap().unwrap();
            assert_eq!(envelope.key(), Some("o-1"), "{rest}");
            assert!(envelope.id_supplied() && envelope.data().as_ref() == DATA.as_bytes());
        }
    }

    #[test]
    fn other_types_are_events_and_empty_lines_are_nothing() {
        let other = created("1", "", "{}").replace("order.created", "parcel.weighed");
        assert_eq!(event(&other).unwrap().unwrap().event_type(), "parcel.weighed");
        assert_eq!(event(" \r").unwrap(), None);
    }

    #[test]
    fn malformed_lines_say_why() {
        for (line, reason) in [
            ("garbage".to_owned(), "not a CloudEvents JSON object"),
            ("\u{0}\u{1}".to_owned(), "not a CloudEvents JSON object"),
            (r#"{"a":1}"#.to_owned(), "specversion"),
            (created("1", "", "{}"), "order_id"),
            (created("1", "", r#"{"order_id":"o-1"}"#), "total_cents"),
            (created("1", "", r#"{"order_id":"o-1","total_cents":-1}"#), "data of order.created"),
            (created("1", "", r#"{"order_id":"","total_cents":1}"#), "`order_id` is empty"),
            (created("1", "", r#"{"order_id":"a\nb","total_cents":1}"#), "control character"),
            (created("", "", DATA), "`id` is missing"),
        ] {
            let refused = event(&line).unwrap_err();
            assert!(refused.contains(reason), "{line}: {refused}");
        }
        let refused = event_of(Line::TooLong(9_000_000)).unwrap_err();
        assert!(refused.contains("9000000 bytes long"), "{refused}");
    }

    fn batches(text: &str, strict: bool) -> Vec<Batch> {
        let lines = Lines::new(Box::new(io::Cursor::new(text.to_owned())), 0, 0, Tail::default());
        let mut batches = Batches { lines, place: Place::default(), strict };
        let mut all = Vec::new();
        while let Some(batch) = batches.next().unwrap() {
            let ends = batch.stopped_by.is_some();
            all.push(batch);
            if ends {
                break;
            }
        }
        all
    }

    #[test]
    fn every_line_is_in_one_batch_and_garbage_alone_moves_the_place() {
        let text: String = (1..=1_200)
            .map(|at| if at > 1_024 { "x\n".to_owned() } else { created(&at.to_string(), "", DATA) + "\n" })
            .collect();
        let all = batches(&text, false);
        let counts: Vec<_> = all.iter().map(|batch| (batch.events.len(), batch.malformed.len())).collect();
        assert_eq!(counts, [(512, 0), (512, 0), (0, 176)]);
        let last = all[2].place;
        assert_eq!((last.line, last.malformed, last.bytes), (1_200, 176, text.len() as u64));
        assert_eq!(all[2].malformed[0].line, 1_025);
    }

    #[test]
    fn a_strict_run_ends_before_the_malformed_line() {
        let text = format!("{}\nx\n{0}\n", created("1", "", DATA));
        let all = batches(&text, true);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].events.len(), all[0].place.line, all[0].place.malformed), (1, 1, 0));
        assert_eq!(all[0].stopped_by.as_ref().map(|stopped| stopped.line), Some(2));
        assert_eq!(batches("x\n", true)[0].place, Place::default());
    }
}
