//! Why a command on a log did not do what it was asked to.

use std::{io, path::PathBuf};

use oncue::transport::{
    LockError, OpenError,
    maintenance::{BackupError, CopyError, ImportError, RestoreError},
};
use thiserror::Error;

use super::counted;
use crate::cli::view::ViewError;

/// Why a command on a log did not do what it was asked to.
#[derive(Debug, Error)]
pub(in crate::cli) enum LogError {
    /// Something does not hold.
    #[error("{} damaged in {}: restore a backup; `oncue log dump` prints what can be read", spots(*.damaged), directory.display())]
    Damaged {
        /// How many spots.
        damaged: u64,
        /// Where.
        directory: PathBuf,
    },
    /// A backup was made of a log that is damaged.
    #[error(
        "the backup is made, and {} damaged in it, as in the log: {first}; `oncue log verify --data {}` names all",
        spots(*.damaged), directory.display()
    )]
    DamagedBackup {
        /// How many spots.
        damaged: u64,
        /// One of them.
        first: String,
        /// The log.
        directory: PathBuf,
    },
    /// No copy was made.
    #[error("{what} {}: {error}", path.display())]
    Copy {
        /// What was tried.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
        /// Why not.
        error: CopyError,
    },
    /// A process has the directory that is to be written to.
    #[error("--data: {} is in use by process {pid}: stop it first", directory.display())]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// The process.
        pid: String,
    },
    /// An import did not come to its end.
    #[error(transparent)]
    Import(ImportError),
    /// A file cannot be read or made.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The log cannot be looked at.
    #[error(transparent)]
    View(#[from] ViewError),
}

fn spots(damaged: u64) -> String {
    counted(damaged, "spot is", "spots are")
}

impl LogError {
    pub(super) fn import(error: ImportError) -> Self {
        match error {
            ImportError::Open(OpenError::Directory(LockError::Locked { dir: directory, pid })) => {
                Self::Busy { directory, pid }
            }
            error => Self::Import(error),
        }
    }

    /// Whether the cause is what was asked for.
    pub(in crate::cli) fn is_callers(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::DamagedBackup { .. } => false,
            Self::Busy { .. } | Self::File { .. } => true,
            Self::View(error) => error.is_callers(),
            Self::Copy { error, .. } => match error {
                CopyError::Source(_) | CopyError::Target(_) => true,
                CopyError::Backup(error) => matches!(error, BackupError::NoLog | BackupError::NotEmpty { .. }),
                CopyError::Restore(error) => matches!(error, RestoreError::NoManifest | RestoreError::NotEmpty { .. }),
            },
            Self::Import(error) => matches!(
                error,
                ImportError::TopicName(_)
                    | ImportError::Invalid { .. }
                    | ImportError::Read { .. }
                    | ImportError::Open(OpenError::Directory(_))
            ),
        }
    }
}
