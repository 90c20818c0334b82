//! `file:PATH` and `memory:`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use super::dedup::WindowWish;
use crate::transport::{OpenError, Retention, retention, without_secrets};

/// Most bytes that a log in memory holds, unless its URL says otherwise.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;

/// From how many subscriptions of a topic on one reader serves them, unless the URL says otherwise.
const DEFAULT_FEED_FROM: usize = 8;

/// How many delayed events of a subscription are held in memory, unless the URL says otherwise: 4 MiB.
const DEFAULT_DELAYED_HELD: usize = 1 << 17;

/// A parsed `file:` or `memory:` URL.
///
/// Options, as a query:
/// - `durability=disk|os`: what an acknowledgement promises; `file:` only, `disk` by default;
/// - `partitions=N`: of topics made from now on, 16 by default;
/// - `dedup_seconds=N` and `dedup_ids=N`: the window in which a repeated `source` and `id` is a duplicate. The log keeps
///   what it is told; one that was never told has 120 and 100,000;
/// - `retention=forever|settled`: topics keep everything (the default of `file:`), or only what a subscription is not through
///   with (the default of `memory:`);
/// - `retain=AGE` (`7d`, `36h`, `90m`) and `retain_bytes=SIZE` (`10GiB`, `500MB`): of each topic, what is older or more goes,
///   settled or not; without `retention`, all the rest is kept. Of single topics the app may say something else
///   ([`Retention`]);
/// - `feed_from=N`: from so many subscriptions of a topic on, one reader reads for all of them that keep up; 8 by
///   default;
/// - `delayed_held=N`: so many delayed events of a subscription, the earliest, are held in memory, with 32 bytes each; the
///   others are looked for in the log when their time comes near; 131,072 by default;
/// - `max_bytes=N`: publishing is refused beyond this; 1 GiB by default on `memory:`, none on `file:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogUrl {
    /// The directory; none is memory.
    pub(super) directory: Option<PathBuf>,
    pub(super) durability: oncue_log::Durability,
    pub(super) partitions: u16,
    pub(super) window: WindowWish,
    settled: Option<bool>,
    retain_s: Option<u64>,
    retain_bytes: Option<u64>,
    /// A topic with so many subscriptions has one reader for all of them that keep up.
    pub(super) feed_from: usize,
    /// Delayed events of a subscription that are held in memory.
    pub(super) delayed_held: usize,
    /// Publishing answers `Full` beyond this.
    pub(super) max_bytes: Option<u64>,
}

impl LogUrl {
    /// A log in memory: gone with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            directory: None,
            durability: oncue_log::Durability::Os,
            partitions: 16,
            window: WindowWish::default(),
            settled: None,
            retain_s: None,
            retain_bytes: None,
            feed_from: DEFAULT_FEED_FROM,
            delayed_held: DEFAULT_DELAYED_HELD,
            max_bytes: Some(DEFAULT_MEMORY_BYTES),
        }
    }

    /// A log in a directory, which is made if it does not exist.
    #[must_use]
    pub fn file(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
            durability: oncue_log::Durability::Disk,
            max_bytes: None,
            ..Self::memory()
        }
    }

    /// Whether it names a log in memory.
    /// The directory that the log is in; nothing for one in memory.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.directory.is_none()
    }

    /// What topics keep of which nothing else is said.
    pub(super) fn retention(&self) -> Retention {
        let default = if self.is_memory() { Retention::settled() } else { Retention::forever() };
        Retention::said(self.settled, self.retain_s, self.retain_bytes).unwrap_or(default)
    }

    /// What topics keep of which nothing else is said.
    #[must_use]
    pub fn retain(mut self, retention: Retention) -> Self {
        self.settled = Some(retention.drops_settled());
        self.retain_s = retention.max_age().map(|age| age.as_secs());
        self.retain_bytes = retention.max_bytes();
        self
    }

    /// How far back publishing the same `source` and `id` again is recognised: by age and by number, whichever is
    /// smaller. The log keeps it, for those who open it without saying so.
    #[must_use]
    pub fn dedup_window(mut self, age: Duration, ids: usize) -> Self {
        self.window = WindowWish { age_us: Some(micros(age)), ids: Some(ids as u64) };
        self
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number =
            |what: &str| value.parse::<u64>().map_err(|_| format!("`{name}={value}`: {what} is a whole number"));
        match (name, value) {
            ("durability", "disk") if self.directory.is_some() => self.durability = oncue_log::Durability::Disk,
            ("durability", "os") if self.directory.is_some() => self.durability = oncue_log::Durability::Os,
            ("durability", _) => return Err("`durability` is `disk` or `os`, and only of `file:`".to_owned()),
            ("partitions", _) => {
                let count = u16::try_from(number("the number of partitions")?).ok().filter(|count| *count > 0);
                self.partitions = count.ok_or("`partitions` is 1 to 65535")?;
            }
            ("dedup_seconds", _) => {
                self.window.age_us = Some(micros(Duration::from_secs(number("a number of seconds")?)));
            }
            ("dedup_ids", _) => self.window.ids = Some(number("a number of ids")?),
            ("retention", "forever") => self.settled = Some(false),
            ("retention", "settled") => self.settled = Some(true),
            ("retention", _) => return Err("`retention` is `forever` or `settled`".to_owned()),
            ("retain", _) => self.retain_s = Some(retention::age(value)?),
            ("retain_bytes", _) => self.retain_bytes = Some(retention::bytes(value)?),
            ("feed_from", _) => {
                let from = usize::try_from(number("a number of subscriptions")?).ok().filter(|from| *from > 0);
                self.feed_from = from.ok_or("`feed_from` is 1 or more")?;
            }
            ("delayed_held", _) => {
                let held = usize::try_from(number("a number of events")?).ok().filter(|held| *held > 0);
                self.delayed_held = held.ok_or("`delayed_held` is 1 or more")?;
            }
            ("max_bytes", _) => self.max_bytes = Some(number("a number of bytes")?),
            _ => {
                return Err(format!(
                    "unknown option `{name}`; known are durability, partitions, dedup_seconds, dedup_ids, retention, retain, retain_bytes, feed_from, delayed_held, max_bytes"
                ));
            }
        }
        Ok(())
    }
}

