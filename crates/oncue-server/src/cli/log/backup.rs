//! `oncue log backup`.

use std::path::PathBuf;

use clap::Args;
use oncue::{Clock, transport::maintenance};
use serde_json::json;

use super::{LogError, counted, progress::Bar};
use crate::cli::{CommandError, view::View};

/// Copy a log to an empty directory, while the app goes on
///
/// The copy has everything that was acknowledged before the backup began, ends behind a whole record, is read in full before it
/// counts, and is synced to the disk. A MANIFEST with the checksum of every file is written last: without one, a backup was
/// not completed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue log backup /backups/monday --data ./data\n  \
                        oncue log verify --data /backups/monday\n  \
                        oncue log restore /backups/monday --data ./restored\n\n\
                        Do not start an app on a backup: restore it first.\n\
                        Exit codes: 0 the backup is whole; 1 it is made and something in the log is damaged, or it is not \
                        made; 2 there is no such directory or log, or the target is not empty.")]
pub(super) struct Backup {
    /// Directory to copy to; made, or empty
    #[arg(value_name = "TO")]
    to: PathBuf,

    #[command(flatten)]
    view: View,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (from, to) = (&self.view.data, &self.to);
        let mut bar = Bar::default();
        let made = maintenance::backup(from, to, Clock::system().now(), &mut |progress| bar.show(progress));
        drop(bar);
        let what = "cannot back up";
        let made = made.map_err(|error| LogError::Copy { what, path: from.clone(), error })?;
        let (manifest, verification) = (&made.manifest, &made.verification);
        let json = json!({
            "to": to,
            "log_id": format!("{:016x}", manifest.log_id),
            "files": manifest.files.len(),
            "bytes": manifest.bytes(),
            "records": verification.records(),
            "next_lsn": manifest.next_lsn,
            "damaged": verification.damaged,
        });
        self.view.tell(&json, || {
            format!(
                "{}, {}, {} copied to {} and read back.\n",
                counted(manifest.files.len() as u64, "segment", "segments"),
                counted(verification.records(), "record", "records"),
                counted(manifest.bytes(), "byte", "bytes"),
                to.display()
            )
        })?;
        match verification.damage.first() {
            None => Ok(()),
            Some(first) => {
                let (damaged, first, directory) = (verification.damaged, first.to_string(), from.clone());
                Err(LogError::DamagedBackup { damaged, first, directory }.into())
            }
        }
    }
}
