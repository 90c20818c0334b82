//! Where events come from, and going on where an earlier run stopped.

use std::{
    fmt, fs,
    io::{self, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    generator::Simulation,
    lines::{Lines, Tail},
    place::Place,
};

/// What the name of a simulated input begins with; that of a file is its whole path.
pub(super) const SIMULATION: &str = "simulation";

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, one `CloudEvents` JSON object a line.
    File(PathBuf),
    /// The same, from stdin.
    Stdin,
    /// A simulation: the same events for the same seed.
    Simulated {
        /// What it is drawn from.
        seed: u64,
        /// How many events.
        events: u64,
    },
}

/// An input cannot be read.
#[derive(Debug, Error)]
pub enum InputError {
    /// There is no such file.
    #[error("there is no file {}: check the path after --input, or leave --input out to simulate orders", .0.display())]
    Missing(PathBuf),
    /// A directory.
    #[error("{} is a directory: give --input a file of events, one JSON object a line", .0.display())]
    Directory(PathBuf),
    /// The operating system refused.
    #[error("cannot read {input}: {source}; make it readable, or give --input another file")]
    Read {
        /// The input.
        input: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Its beginning is not what an earlier run read.
    #[error(
        "{input} has changed: its first {lines} lines are not those that this directory was fed with; give --input the \
         same file (lines may be added at its end), or --data a new directory"
    )]
    Changed {
        /// The input.
        input: String,
        /// How far it was read.
        lines: u64,
    },
}

/// An input that can be read.
pub(super) struct Opened {
    /// The same for the same input, however its path was written.
    pub(super) name: String,
    /// Its size in bytes, if it is known.
    pub(super) size: Option<u64>,
    stream: Stream,
}

enum Stream {
    /// Can be read from any place.
    File(fs::File),
    /// Can only be read on.
    Other(Box<dyn Read + Send>),
}

impl Input {
    /// Opens the input. Touches nothing else, so that a mistyped path leaves no trace.
    pub(super) fn open(&self) -> Result<Opened, InputError> {
        match self {
            Self::File(path) => open_file(path),
            Self::Stdin => {
                Ok(Opened { name: self.to_string(), size: None, stream: Stream::Other(Box::new(io::stdin())) })
            }
            Self::Simulated { seed, events } => {
                let simulation = Box::new(Simulation::new(*seed, *events));
                Ok(Opened { name: self.to_string(), size: None, stream: Stream::Other(simulation) })
            }
        }
    }
}

fn open_file(path: &Path) -> Result<Opened, InputError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => InputError::Missing(path.to_owned()),
        _ => InputError::Read { input: path.display().to_string(), source },
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if about.is_dir() {
        return Err(InputError::Directory(path.to_owned()));
    }
    // A pipe has no path of its own.
    let name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    Ok(match about.is_file() {
        true => Opened { name, size: Some(about.len()), stream: Stream::File(file) },
        false => Opened { name, size: None, stream: Stream::Other(Box::new(file)) },
    })
}

impl Opened {
    /// Reads on from `place`, if what is before it is what was read before.
    pub(super) fn from(self, place: &Place) -> Result<Lines, InputError> {
        let Self { name, stream, .. } = self;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => InputError::Changed { input: name.clone(), lines: place.line },
            _ => InputError::Read { input: name.clone(), source },
        };
        let known = Tail::length(place.bytes);
        let skipped = place.bytes - known;
        let mut stream: Box<dyn Read + Send> = match stream {
            Stream::File(mut file) => {
                file.seek(SeekFrom::Start(skipped)).map_err(failed)?;
                Box::new(file)
            }
            Stream::Other(mut stream) => {
                let passed = io::copy(&mut stream.by_ref().take(skipped), &mut io::sink()).map_err(failed)?;
                if passed < skipped {
                    return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                }
                stream
            }
        };
        let mut tail = Tail::default();
        let mut last = Vec::new();
        stream.by_ref().take(known).read_to_end(&mut last).map_err(failed)?;
        tail.push(&last);
        if place.bytes > 0 && tail.hash() != place.hash {
            return Err(InputError::Changed { input: name, lines: place.line });
        }
        Ok(Lines::new(stream, place.bytes, place.line, tail))
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("stdin"),
            Self::Simulated { seed, events } => write!(f, "{SIMULATION} of {events} events, seed {seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::lines::Line;

    fn text(lines: std::ops::Range<u32>) -> String {
        lines.map(|line| format!("line {line} {}\n", "x".repeat(line as usize % 90))).collect()
    }

    fn opened(text: &str) -> Opened {
        let stream = Stream::Other(Box::new(io::Cursor::new(text.to_owned())));
        Opened { name: "it".into(), size: None, stream }
    }

    fn file(text: &str) -> Opened {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Opened { name: "it".into(), size: None, stream: Stream::File(file) }
    }

    fn place_after(text: &str, lines: u64) -> Place {
        let mut read = opened(text).from(&Place::default()).unwrap();
        for _ in 0..lines {
            read.next().unwrap();
        }
        Place { bytes: read.bytes(), line: read.number(), malformed: 0, hash: read.hash() }
    }

    #[test]
    fn reading_goes_on_at_a_place_and_lines_may_have_been_added() {
        let longer = text(0..400);
        for lines in [1, 2, 50, 399] {
            let place = place_after(&text(0..400), lines);
            for open in [opened, file] {
                let mut read = open(&longer).from(&place).unwrap();
                let line = read.next().unwrap().unwrap();
                assert!(matches!(line, Line::Whole(line) if line.starts_with(format!("line {lines} ").as_bytes())));
                assert_eq!(read.number(), lines + 1);
                assert_eq!(read.hash(), place_after(&longer, lines + 1).hash);
            }
        }
    }

    #[test]
    fn another_input_is_refused() {
        let place = place_after(&text(0..400), 300);
        for open in [opened, file] {
            for other in [text(1..500), text(0..200), String::new()] {
                let refused = open(&other).from(&place).err().unwrap().to_string();
                assert!(refused.contains("has changed") && refused.contains("--data"), "{refused}");
            }
        }
    }
}
