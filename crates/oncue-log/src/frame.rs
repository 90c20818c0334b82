//! Frames: the unit of atomicity on disk. Layout and rules: `docs/log-format.md`.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::limits::MAX_FRAME_BYTES;
use crate::record::{Lsn, Walk};
use crate::wire::{put, u16_at, u32_at, u64_at};

pub(crate) const HEADER_BYTES: usize = 104;
pub(crate) const MAGIC: [u8; 4] = *b"ONQF";
pub(crate) const VERSION: u8 = 1;

pub(crate) const FRAME_RECORDS: u8 = 1;
pub(crate) const FRAME_SEGMENT: u8 = 2;
pub(crate) const FRAME_INDEX: u8 = 3;
pub(crate) const FLAG_SKIPPABLE: u16 = 1;

/// Where a frame lies: ordered as the frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) epoch: u64,
    pub(crate) position: u64,
}

/// Adds `bytes` to a checksum.
pub(crate) fn add(checksum: u32, bytes: &[u8]) -> u32 {
    crc32c_append(checksum, bytes)
}

/// The checksum of two runs of bytes, one behind the other, from that of each and the length of the second.
///
/// A checksum is the remainder of a polynomial over GF(2), modulo that of CRC32C. The first run's is what it was times x to the
/// power of the bits that follow it: one multiplication for each bit set in their number.
fn join(first: u32, second: u32, second_bytes: usize) -> u32 {
    let powers = POWERS.iter().enumerate().filter(|(bit, _)| second_bytes >> bit & 1 == 1);
    powers.fold(first, |product, (_, power)| multiply(product, *power)) ^ second
}

