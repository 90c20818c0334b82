//! Memory that a frame is filled in: laid out as the blocks of the file will be, so that a disk can take it as it is.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::frame::HEADER_BYTES;
use crate::limits::FRAME_TARGET_BYTES;
use crate::storage::{BLOCK_BYTES, File};

/// A frame that is being filled, or was written.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Room before the frame for what its first block holds already, and the frame.
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Begins a frame, with room for its header. `position` is where it will lie in a file that takes whole blocks.
    pub(crate) fn begin(&mut self, position: Option<u64>) {
        self.start = 0;
        if let Some(position) = position {
            self.memory.reserve_exact(ROOM_BYTES.saturating_sub(self.memory.len()));
            let base = self.memory.as_ptr().align_offset(BLOCK_BYTES);
            self.start = base + (position % BLOCK_BYTES as u64) as usize;
        }
        // What stood there before is overwritten.
        self.memory.resize(self.start + HEADER_BYTES, 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// The memory that it takes, whatever it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Appends the frame to a file, and at least `blank` zeros. Without copying where its memory lies as the file's blocks do.
    pub(crate) fn append_to(&mut self, file: &dyn File, blank: usize, position: u64) -> io::Result<()> {
        let (count, end, head) = (self.len(), self.memory.len(), (position % BLOCK_BYTES as u64) as usize);
        let whole = (head + count + blank).next_multiple_of(BLOCK_BYTES);
        let fitting = self.start.checked_sub(head).filter(|from| {
            let lies = self.memory[*from..].as_ptr().align_offset(BLOCK_BYTES) == 0;
            lies && from + whole <= self.memory.capacity()
        });
        let Some(from) = fitting else { return file.append(self.bytes(), blank, position) };
        self.memory.resize(from + whole, 0);
        let appended = file.append_blocks(&mut self.memory[from..], head..head + count, blank, position);
        self.memory.truncate(end);
        appended
    }
}

/// What a buffer has room for: a frame of the usual size, the rest of its first block and of its last, and the way to where a
/// block begins.
const ROOM_BYTES: usize = HEADER_BYTES + FRAME_TARGET_BYTES + 4 * BLOCK_BYTES;
/// A larger buffer is freed: one large batch must not be paid for ever after.
const MOST_BYTES: usize = 2 * FRAME_TARGET_BYTES;
/// How many buffers are kept.
const KEPT: usize = 4;

/// Buffers that were written and that nobody reads any more, to be filled again.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Buffer>>);

impl Pool {
    pub(crate) fn take(&self) -> Buffer {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(crate) fn put(&self, buffer: Buffer) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT && buffer.capacity() <= MOST_BYTES {
            kept.push(buffer);
        }
    }

    /// The buffer as bytes for readers. When the last of them is done with it, it is filled again.
    pub(crate) fn lend(self: &Arc<Self>, buffer: Buffer) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: Arc::clone(self) })
    }
}

struct Lent {
    buffer: Buffer,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.bytes()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Storage};

    #[test]
    fn a_frame_is_appended_wherever_its_memory_lies() {
        let storage = MemoryStorage::new();
        let file = storage.open("a", true).unwrap();
        let pool = Arc::new(Pool::default());
        let mut expected: Vec<u8> = Vec::new();
        for (number, length) in
            [1_usize, 5000, 4096, FRAME_TARGET_BYTES, 3 * FRAME_TARGET_BYTES, 9].into_iter().enumerate()
        {
            let position = expected.len() as u64;
            // Right, unknown, or wrong, as behind a segment's end.
            let guess = [Some(position), None, Some(position + 77)][number % 3];
            let mut buffer = pool.take();
            buffer.begin(guess);
            buffer.bytes_mut().fill(7);
            buffer.extend(&vec![number as u8; length]);
            assert_eq!(buffer.len(), HEADER_BYTES + length);
            buffer.append_to(file.as_ref(), 104, position).unwrap();
            assert_eq!(buffer.len(), HEADER_BYTES + length);
            expected.extend_from_slice(buffer.bytes());
            let lent = pool.lend(buffer);
            assert_eq!(lent.len(), HEADER_BYTES + length);
        }
        let mut found = vec![1; expected.len() + 104];
        file.read_at(&mut found, 0).unwrap();
        assert!(found[..expected.len()] == expected[..] && found[expected.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(pool.0.lock().len(), 1, "the same buffer each time, but for the one that grew too large");
    }
}
