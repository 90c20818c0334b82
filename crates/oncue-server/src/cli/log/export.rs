//! `oncue log export`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use oncue::{
    Clock,
    transport::{Inspect, LogTransport, LogUrl, TopicInfo},
};

use super::{LogError, counted};
use crate::cli::{
    CommandError, print,
    view::{View, ViewError, each_event},
};

/// Write the events of a topic as `CloudEvents`, one JSON object a line
///
/// `oncue log import` reads them again: ids, sources, times, keys, priorities and every byte of the data stay. What handlers made
/// of the events is not in it: for that, make a backup.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log export --topic events --data ./data > events.ndjson\n  \
                        oncue log export events.ndjson --topic events --data ./data\n  \
                        oncue log export --topic events --from 1000 --data ./data | jq -r .type | sort | uniq -c\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read, or the file not be written; 2 there is no such \
                        directory, log or topic, or the file exists.")]
pub(super) struct Export {
    /// File to write to, which must not exist; `-` is stdout
    #[arg(value_name = "FILE", default_value = "-")]
    to: PathBuf,

    /// The topic
    #[arg(long, default_value = "events")]
    topic: String,

    /// Only events from this offset on
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,

    /// Only events below this offset
    #[arg(long, value_name = "OFFSET")]
    until: Option<u64>,

    /// Directory that an app keeps its log in. The app may be running: nothing is locked and nothing is written
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Export {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let view = View { data: self.data.clone(), json: false };
        let log = LogTransport::snapshot(&LogUrl::file(&self.data), &Clock::system());
        let log = log.map_err(|error| ViewError::opening(error, &self.data))?;
        let topics = view.topics(&*log, Some(&self.topic))?;
        let wanted: Vec<TopicInfo> = topics.into_iter().map(|topic| self.part_of(topic)).collect();
        if self.to == Path::new("-") {
            return match write(&*log, &wanted, BufWriter::new(io::stdout().lock()))? {
                // A reader that has read enough (`| head`) is no failure.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
                _ => Ok(()),
            };
        }
        let file = File::options().write(true).create_new(true).open(&self.to);
        let file = file.map_err(|source| LogError::File { what: "make", path: self.to.clone(), source })?;
        let written = write(&*log, &wanted, BufWriter::new(&file))?.and_then(|count| file.sync_all().map(|()| count));
        let count = written.map_err(CommandError::Output)?;
        print(&format!("{} of `{}` written to {}.\n", counted(count, "event", "events"), self.topic, self.to.display()))
    }

    /// What is asked for of the topic.
    fn part_of(&self, topic: TopicInfo) -> TopicInfo {
        let first_offset = topic.first_offset.max(self.from.unwrap_or(0));
        let next_offset = topic.next_offset.min(self.until.unwrap_or(u64::MAX)).max(first_offset);
        TopicInfo { first_offset, next_offset, ..topic }
    }
}

/// Writes the events; gives how many, or why they cannot be written.
fn write(log: &dyn Inspect, topics: &[TopicInfo], mut out: impl Write) -> Result<io::Result<u64>, ViewError> {
    let (mut count, mut refused) = (0, None);
    each_event(log, topics, |_, position, event| {
        let until = topics.first().map_or(0, |topic| topic.next_offset);
        if refused.is_none() && position.offset() < until {
            match writeln!(out, "{}", event.to_json_line()) {
                Ok(()) => count += 1,
                Err(error) => refused = Some(error),
            }
        }
    })?;
    Ok(refused.map_or_else(|| out.flush(), Err).map(|()| count))
}
