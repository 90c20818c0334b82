//! Limits, checked against each other when the crate is compiled.

use crate::frame::HEADER_BYTES;
use crate::record::RECORD_HEADER_BYTES;

/// The most bytes that a frame's payload may have; what a reader accepts as a length.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// The most bytes that one [`Batch`](crate::Batch) may encode to: a batch is atomic, so it lies in one frame.
pub const MAX_BATCH_BYTES: usize = MAX_FRAME_BYTES;

/// The most bytes that the data of one event or state record may have: 8 MiB and room for what its owner adds.
pub const MAX_EVENT_BYTES: usize = 10 << 20;

/// The most bytes that a topic's name may have.
pub const MAX_TOPIC_NAME_BYTES: usize = 1024;

/// The most bytes that a topic's metadata may have.
pub const MAX_TOPIC_METADATA_BYTES: usize = 64 << 10;

/// The smallest segment size; a smaller [`Options::segment_bytes`](crate::Options) is raised to it.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;

/// A frame that waits for the writer takes further batches up to this size: big enough that its header and its system
/// call do not matter, small enough that readers get it while the next one is written.
pub(crate) const FRAME_TARGET_BYTES: usize = 1 << 20;

/// A checkpoint is cut into parts of this size.
pub(crate) const CHECKPOINT_PART_BYTES: usize = 512 << 10;

/// One index entry per so many bytes of segment.
pub(crate) const INDEX_STRIDE: u64 = 64 << 10;

/// How many trimmed segments are kept for reuse.
pub(crate) const SPARE_SEGMENTS: usize = 4;

/// Where a segment's file was not prepared, so many zeros are written ahead of the writer at once: enough that most syncs need
/// not sync a file's growth, few enough that nobody waits long for them.
pub(crate) const FILL_BYTES: u64 = 1 << 20;

/// The next segment's file is prepared in steps of this size, between which the writer gets the disk.
pub(crate) const PREPARE_BYTES: u64 = 256 << 10;

const _: () = {
    assert!(MAX_EVENT_BYTES + RECORD_HEADER_BYTES <= MAX_BATCH_BYTES, "an event of the largest size fits a batch");
    assert!(MAX_BATCH_BYTES <= MAX_FRAME_BYTES, "a batch fits a frame");
    assert!(MAX_FRAME_BYTES + HEADER_BYTES <= u32::MAX as usize, "lengths are 32 bits on disk");
    assert!(FRAME_TARGET_BYTES <= MAX_FRAME_BYTES);
    assert!(CHECKPOINT_PART_BYTES + 16 <= MAX_EVENT_BYTES, "a checkpoint's part is a record");
    assert!(MAX_TOPIC_NAME_BYTES <= u16::MAX as usize, "a name's length is 16 bits on disk");
    assert!(MAX_TOPIC_NAME_BYTES + MAX_TOPIC_METADATA_BYTES + 2 <= MAX_EVENT_BYTES, "a topic definition is a record");
};