/// CRC32C's polynomial. As in all of this, the highest bit is the coefficient of x⁰.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// x to the power of 8, 16, 32, …: what 1, 2, 4, … bytes multiply by.
const POWERS: [u32; usize::BITS as usize] = {
    let mut powers = [1 << 23; usize::BITS as usize];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = multiply(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

const fn multiply(one: u32, mut other: u32) -> u32 {
    let (mut product, mut bit) = (0, 1 << 31);
    while bit > 0 {
        if one & bit != 0 {
            product ^= other;
        }
        other = (other >> 1) ^ if other & 1 == 1 { POLYNOMIAL } else { 0 };
        bit >>= 1;
    }
    product
}

/// The fields of a frame's header that vary in version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
    pub(crate) topic: u32,
    pub(crate) place: Place,
    pub(crate) first_lsn: Lsn,
    pub(crate) synced_lsn: Lsn,
    pub(crate) time: i64,
}

/// Why the bytes at a place are no frame that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A header's worth of zeros, or the end of the file: nothing was written here.
    Blank,
    /// Not a frame, or a damaged one.
    Invalid(&'static str),
    /// A frame of a newer format.
    Unsupported(String),
}

/// What every checksum of a log starts from.
pub(crate) fn seed(log_id: u64) -> u32 {
    crc32c(&log_id.to_le_bytes())
}

impl FrameHeader {
    /// Fills in the header of `frame`, whose payload is already there, and its checksum.
    pub(crate) fn seal(&self, frame: &mut [u8], seed: u32) {
        self.fill(frame);
        let checksum = crc32c_append(seed, &frame[4..]);
        put(frame, 0, &checksum.to_le_bytes());
    }

    /// The same, where the checksum of the payload alone is known.
    pub(crate) fn seal_over(&self, frame: &mut [u8], seed: u32, payload: u32) {
        self.fill(frame);
        let header = crc32c_append(seed, &frame[4..HEADER_BYTES]);
        let checksum = join(header, payload, frame.len() - HEADER_BYTES);
        put(frame, 0, &checksum.to_le_bytes());
    }

    fn fill(&self, frame: &mut [u8]) {
        frame[..HEADER_BYTES].fill(0);
        put(frame, 4, &MAGIC);
        frame[8] = VERSION;
        frame[9] = self.kind;
        put(frame, 10, &self.flags.to_le_bytes());
        put(frame, 12, &self.payload_bytes.to_le_bytes());
        put(frame, 16, &self.records.to_le_bytes());
        put(frame, 20, &self.topic.to_le_bytes());
        put(frame, 24, &self.place.epoch.to_le_bytes());
        put(frame, 32, &self.place.position.to_le_bytes());
        put(frame, 40, &self.first_lsn.to_le_bytes());
        put(frame, 48, &self.synced_lsn.to_le_bytes());
        put(frame, 56, &self.time.to_le_bytes());
    }

    /// Reads a header that should lie at `place`. Only lengths and places are believed before [`verify`] has passed.
    pub(crate) fn parse(raw: &[u8], place: Place) -> Result<Self, Fault> {
        let Some(raw) = raw.get(..HEADER_BYTES) else {
            return Err(if raw.iter().all(|byte| *byte == 0) { Fault::Blank } else { Fault::Invalid("cut short") });
        };
        if raw[4..8] != MAGIC {
            let blank = raw.iter().all(|byte| *byte == 0);
            return Err(if blank { Fault::Blank } else { Fault::Invalid("no frame begins here") });
        }
        let header = Self {
            kind: raw[9],
            flags: u16_at(raw, 10),
            payload_bytes: u32_at(raw, 12),
            records: u32_at(raw, 16),
            topic: u32_at(raw, 20),
            place: Place { epoch: u64_at(raw, 24), position: u64_at(raw, 32) },
            first_lsn: u64_at(raw, 40),
            synced_lsn: u64_at(raw, 48),
            time: i64::from_le_bytes(u64_at(raw, 56).to_le_bytes()),
        };
        if header.place != place {
            return Err(Fault::Invalid("a frame of another place"));
        }
        // Only now: where a write was torn behind the magic, the version is anything.
        if raw[8] > VERSION {
            return Err(Fault::Unsupported(format!("format version {}", raw[8])));
        }
        if header.payload_bytes as usize > MAX_FRAME_BYTES {
            return Err(Fault::Invalid("its length is out of range"));
        }
        if header.first_lsn.checked_add(u64::from(header.records)).is_none() {
            return Err(Fault::Invalid("its lsns are out of range"));
        }
        Ok(header)
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize
    }

    /// The lsn after the frame's last record.
    pub(crate) fn end_lsn(&self) -> Lsn {
        self.first_lsn + u64::from(self.records)
    }

    /// Whether a frame that is missing before this one, and begins with `next_lsn`, had been synced: it was when this one was
    /// written; or no record is missing in between, and a frame without any is synced before anything follows it.
    pub(crate) fn tells_of(&self, next_lsn: Lsn) -> bool {
        self.synced_lsn > next_lsn || self.first_lsn == next_lsn
    }

    pub(crate) fn walk(&self) -> Walk {
        Walk::new(HEADER_BYTES, self.first_lsn, self.records)
    }
}

/// A frame that passed its checksum, with its header's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) bytes: Bytes,
}

impl Frame {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    pub(crate) fn walk(&self) -> Walk {
        self.header.walk()
    }

    /// Where the next frame of the segment begins.
    pub(crate) fn next(&self) -> Place {
        let Place { epoch, position } = self.header.place;
        Place { epoch, position: position + self.header.frame_bytes() as u64 }
    }
}

