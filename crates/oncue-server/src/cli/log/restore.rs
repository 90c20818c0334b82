//! `oncue log restore`.

use std::path::PathBuf;

use clap::Args;
use oncue::transport::maintenance;
use serde_json::json;

use super::{LogError, counted, progress::Bar};
use crate::cli::{CommandError, view::View};

/// Check a backup and make a log of it again, in an empty directory
///
/// The backup is read in full and compared with its MANIFEST before anything is written. A restore that is interrupted leaves a
/// directory that no app opens: empty it and restore again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        oncue log restore /backups/monday --data ./restored\n\n\
                        The log goes on where the backup ended: with the same id, and the same positions. Do not let two copies \
                        of one log go on side by side and mix their files.\n\
                        Exit codes: 0 the log is restored; 1 the backup is damaged, or it could not be copied; 2 there is no \
                        such backup, or the directory is not empty.")]
#[command(mut_arg("data", |data| data.help("Directory to restore into; made, or empty")))]
pub(super) struct Restore {
    /// Directory that holds the backup
    #[arg(value_name = "FROM")]
    from: PathBuf,

    #[command(flatten)]
    view: View,
}

impl Restore {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (from, to) = (&self.from, &self.view.data);
        let mut bar = Bar::default();
        let restored = maintenance::restore(from, to, &mut |progress| bar.show(progress));
        drop(bar);
        let what = "cannot restore";
        let manifest = restored.map_err(|error| LogError::Copy { what, path: from.clone(), error })?;
        let json = json!({
            "to": to,
            "log_id": format!("{:016x}", manifest.log_id),
            "files": manifest.files.len(),
            "bytes": manifest.bytes(),
            "next_lsn": manifest.next_lsn,
            "made": oncue::Timestamp::from_micros(manifest.time).to_rfc3339(),
        });
        self.view.tell(&json, || {
            format!(
                "{}, {} restored to {}.\n",
                counted(manifest.files.len() as u64, "segment", "segments"),
                counted(manifest.bytes(), "byte", "bytes"),
                to.display()
            )
        })
    }
}
