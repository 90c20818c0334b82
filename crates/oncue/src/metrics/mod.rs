//! Response time and throughput per handler, as the model defines them: `ART = Σ Tᵢ / n`, `Throughput = n / t`.

mod histogram;

use std::time::Duration;

use serde::{
    Deserialize, Deserializer,
    de::Error as _,
    ser::{Serialize, SerializeStruct, Serializer},
};

use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
};

pub use histogram::{Histogram, MAX_RELATIVE_ERROR};

/// Layout of [`HandlerStats::encode`].
const LAYOUT: u8 = 3;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The event is handled.
    Acked,
    /// Failed; the event is tried again.
    Retried,
    /// Failed for good; the event is a dead letter.
    Dead,
    /// The handler asked for the event later; no failure.
    Deferred,
}

/// One settled attempt, as its settle record tells it: wall-clock times, all of them in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the event was generated (`CloudEvents` `time`), if it says so.
    pub generated: Option<Timestamp>,
    /// When the event was published (pᵢ).
    pub published: Timestamp,
    /// When the handler was given the event for this attempt (rᵢ).
    pub started: Timestamp,
    /// When the attempt was settled.
    pub settled: Timestamp,
    /// What became of it.
    pub ended: Ended,
    /// The event was finished before: it is a dead letter that is handled again.
    pub again: bool,
}

/// Counts and times of one handler; [merged](Self::merge), of several.
///
/// An event counts once, when it is finished: acked or dead. Its Tᵢ runs from generation (from publishing, if it does not
/// say when it was generated) until then. A dead letter that is handled again was finished before: what comes of it counts
/// in [`again`](Self::again), and its time, in which it lay there until somebody looked, nowhere.
///
/// An event's time *in the system* runs from publishing: the right measure where old events are published, whose age is
/// not the system's doing. That is parted into *handling*, the attempt that finished the event, and *waiting*, all before:
/// queues, failed attempts and the delays between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerStats {
    /// Events handled.
    pub acked: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Events given up on.
    pub dead: u64,
    /// How many of `acked` and `dead` are dead letters that were handled again: events that had counted before.
    pub again: u64,
    /// Attempts put off by the handler itself.
    pub deferred: u64,
    /// Events that were not handled because their time to live was over. They count nowhere else.
    pub expired: u64,
    /// Σ Tᵢ of finished events, in microseconds.
    pub total_us: u128,
    /// The part of [`total_us`](Self::total_us) since publishing.
    pub system_us: u128,
    /// The part of [`system_us`](Self::system_us) that the finishing attempts took.
    pub handling_us: u128,
    /// Time that attempts took that finished no event, in microseconds: those before the finishing one are within the
    /// waiting of their events, those of dead letters that are handled again are not.
    pub unfinished_us: u128,
    /// When the first of the finished events was published.
    pub first_published: Option<Timestamp>,
    /// When the last of them was finished.
    pub last_settled: Option<Timestamp>,
    times: Histogram,
}

impl HandlerStats {
    /// Counts one settled attempt. A clock that stepped back makes a time zero, never negative.
    pub fn record(&mut self, sample: &Sample) {
        let handling = sample.settled.micros_since(sample.started);
        let count = match sample.ended {
            Ended::Acked => &mut self.acked,
            Ended::Dead => &mut self.dead,
            Ended::Retried => &mut self.retried,
            Ended::Deferred => &mut self.deferred,
        };
        *count = count.saturating_add(1);
        let ends = matches!(sample.ended, Ended::Acked | Ended::Dead);
        if sample.again || !ends {
            self.again = self.again.saturating_add(u64::from(ends));
            self.unfinished_us = self.unfinished_us.saturating_add(u128::from(handling));
            return;
        }
        let total = sample.settled.micros_since(sample.generated.unwrap_or(sample.published));
        let system = sample.settled.micros_since(sample.published);
        self.total_us = self.total_us.saturating_add(u128::from(total));
        self.system_us = self.system_us.saturating_add(u128::from(system));
        self.handling_us = self.handling_us.saturating_add(u128::from(handling.min(system)));
        self.times.record(system);
        self.spans(Some(sample.published), Some(sample.settled));
    }

    /// Adds all that `other` counted: another handler, or another instance of the same one.
    pub fn merge(&mut self, other: &Self) {
        self.acked = self.acked.saturating_add(other.acked);
        self.retried = self.retried.saturating_add(other.retried);
        self.dead = self.dead.saturating_add(other.dead);
        self.again = self.again.saturating_add(other.again);
        self.deferred = self.deferred.saturating_add(other.deferred);
        self.expired = self.expired.saturating_add(other.expired);
        self.total_us = self.total_us.saturating_add(other.total_us);
        self.system_us = self.system_us.saturating_add(other.system_us);
        self.handling_us = self.handling_us.saturating_add(other.handling_us);
        self.unfinished_us = self.unfinished_us.saturating_add(other.unfinished_us);
        self.times.merge(&other.times);
        self.spans(other.first_published, other.last_settled);
    }

    fn spans(&mut self, first: Option<Timestamp>, last: Option<Timestamp>) {
        self.first_published = self.first_published.into_iter().chain(first).min();
        self.last_settled = self.last_settled.max(last);
    }

