//! Segment files: their names, their headers, and frames read from them.

use std::io;

use bytes::{Bytes, BytesMut};

use crate::error::{Damage, OpenError, ReadError, StorageError};
use crate::frame::{FRAME_SEGMENT, Fault, Frame, FrameHeader, HEADER_BYTES, Place, seed, verify};
use crate::record::Lsn;
use crate::storage::{File, read_full};
use crate::wire::{put, u64_at};

const PAYLOAD_BYTES: usize = 48;
const DIGITS: usize = 20;
const SUFFIX: &str = ".seg";

/// Where the frame behind the segment header lies.
pub(crate) const FIRST_FRAME: u64 = (HEADER_BYTES + PAYLOAD_BYTES) as u64;

pub(crate) fn name_of(epoch: u64) -> String {
    format!("{epoch:020}{SUFFIX}")
}

/// The epoch that a file's name stands for; `None` if it is no segment's.
pub(crate) fn epoch_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|epoch| plain && *epoch > 0)
}

/// What a segment's first frame says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    /// 0 = none.
    pub(crate) previous_epoch: u64,
    /// Where the previous segment's index frame lies, and with it the end of its records.
    pub(crate) previous_index: u64,
    /// Where the newest whole checkpoint begins; all zeros = none.
    pub(crate) checkpoint: Place,
    /// Where its own index frame lies, if it was rewritten; else 0: then the next segment's header says it.
    pub(crate) index: u64,
}

impl SegmentHeader {
    /// Whether a segment before this one was rewritten into it.
    pub(crate) fn supersedes(&self, epoch: u64) -> bool {
        self.index > 0 && epoch > self.previous_epoch
    }

    /// The whole frame.
    pub(crate) fn encode(&self, epoch: u64, first_lsn: Lsn, time: i64) -> Vec<u8> {
        let mut frame = vec![0; FIRST_FRAME as usize];
        let Place { epoch: checkpoint_epoch, position: checkpoint_position } = self.checkpoint;
        let (previous_epoch, previous_index) = (self.previous_epoch, self.previous_index);
        let fields = [self.log_id, previous_epoch, previous_index, checkpoint_epoch, checkpoint_position, self.index];
        for (field, value) in fields.iter().enumerate() {
            put(&mut frame, HEADER_BYTES + field * 8, &value.to_le_bytes());
        }
        let header = FrameHeader {
            kind: FRAME_SEGMENT,
            flags: 0,
            payload_bytes: PAYLOAD_BYTES as u32,
            records: 0,
            topic: 0,
            place: Place { epoch, position: 0 },
            first_lsn,
            synced_lsn: first_lsn,
            time,
        };
        header.seal(&mut frame, seed(self.log_id));
        frame
    }

    /// Reads the header of an open segment file, and the lsn of its first record.
    pub(crate) fn read(file: &dyn File, epoch: u64) -> io::Result<Result<(Self, Lsn), Fault>> {
        let mut raw = [0; FIRST_FRAME as usize];
        let count = read_full(file, &mut raw, 0)?;
        Ok(Self::decode(&raw[..count], epoch))
    }

    fn decode(raw: &[u8], epoch: u64) -> Result<(Self, Lsn), Fault> {
        let header = FrameHeader::parse(raw, Place { epoch, position: 0 })?;
        if header.kind != FRAME_SEGMENT || header.frame_bytes() != raw.len() {
            return Err(Fault::Invalid("no segment header"));
        }
        let field = |index: usize| u64_at(raw, HEADER_BYTES + index * 8);
        verify(raw, seed(field(0)))?;
        let checkpoint = Place { epoch: field(3), position: field(4) };
        let (log_id, previous_epoch, previous_index) = (field(0), field(1), field(2));
        let read = Self { log_id, previous_epoch, previous_index, checkpoint, index: field(5) };
        Ok((read, header.first_lsn))
    }
}

/// Bytes of a file read at once; frames are slices of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn slice(&self, position: u64, count: usize) -> Option<Bytes> {
        let from = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(count)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// An open segment.
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) seed: u32,
    pub(crate) file: Box<dyn File>,
}

/// Why there is no frame.
pub(crate) enum FrameError {
    Storage(StorageError),
    Fault(Fault),
}

