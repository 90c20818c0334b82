//! `oncue log import`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use clap::Args;
use oncue::{
    Clock,
    transport::maintenance::{self, Imported, InvalidLine},
};
use serde_json::json;

use super::{LogError, counted};
use crate::cli::{CommandError, view::View};

/// How much is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Publish events from `CloudEvents`, one JSON object a line, each once
///
/// Ids, sources, times, keys, priorities and every byte of the data stay as the lines have them; the position, and when an event
/// was published, are new. An event whose source and id the topic has is passed over, however long ago it came: an import
/// that was interrupted can be run again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log import events.ndjson --topic events --data ./data\n  \
                        oncue log export --data ./old | oncue log import - --data ./new\n  \
                        oncue log import events.ndjson --dry-run --skip-invalid --data ./data\n\n\
                        A line that is no event is an error that names the line and the reason; those before it are imported. \
                        Memory: about 20 bytes for each event that the topic holds.\n\
                        Exit codes: 0 all is done; 1 the log cannot be read or written; 2 a line is no event, the file or \
                        the directory cannot be used, or a process has it.")]
#[command(mut_arg("data", |data| data.help("Directory to keep the log in; made if it does not exist. No process may have it")))]
pub(super) struct Import {
    /// File to read; `-` is stdin
    #[arg(value_name = "FILE")]
    from: PathBuf,

    /// The topic; made if it does not exist
    #[arg(long, default_value = "events")]
    topic: String,

    /// Partitions of the topic, if it is made; 16 if you do not say
    #[arg(long, value_name = "N")]
    partitions: Option<NonZeroU16>,

    /// Tell of lines that are no event, and go on behind them
    #[arg(long)]
    skip_invalid: bool,

    /// Write nothing: say what would be imported. Works beside the running app
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    view: View,
}

impl Import {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut lines = self.lines()?;
        let import = maintenance::Import {
            topic: self.topic.clone(),
            partitions: self.partitions.map(NonZeroU16::get),
            skip_invalid: self.skip_invalid,
            dry_run: self.dry_run,
        };
        let mut told = |invalid: &InvalidLine| {
            // Whoever closed stderr does not want to know.
            writeln!(io::stderr(), "oncue: {invalid}").ok();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(CommandError::Runtime)?;
        let imported = runtime.block_on(import.run(&self.view.data, &mut *lines, Clock::system(), &mut told));
        let done = imported.map_err(LogError::import)?;
        let Imported { lines, imported, duplicates, invalid } = done;
        let json = json!({
            "topic": self.topic,
            "dry_run": self.dry_run,
            "lines": lines,
            "imported": imported,
            "duplicates": duplicates,
            "invalid": invalid,
        });
        self.view.tell(&json, || {
            let are = if self.dry_run { "would be imported" } else { "imported" };
            format!(
                "{} {are} into `{}`; {} there already; {} no event.\n",
                counted(imported, "event", "events"),
                self.topic,
                counted(duplicates, "is", "are"),
                counted(invalid, "line is", "lines are"),
            )
        })
    }

    fn lines(&self) -> Result<Box<dyn BufRead + Send>, LogError> {
        if self.from == Path::new("-") {
            return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
        }
        let file = File::open(&self.from);
        let file = file.map_err(|source| LogError::File { what: "read", path: self.from.clone(), source })?;
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
    }
}
