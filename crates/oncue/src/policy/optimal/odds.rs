//! Whether something is down: a sequential test (Wald) of what its calls tell.

use crate::codec::{Malformed, Reader, Writer};

/// ln of the odds that a dependency that works goes down with its next call: 1 to 99.
const LEAST: f64 = -4.595;
/// It counts as down from odds of 19 to 1 on.
const DOWN: f64 = 2.944;
/// P(a call works | it is down).
const WORKS_THOUGH_DOWN: f64 = 0.02;
/// So many calls are remembered of how often calls fail while it is up.
const MEMORY: u32 = 1_000;
/// How often calls fail while it is up, before any was seen: as many failures, in as many calls.
const PRIOR: (f64, f64) = (1.0, 20.0);

/// How first attempts ended, and the odds that what they call is down.
///
/// Each first attempt that fails adds ln((1 − ε)/f), each call that works takes ln((1 − f)/ε) off: f is how often first
/// attempts fail while all is well, ε how often calls work though it is down. Later attempts that fail say nothing: it may be
/// the event.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Odds {
    /// First attempts that worked, of those that are remembered.
    pub worked: u32,
    /// First attempts that failed.
    pub failed: u32,
    /// First attempts that failed since something worked: they count when something does, unless it was an outage.
    pending: u32,
    log: f64,
}

impl Default for Odds {
    fn default() -> Self {
        Self { worked: 0, failed: 0, pending: 0, log: LEAST }
    }
}

impl Odds {
    /// f: how often a first attempt fails while all is well.
    #[must_use]
    pub fn failing_share(&self) -> f64 {
        let (failed, calls) = (f64::from(self.failed), f64::from(self.failed) + f64::from(self.worked));
        ((PRIOR.0 + failed) / (PRIOR.1 + calls)).clamp(0.005, 0.9)
    }

    /// Whether it counts as down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.log >= DOWN
    }

    /// A first attempt failed in a way that may be the fault of what is called.
    pub(crate) fn fails(&mut self) {
        let weight = ((1.0 - WORKS_THOUGH_DOWN) / self.failing_share()).ln();
        self.pending = self.pending.saturating_add(1);
        self.log = (self.log + weight.max(0.0)).min(2.0 * DOWN);
    }

    /// A first attempt failed, and something has worked since.
    pub(crate) fn failed_before(&mut self) {
        self.failed = self.failed.saturating_add(1).min(MEMORY);
    }

    /// A call worked: its first attempt or a later one.
    #[inline]
    pub(crate) fn works(&mut self, first: bool) {
        if first {
            self.worked += 1;
            if self.worked > MEMORY {
                self.worked /= 2;
                self.failed /= 2;
            }
        }
        if self.pending > 0 {
            self.failed = self.failed.saturating_add(std::mem::take(&mut self.pending)).min(MEMORY);
        }
        if self.log > LEAST {
            let weight = ((1.0 - self.failing_share()) / WORKS_THOUGH_DOWN).ln();
            self.log = (self.log - weight.max(1.0)).max(LEAST);
        }
    }

    /// It was down and works again.
    pub(crate) fn recovered(&mut self) {
        self.log = LEAST;
        self.pending = 0;
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.worked));
        out.varint(u64::from(self.failed));
        out.varint(u64::from(self.pending));
        out.u64(self.log.to_bits());
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (worked, failed, pending) = (from.small()?, from.small()?, from.small()?);
        let odds = Self { worked, failed, pending, log: f64::from_bits(from.u64()?) };
        if !odds.log.is_finite() {
            return Err(Malformed("the odds of an outage are no number"));
        }
        Ok(odds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(worked: usize, failed: usize) -> Odds {
        let mut odds = Odds::default();
        (0..worked).for_each(|_| odds.works(true));
        (0..failed).for_each(|_| odds.fails());
        odds
    }

    #[test]
    fn the_rarer_failures_are_the_fewer_tell_of_an_outage() {
        let needed = |worked, failed| {
            let mut odds = after(worked, 0);
            odds.failed = failed;
            (1..100).find(|_| {
                odds.fails();
                odds.is_down()
            })
        };
        assert_eq!(needed(0, 0), Some(3), "nothing is known yet");
        assert_eq!(needed(900, 0), Some(2));
        assert!((5..=6).contains(&needed(400, 100).unwrap()), "every fifth fails anyhow");
    }

    #[test]
    fn one_that_works_takes_back_what_failures_said() {
        let mut odds = after(20, 1);
        odds.works(true);
        odds.fails();
        assert!(!odds.is_down());
    }

    #[test]
    fn a_handler_that_fails_every_other_time_is_not_down() {
        let mut odds = Odds::default();
        for _ in 0..500 {
            odds.fails();
            odds.works(true);
            assert!(!odds.is_down());
        }
    }
}
