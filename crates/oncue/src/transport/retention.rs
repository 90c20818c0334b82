//! What a topic keeps.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// What a topic keeps of its events.
///
/// - [`forever`](Self::forever): all of them.
/// - [`settled`](Self::settled): those that a subscription of the topic is not through with. A topic without subscriptions
///   keeps all: one may come, and begin at the earliest.
/// - With a limit of [age](Self::age) or of [bytes](Self::bytes), what is older, or more, goes **whether it is settled or
///   not**, as in Kafka and `JetStream`. A subscription that was not through with it goes on at the first event that is kept; how
///   many it missed is counted ([`SubscriptionInfo::missed`](super::SubscriptionInfo::missed)), logged and alerted.
///
/// Dead letters and the state of keys are copies: they stay.
///
/// ```
/// use std::time::Duration;
/// use oncue::transport::Retention;
///
/// let week = Retention::forever().age(Duration::from_secs(7 * 86_400));
/// assert_eq!(week.to_string(), "7d");
/// assert_eq!(week.bytes(10 << 30).to_string(), "7d, 10GiB");
/// assert_eq!(Retention::settled().to_string(), "settled");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// What every subscription is through with goes.
    settled: bool,
    /// What was published so many seconds ago goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_s: Option<u64>,
    /// The newest events stay that take so many bytes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl Retention {
    /// Keeps every event.
    #[must_use]
    pub const fn forever() -> Self {
        Self { settled: false, age_s: None, bytes: None }
    }

    /// Keeps what a subscription is not through with.
    #[must_use]
    pub const fn settled() -> Self {
        Self { settled: true, age_s: None, bytes: None }
    }

    /// Also drops what was published so long ago, settled or not; at least a second.
    #[must_use]
    pub fn age(self, age: Duration) -> Self {
        Self { age_s: Some(age.as_secs().max(1)), ..self }
    }

    /// Also drops the oldest events, settled or not, so that the others take at most about so many bytes. Counted are the events
    /// of the topic alone, as they are in the log; how much of the disk is taken is another question (`docs/operations.md`).
    #[must_use]
    pub const fn bytes(self, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// Whether what every subscription is through with goes.
    #[must_use]
    pub const fn drops_settled(&self) -> bool {
        self.settled
    }

    /// The age that events reach.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.age_s.map(Duration::from_secs)
    }

    /// How many bytes the events may take.
    #[must_use]
    pub const fn max_bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether nothing ever goes.
    #[must_use]
    pub fn is_forever(&self) -> bool {
        *self == Self::forever()
    }

    /// As a URL or a configuration file says it: which of the two, and the limits. Nothing if that says nothing. A limit
    /// alone keeps everything up to it.
    pub(crate) fn said(settled: Option<bool>, age_s: Option<u64>, bytes: Option<u64>) -> Option<Self> {
        let says = settled.is_some() || age_s.is_some() || bytes.is_some();
        says.then_some(Self { settled: settled.unwrap_or(false), age_s, bytes })
    }
}

/// As people read it: `forever`, `settled`, `7d`, `settled, 7d, 10GiB`.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.settled.then(|| "settled".to_owned()));
        parts.extend(self.age_s.map(|age| in_units(age, &AGES)));
        parts.extend(self.bytes.map(|bytes| in_units(bytes, &SIZES)));
        if parts.is_empty() { f.write_str("forever") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Who says what a topic keeps. What comes later in this list wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionFrom {
    /// The URL of the transport, or its default.
    #[default]
    Url,
    /// The app: `App::retention`.
    Code,
    /// The configuration file: `[topics.NAME]`.
    Config,
    /// `Bus::set_retention`, remembered with the topic.
    RunTime,
    /// The broker that carries the topic: what it keeps is set there, and not known here.
    Broker,
}

impl fmt::Display for RetentionFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "url",
            Self::Code => "code",
            Self::Config => "config",
            Self::RunTime => "run time",
            Self::Broker => "broker",
        })
    }
}

/// Units by their names, largest first.
type Units<const N: usize> = [(&'static str, u64); N];

const AGES: Units<5> = [("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SIZES: Units<5> = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL_SIZES: Units<4> = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

/// In the largest unit that it is a whole number of; weeks are days.
fn in_units<const N: usize>(number: u64, units: &Units<N>) -> String {
    let fits = |(name, unit): &&(&str, u64)| *name != "w" && number > 0 && number.is_multiple_of(*unit);
    let (name, unit) = units.iter().find(fits).or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", number / unit)
}

fn number_of(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, name) = text.split_at(digits);
    let unit = units.iter().find(|(known, _)| *known == name.trim()).map(|(_, unit)| *unit)?;
    u64::from_str(number).ok()?.checked_mul(unit)
}

/// Reads an age in seconds: `7d`, `36h`.
///
/// # Errors
/// What would be right.
pub(crate) fn age(text: &str) -> Result<u64, String> {
    let age = number_of(text, &AGES).filter(|age| *age > 0);
    age.ok_or_else(|| {
        format!("{text:?} is not an age such as \"7d\", \"36h\" or \"90m\": a number and w, d, h, m or s")
    })
}

/// Reads a number of bytes: `10GiB`, `500MB`, `1048576`.
///
/// # Errors
/// What would be right.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let plain = text.parse::<u64>().ok();
    let bytes = plain.or_else(|| number_of(text, &SIZES)).or_else(|| number_of(text, &DECIMAL_SIZES));
    bytes.ok_or_else(|| {
        format!("{text:?} is not a size such as \"10GiB\", \"500MB\" or 1048576: a number and KiB, MiB, GiB, TiB, kB, MB, GB or TB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read_as_they_are_written() {
        for (text, seconds) in [("7d", 604_800), ("2w", 1_209_600), ("36h", 129_600), ("90m", 5_400), ("1s", 1)] {
            assert_eq!(age(text), Ok(seconds));
            let kept = Retention::forever().age(Duration::from_secs(seconds));
            assert_eq!(age(&kept.to_string()), Ok(seconds), "{kept}");
        }
        for (text, size) in [("10GiB", 10 << 30), ("500MB", 500_000_000), ("1536", 1_536), ("3 KiB", 3_072), ("0", 0)] {
            assert_eq!(bytes(text), Ok(size));
            let kept = Retention::forever().bytes(size);
            assert_eq!(bytes(&kept.to_string()), Ok(size), "{kept}");
        }
        for text in ["", "7", "d", "7 days", "1.5h", "-1d", "0d", "99999999999999999999d", "999999999999999999w"] {
            assert!(age(text).unwrap_err().contains("such as"), "{text}");
        }
        for text in ["", "GiB", "10 gigs", "1.5GiB", "-1", "99999999999TiB"] {
            assert!(bytes(text).unwrap_err().contains("such as"), "{text}");
        }
    }

    #[test]
    fn all_of_it_survives_json() {
        let kept = Retention::settled().age(Duration::from_secs(90)).bytes(5);
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(json, r#"{"settled":true,"age_s":90,"bytes":5}"#);
        assert_eq!(serde_json::from_str::<Retention>(&json).unwrap(), kept);
        assert_eq!(serde_json::to_string(&Retention::forever()).unwrap(), r#"{"settled":false}"#);
    }
}