impl SegmentFile {
    /// The frame at `position`, verified. Nothing at or past `limit` is read; `chunk_bytes` are read at once.
    pub(crate) fn frame_at(
        &self,
        position: u64,
        limit: u64,
        chunk: &mut Chunk,
        chunk_bytes: usize,
    ) -> Result<Frame, FrameError> {
        let place = Place { epoch: self.epoch, position };
        let raw = self.bytes_at(position, HEADER_BYTES, limit, chunk, chunk_bytes)?;
        let header = FrameHeader::parse(&raw, place).map_err(FrameError::Fault)?;
        let bytes = self.bytes_at(position, header.frame_bytes(), limit, chunk, chunk_bytes)?;
        if bytes.len() < header.frame_bytes() {
            return Err(FrameError::Fault(Fault::Invalid("it runs past the end of the file")));
        }
        verify(&bytes, self.seed).map_err(FrameError::Fault)?;
        Ok(Frame { header, bytes })
    }

    /// The header at `position`, if one of this segment stands there, whether or not its frame is whole.
    pub(crate) fn header_at(
        &self,
        position: u64,
        chunk: &mut Chunk,
        chunk_bytes: usize,
    ) -> Result<Option<FrameHeader>, StorageError> {
        match self.bytes_at(position, HEADER_BYTES, u64::MAX, chunk, chunk_bytes) {
            Ok(raw) => Ok(FrameHeader::parse(&raw, Place { epoch: self.epoch, position }).ok()),
            Err(FrameError::Storage(error)) => Err(error),
            Err(FrameError::Fault(_)) => Ok(None),
        }
    }

    /// `count` bytes from `position`, fewer if the file or the limit ends before.
    fn bytes_at(
        &self,
        position: u64,
        count: usize,
        limit: u64,
        chunk: &mut Chunk,
        chunk_bytes: usize,
    ) -> Result<Bytes, FrameError> {
        if let Some(bytes) = chunk.slice(position, count) {
            return Ok(bytes);
        }
        let most = usize::try_from(limit.saturating_sub(position)).unwrap_or(usize::MAX);
        let mut buffer = BytesMut::zeroed(count.max(chunk_bytes).min(most));
        let read = read_full(self.file.as_ref(), &mut buffer, position)
            .map_err(StorageError::on("read", &self.name))
            .map_err(FrameError::Storage)?;
        buffer.truncate(read);
        *chunk = Chunk { start: position, bytes: buffer.freeze() };
        Ok(chunk.slice(position, count).unwrap_or_else(|| chunk.bytes.clone()))
    }

    /// What its first frame says, and the lsn of its first record.
    pub(crate) fn header(&self) -> Result<Result<(SegmentHeader, Lsn), Fault>, StorageError> {
        SegmentHeader::read(self.file.as_ref(), self.epoch).map_err(StorageError::on("read", &self.name))
    }

    pub(crate) fn len(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(StorageError::on("get the length of", &self.name))
    }

    pub(crate) fn damage(&self, offset: u64, reason: impl Into<String>) -> Damage {
        Damage { file: self.name.clone(), offset, reason: reason.into() }
    }

    /// What a reader says of a frame that must be there.
    pub(crate) fn read_error(&self, position: u64, error: FrameError) -> ReadError {
        match error {
            FrameError::Storage(error) => error.into(),
            FrameError::Fault(fault) => self.damage(position, fault.to_string()).into(),
        }
    }

    /// What opening says of it.
    pub(crate) fn open_error(&self, position: u64, error: FrameError) -> OpenError {
        match error {
            FrameError::Storage(error) => error.into(),
            FrameError::Fault(Fault::Unsupported(what)) => {
                OpenError::Unsupported { file: self.name.clone(), offset: position, what }
            }
            FrameError::Fault(fault) => self.damage(position, fault.to_string()).into(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => formatter.write_str("a frame is missing"),
            Self::Invalid(reason) => formatter.write_str(reason),
            Self::Unsupported(what) => write!(formatter, "{what}, which this version cannot read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(epoch_of(&name_of(7)), Some(7));
        assert_eq!(name_of(7), "00000000000000000007.seg");
        for name in
            ["7.seg", "0000000000000000000a.seg", "+0000000000000000007.seg", "00000000000000000000.seg", "LOCK"]
        {
            assert_eq!(epoch_of(name), None, "{name}");
        }
    }

    #[test]
    fn headers_round_trip() {
        let checkpoint = Place { epoch: 2, position: 900 };
        let header = SegmentHeader { log_id: 42, previous_epoch: 2, previous_index: 1234, checkpoint, index: 77 };
        let raw = header.encode(3, 55, 1);
        assert_eq!(SegmentHeader::decode(&raw, 3), Ok((header, 55)));
        assert!(SegmentHeader::decode(&raw, 4).is_err());
        assert!(SegmentHeader::decode(&raw[..100], 3).is_err());
    }
}
