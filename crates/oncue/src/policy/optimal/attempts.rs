//! What is counted of a subscription's attempts: all that the decision model knows of the world.

use std::time::Duration;

use super::{odds::Odds, survival::Survival};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    policy::ErrorClass,
};

/// The classes of errors after which another attempt can help, in the order of the tables.
pub(crate) const CLASSES: [ErrorClass; 4] =
    [ErrorClass::Transient, ErrorClass::Throttled, ErrorClass::Timeout, ErrorClass::Panic];
/// After so long, what was seen counts half.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many observations it weighs that a next failure is of the class of the last.
pub(crate) const SAME_CLASS: f64 = 2.0;

/// Which table a class has.
pub(crate) fn table_of(class: ErrorClass) -> Option<usize> {
    CLASSES.iter().position(|known| *known == class)
}

/// When an attempt was, and its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    pub(crate) number: u32,
    pub(crate) read: Timestamp,
    pub(crate) ended: Timestamp,
}

/// An event that failed: what its next attempt is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) class: ErrorClass,
    /// When it failed first.
    pub(crate) since: Timestamp,
    /// When its last attempt ended.
    pub(crate) ended: Timestamp,
    /// What it calls was down then: how long that lasts says nothing of the event.
    pub(crate) down: bool,
}

/// Attempts of a subscription, counted: how long an event's trouble lasts, by the class of its error; which class follows
/// which; how long outages last. A function of the log's records, so it is the same after a restart.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Attempts {
    /// How first attempts end, and whether what they call is down.
    pub odds: Odds,
    /// How long the trouble of an event lasts, by the class of its error: transient, throttled, timeout, panic.
    pub troubles: [Survival; 4],
    /// How often a class followed a class.
    pub followed: [[f64; 4]; 4],
    /// How long outages last.
    pub outages: Survival,
    /// Retries that were counted, ever.
    pub counted: u64,
    /// Failures since anything worked: when the first ended, and the last.
    run: Option<(Timestamp, Timestamp)>,
    /// When something worked last.
    worked: Timestamp,
    /// When the tables were changed last.
    as_of: Timestamp,
}

impl Attempts {
    /// When an outage began that is not over, as far as is known.
    #[must_use]
    pub fn down_since(&self) -> Option<Timestamp> {
        self.run.filter(|_| self.odds.is_down()).map(|(since, _)| since)
    }

    /// All troubles of events, whatever their class.
    pub(crate) fn of_all_classes(&self) -> Survival {
        let mut all = Survival::default();
        self.troubles.iter().for_each(|of_class| all.merge(of_class));
        all
    }

    /// P(the next failure is of a class | this one was of `class`), by table.
    pub(crate) fn next_class(&self, class: usize) -> [f64; 4] {
        let mut weights = self.followed[class];
        weights[class] += SAME_CLASS;
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    }

    /// An attempt worked; `before` is the trouble that its event was in.
    #[inline]
    pub(crate) fn worked(&mut self, tried: Tried, before: Option<&Trouble>) {
        if let Some((since, last)) = self.run
            && tried.ended >= since
        {
            self.outage_gap(since, last, tried.read, true);
            self.run = None;
            if self.odds.is_down() {
                self.odds.recovered();
            }
        }
        self.worked = self.worked.max(tried.ended);
        self.odds.works(tried.number == 1);
        if let Some(before) = before {
            self.gap(before, tried, None);
        }
    }

