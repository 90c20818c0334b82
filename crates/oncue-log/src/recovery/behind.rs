//! What stands behind a place where no frame is: nothing, a torn end, or frames that tell of damage.

use crate::error::StorageError;
use crate::frame::{Frame, FrameHeader, HEADER_BYTES, MAGIC};
use crate::segment::{Chunk, FrameError, SegmentFile};
use crate::storage::read_full;

/// How much is read at once.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// What was found behind a place.
#[derive(Default)]
pub(crate) struct Behind {
    /// The first frame that holds.
    pub(crate) first: Option<Frame>,
    /// Where one stands that counts: the search ends there.
    pub(crate) later: Option<u64>,
    /// Where the last header ends that stands at its own position, with what it says that follows it.
    headers_end: Option<u64>,
    /// Behind the last byte that is not zero.
    bytes_end: u64,
    /// The end of the file.
    pub(crate) file_end: u64,
}

impl Behind {
    /// Searches the bytes of a segment from `at` on, where a frame should be, until one that holds `counts`.
    pub(crate) fn search(
        file: &SegmentFile,
        at: u64,
        counts: &dyn Fn(&FrameHeader) -> bool,
    ) -> Result<Self, StorageError> {
        let mut behind = Self { bytes_end: at, ..Self::default() };
        let mut chunk = Chunk::default();
        let rest = file.len()?.saturating_sub(at).saturating_add(1);
        let mut buffer = vec![0; rest.clamp(MAGIC.len() as u64, CHUNK_BYTES as u64) as usize];
        let mut start = at;
        loop {
            let count =
                read_full(file.file.as_ref(), &mut buffer, start).map_err(StorageError::on("read", &file.name))?;
            let bytes = &buffer[..count];
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                behind.bytes_end = start + last as u64 + 1;
                let magics = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
                let candidates = magics.filter_map(|(magic, _)| (start + magic as u64).checked_sub(4));
                for position in candidates.filter(|position| *position >= at) {
                    behind.look_at(file, position, counts, &mut chunk)?;
                    if behind.later.is_some() {
                        return Ok(behind);
                    }
                }
            }
            if count < buffer.len() {
                behind.file_end = start + count as u64;
                return Ok(behind);
            }
            // Chunks overlap by less than a magic number.
            start += (count - (MAGIC.len() - 1)) as u64;
        }
    }

    fn look_at(
        &mut self,
        file: &SegmentFile,
        position: u64,
        counts: &dyn Fn(&FrameHeader) -> bool,
        chunk: &mut Chunk,
    ) -> Result<(), StorageError> {
        let Some(header) = file.header_at(position, chunk, CHUNK_BYTES)? else { return Ok(()) };
        self.headers_end = self.headers_end.max(Some(position + header.frame_bytes() as u64));
        let frame = match file.frame_at(position, u64::MAX, chunk, CHUNK_BYTES) {
            Ok(frame) => frame,
            Err(FrameError::Fault(_)) => return Ok(()),
            Err(FrameError::Storage(error)) => return Err(error),
        };
        if counts(&frame.header) {
            self.later = Some(position);
        }
        if self.first.is_none() {
            self.first = Some(frame);
        }
        Ok(())
    }

    /// How many bytes from `at` on are a torn end, if there is one: nothing of it was acknowledged. `blank`: nothing was
    /// written at `at` itself.
    pub(crate) fn torn(&self, at: u64, blank: bool) -> Option<u64> {
        let torn = self.headers_end.max((!blank).then_some(at))?;
        // Where no header tells how long it was, at least as much as could be taken for one.
        let end = torn.max(at + HEADER_BYTES as u64).min(self.bytes_end);
        Some(end - at)
    }
}
