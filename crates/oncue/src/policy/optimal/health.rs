//! Whether what handlers call is up, who may try it while it is down, and how fast it may be called if it turns calls away: a
//! state machine to which time is told.

use std::{sync::Arc, time::Duration};

use super::{learned::Probes, odds::Odds, pace::Pace};

/// What a call tells of what it called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Works,
    /// It failed in a way that may pass.
    Fails,
    /// It was turned away, since there are too many.
    Throttled,
    /// Nothing: it was dropped, or put off.
    Unknown,
}

/// A call that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Counts the probes and the outages: what an earlier one tells comes too late.
    term: u64,
    pub(crate) probes: bool,
    /// It waited for its turn, and is none of those that go as they come.
    paced: bool,
}

/// Whether a call may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Pass(Pass),
    /// Not before this has passed.
    Later(Duration),
    /// Others are before it.
    Others,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    since: Duration,
    /// When the next call may try.
    next: Duration,
    trying: bool,
    /// How many tried.
    tried: u32,
}

/// What is known of it, now.
#[derive(Debug, Default)]
pub(crate) struct Health {
    odds: Odds,
    outage: Option<Outage>,
    /// When the first call failed since one worked.
    failing_since: Option<Duration>,
    term: u64,
    /// None until a call fails.
    pace: Option<Pace>,
    /// Calls that wait.
    pub(crate) waiting: usize,
    /// When to try; none until it is computed.
    pub(crate) probes: Option<Arc<Probes>>,
    /// How long it was until the next try, when a call ended last.
    pub(crate) rest: Option<Duration>,
}

impl Health {
    pub(crate) fn is_down(&self) -> bool {
        self.outage.is_some()
    }

    /// What the log says of it when a subscription starts: if it was down, one call tries at once.
    pub(crate) fn begin(&mut self, odds: Odds, down_for: Option<Duration>, now: Duration) {
        if self.odds == Odds::default() {
            self.odds = odds;
        }
        if let (Some(age), None) = (down_for, self.outage) {
            self.odds = odds;
            self.term += 1;
            self.outage = Some(Outage { since: now.saturating_sub(age), next: now, trying: false, tried: 0 });
        }
    }

    /// A call that comes now: it goes at once, unless others wait.
    pub(crate) fn come(&mut self, now: Duration) -> Entry {
        if self.waiting > 0 { Entry::Others } else { self.enter(now, false) }
    }

    /// The call whose turn it is, or which `waited` for none.
    pub(crate) fn enter(&mut self, now: Duration, waited: bool) -> Entry {
        let Some(outage) = &mut self.outage else {
            let Some(pace) = &mut self.pace else {
                return Entry::Pass(Pass { term: self.term, probes: false, paced: false });
            };
            let paced = waited && pace.helps();
            let pass = Pass { term: self.term, probes: false, paced };
            return pace.enter(now).map_or(Entry::Pass(pass), Entry::Later);
        };
        if outage.trying {
            return Entry::Others;
        }
        if now < outage.next {
            return Entry::Later(outage.next - now);
        }
        outage.trying = true;
        self.term += 1;
        Entry::Pass(Pass { term: self.term, probes: true, paced: false })
    }

    /// A call that went has ended; `first`: it was its event's first attempt.
    pub(crate) fn leave(&mut self, pass: Pass, verdict: Verdict, first: bool, now: Duration) {
        let tries = pass.probes && pass.term == self.term;
        match verdict {
            Verdict::Unknown => {
                if let (Some(outage), true) = (&mut self.outage, tries) {
                    outage.trying = false;
                }
            }
            Verdict::Works => {
                if tries {
                    self.odds.recovered();
                }
                self.odds.works(first);
                if let Some(pace) = self.pace.as_mut().filter(|_| !pass.probes) {
                    pace.answered(pass.paced);
                }
                self.failing_since = None;
                if self.outage.is_some() && !self.odds.is_down() {
                    self.outage = None;
                    self.odds.recovered();
                    self.term += 1;
                    if let Some(pace) = &mut self.pace {
                        pace.interrupted();
                    }
                }
            }
            Verdict::Fails | Verdict::Throttled => {
                let says_so = verdict == Verdict::Throttled;
                // That an event fails again tells of the event, unless it was told otherwise.
                if self.outage.is_none() && (says_so || first) {
                    self.pace.get_or_insert_default().turned_away((pass.paced, says_so), now);
                }
                self.fails(first, tries, now);
            }
        }
        self.rest = self
            .outage
            .map(|outage| if outage.trying { self.pause(&outage, now) } else { outage.next.saturating_sub(now) });
    }

    fn fails(&mut self, first: bool, tries: bool, now: Duration) {
        let since = *self.failing_since.get_or_insert(now);
        if first {
            self.odds.fails();
        }
        match self.outage {
            None if self.odds.is_down() => {
                self.term += 1;
                let outage = Outage { since, next: now, trying: false, tried: 0 };
                self.outage = Some(Outage { next: now + self.pause(&outage, now), ..outage });
            }
            Some(outage) if tries => {
                let outage = Outage { trying: false, tried: outage.tried.saturating_add(1), ..outage };
                self.outage = Some(Outage { next: now + self.pause(&outage, now), ..outage });
            }
            _ => {}
        }
    }

    /// How long to wait before the next try.
    fn pause(&self, outage: &Outage, now: Duration) -> Duration {
        let age = now.saturating_sub(outage.since);
        match &self.probes {
            Some(probes) => probes.pause(age, self.waiting, outage.tried),
            None => crate::policy::exponential().delay(outage.tried.saturating_add(1), 0.0),
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
