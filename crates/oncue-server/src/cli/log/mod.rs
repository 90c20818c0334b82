//! `oncue log`: what is done to a log as a whole.

mod backup;
mod dump;
mod error;
mod export;
mod import;
mod info;
mod progress;
mod restore;
mod verify;

use clap::{Args, Subcommand};
use oncue::Timestamp;

pub(super) use error::LogError;

use super::CommandError;

/// Check, describe, print, copy and fill the log of an app
///
/// `verify`, `info`, `dump`, `export` and `backup` work beside the running app: nothing is locked, and nothing is written
/// to the log. `import` needs the directory for itself, `restore` makes a new one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log verify --data ./data\n  \
                        oncue log info --data ./data\n  \
                        oncue log dump --data ./data --kind dead_letter | jq .reason\n  \
                        oncue log backup /backups/monday --data ./data\n  \
                        oncue log restore /backups/monday --data ./restored\n  \
                        oncue log export --topic events --data ./data > events.ndjson\n  \
                        oncue log import events.ndjson --topic events --data ./other\n\n\
                        Exit codes: 0 all is done; 1 something is damaged, or failed on the way; 2 the directory, the \
                        input or the arguments cannot be used.")]
pub(super) struct Log {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Verify(verify::Verify),
    Info(info::Info),
    Dump(dump::Dump),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Export(export::Export),
    Import(import::Import),
}

impl Log {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Verify(verify) => verify.run(),
            What::Info(info) => info.run(),
            What::Dump(dump) => dump.run(),
            What::Backup(backup) => backup.run(),
            What::Restore(restore) => restore.run(),
            What::Export(export) => export.run(),
            What::Import(import) => import.run(),
        }
    }
}

/// `1 spot`, `2 spots`.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", crate::number::grouped(count), if count == 1 { one } else { many })
}

/// A time of the log, in JSON.
fn rfc3339(micros: Option<i64>) -> Option<String> {
    micros.map(|micros| Timestamp::from_micros(micros).to_rfc3339())
}

/// A time of the log, to the second, for a table.
fn second(micros: Option<i64>) -> String {
    micros.map_or("–".to_owned(), |micros| {
        let whole = Timestamp::from_micros(micros - micros.rem_euclid(1_000_000));
        whole.to_rfc3339()
    })
}
