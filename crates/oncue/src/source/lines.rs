//! Whole lines of a file that may grow, each with the place after it. A line without end is never held in memory.

use std::{
    fs::{File, Metadata},
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use super::{
    file::{FileError, MAX_LINE_BYTES},
    place::{Place, TAIL_BYTES, Tail},
};

/// How much is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Longer than [`MAX_LINE_BYTES`]: this many bytes.
    TooLong(u64),
}

impl Line {
    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(line) => line.len(),
            Self::TooLong(_) => 0,
        }
    }
}

/// Reads a file line by line, and knows where it is.
pub(super) struct Lines {
    reader: BufReader<File>,
    /// After the last line that was given out.
    place: Place,
    tail: Tail,
    /// The beginning of a line whose end is not there yet; of one that is too long, the last bytes of that.
    begun: Vec<u8>,
    begun_bytes: u64,
}

impl Lines {
    /// Reads on from a place. None: the file is not the one that was read up to there.
    pub(super) fn open(path: &Path, place: &Place) -> Result<Option<Self>, FileError> {
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::NotFound => FileError::Missing(path.to_owned()),
            _ => FileError::Read { path: path.to_owned(), source },
        };
        let mut file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(FileError::NotAFile(path.to_owned()));
        }
        let known = place.tail_bytes();
        file.seek(SeekFrom::Start(place.bytes - known)).map_err(failed)?;
        let mut last = Vec::new();
        (&mut file).take(known).read_to_end(&mut last).map_err(failed)?;
        let mut tail = Tail::default();
        tail.push(&last);
        if tail.hash() != place.tail {
            return Ok(None);
        }
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Some(Self { reader, place: place.clone(), tail, begun: Vec::new(), begun_bytes: 0 }))
    }

    /// The next line whose end is there; none at the end of what is there now.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(buffer, |end| &buffer[..end]);
            let taken = part.len() + usize::from(end.is_some());
            self.begun.extend_from_slice(part);
            self.begun_bytes += part.len() as u64;
            if self.begun_bytes > MAX_LINE_BYTES as u64 {
                self.begun.drain(..self.begun.len().saturating_sub(TAIL_BYTES));
            }
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(Some(self.ended(b"\n")));
            }
        }
    }

    /// What is there of a last line without end, as a line.
    pub(super) fn last(&mut self) -> Option<Line> {
        (self.begun_bytes > 0).then(|| self.ended(b""))
    }

    fn ended(&mut self, end: &[u8]) -> Line {
        let (line, bytes) = (std::mem::take(&mut self.begun), std::mem::take(&mut self.begun_bytes));
        self.tail.push(&line);
        self.tail.push(end);
        self.place.bytes += bytes + end.len() as u64;
        self.place.lines += 1;
        match bytes > MAX_LINE_BYTES as u64 {
            true => Line::TooLong(bytes),
            false => Line::Whole(line),
        }
    }

    /// Notes that the last line held no event.
    pub(super) fn was_malformed(&mut self) {
        self.place.malformed += 1;
    }

    /// After the last line that was given out.
    pub(super) fn place(&self) -> Place {
        Place { tail: self.tail.hash(), ..self.place.clone() }
    }

    /// The number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.place.lines
    }

    /// Whether another file stands under the path by now, or this one was cut. If there is none, it is still this one's.
    pub(super) fn is_replaced(&self, path: &Path) -> io::Result<bool> {
        let there = match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let here = self.reader.get_ref().metadata()?;
        Ok(!is_same(&here, &there) || here.len() < self.place.bytes + self.begun_bytes)
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Without numbers of files, by when they were made.
#[cfg(not(unix))]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.created().ok() == other.created().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use super::*;

    struct Written {
        directory: tempfile::TempDir,
    }

    impl Written {
        fn new(text: &[u8]) -> Self {
            let written = Self { directory: tempfile::tempdir().unwrap() };
            std::fs::write(written.path(), text).unwrap();
            written
        }

        fn path(&self) -> std::path::PathBuf {
            self.directory.path().join("lines")
        }

        fn append(&self, text: &[u8]) {
            OpenOptions::new().append(true).open(self.path()).unwrap().write_all(text).unwrap();
        }

        fn at(&self, place: &Place) -> Option<Lines> {
            Lines::open(&self.path(), place).unwrap()
        }
    }

    fn whole(text: &str) -> Option<Line> {
        Some(Line::Whole(text.into()))
    }

    #[test]
    fn a_line_is_given_when_its_end_is_there() {
        let file = Written::new(b"a\n\nb\r\nc");
        let mut lines = file.at(&Place::default()).unwrap();
        assert_eq!(lines.next().unwrap(), whole("a"));
        assert_eq!(lines.next().unwrap(), whole(""));
        assert_eq!(lines.next().unwrap(), whole("b\r"));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!((lines.number(), lines.place().bytes), (3, 6), "the torn line is not counted");
        file.append(b"d");
        assert_eq!(lines.next().unwrap(), None);
        file.append(b"e\nf");
        assert_eq!(lines.next().unwrap(), whole("cde"));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.last(), whole("f"));
        assert_eq!((lines.last(), lines.number(), lines.place().bytes), (None, 5, 11));
    }

    #[test]
    fn reading_goes_on_at_any_place_and_only_behind_the_same_bytes() {
        let text: Vec<u8> =
            (0..300).flat_map(|line| format!("{line} {}\n", "x".repeat(line % 90)).into_bytes()).collect();
        let file = Written::new(&text);
        let mut lines = file.at(&Place::default()).unwrap();
        let mut places = vec![lines.place()];
        while lines.next().unwrap().is_some() {
            places.push(lines.place());
        }
        for (read, place) in places.iter().enumerate().take(300) {
            let mut lines = file.at(place).unwrap();
            assert!(
                matches!(lines.next().unwrap(), Some(Line::Whole(line)) if line.starts_with(format!("{read} ").as_bytes()))
            );
            assert_eq!(&lines.place(), &places[read + 1]);
        }
        let last = &places[300];
        for other in [&text[..text.len() - 1], &text[1..], b"", b"another\n"] {
            assert!(Written::new(other).at(last).is_none());
        }
        file.append(b"more\n");
        assert_eq!(file.at(last).unwrap().next().unwrap(), whole("more"));
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_can_be_read_past() {
        let mut text = vec![b'x'; MAX_LINE_BYTES];
        text.push(b'\n');
        text.extend(vec![b'y'; MAX_LINE_BYTES + 1]);
        let file = Written::new(&text);
        let mut lines = file.at(&Place::default()).unwrap();
        assert!(matches!(lines.next().unwrap(), Some(Line::Whole(line)) if line.len() == MAX_LINE_BYTES));
        assert_eq!(lines.next().unwrap(), None);
        assert!(lines.begun.len() <= TAIL_BYTES);
        file.append(b"y\nz\n");
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong(MAX_LINE_BYTES as u64 + 2)));
        let place = lines.place();
        assert_eq!(place.bytes, text.len() as u64 + 2);
        for mut lines in [lines, file.at(&place).unwrap()] {
            assert_eq!(lines.next().unwrap(), whole("z"));
        }
    }

    #[test]
    fn a_replaced_or_cut_file_is_noticed() {
        let file = Written::new(b"a\nb");
        let mut lines = file.at(&Place::default()).unwrap();
        while lines.next().unwrap().is_some() {}
        assert!(!lines.is_replaced(&file.path()).unwrap());
        std::fs::rename(file.path(), file.directory.path().join("old")).unwrap();
        assert!(!lines.is_replaced(&file.path()).unwrap(), "nothing stands there yet");
        std::fs::write(file.path(), b"a\nb").unwrap();
        assert!(lines.is_replaced(&file.path()).unwrap());
        let mut lines = file.at(&Place::default()).unwrap();
        while lines.next().unwrap().is_some() {}
        OpenOptions::new().write(true).open(file.path()).unwrap().set_len(2).unwrap();
        assert!(lines.is_replaced(&file.path()).unwrap());
    }
}
