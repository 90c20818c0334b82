//! Looking at the log in a directory, beside the process that may be writing it.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use oncue::{
    Clock, Envelope,
    transport::{Inspect, InspectError, LockError, LogTransport, LogUrl, OpenError, Position, TopicInfo},
};

use serde_json::Value;
use thiserror::Error;

use crate::cli::{CommandError, print};

/// How often what was asked for is looked up from the start. Old segments may be dropped while they are read.
const TRIES: usize = 3;
/// Events that are read at once: as many as make up about so many bytes.
const BLOCK_BYTES: u64 = 4 << 20;
const BLOCK_EVENTS: u64 = 2_000;
/// From so many events on, how far reading them is is shown.
const MANY_EVENTS: u64 = 50_000;

/// Where to look, and how to tell.
#[derive(Debug, Args)]
pub(super) struct View {
    /// Directory that an app keeps its log in. The app may be running: nothing is locked and nothing is written
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub(super) enum ViewError {
    /// No such directory.
    #[error("--data: there is no directory {}; name the one that an app keeps its log in", .0.display())]
    Missing(PathBuf),
    /// The directory holds something else.
    #[error("--data: {} holds {file:?} and no log; name the directory that an app keeps its log in", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// One of its files.
        file: String,
    },
    /// The directory cannot be used for another reason.
    #[error("--data: {0}")]
    Directory(LockError),
    /// The log cannot be read.
    #[error(transparent)]
    Open(OpenError),
    /// There is no such topic.
    #[error("there is no topic `{topic}` in {}; there is {known}", directory.display())]
    UnknownTopic {
        /// What was asked for.
        topic: String,
        /// Where.
        directory: PathBuf,
        /// The topics that there are, in words.
        known: String,
    },
    /// There is no such subscription.
    #[error("there is no subscription `{subscription}` in {}; there is {known}", directory.display())]
    UnknownSubscription {
        /// What was asked for.
        subscription: String,
        /// Where.
        directory: PathBuf,
        /// The subscriptions that there are, in words.
        known: String,
    },
    /// There is no such dead letter.
    #[error(
        "subscription `{subscription}` has no dead letter at {position}; \
         `oncue dlq list {subscription} --data {}` lists them", directory.display()
    )]
    NoDeadLetter {
        /// The subscription.
        subscription: String,
        /// What was asked for.
        position: Position,
        /// Where.
        directory: PathBuf,
    },
    /// There is no such event.
    #[error("no event in {0} has the id or the position `{id}`; `oncue ls events --data {0}` lists the latest", directory.display())]
    UnknownEvent {
        /// What was asked for.
        id: String,
        /// Where.
        directory: PathBuf,
    },
    /// What is asked for cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

impl ViewError {
    /// Whether the cause is what was asked for.
    pub(super) fn is_callers(&self) -> bool {
        !matches!(self, Self::Open(_) | Self::Inspect(_))
    }

    pub(super) fn opening(error: OpenError, directory: &Path) -> Self {
        match error {
            OpenError::Directory(LockError::Foreign { dir: directory, file }) => Self::Foreign { directory, file },
            OpenError::Directory(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::Missing(directory.to_owned())
            }
            OpenError::Directory(error) => Self::Directory(error),
            error => Self::Open(error),
        }
    }
}

impl View {
    /// Looks something up in what the log is now.
    pub(super) fn look<T>(&self, look: impl Fn(&dyn Inspect) -> Result<T, ViewError>) -> Result<T, ViewError> {
        let mut tries = 1;
        loop {
            let log = LogTransport::snapshot(&LogUrl::file(&self.data), &Clock::system());
            let log = log.map_err(|error| ViewError::opening(error, &self.data))?;
            match look(&*log) {
                Err(ViewError::Inspect(InspectError::Storage(_))) if tries < TRIES => tries += 1,
                looked => return looked,
            }
        }
    }

    /// Tells what was found.
    pub(super) fn tell(&self, json: &Value, text: impl FnOnce() -> String) -> Result<(), CommandError> {
        if self.json { print(&format!("{json:#}\n")) } else { print(&text()) }
    }

    /// The topics, or the one that is asked for.
    pub(super) fn topics(&self, log: &dyn Inspect, wanted: Option<&str>) -> Result<Vec<TopicInfo>, ViewError> {
        let topics = log.topics();
        let Some(wanted) = wanted else { return Ok(topics) };
        match topics.iter().find(|topic| topic.name == wanted) {
            Some(topic) => Ok(vec![topic.clone()]),
            None => {
                let known = listed(topics.iter().map(|topic| topic.name.as_str()));
                Err(ViewError::UnknownTopic { topic: wanted.to_owned(), directory: self.data.clone(), known })
            }
        }
    }
}

/// Names in words.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// How many events to read at once, so that many small ones come quickly and a few large ones fit into memory.
#[derive(Clone, Copy)]
pub(super) struct Block(u64);

impl Block {
    pub(super) fn first() -> Self {
        Self(64)
    }

    pub(super) fn events(self) -> u64 {
        self.0
    }

    /// What the next one is to be, after these.
    pub(super) fn after(self, events: &[(Position, Envelope)]) -> Self {
        let bytes: u64 = events.iter().map(|(_, event)| event.encoded_bytes() as u64).sum();
        let average = (bytes / (events.len() as u64).max(1)).max(1);
        Self((BLOCK_BYTES / average).clamp(1, BLOCK_EVENTS).min(self.0 * 4))
    }
}

/// Reads every event of these topics, in order within a topic. Shows how far it is where that takes a while.
pub(super) fn each_event(
    log: &dyn Inspect,
    topics: &[TopicInfo],
    mut look: impl FnMut(&str, Position, &Envelope),
) -> Result<(), InspectError> {
    let total = topics.iter().map(TopicInfo::events).sum();
    let bar = (total >= MANY_EVENTS && io::stderr().is_terminal()).then(|| {
        let style =
            ProgressStyle::with_template("{bar:30} {percent:>3}%  {human_pos} of {human_len} events  {elapsed}");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    for topic in topics {
        let (mut from, mut block) = (topic.first_offset, Block::first());
        while from < topic.next_offset {
            let limit = usize::try_from(block.events()).unwrap_or(usize::MAX);
            let events = log.browse(&topic.name, from, limit)?;
            let Some((last, _)) = events.last() else { break };
            from = last.offset() + 1;
            block = block.after(&events);
            events.iter().for_each(|(position, event)| look(&topic.name, *position, event));
            if let Some(bar) = &bar {
                bar.inc(events.len() as u64);
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_small_events_and_shrink_with_large_ones() {
        let events = |bytes: usize| {
            let event = Envelope::builder("t").data(vec![0; bytes]).build().unwrap();
            vec![(Position::new(0, 0, 0), event); 3]
        };
        let grown = Block::first().after(&events(10));
        assert_eq!(grown.events(), 256);
        assert_eq!(grown.after(&events(10)).after(&events(10)).events(), BLOCK_EVENTS);
        assert_eq!(grown.after(&events(8 << 20)).events(), 1);
        assert_eq!(Block::first().after(&[]).events(), 256);
    }
}
