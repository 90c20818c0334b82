//! One batch of lines, on a thread that may block.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use super::{
    super::{
        SourceError,
        lines::{Line, Lines},
        place::Place,
    },
    FileError, MAX_LINE_BYTES,
};
use crate::event::Envelope;

/// Most lines of a batch.
const MAX_BATCH_LINES: usize = 512;
/// A batch ends with the line that makes it this large, with what it is read as.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Malformed lines of one batch that are logged one by one.
const MAX_TOLD: u64 = 8;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a file source was told.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) follow: bool,
    pub(super) strict: bool,
    pub(super) parse: Parse,
}

/// What a line holds.
#[derive(Clone)]
pub(super) enum Parse {
    CloudEvents,
    By(Arc<Map>),
}

type Map = dyn Fn(&str) -> Result<Envelope, BoxError> + Send + Sync;

impl Parse {
    pub(super) fn of(parse: impl Fn(&str) -> Result<Envelope, BoxError> + Send + Sync + 'static) -> Self {
        Self::By(Arc::new(parse))
    }

    fn event(&self, line: &[u8]) -> Result<Envelope, String> {
        match self {
            // An event is one line: which line of it is wrong is no news.
            Self::CloudEvents => Envelope::from_json(line)
                .map_err(|error| error.to_string().replace(" at line 1 column ", " at column ")),
            Self::By(parse) => {
                let line = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
                match catch_unwind(AssertUnwindSafe(|| parse(line))) {
                    Ok(parsed) => parsed.map_err(|error| error.to_string()),
                    // It would panic again: that is this line's fault, and nobody else's.
                    Err(panic) => Err(SourceError::panicked(&*panic).to_string()),
                }
            }
        }
    }
}

/// What was read: the file, to go on with, and the events.
pub(super) type Read = (Option<Lines>, Result<Parsed, FileError>);

/// The events of some lines, and the place after these.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) events: Vec<Envelope>,
    pub(super) place: Place,
}

impl Parsed {
    pub(super) fn nothing(place: &Place) -> Self {
        Self { events: Vec::new(), place: place.clone() }
    }
}

/// Reads one batch.
pub(super) struct Reading {
    pub(super) settings: Settings,
    pub(super) from: Place,
    /// The file, if it is open at that place.
    pub(super) lines: Option<Lines>,
}

impl Reading {
    pub(super) fn run(mut self) -> Read {
        let opened = match self.lines.take() {
            Some(lines) => Ok(Some(lines)),
            None => self.open(),
        };
        match opened {
            Ok(Some(lines)) => self.batch(lines),
            Ok(None) => (None, Ok(Parsed::nothing(&self.from))),
            Err(error) => (None, Err(error)),
        }
    }

