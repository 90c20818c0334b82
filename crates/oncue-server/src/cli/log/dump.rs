//! `oncue log dump`.

use std::{
    io::{self, BufWriter, Write as _},
    ops::ControlFlow,
    path::PathBuf,
};

use clap::{Args, builder::PossibleValuesParser};
use oncue::transport::maintenance::{self, DumpFilter, KINDS};

use super::LogError;
use crate::cli::{CommandError, view::ViewError};

/// Print every record of a log, one JSON object a line, in the order of the log
///
/// Each line has the kind of the record, its number in the log (`lsn`), when it was written, and the file and offset of
/// its frame. Events are `CloudEvents` inside (`event`); the other records say what handlers did: settled, failed, gave up,
/// kept as state. Times inside them are microseconds since 1970, as they are stored. The same log gives the same bytes.
///
/// What is damaged is a line of its own (`"kind":"damage"`), and the dump goes on behind it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log dump --data ./data\n  \
                        oncue log dump --data ./data --kind event --topic events | jq -c .event\n  \
                        oncue log dump --data ./data --kind settle,retry,dead_letter\n  \
                        oncue log dump --data ./data --from 120000 --to 120010\n\n\
                        Exit codes: 0 all is done; 1 something is damaged, or cannot be read; 2 there is no such directory or \
                        log.")]
pub(super) struct Dump {
    /// Directory that an app keeps its log in. The app may be running: nothing is locked and nothing is written
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Only this topic: its definition, its events, and what its subscriptions did
    #[arg(long)]
    topic: Option<String>,

    /// Only records from this number on
    #[arg(long, value_name = "LSN")]
    from: Option<u64>,

    /// Only records below this number
    #[arg(long, value_name = "LSN")]
    to: Option<u64>,

    /// Only these kinds
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = PossibleValuesParser::new(KINDS))]
    kinds: Vec<String>,
}

impl Dump {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let Self { data, topic, from, to, kinds } = self;
        let filter = DumpFilter { topic, from, to, kinds };
        let mut out = BufWriter::new(io::stdout().lock());
        let mut refused = None;
        let dumped = maintenance::dump(&data, &filter, &mut |line| match writeln!(out, "{}", line.json) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        });
        let flushed = out.flush();
        match refused.map_or(flushed, Err) {
            // A reader that has read enough (`| head`) is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(CommandError::Output)?,
        }
        let dumped = dumped.map_err(|error| LogError::View(ViewError::opening(error, &data)))?;
        match dumped.damaged {
            0 => Ok(()),
            damaged => Err(LogError::Damaged { damaged, directory: data }.into()),
        }
    }
}
