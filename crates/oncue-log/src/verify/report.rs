//! What verifying a log tells.

use std::fmt;

use crate::options::TornTail;
use crate::record::{Lsn, Record};

/// How many damaged spots a [`Verification`] keeps; all of them are counted, and told as they are found.
pub const MAX_DAMAGED_SPOTS: usize = 10_000;

/// What [`verify`](crate::verify) comes by, in the order of the log.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A segment is read from here on.
    Segment {
        /// Its file.
        file: &'a str,
        /// The file's length.
        bytes: u64,
        /// How many were read before it.
        nth: usize,
        /// How many there are.
        of: usize,
    },
    /// A record whose frame holds: of any kind, also topic definitions and parts of checkpoints.
    Record {
        /// The record.
        record: &'a Record,
        /// The segment file that it is in.
        file: &'a str,
        /// Where its frame begins there.
        offset: u64,
    },
    /// A whole checkpoint, behind the record with its last part.
    Checkpoint {
        /// It restates everything below.
        of_lsn: Lsn,
        /// The topics' names, in the order of their ids, with their next offsets.
        topics: &'a [(String, u64)],
        /// The caller's part.
        opaque: &'a [u8],
    },
    /// Something that does not hold. It is in [`Verification::damage`], too.
    Damage(&'a DamagedSpot),
}

/// What is said to [`verify`](crate::verify) of what it has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be understood, for this reason: a damaged spot.
    Damaged(String),
    /// Enough was seen: what comes is not read.
    Stop,
}

/// A place of a log where something does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSpot {
    /// The file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes from there on cannot be used; 0 where all can be read, and something else does not fit.
    pub bytes: u64,
    /// What does not hold.
    pub reason: String,
    /// How many records are lost there, as far as what stands behind it tells.
    pub records: u64,
}

impl fmt::Display for DamagedSpot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at offset {}: {}", self.file, self.offset, self.reason)?;
        match (self.bytes, self.records) {
            (0, _) => Ok(()),
            (bytes, 0) => write!(formatter, " ({bytes} bytes, no record is lost)"),
            (bytes, records) => write!(formatter, " ({bytes} bytes, {records} records are lost)"),
        }
    }
}

/// A segment that was read in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedSegment {
    /// Its file.
    pub file: String,
    /// Its epoch.
    pub epoch: u64,
    /// The file's length.
    pub bytes: u64,
    /// Where its frames end, in bytes.
    pub end: u64,
    /// The lsn of its first record.
    pub first_lsn: Lsn,
    /// The lsn behind its last record.
    pub next_lsn: Lsn,
    /// Frames that hold, the segment's header and index included.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// When the first of them was filled, in microseconds since 1970.
    pub first_time: Option<i64>,
    /// When the last of them was.
    pub last_time: Option<i64>,
    /// Whether it ends with an index: nothing is written to it any more.
    pub sealed: bool,
}

/// What reading all of a log has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The log's id; 0 if no segment tells it.
    pub log_id: u64,
    /// The segments, oldest first.
    pub segments: Vec<VerifiedSegment>,
    /// The first [`MAX_DAMAGED_SPOTS`] spots where something does not hold, in the order of the log.
    pub damage: Vec<DamagedSpot>,
    /// How many there are.
    pub damaged: u64,
    /// An end that was written half and never acknowledged: opening the log cuts it.
    pub torn: Option<TornTail>,
    /// A newest segment that was being made and never held anything: opening the log removes it.
    pub unused: Option<String>,
    /// Whether the log was closed: without it, a process has it open, or ended otherwise.
    pub clean: bool,
    /// The lsn that the newest whole checkpoint stands for.
    pub checkpoint: Option<Lsn>,
    /// Files that are kept to become segments: what is in them is of no meaning.
    pub spares: Vec<String>,
    /// Files that are not the log's.
    pub others: Vec<String>,
}

impl Verification {
    /// Whether everything holds. A torn end is no damage: nobody was told of what it held.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damaged == 0
    }

    /// Frames that hold.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.frames).sum()
    }

    /// Records in them.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// The lsn behind the last record.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.segments.last().map_or(0, |segment| segment.next_lsn)
    }
}
