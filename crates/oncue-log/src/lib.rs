//! A durable, segmented, multi-topic record log. Bytes in, bytes out: it knows no event, no async runtime and no clock.
//!
//! - **Group commit.** [`Log::append`] assigns numbers and copies the batch into the frame that waits; one writer thread
//!   writes whole frames and syncs once for all that came meanwhile.
//! - **Durable means synced.** A record is readable, and [`Log::durable`] is past it, only after `fdatasync` returned. After
//!   a failed write or sync the log is fenced: nothing more becomes durable, what was stays readable.
//! - **Recovery never guesses.** A torn end is cut and reported. Damage to anything acknowledged is an error that names
//!   file and offset, and changes nothing.
//! - **Readers that keep up never touch the disk**: what became durable last stays in memory, bounded in bytes.
//!
//! The format is a document: `docs/log-format.md`.
//!
//! ```
//! use oncue_log::{Batch, Log, Options, storage::MemoryStorage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Log::open(Box::new(MemoryStorage::new()), Options::default(), 0, &mut |_| Ok(()))?.log;
//! let (orders, _) = log.create_topic("orders", b"", 0)?;
//! let mut batch = Batch::new();
//! batch.event(orders, 0, &[b"header", b"body"]);
//! let ticket = log.append(&batch, 1_700_000_000_000_000)?;
//! log.wait_durable(ticket.end)?;
//!
//! let mut cursor = log.cursor(orders, 0);
//! let mut events = Vec::new();
//! log.read(&mut cursor, 100, 1 << 20, &mut events)?;
//! assert_eq!(&events[0].data[..], b"headerbody");
//! # Ok(())
//! # }
//! ```

mod backup;
mod batch;
mod buffer;
mod checkpoint;
mod committer;
mod core;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod index;
mod leaving;
mod limits;
mod log;
mod options;
mod queue;
mod read;
mod record;
mod recovery;
mod rewrite;
mod segment;
mod segments;
mod spares;
#[doc(hidden)]
pub mod spread;
pub mod storage;
mod sync;
mod verify;
mod view;
mod wakers;
mod wanted;
mod wire;

pub use self::backup::{
    Backup, BackupError, BackupFile, MANIFEST_FILE, Manifest, Progress, RestoreError, backup, restore,
};
pub use self::batch::Batch;
pub use self::error::{AppendError, Damage, Fenced, OpenError, ReadError, StorageError};
pub use self::limits::{
    MAX_BATCH_BYTES, MAX_EVENT_BYTES, MAX_FRAME_BYTES, MAX_TOPIC_METADATA_BYTES, MAX_TOPIC_NAME_BYTES,
    MIN_SEGMENT_BYTES,
};
pub use self::log::{Log, Opened};
pub use self::options::{Durability, Options, Recovery, Stats, Ticket, TopicInfo, TornTail, TrimError, Writer};
pub use self::read::{Cursor, Scan};
pub use self::record::{KIND_CHECKPOINT, KIND_DROP, KIND_EVENT, KIND_STATE, KIND_TOPIC, Lsn, Record, TopicId};
pub use self::recovery::Replay;
pub use self::rewrite::Rewritten;
pub use self::segments::SegmentInfo;
pub use self::verify::{DamagedSpot, Found, MAX_DAMAGED_SPOTS, Refusal, Verification, VerifiedSegment, verify};
pub use self::wanted::Wanted;
