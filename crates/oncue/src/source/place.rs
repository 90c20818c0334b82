//! How far a file was read.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How much before a place its [`Place::tail`] covers.
pub(super) const TAIL_BYTES: usize = 1024;

/// How far a file was read, as it is written with the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// How many files stood under this path before this one: what is appended to a new file is new, at whatever offset.
    pub(super) file: u64,
    /// Bytes, up to the end of a line.
    pub(super) bytes: u64,
    /// Lines.
    pub(super) lines: u64,
    /// Lines that held no event, of all files.
    pub(super) malformed: u64,
    /// Tells the bytes before this place from others.
    pub(super) tail: u64,
}

impl Place {
    /// The beginning of the next file under the path.
    pub(super) fn of_next_file(&self) -> Self {
        Self { file: self.file + 1, malformed: self.malformed, ..Self::default() }
    }

    /// How many bytes before the place [`tail`](Self::tail) is the hash of.
    pub(super) fn tail_bytes(&self) -> u64 {
        self.bytes.min(TAIL_BYTES as u64)
    }

    /// Reads what [`to_text`](Self::to_text) wrote; without a text, the beginning.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, serde_json::Error> {
        text.map_or_else(|| Ok(Self::default()), serde_json::from_str)
    }

    pub(super) fn to_text(&self) -> String {
        // Numbers can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The last bytes of what was read.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        // Moved to the front now and then, not with each line.
        if self.0.len() + last.len() > 16 * TAIL_BYTES {
            self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES));
        }
        self.0.extend_from_slice(last);
    }

    /// Of nothing it is zero, as at the beginning of a file.
    pub(super) fn hash(&self) -> u64 {
        match self.0.len() {
            0 => 0,
            length => xxh3_64(&self.0[length.saturating_sub(TAIL_BYTES)..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_there_and_back() {
        let place = Place { file: 1, bytes: u64::MAX, lines: 3, malformed: 4, tail: u64::MAX };
        assert_eq!(Place::parse(Some(&place.to_text())).unwrap(), place);
        assert_eq!(Place::parse(None).unwrap(), Place::default());
        assert!(Place::parse(Some("2026-01-01T00:00:00Z")).is_err());
        assert_eq!(place.of_next_file(), Place { file: 2, malformed: 4, ..Place::default() });
    }

    #[test]
    fn the_hash_is_that_of_the_last_bytes_however_they_came() {
        let text: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
        for step in [1, 7, 1_000, TAIL_BYTES, 3 * TAIL_BYTES, text.len()] {
            let mut tail = Tail::default();
            text.chunks(step).for_each(|part| tail.push(part));
            assert_eq!(tail.hash(), xxh3_64(&text[text.len() - TAIL_BYTES..]), "in steps of {step}");
            assert!(tail.0.len() <= 17 * TAIL_BYTES);
        }
        assert_eq!(Tail::default().hash(), 0);
    }
}