fn micros(age: Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

impl std::fmt::Display for LogUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.directory {
            // Two slashes behind the colon say nothing of the directory.
            Some(directory) if directory.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "file://{}", directory.display())
            }
            Some(directory) => write!(f, "file:{}", directory.display()),
            None => f.write_str("memory:"),
        }
    }
}

impl FromStr for LogUrl {
    type Err = OpenError;

    fn from_str(url: &str) -> Result<Self, OpenError> {
        let invalid = |reason: &str| OpenError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once(':').ok_or_else(|| invalid("no scheme; write `file:PATH` or `memory:`"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let mut parsed = match (scheme, path) {
            ("memory", "") => Self::memory(),
            ("memory", _) => return Err(invalid("`memory:` has no path")),
            ("file", "") => return Err(invalid("no directory; write `file:PATH`, such as `file:./data`")),
            ("file", path) => Self::file(path),
            (other, _) => return Err(OpenError::UnknownScheme { url: without_secrets(url), scheme: other.to_owned() }),
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            parsed.option(name, value).map_err(|reason| invalid(&reason))?;
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        assert_eq!("memory:".parse::<LogUrl>().unwrap(), LogUrl::memory());
        assert_eq!("file:./data".parse::<LogUrl>().unwrap(), LogUrl::file("./data"));
        assert_eq!("file:///var/lib/x".parse::<LogUrl>().unwrap(), LogUrl::file("/var/lib/x"));
        let options: LogUrl = "file:x?durability=os&partitions=4&dedup_seconds=5&dedup_ids=6".parse().unwrap();
        assert_eq!((options.durability, options.partitions), (oncue_log::Durability::Os, 4));
        for (url, kept) in [
            ("file:x", "forever"),
            ("file:x?retention=settled", "settled"),
            ("file:x?retain=7d&retain_bytes=10GiB", "7d, 10GiB"),
            ("memory:", "settled"),
            ("memory:?retain=90m", "90m"),
            ("memory:?retention=settled&retain=90m", "settled, 90m"),
        ] {
            assert_eq!(url.parse::<LogUrl>().unwrap().retention().to_string(), kept, "{url}");
        }
        let kept = Retention::settled().bytes(5);
        assert_eq!(LogUrl::file("x").retain(kept).retention(), kept);
        assert_eq!(options.window, WindowWish { age_us: Some(5_000_000), ids: Some(6) });
    }

    #[test]
    fn wrong_urls_say_what_would_be_right() {
        for (url, hint) in [
            ("data", "file:PATH"),
            ("file:", "file:./data"),
            ("memory:x", "no path"),
            ("kafka://x", "known are"),
            ("file:x?durability=tape", "`disk` or `os`"),
            ("memory:?durability=disk", "only of `file:`"),
            ("file:x?partitions=0", "1 to 65535"),
            ("file:x?retain=7", "such as"),
            ("file:x?retain_bytes=ten", "such as"),
            ("file:x?colour=red", "unknown option `colour`"),
        ] {
            let error = url.parse::<LogUrl>().unwrap_err().to_string();
            assert!(error.contains(hint), "{url}: {error}");
        }
    }
}