/// Checks the checksum of a whole frame, and that it asks for nothing that version 1 does not know.
pub(crate) fn verify(frame: &[u8], seed: u32) -> Result<(), Fault> {
    if u32_at(frame, 0) != crc32c_append(seed, &frame[4..]) {
        return Err(Fault::Invalid("its checksum does not match"));
    }
    if frame[8] != VERSION {
        return Err(Fault::Unsupported(format!("format version {}", frame[8])));
    }
    let flags = u16_at(frame, 10);
    if flags & !FLAG_SKIPPABLE != 0 {
        return Err(Fault::Unsupported(format!("frame flags {flags:#06x}")));
    }
    let known = matches!(frame[9], FRAME_RECORDS | FRAME_SEGMENT | FRAME_INDEX);
    if !known && flags & FLAG_SKIPPABLE == 0 {
        return Err(Fault::Unsupported(format!("frame kind {}", frame[9])));
    }
    if u32_at(frame, 64) != 0 {
        return Err(Fault::Unsupported(format!("encryption key {}", u32_at(frame, 64))));
    }
    if u32_at(frame, 68) != 0 {
        return Err(Fault::Unsupported("a reserved field in use".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { epoch: 3, position: 144 };

    fn sealed(payload: &[u8], edit: impl FnOnce(&mut FrameHeader)) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(payload);
        let mut header = FrameHeader {
            kind: FRAME_RECORDS,
            flags: 0,
            payload_bytes: payload.len() as u32,
            records: 1,
            topic: 2,
            place: PLACE,
            first_lsn: 10,
            synced_lsn: 9,
            time: -5,
        };
        edit(&mut header);
        header.seal(&mut frame, seed(77));
        frame
    }

    #[test]
    fn header_round_trips() {
        let frame = sealed(b"payload", |_| {});
        let header = FrameHeader::parse(&frame, PLACE).unwrap();
        assert_eq!((header.time, header.first_lsn, header.synced_lsn, header.topic), (-5, 10, 9, 2));
        assert_eq!(header.frame_bytes(), frame.len());
        verify(&frame, seed(77)).unwrap();
    }

    #[test]
    fn a_checksum_can_be_joined_from_its_parts() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| ((number * 31) >> 3) as u8).collect();
        for (from, to) in [(0, 0), (0, 1), (1, 2), (104, 360), (5, 70_000), (70_000, 100_000), (99_999, 100_000)] {
            let (first, second) = (crc32c(&bytes[..from]), crc32c(&bytes[from..to]));
            assert_eq!(join(first, second, to - from), crc32c(&bytes[..to]), "{from}..{to}");
        }
        let frame = sealed(b"payload", |_| {});
        let header = FrameHeader::parse(&frame, PLACE).unwrap();
        let mut again = frame.clone();
        header.seal_over(&mut again, seed(77), add(add(0, b"pay"), b"load"));
        assert_eq!(again, frame);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = sealed(b"some payload", |_| {});
        for bit in 0..frame.len() * 8 {
            let mut broken = frame.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let passed = FrameHeader::parse(&broken, PLACE)
                .and_then(|header| broken.get(..header.frame_bytes()).ok_or(Fault::Invalid("length")))
                .and_then(|frame| verify(frame, seed(77)));
            assert!(passed.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_log_or_place_is_no_frame_of_ours() {
        let frame = sealed(b"payload", |_| {});
        assert!(matches!(verify(&frame, seed(78)), Err(Fault::Invalid(_))));
        assert!(matches!(FrameHeader::parse(&frame, Place { epoch: 4, ..PLACE }), Err(Fault::Invalid(_))));
        assert!(matches!(FrameHeader::parse(&frame, Place { position: 0, ..PLACE }), Err(Fault::Invalid(_))));
    }

    #[test]
    fn what_is_newer_is_refused_by_name() {
        let unknown = sealed(b"", |header| header.kind = 9);
        assert_eq!(verify(&unknown, seed(77)), Err(Fault::Unsupported("frame kind 9".into())));
        let skippable = sealed(b"", |header| (header.kind, header.flags) = (9, FLAG_SKIPPABLE));
        verify(&skippable, seed(77)).unwrap();
        let flags = sealed(b"", |header| header.flags = 4);
        assert!(matches!(verify(&flags, seed(77)), Err(Fault::Unsupported(_))));
        let mut version = sealed(b"", |_| {});
        version[8] = 2;
        assert_eq!(FrameHeader::parse(&version, PLACE), Err(Fault::Unsupported("format version 2".into())));
    }
}
