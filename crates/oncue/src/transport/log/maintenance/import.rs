//! Events from lines of JSON into a topic, each once.

use std::{
    collections::HashSet,
    io::{BufRead, Read as _},
    path::Path,
};

use oncue_log::storage::LockError;
use thiserror::Error;

use super::super::{LogTransport, LogUrl, dedup::Dedup};
use crate::{
    clock::Clock,
    event::{Envelope, MAX_DATA_BYTES, MAX_HOPS, is_topic_name},
    transport::{Inspect, InspectError, OpenError, Publish, PublishError, SettleError, Transport as _},
};

/// The longest line that is read: the largest event, with its data in base64 and every attribute.
pub const MAX_LINE_BYTES: usize = 2 * MAX_DATA_BYTES;

/// Events of one write, at most: so many, or of so many bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// Events that are read at once to know which there are.
const KNOWN: usize = 512;

/// An import into a topic.
#[derive(Clone, Debug)]
pub struct Import {
    /// The topic; made if it does not exist.
    pub topic: String,
    /// How many partitions it gets, if it is made; none: as many as usual.
    pub partitions: Option<u16>,
    /// Lines that are no event are told and passed over, instead of being the end.
    pub skip_invalid: bool,
    /// Nothing is written: it is only told what would be.
    pub dry_run: bool,
}

/// What became of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines that were read, empty ones included.
    pub lines: u64,
    /// Events that are new.
    pub imported: u64,
    /// Events whose source and id the topic had, or an earlier line.
    pub duplicates: u64,
    /// Lines that are no event.
    pub invalid: u64,
}

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct InvalidLine {
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Why an import did not come to its end.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The topic's name is not acceptable.
    #[error("topic `{0}`: a name is 1 to 200 letters, digits, `.`, `_` or `-`")]
    TopicName(String),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// The topic cannot be read, to know what it has.
    #[error("topic `{topic}` cannot be read: {error}")]
    Known {
        /// The topic.
        topic: String,
        /// Why.
        error: InspectError,
    },
    /// The lines cannot be read.
    #[error("line {line} cannot be read: {source}")]
    Read {
        /// Which line, from 1.
        line: u64,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A line is no event.
    #[error(
        "{invalid}; {imported} events of the lines before are imported: mend the line and import all again, what is there is passed over; or say that invalid lines are to be skipped"
    )]
    Invalid {
        /// The line.
        invalid: InvalidLine,
        /// Events that were imported before.
        imported: u64,
    },
    /// The log does not take more.
    #[error(
        "{error}; {imported} events are imported: free the cause and import all again, what is there is passed over"
    )]
    Publish {
        /// Events that were imported before.
        imported: u64,
        /// Why.
        error: PublishError,
    },
    /// What was imported may not be durable.
    #[error("the log could not be closed: {0}; import again, what is there is passed over")]
    Close(SettleError),
}

impl Import {
    /// Reads one event in `CloudEvents` JSON a line, and publishes those that the topic does not have: it knows each event by its source
    /// and id, however long ago it came, for as long as it is kept. Everything but the time of publishing stays as the line says. It takes
    /// the directory, unless it is a dry run; `told` is told of every line that is passed over as no event.
    ///
    /// Memory: about 20 bytes for each event that the topic holds.
    ///
    /// # Errors
    /// See [`ImportError`]. What was imported before is, and is passed over when all is imported again.
    pub async fn run(
        &self,
        directory: &Path,
        lines: &mut (dyn BufRead + Send),
        clock: Clock,
        told: &mut (dyn FnMut(&InvalidLine) + Send),
    ) -> Result<Imported, ImportError> {
        if !is_topic_name(&self.topic) {
            return Err(ImportError::TopicName(self.topic.clone()));
        }
        if self.dry_run {
            let known = self.known_beside(directory, &clock)?;
            return self.each_batch(lines, known, told, None).await;
        }
        let mut url = LogUrl::file(directory);
        url.partitions = self.partitions.unwrap_or(url.partitions);
        let log = LogTransport::open(&url, clock).map_err(ImportError::Open)?;
        let known = self.known(log.inspect());
        let imported = match known {
            Ok(known) => self.each_batch(lines, known, told, Some(&log)).await,
            Err(error) => Err(error),
        };
        let closed = log.close().await;
        let imported = imported?;
        closed.map_err(ImportError::Close)?;
        Ok(imported)
    }

