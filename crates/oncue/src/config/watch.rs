//! Telling when a configuration file says something else.

use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use xxhash_rust::xxh3::xxh3_128;

use super::{Config, ConfigError, bytes_of};
use crate::clock::{Clock, Timestamp};

/// The shortest time between two looks.
const MIN_EVERY: Duration = Duration::from_millis(10);
/// A file that was written this long ago shows a further write by its time: no file system counts time in larger steps.
const TIME_STEP: Duration = Duration::from_secs(2);

/// Watches a configuration file by looking at it every so often (at least 10 ms), as `clock` counts.
///
/// Nothing is read before the first [`changed`](Watch::changed), which tells at once what the file says: start the
/// watch beside [`Config::read`], and no change between the two is lost.
#[must_use]
pub fn watch(path: impl Into<PathBuf>, clock: Clock, every: Duration) -> Watch {
    let due = clock.monotonic();
    let seen = Seen { stamp: None, content: Content::Unknown };
    Watch { path: path.into(), clock, every: every.max(MIN_EVERY), due, seen, in_doubt: false }
}

/// A configuration file that is watched; see [`watch`].
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    clock: Clock,
    every: Duration,
    /// When to look next, in monotonic time: kept here, so that dropping the future puts no look off.
    due: Duration,
    seen: Seen,
    /// Whether the last look found what may be the middle of somebody's writing.
    in_doubt: bool,
}

/// What was told last.
#[derive(Clone, Debug)]
struct Seen {
    /// None: read the file, whatever its metadata.
    stamp: Option<Stamp>,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Nothing was told.
    Unknown,
    /// The content with this hash.
    Hash(u128),
    /// That it cannot be read.
    Unreadable,
}

/// What tells a file's content from another one without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
    /// Another file that took its place has another one, where the file system keeps it.
    created: Option<SystemTime>,
}

/// What a look found.
enum Look {
    /// The content that was told.
    Same(Option<Stamp>),
    Other {
        stamp: Option<Stamp>,
        hash: u128,
        is_empty: bool,
        config: Box<Result<Config, ConfigError>>,
    },
}

impl Watch {
    /// Waits for the file to have another content than the one that was told last, and tells it. The first call tells
    /// what it is now.
    ///
    /// A file that is missing, unreadable or empty is given until the next look: it may be about to be replaced or
    /// written. Cancel-safe: dropping the future loses no change.
    ///
    /// # Errors
    /// The new content is wrong, or the file cannot be read: told once. Keep what was there before, log the error, and
    /// call again; it goes on when there is a content that can be read, even if that is the one from before.
    pub async fn changed(&mut self) -> Result<Config, ConfigError> {
        loop {
            self.clock.sleep(self.due.saturating_sub(self.clock.monotonic())).await;
            let (path, seen, now) = (self.path.clone(), self.seen.clone(), self.clock.now());
            let looked = tokio::task::spawn_blocking(move || look(&path, &seen, now)).await;
            self.due = self.clock.monotonic().saturating_add(self.every);
            let looked = looked.unwrap_or_else(|_| Err(io::Error::other("the runtime shuts down")));
            if let Some(told) = self.take(looked) {
                return told;
            }
        }
    }

    /// What a look means: none if there is nothing to tell.
    fn take(&mut self, looked: io::Result<Look>) -> Option<Result<Config, ConfigError>> {
        let is_doubtful = matches!(looked, Err(_) | Ok(Look::Other { is_empty: true, .. }));
        let was_in_doubt = std::mem::replace(&mut self.in_doubt, is_doubtful);
        match looked {
            Ok(Look::Same(stamp)) => {
                self.seen.stamp = stamp;
                None
            }
            _ if is_doubtful && !was_in_doubt => {
                self.seen.stamp = None;
                None
            }
            Ok(Look::Other { stamp, hash, config, .. }) => {
                self.seen = Seen { stamp, content: Content::Hash(hash) };
                Some(*config)
            }
            Err(error) => {
                let earlier = std::mem::replace(&mut self.seen, Seen { stamp: None, content: Content::Unreadable });
                let path = self.path.display().to_string();
                (earlier.content != Content::Unreadable).then_some(Err(ConfigError::Read { path, error }))
            }
        }
    }
}

/// Looks at the file: at its metadata, and if these do not settle it, at its content. Blocks.
fn look(path: &Path, seen: &Seen, now: Timestamp) -> io::Result<Look> {
    let stamp = stamp(&fs::metadata(path)?, now);
    if stamp.is_some() && stamp == seen.stamp {
        return Ok(Look::Same(stamp));
    }
    let file = File::open(path)?;
    // Of the opened file: another one may have taken its name since. Before the content: what is written after this
    // shows at the next look.
    let stamp = self::stamp(&file.metadata()?, now);
    let bytes = bytes_of(&file)?;
    let hash = xxh3_128(&bytes);
    if seen.content == Content::Hash(hash) {
        return Ok(Look::Same(stamp));
    }
    let config = Box::new(Config::of_bytes(&bytes, &path.display().to_string()));
    Ok(Look::Other { stamp, hash, is_empty: bytes.is_empty(), config })
}

/// None if a further write could leave the metadata as they are.
fn stamp(metadata: &Metadata, now: Timestamp) -> Option<Stamp> {
    let modified = metadata.modified().ok()?;
    let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let is_settled = Timestamp::default().after(since_1970).after(TIME_STEP) < now;
    is_settled.then(|| Stamp { bytes: metadata.len(), modified, created: metadata.created().ok() })
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
