//! A file of events, one a line, that may grow.

mod reading;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::task::JoinHandle;

use self::reading::{Parse, Parsed, Read, Reading, Settings};
use super::{Batch, Source, SourceError, lines::Lines, place::Place};
use crate::{
    clock::Clock,
    event::{DEFAULT_TOPIC, Envelope, MAX_DATA_BYTES},
    transport::BoxFuture,
};

/// Most bytes of a line: the largest event, and as much again as its attributes may take. What is longer is malformed.
pub const MAX_LINE_BYTES: usize = MAX_DATA_BYTES + 64 * 1024;
/// How often a file is looked at for new lines, unless it is said otherwise.
const DEFAULT_POLL: Duration = Duration::from_secs(1);

/// Why a file cannot be read on.
#[derive(Debug, Error)]
pub enum FileError {
    /// There is no such file.
    #[error("there is no file {}: check the path, or use `.follow(true)` to wait for it", .0.display())]
    Missing(PathBuf),
    /// A directory or a pipe.
    #[error("{} is not a file: a source needs one, to go on in it where it stopped", .0.display())]
    NotAFile(PathBuf),
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// It is not the file that was read before.
    #[error(
        "{} has changed: its first {lines} lines are not those that were read; give the source the same file (lines may be \
         added at its end), or another id (`.id(\"…\")`) to begin anew",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// How far it had been read.
        lines: u64,
    },
    /// A malformed line, in a strict reading.
    #[error("{}, line {line}: {reason}; mend the line, or leave out `.strict()` to pass it by", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The place kept under the source's id is no place in a file.
    #[error(
        "the place kept for this source is `{place}`: another source had its id; give this one another (`.id(\"…\")`)"
    )]
    Place {
        /// The place.
        place: String,
    },
}

impl FileError {
    /// What the operating system refused once it may grant later; the rest is for people to mend.
    fn classed(self) -> SourceError {
        match self {
            Self::Read { .. } => SourceError::transient(self),
            _ => SourceError::permanent(self),
        }
    }
}

/// A source that reads a file, one event in structured `CloudEvents` JSON a line (NDJSON), and keeps its place in it:
/// after a restart or a crash it goes on with the first line whose event was not published. It ends at the end of the file.
///
/// Blank lines are passed by, and so are malformed ones, which are counted and logged with their number. Batches have at
/// most 512 lines and 1 MiB (and the line that makes it more). Nothing but the path is looked at before the app starts.
///
/// ```no_run
/// # async fn doc() -> oncue::Result<()> {
/// use oncue::{App, source};
///
/// let orders = source::file("orders.ndjson").follow(true).topic("orders");
/// let bus = App::open("file:./data").await?.source(orders).start().await?;
/// # bus.run_until_ctrl_c().await
/// # }
/// ```
pub fn file(path: impl Into<PathBuf>) -> FileSource {
    let path = path.into();
    // The same file has one place, from whatever directory the program is started.
    let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    FileSource {
        settings: Settings {
            id: format!("file:{}", absolute.display()),
            path,
            follow: false,
            strict: false,
            parse: Parse::CloudEvents,
        },
        topic: DEFAULT_TOPIC.to_owned(),
        poll: DEFAULT_POLL,
        lines: None,
        reading: None,
    }
}

/// See [`file()`].
#[must_use = "a source does nothing until an app has it"]
pub struct FileSource {
    settings: Settings,
    topic: String,
    poll: Duration,
    /// What was opened before: reading goes on there, if that is still the place.
    lines: Option<Lines>,
    /// What is being read, on a thread that may block, and from which place: kept here so that a call that is dropped loses
    /// nothing.
    reading: Option<(Place, JoinHandle<Read>)>,
}

impl FileSource {
    /// What its place is kept under, instead of `file:` and the absolute path: for a file that may move.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.settings.id = id.into();
        self
    }

    /// The topic that its events go to; `events` if it is not said.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Whether to wait for lines that are added, instead of ending at the end; also for the file itself. A last line
    /// without an end is then still being written. When another file stands under the path, or it was cut, the rest of
    /// the old one is read as far as it is open, then the new one from its beginning.
    pub fn follow(mut self, follow: bool) -> Self {
        self.settings.follow = follow;
        self
    }

    /// How often to look for new lines when it follows; 1 s if it is not said.
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every.max(Duration::from_millis(1));
        self
    }

    /// Stops at a malformed line, with an error that names it. The lines before it are published.
    pub fn strict(mut self) -> Self {
        self.settings.strict = true;
        self
    }

    /// Reads lines of another kind: gets each line that is not blank, without its end. An event without an id of its own
    /// gets one that is made of the source's id and the line's place, so that the line makes the same event each time.
    pub fn map<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        mut self,
        parse: impl Fn(&str) -> Result<Envelope, E> + Send + Sync + 'static,
    ) -> Self {
        self.settings.parse = Parse::of(move |line| parse(line).map_err(Into::into));
        self
    }

    /// Begins to read on from `place`, off the runtime's threads.
    fn begin(&mut self, place: &Place) {
        if self.reading.as_ref().is_none_or(|(from, _)| from != place) {
            let lines = self.lines.take().filter(|lines| lines.place() == *place);
            let reading = Reading { settings: self.settings.clone(), from: place.clone(), lines };
            self.reading = Some((place.clone(), tokio::task::spawn_blocking(|| reading.run())));
        }
    }

    /// What was read on from `place`. Cancel-safe.
    async fn read(&mut self, place: &Place) -> Result<Parsed, SourceError> {
        self.begin(place);
        let Some((_, reading)) = &mut self.reading else { return Ok(Parsed::nothing(place)) };
        let read = reading.await;
        self.reading = None;
        let (lines, parsed) = read.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => SourceError::panicked(&*panic),
            Err(cancelled) => SourceError::transient(cancelled),
        })?;
        self.lines = lines;
        parsed.map_err(FileError::classed)
    }
}

impl Source for FileSource {
    fn id(&self) -> &str {
        &self.settings.id
    }

    fn generate<'a>(
        &'a mut self,
        place: Option<&'a str>,
        clock: &'a Clock,
    ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>> {
        Box::pin(async move {
            let unknown = |_| FileError::Place { place: place.unwrap_or_default().to_owned() }.classed();
            let from = Place::parse(place).map_err(unknown)?;
            loop {
                let Parsed { events, place } = self.read(&from).await?;
                if place != from {
                    // The next batch is read while this one is published.
                    self.begin(&place);
                    return Ok(Some(Batch { topic: self.topic.clone(), events, place: Some(place.to_text()) }));
                }
                if !self.settings.follow {
                    return Ok(None);
                }
                clock.sleep(self.poll).await;
            }
        })
    }
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path: &Path = &self.settings.path;
        f.debug_struct("FileSource").field("id", &self.settings.id).field("path", &path).finish_non_exhaustive()
    }
}
