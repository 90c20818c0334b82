//! Lines of a stream, with the place that each ends at. A line without end is never held in memory.

use std::io::{self, BufRead as _, BufReader, Read};

use xxhash_rust::xxh3::xxh3_64;

/// Most bytes of a line; what is longer is passed over.
pub(super) const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;
/// How much before a place its [`hash`](Tail::hash) covers.
const TAIL_BYTES: usize = 4 * 1024;
/// How much is read at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its bytes, without the line's end.
    Whole(Vec<u8>),
    /// Longer than [`MAX_LINE_BYTES`]: this many bytes.
    TooLong(u64),
}

/// Reads lines, and knows where it is.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    bytes: u64,
    number: u64,
    tail: Tail,
}

impl Lines {
    /// Reads on from a place: so many bytes and lines are behind it, the last of them `tail`.
    pub(super) fn new(reader: Box<dyn Read + Send>, bytes: u64, number: u64, tail: Tail) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_BYTES, reader), bytes, number, tail }
    }

    /// The next line; none at the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let (mut length, mut ended) = (0_u64, false);
        while !ended {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(buffer, |end| &buffer[..end]);
            let taken = part.len() + usize::from(end.is_some());
            if taken == 0 {
                break;
            }
            ended = end.is_some();
            length += part.len() as u64;
            if length <= MAX_LINE_BYTES as u64 {
                line.extend_from_slice(part);
            } else {
                line = Vec::new();
            }
            self.tail.push(&buffer[..taken]);
            self.bytes += taken as u64;
            self.reader.consume(taken);
        }
        if length == 0 && !ended {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(if length > MAX_LINE_BYTES as u64 { Line::TooLong(length) } else { Line::Whole(line) }))
    }

    /// Whether the next line is there already, so that reading it does not wait for whoever writes the stream.
    pub(super) fn is_next_there(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the line that was read last; the first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Tells what was read last from anything else.
    pub(super) fn hash(&self) -> u64 {
        self.tail.hash()
    }
}

/// The last bytes of what was read.
#[derive(Clone, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// How many bytes before a place its hash covers.
    pub(super) fn length(place: u64) -> u64 {
        place.min(TAIL_BYTES as u64)
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        // Moved to the front now and then, not with each line.
        if self.0.len() + last.len() > 16 * TAIL_BYTES {
            self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES));
        }
        self.0.extend_from_slice(last);
    }

    pub(super) fn hash(&self) -> u64 {
        xxh3_64(&self.0[self.0.len().saturating_sub(TAIL_BYTES)..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> (Vec<Line>, Lines) {
        let reader = Box::new(io::Cursor::new(text.to_vec()));
        let mut lines = Lines::new(reader, 0, 0, Tail::default());
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            read.push(line);
        }
        (read, lines)
    }

    #[test]
    fn lines_end_at_a_line_feed_or_at_the_end() {
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(all(b"").0, []);
        assert_eq!(all(b"\n").0, [whole("")]);
        let (lines, end) = all(b"a\n\nb\r\nc");
        assert_eq!(lines, [whole("a"), whole(""), whole("b\r"), whole("c")]);
        assert_eq!((end.bytes(), end.number()), (7, 4));
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut text = vec![b'x'; MAX_LINE_BYTES];
        text.extend_from_slice(b"\n");
        text.extend(vec![b'y'; MAX_LINE_BYTES + 1]);
        text.extend_from_slice(b"\nz");
        let (lines, end) = all(&text);
        assert!(matches!(&lines[0], Line::Whole(line) if line.len() == MAX_LINE_BYTES));
        assert_eq!(lines[1..], [Line::TooLong(MAX_LINE_BYTES as u64 + 1), Line::Whole("z".into())]);
        assert_eq!(end.bytes(), text.len() as u64);
    }

    #[test]
    fn the_hash_is_that_of_the_last_bytes_however_they_came() {
        let text: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        for step in [1, 7, 1_000, TAIL_BYTES, 3 * TAIL_BYTES, text.len()] {
            let mut tail = Tail::default();
            text.chunks(step).for_each(|part| tail.push(part));
            assert_eq!(tail.hash(), xxh3_64(&text[text.len() - TAIL_BYTES..]), "in steps of {step}");
            assert!(tail.0.len() <= 17 * TAIL_BYTES);
        }
        assert_eq!(Tail::default().hash(), xxh3_64(b""));
    }
}