    /// An attempt failed. Gives the trouble that its event is in; none if that cannot pass.
    pub(crate) fn failed(&mut self, tried: Tried, class: ErrorClass, before: Option<&Trouble>) -> Option<Trouble> {
        if matches!(class, ErrorClass::Filtered | ErrorClass::Shed) {
            // Nothing was called.
            return None;
        }
        if !class.is_retryable() {
            // The other side answers: it is the event that is wrong.
            self.worked(tried, None);
            return None;
        }
        if tried.ended >= self.worked {
            match self.run {
                Some((since, last)) => {
                    self.outage_gap(since, last, tried.read, false);
                    self.run = Some((since, last.max(tried.ended)));
                }
                None => self.run = Some((tried.ended, tried.ended)),
            }
            if tried.number == 1 {
                self.odds.fails();
            }
        } else if tried.number == 1 {
            self.odds.failed_before();
        }
        if let Some(before) = before {
            self.gap(before, tried, Some(class));
        }
        let since = before.filter(|before| !before.down).map_or(tried.ended, |before| before.since);
        Some(Trouble { class, since, ended: tried.ended, down: self.odds.is_down() })
    }

    /// An event's next attempt after one that failed.
    fn gap(&mut self, before: &Trouble, tried: Tried, class: Option<ErrorClass>) {
        self.counted += 1;
        let Some(table) = table_of(before.class).filter(|_| !before.down) else { return };
        self.age_to(tried.ended);
        if let Some(next) = class.and_then(table_of) {
            self.followed[table][next] += 1.0;
        }
        let since = |time: Timestamp| time.since(before.since).as_secs_f64();
        self.troubles[table].observe(since(before.ended), since(tried.read), class.is_none());
    }

    /// A call during what may be an outage.
    fn outage_gap(&mut self, since: Timestamp, last: Timestamp, read: Timestamp, over: bool) {
        if self.odds.is_down() && read > last {
            self.age_to(read);
            self.outages.observe(last.since(since).as_secs_f64(), read.since(since).as_secs_f64(), over);
        }
    }

    /// What was seen before fades. A clock that steps back changes nothing.
    fn age_to(&mut self, now: Timestamp) {
        let passed = if self.as_of == Timestamp::default() { Duration::ZERO } else { now.since(self.as_of) };
        self.as_of = self.as_of.max(now);
        if passed.is_zero() {
            return;
        }
        let share = (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.troubles.iter_mut().for_each(|of_class| of_class.fade(share));
        self.outages.fade(share);
        self.followed.iter_mut().flatten().for_each(|count| *count *= share);
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.odds.encode(out);
        self.troubles.iter().chain([&self.outages]).for_each(|survival| survival.encode(out));
        self.followed.iter().flatten().for_each(|count| out.u64(count.to_bits()));
        out.varint(self.counted);
        out.u8(u8::from(self.run.is_some()));
        let (since, last) = self.run.unwrap_or_default();
        [since, last, self.worked, self.as_of].iter().for_each(|time| out.signed(time.as_micros()));
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut attempts = Self { odds: Odds::decode(from)?, ..Self::default() };
        for survival in attempts.troubles.iter_mut().chain([&mut attempts.outages]) {
            *survival = Survival::decode(from)?;
        }
        for count in attempts.followed.iter_mut().flatten() {
            *count = f64::from_bits(from.u64()?);
            if !(count.is_finite() && *count >= 0.0) {
                return Err(Malformed("a count of attempts is none"));
            }
        }
        attempts.counted = from.varint()?;
        let runs = from.u8()? != 0;
        let mut time = || from.signed().map(Timestamp::from_micros);
        let run = (time()?, time()?);
        attempts.run = runs.then_some(run);
        (attempts.worked, attempts.as_of) = (time()?, time()?);
        Ok(attempts)
    }
}

impl Trouble {
    pub(crate) fn encode(trouble: Option<&Self>, out: &mut Writer) {
        let Some(Self { class, since, ended, down }) = trouble else { return out.u8(0) };
        out.u8(*class as u8);
        out.signed(since.as_micros());
        out.signed(ended.as_micros());
        out.u8(u8::from(*down));
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let code = from.u8()?;
        if code == 0 {
            return Ok(None);
        }
        let class = ErrorClass::from_code(code).ok_or(Malformed("a class of errors is not known"))?;
        let (since, ended) = (Timestamp::from_micros(from.signed()?), Timestamp::from_micros(from.signed()?));
        Ok(Some(Self { class, since, ended, down: from.u8()? != 0 }))
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
