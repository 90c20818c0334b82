//! What can go wrong, per operation. A message says what happened, to which file and offset, and what to do.

use std::io;

use crate::record::{Lsn, TopicId};

/// The storage refused something.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {file}: {source}")]
pub struct StorageError {
    /// What was tried: `read`, `write`, `sync`, …
    pub what: &'static str,
    /// On which file of the log's directory.
    pub file: String,
    /// The storage's answer.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    /// For `map_err`: adds what was tried, on what.
    pub(crate) fn on(what: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self { what, file, source }
    }
}

/// Bytes that were acknowledged once and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at offset {offset}: {reason}; nothing was changed, restore that file from a copy")]
pub struct Damage {
    /// The segment file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What does not hold.
    pub reason: String,
}

/// Why a log was not opened. Nothing on the storage was changed, unless the error is a failed write.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage refused something.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There are files and none of them is a log's.
    #[error(
        "the directory holds {file:?} and no log: it seems to belong to something else; choose an empty or new one"
    )]
    Foreign {
        /// One of the files.
        file: String,
    },
    /// A backup was being restored into the directory, and that did not come to its end: segments may be missing.
    #[error("{file}: restoring a backup into this directory did not come to its end; restore it into an empty one")]
    Unfinished {
        /// The file that tells so.
        file: String,
    },
    /// Something acknowledged cannot be read.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Written by a newer version, or with a feature that this one lacks.
    #[error(
        "{file} uses {what} at offset {offset}, which this version cannot read: open it with the version that wrote it"
    )]
    Unsupported {
        /// The segment file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What was met.
        what: String,
    },
    /// The caller refused a record.
    #[error("the record with lsn {lsn} was refused in replay: {reason}")]
    Replay {
        /// Which record; for the checkpoint, the lsn it stands for.
        lsn: Lsn,
        /// The caller's reason.
        reason: String,
    },
    /// No random number for the new log's id, or no thread.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// The log takes nothing more since a write or a sync failed: what was not durable then never will be.
///
/// Reading and trimming still work. Open the log again, once the cause is gone, to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is fenced: {reason}; free the cause and open the log again")]
pub struct Fenced {
    /// What failed.
    pub reason: String,
}

/// Why nothing of a batch was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It, or one record, name or metadata in it, has more bytes than a log takes. Split it, or keep the data elsewhere.
    #[error(
        "{bytes} bytes are more than the limit of {limit}: split it, or keep the data elsewhere and append a reference"
    )]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too much waits for the writer. Wait with [`Log::poll_space`](crate::Log::poll_space) and append again.
    #[error("the writer is behind: wait for space and append again")]
    Full,
    /// A write or a sync failed.
    #[error("the log is fenced: {reason}; free the cause and open the log again")]
    Fenced {
        /// What failed.
        reason: String,
    },
    /// The log was closed.
    #[error("the log is closed: open it again to append")]
    Closed,
    /// The batch has an event of a topic that was never created.
    #[error("topic {} was not created: call create_topic first", topic.0)]
    UnknownTopic {
        /// The topic.
        topic: TopicId,
    },
}

impl From<Fenced> for AppendError {
    fn from(fenced: Fenced) -> Self {
        Self::Fenced { reason: fenced.reason }
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage refused something.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bytes are damaged. What lies before and behind is readable still.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Trimmed away. Go on at `first`.
    #[error("{what} {wanted} was trimmed away: the first that is left is {first}")]
    Trimmed {
        /// `offset` or `lsn`.
        what: &'static str,
        /// What was asked for.
        wanted: u64,
        /// The lowest that is left.
        first: u64,
    },
    /// Not durable yet, or never appended.
    #[error("lsn {lsn} is not durable: the log is durable below {durable}")]
    NotDurable {
        /// What was asked for.
        lsn: Lsn,
        /// The first lsn that is not durable.
        durable: Lsn,
    },
    /// No such topic.
    #[error("there is no topic {}", topic.0)]
    UnknownTopic {
        /// What was asked for.
        topic: TopicId,
    },
}