    /// Opens the file at the place. None: it is waited for.
    fn open(&self) -> Result<Option<Lines>, FileError> {
        let Settings { id, path, follow, .. } = &self.settings;
        match Lines::open(path, &self.from) {
            Ok(Some(lines)) => Ok(Some(lines)),
            Ok(None) if !follow => Err(FileError::Changed { path: path.clone(), lines: self.from.lines }),
            Ok(None) => {
                tracing::warn!(
                    source = id,
                    lines = self.from.lines,
                    "the file is not the one that was read before: it is read from its beginning, and what had been added to \
                     the old one since is not read"
                );
                Lines::open(path, &self.from.of_next_file())
            }
            Err(FileError::Missing(_)) if *follow => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn batch(&self, mut lines: Lines) -> Read {
        let Settings { path, strict, .. } = &self.settings;
        let mut parsed = Parsed::nothing(&self.from);
        let (mut read, mut bytes, mut malformed) = (0, 0, 0);
        while read < MAX_BATCH_LINES && bytes < MAX_BATCH_BYTES {
            let before = lines.place();
            let line = match self.next(&mut lines) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                // What was read before is given first; the error comes again.
                Err(_) if before != self.from => return (None, Ok(Parsed { place: before, ..parsed })),
                Err(error) => return (None, Err(error)),
            };
            read += 1;
            bytes += line.bytes();
            match self.event(line, &before) {
                Ok(event) => {
                    // What a line is read as may be larger than the line.
                    bytes += event.iter().map(Envelope::encoded_bytes).sum::<usize>();
                    parsed.events.extend(event);
                }
                Err(_) if *strict && before != self.from => return (None, Ok(Parsed { place: before, ..parsed })),
                Err(reason) if *strict => {
                    let line = before.lines + 1;
                    return (None, Err(FileError::Malformed { path: path.clone(), line, reason }));
                }
                Err(reason) => {
                    lines.was_malformed();
                    malformed += 1;
                    if malformed <= MAX_TOLD {
                        tracing::warn!(file = %path.display(), line = before.lines + 1, reason, "malformed: passed by");
                    }
                }
            }
        }
        if malformed > MAX_TOLD {
            tracing::warn!(file = %path.display(), "{} more lines up to line {} are malformed: passed by",
                malformed - MAX_TOLD, lines.number());
        }
        parsed.place = lines.place();
        (Some(lines), Ok(parsed))
    }

    /// The next line; none if it is waited for, or at the end.
    fn next(&self, lines: &mut Lines) -> Result<Option<Line>, FileError> {
        let Settings { path, follow, id, .. } = &self.settings;
        let failed = |source| FileError::Read { path: path.clone(), source };
        if let Some(line) = lines.next().map_err(failed)? {
            return Ok(Some(line));
        }
        if !follow {
            return Ok(lines.last());
        }
        if !lines.is_replaced(path).map_err(failed)? {
            return Ok(None);
        }
        // What was written to the old one between the two looks.
        if let Some(line) = lines.next().map_err(failed)?.or_else(|| lines.last()) {
            return Ok(Some(line));
        }
        match Lines::open(path, &lines.place().of_next_file()) {
            Ok(Some(next)) => {
                tracing::info!(source = id, lines = lines.number(), "the file was replaced: the new one is read");
                *lines = next;
                lines.next().map_err(failed)
            }
            Ok(None) | Err(FileError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The event in a line; none in a blank one.
    fn event(&self, line: Line, before: &Place) -> Result<Option<Envelope>, String> {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong(bytes) => {
                return Err(format!("{bytes} bytes long: the limit is {MAX_LINE_BYTES} (MAX_LINE_BYTES)"));
            }
        };
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let place = format!("{}:{}", before.file, before.bytes);
        Ok(Some(self.settings.parse.event(line)?.generated_by(&self.settings.id, &place, None)))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use proptest::prelude::*;

    use super::*;

    fn settings(path: PathBuf) -> Settings {
        let parse = Parse::of(|line| Ok(Envelope::builder("line").data(line.to_owned()).build()?));
        Settings { id: "it".into(), path, follow: true, strict: false, parse }
    }

    fn texts(events: &[Envelope]) -> Vec<String> {
        events.iter().map(|event| String::from_utf8(event.data().to_vec()).unwrap()).collect()
    }

    proptest! {
        /// However a file grows, and wherever reading begins anew, each line is one event, in order.
        #[test]
        fn each_line_is_read_once(
            parts in proptest::collection::vec(("[ab\r\n]{0,12}", any::<bool>()), 1..12),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lines");
            std::fs::write(&path, "").unwrap();
            let settings = settings(path.clone());
            let (mut place, mut lines, mut events) = (Place::default(), None, Vec::new());
            for (part, restart) in &parts {
                OpenOptions::new().append(true).open(&path).unwrap().write_all(part.as_bytes()).unwrap();
                let lines_before = if *restart { None } else { lines.take() };
                let reading = Reading { settings: settings.clone(), from: place, lines: lines_before };
                let (opened, parsed) = reading.run();
                let parsed = parsed.unwrap();
                lines = opened;
                place = Place::parse(Some(&parsed.place.to_text())).unwrap();
                events.extend(parsed.events);
            }
            let text: String = parts.into_iter().map(|(part, _)| part).collect();
            let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
            let expected: Vec<&str> = whole
                .split_terminator('\n')
                .map(|line| line.strip_suffix('\r').unwrap_or(line))
                .filter(|line| !line.trim().is_empty())
                .collect();
            prop_assert_eq!(texts(&events), expected);
            prop_assert_eq!(place.bytes, whole.len() as u64);
        }
    }

    #[test]
    fn a_batch_is_bounded_in_lines_and_in_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let long = "x".repeat(100_000);
        std::fs::write(&path, "a\n".repeat(600) + &format!("{long}\n").repeat(30)).unwrap();
        let (mut lines, mut from, mut sizes) = (None, Place::default(), Vec::new());
        loop {
            let reading = Reading { settings: settings(path.clone()), from: from.clone(), lines };
            let (opened, parsed) = reading.run();
            let parsed = parsed.unwrap();
            if parsed.place == from {
                break;
            }
            let bytes: usize = parsed.events.iter().map(Envelope::encoded_bytes).sum();
            assert!(bytes < MAX_BATCH_BYTES + 2 * long.len());
            sizes.push(parsed.events.len());
            (lines, from) = (opened, parsed.place);
        }
        assert_eq!(sizes[0], MAX_BATCH_LINES);
        assert!(sizes.len() > 4 && sizes.iter().sum::<usize>() == 630, "{sizes:?}");
    }
}