    /// `n`: finished events, acked or dead, each once.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.acked.saturating_add(self.dead).saturating_sub(self.again)
    }

    /// The part of [`system_us`](Self::system_us) before the finishing attempts.
    #[must_use]
    pub fn waiting_us(&self) -> u128 {
        self.system_us.saturating_sub(self.handling_us)
    }

    /// `ART = Σ Tᵢ / n`, the average response time. None before an event is finished.
    #[must_use]
    pub fn art(&self) -> Option<Duration> {
        self.average(self.total_us)
    }

    /// As [`art`](Self::art), each Tᵢ from publishing instead of from generation.
    #[must_use]
    pub fn art_since_published(&self) -> Option<Duration> {
        self.average(self.system_us)
    }

    /// The part of [`art_since_published`](Self::art_since_published) that events wait.
    #[must_use]
    pub fn average_waiting(&self) -> Option<Duration> {
        self.average(self.waiting_us())
    }

    /// The part of [`art_since_published`](Self::art_since_published) that the finishing attempts take.
    #[must_use]
    pub fn average_handling(&self) -> Option<Duration> {
        self.average(self.handling_us)
    }

    fn average(&self, sum_us: u128) -> Option<Duration> {
        let nanos = sum_us.saturating_mul(1_000).checked_div(u128::from(self.finished()))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// `t`: from the first publishing to the last settling of finished events. Includes the time that nothing ran.
    #[must_use]
    pub fn span(&self) -> Option<Duration> {
        Some(self.last_settled?.since(self.first_published?))
    }

    /// `Throughput = n / t`, in events per second. None before an event is finished and while `t` is zero.
    #[must_use]
    pub fn throughput(&self) -> Option<f64> {
        let seconds = self.span()?.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "15 digits are enough for a rate")]
        let finished = self.finished() as f64;
        (seconds > 0.0).then(|| finished / seconds)
    }

    /// The time since publishing within which the share `q` (0 to 1) of finished events were finished, to within
    /// [`MAX_RELATIVE_ERROR`]. `percentile(1.0)` is the longest, exactly.
    #[must_use]
    pub fn percentile(&self, q: f64) -> Option<Duration> {
        self.times.percentile(q).map(Duration::from_micros)
    }

    /// Appends a compact form: about 90 bytes, and 2 to 4 for each bucket of response times in use.
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u8(LAYOUT);
        for count in [self.acked, self.retried, self.dead, self.again, self.deferred, self.expired] {
            out.varint(count);
        }
        for sum in [self.total_us, self.system_us, self.handling_us, self.unfinished_us] {
            out.u128(sum);
        }
        match (self.first_published, self.last_settled) {
            (Some(first), Some(last)) => {
                out.u8(1);
                out.signed(first.as_micros());
                out.signed(last.as_micros());
            }
            _ => out.u8(0),
        }
        self.times.encode(out);
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if from.u8()? != LAYOUT {
            return Err(Malformed("a newer Oncue wrote these statistics"));
        }
        let mut stats = Self {
            acked: from.varint()?,
            retried: from.varint()?,
            dead: from.varint()?,
            again: from.varint()?,
            deferred: from.varint()?,
            expired: from.varint()?,
            total_us: from.u128()?,
            system_us: from.u128()?,
            handling_us: from.u128()?,
            unfinished_us: from.u128()?,
            ..Self::default()
        };
        if from.u8()? != 0 {
            stats.first_published = Some(Timestamp::from_micros(from.signed()?));
            stats.last_settled = Some(Timestamp::from_micros(from.signed()?));
        }
        stats.times = Histogram::decode(from)?;
        if stats.times.count() != stats.finished() {
            return Err(Malformed("a histogram does not fit its counts"));
        }
        Ok(stats)
    }
}

impl Serialize for HandlerStats {
    /// In binary formats the whole, of which [`Deserialize`] makes the same again. Otherwise what reports show: sums in microseconds and counts are there, so that anyone can compute the averages again.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            let mut whole = Writer::default();
            self.encode(&mut whole);
            return serializer.serialize_bytes(whole.as_slice());
        }
        let sum = |micros: u128| u64::try_from(micros).unwrap_or(u64::MAX);
        let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        let mut out = serializer.serialize_struct("HandlerStats", 20)?;
        out.serialize_field("acked", &self.acked)?;
        out.serialize_field("retried", &self.retried)?;
        out.serialize_field("dead", &self.dead)?;
        out.serialize_field("again", &self.again)?;
        out.serialize_field("deferred", &self.deferred)?;
        out.serialize_field("expired", &self.expired)?;
        out.serialize_field("n", &self.finished())?;
        out.serialize_field("total_us_sum", &sum(self.total_us))?;
        out.serialize_field("system_us_sum", &sum(self.system_us))?;
        out.serialize_field("waiting_us_sum", &sum(self.waiting_us()))?;
        out.serialize_field("handling_us_sum", &sum(self.handling_us))?;
        out.serialize_field("unfinished_us_sum", &sum(self.unfinished_us))?;
        out.serialize_field("art_ms", &millis(self.art()))?;
        out.serialize_field("art_since_published_ms", &millis(self.art_since_published()))?;
        out.serialize_field("p50_ms", &millis(self.percentile(0.5)))?;
        out.serialize_field("p90_ms", &millis(self.percentile(0.9)))?;
        out.serialize_field("p99_ms", &millis(self.percentile(0.99)))?;
        out.serialize_field("max_ms", &millis(self.percentile(1.0)))?;
        out.serialize_field("span_s", &self.span().map(|span| span.as_secs_f64()))?;
        out.serialize_field("throughput_per_s", &self.throughput())?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for HandlerStats {
    /// From binary formats: what reports show is not the whole.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = bytes::Bytes::deserialize(deserializer)?;
        Self::decode(&mut Reader::new(&whole)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