    /// What the topic has, without taking the directory; nothing if there is no log.
    fn known_beside(&self, directory: &Path, clock: &Clock) -> Result<HashSet<u128>, ImportError> {
        match LogTransport::snapshot(&LogUrl::file(directory), clock) {
            Ok(log) => self.known(&*log),
            Err(OpenError::Directory(LockError::NoLog { .. })) => Ok(HashSet::new()),
            Err(OpenError::Directory(LockError::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(HashSet::new())
            }
            Err(error) => Err(ImportError::Open(error)),
        }
    }

    /// The events that the topic has.
    fn known(&self, log: &dyn Inspect) -> Result<HashSet<u128>, ImportError> {
        let mut known = HashSet::new();
        let Some(topic) = log.topics().into_iter().find(|topic| topic.name == self.topic) else { return Ok(known) };
        let mut from = topic.first_offset;
        while from < topic.next_offset {
            let events = log.browse(&self.topic, from, KNOWN);
            let events = events.map_err(|error| ImportError::Known { topic: self.topic.clone(), error })?;
            let Some((last, _)) = events.last() else { break };
            from = last.offset() + 1;
            known.extend(events.iter().map(|(_, event)| Dedup::hash(0, 0, event)));
        }
        Ok(known)
    }

    async fn each_batch(
        &self,
        lines: &mut (dyn BufRead + Send),
        mut known: HashSet<u128>,
        told: &mut (dyn FnMut(&InvalidLine) + Send),
        log: Option<&LogTransport>,
    ) -> Result<Imported, ImportError> {
        let mut done = Imported::default();
        let mut batch = Publish { topic: self.topic.as_str().into(), events: Vec::new(), source: None };
        let mut bytes = 0;
        let ended = loop {
            let line = done.lines + 1;
            match read_line(lines) {
                Err(source) => break Err(ImportError::Read { line, source }),
                Ok(None) => break Ok(()),
                Ok(Some(read)) => {
                    done.lines = line;
                    match event_of(&read) {
                        Ok(None) => {}
                        Ok(Some(event)) if !known.insert(Dedup::hash(0, 0, &event)) => done.duplicates += 1,
                        Ok(Some(event)) => {
                            bytes += event.encoded_bytes();
                            batch.events.push(event);
                        }
                        Err(reason) => {
                            let invalid = InvalidLine { line, reason };
                            done.invalid += 1;
                            if !self.skip_invalid {
                                break Err(ImportError::Invalid { invalid, imported: 0 });
                            }
                            told(&invalid);
                        }
                    }
                }
            }
            if batch.events.len() == BATCH || bytes >= BATCH_BYTES {
                publish(log, &mut batch, &mut done).await?;
                bytes = 0;
            }
        };
        // What came before a line that is wrong is right.
        publish(log, &mut batch, &mut done).await?;
        match ended {
            Err(ImportError::Invalid { invalid, .. }) => Err(ImportError::Invalid { invalid, imported: done.imported }),
            ended => ended.map(|()| done),
        }
    }
}

async fn publish(log: Option<&LogTransport>, batch: &mut Publish, done: &mut Imported) -> Result<(), ImportError> {
    if batch.events.is_empty() {
        return Ok(());
    }
    let count = batch.events.len() as u64;
    let new = match log {
        None => count,
        Some(log) => {
            let published = log.publish(batch).await;
            let published = published.map_err(|error| ImportError::Publish { imported: done.imported, error })?;
            published.iter().filter(|published| !published.duplicate).count() as u64
        }
    };
    done.imported += new;
    done.duplicates += count - new;
    batch.events.clear();
    Ok(())
}

/// The event in a line; none in an empty one. What is wrong with it, if it is none.
fn event_of(line: &[u8]) -> Result<Option<Envelope>, String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("it is longer than {MAX_LINE_BYTES} bytes"));
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let event = Envelope::from_json(line).map_err(|error| error.to_string())?;
    if event.hops() > MAX_HOPS {
        return Err(format!("{} emissions in a row led to it, more than {MAX_HOPS}: a loop of handlers", event.hops()));
    }
    Ok(Some(event))
}

/// The next line without its end, cut where it is too long to be used; none at the end.
fn read_line(lines: &mut (dyn BufRead + Send)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = MAX_LINE_BYTES as u64 + 1;
    if lines.take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == most {
        // The rest of it is passed over.
        loop {
            let mut rest = Vec::new();
            let count = lines.take(most).read_until(b'\n', &mut rest)?;
            if count == 0 || rest.last() == Some(&b'\n') {
                break;
            }
        }
    }
    Ok(Some(line))
}
