//! How a log is opened, and what it says about itself.

use bytes::Bytes;

use crate::error::StorageError;
use crate::record::{Lsn, TopicId};

/// What must have happened before a record counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Written and synced (`fdatasync`): survives a loss of power. The default.
    #[default]
    Disk,
    /// Handed to the operating system: survives the process, not the machine. A loss of power cuts the log where the first
    /// record is missing, and everything since the segment was begun may be.
    Os,
}

/// Who writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    /// One thread, which takes all that waits at once: many appends, one sync. The default.
    #[default]
    Thread,
    /// Whoever appends. For storage in memory, where a hand-over would cost more than the write.
    Inline,
    /// Nobody, until somebody reads or there is enough for a frame. For storage that cannot fail and keeps nothing beyond
    /// the process: what is appended counts as durable at once, and many small appends cost one write.
    OnDemand,
}

/// How to open a log. Every size is in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is sealed when the next frame would make it longer. Trimming frees whole segments.
    pub segment_bytes: u64,
    /// What must have happened before a record counts as durable.
    pub durability: Durability,
    /// How much may wait for the writer before [`Log::append`](crate::Log::append) answers `Full`. As much again may be with
    /// the writer. A batch that is larger is taken when nothing waits.
    pub pending_bytes: usize,
    /// How much of what became durable last is kept in memory for readers.
    pub tail_bytes: usize,
    /// A checkpoint is due after so much, or four times the last checkpoint's size if that is more.
    pub checkpoint_bytes: u64,
    /// Who writes.
    pub writer: Writer,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            durability: Durability::Disk,
            pending_bytes: 16 << 20,
            tail_bytes: 32 << 20,
            checkpoint_bytes: 64 << 20,
            writer: Writer::Thread,
        }
    }
}

/// What an append was given. Numbers are assigned at once; the records are durable when the log is durable up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The lsn of the first record.
    pub lsn: Lsn,
    /// Wait for this: everything is durable once [`Log::durable`](crate::Log::durable) is not below it.
    pub end: Lsn,
    /// The offset of the first event, 0 if there is none. Offsets of one topic's events in a batch are consecutive.
    pub offset: u64,
}

/// A topic, as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its number.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Opaque to the log.
    pub metadata: Bytes,
    /// One more than the offset of its last durable event.
    pub next_offset: u64,
    /// The lowest offset that trimming has left; `next_offset` if none.
    pub first_offset: u64,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log's id, random, from its first segment's header.
    pub log_id: u64,
    /// Whether there was no log before.
    pub created: bool,
    /// Whether the log had been closed: without it, the process ended otherwise.
    pub clean: bool,
    /// What was cut off the end: written, never acknowledged (or acknowledged last and damaged since).
    pub torn: Option<TornTail>,
    /// A newest segment that had no valid header and nothing behind it: its making was interrupted. It was removed.
    pub removed: Option<String>,
    /// An index at the end of a sealed segment that could not be read; nothing is lost, reading it scans the segment.
    pub damaged_indexes: Vec<String>,
    /// Segments whose every frame was verified. Older ones, below the checkpoint, are verified when they are read.
    pub segments_scanned: usize,
    /// Frames verified.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// The lsn that replay started from: that of the newest whole checkpoint, or 0.
    pub replayed_from: Lsn,
    /// The lsn of the next record.
    pub next_lsn: Lsn,
}

/// The end of a log that a crash left half written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub file: String,
    /// Where the last whole frame ends, in bytes.
    pub offset: u64,
    /// How many bytes behind it held something. They are zeros now.
    pub bytes: u64,
}

/// Counters since opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames written.
    pub frames: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of frames written, headers included, zeros ahead not.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Segments that exist now.
    pub segments: u64,
    /// What their files take, in bytes: what is written ahead included, what is kept to become a segment not.
    pub stored_bytes: u64,
}

/// Why trimming stopped. What it removed before is gone.
#[derive(Debug, thiserror::Error)]
#[error("trimming stopped after {removed} segments: {source}")]
pub struct TrimError {
    /// Segments removed before.
    pub removed: u64,
    /// What the storage refused.
    #[source]
    pub source: StorageError,
}
