//! A dependency that is not there: when it fails follows a law, and from the seed.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use oncue::policy::ErrorClass;
use parking_lot::Mutex;

/// A dependency in one of its lives, as the simulated handler calls it.
pub(super) trait Dependency: Send + Sync {
    /// When events come, in seconds after the beginning.
    fn arrivals(&self) -> Vec<f64>;

    /// How long a call takes.
    fn call_takes(&self) -> Duration;

    /// What it answers to an attempt of an event, `at` seconds after the beginning.
    fn call(&self, event: usize, attempt: u32, at: f64) -> Result<(), ErrorClass>;
}

/// How long events come, in seconds.
pub(super) const SECONDS: f64 = 600.0;
/// Events per second, on average: a Poisson process.
const RATE: f64 = 2.0;
/// The same of an overloaded dependency, outside of its rush and within.
const RATES: [f64; 2] = [4.0, 12.0];
/// When the rush is, in seconds.
const RUSH: [f64; 2] = [120.0, 180.0];
/// Calls per second that an overloaded dependency answers, and how many it may be behind.
const CAPACITY: (f64, f64) = (8.0, 8.0);
/// How long a call takes.
const CALL: Duration = Duration::from_millis(20);
/// What a call that it turns away costs it, in calls.
const TURNED_AWAY: f64 = 0.3;

/// What the dependency goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Every tenth call fails, whatever was before
    Blips,
    /// Down for a minute on average (exponential), every three minutes on average; else every hundredth call fails
    Outage,
    /// It answers 8 calls a second, and turns others away as throttled; for a minute, 12 events come a second instead of 4
    Overload,
    /// As overload, but those that it turns away fail as any others do
    Busy,
    /// Three of a hundred events never work; else every twentieth call fails
    Poison,
    /// Outages, blips of every twentieth call, and one of a hundred events that never works
    Mixed,
}

impl Scenario {
    fn is_overload(self) -> bool {
        matches!(self, Self::Overload | Self::Busy)
    }

    /// (share of calls that fail, share of events that never work, whether there are outages).
    fn law(self) -> (f64, f64, bool) {
        match self {
            Self::Blips => (0.1, 0.0, false),
            Self::Outage => (0.01, 0.0, true),
            Self::Overload | Self::Busy => (0.0, 0.0, false),
            Self::Poison => (0.05, 0.03, false),
            Self::Mixed => (0.05, 0.01, true),
        }
    }
}

/// One life of it. The same seed is the same for every policy: arrivals, outages, events that never work, and each call's luck.
pub(super) struct World {
    scenario: Scenario,
    seed: u64,
    outages: Vec<(f64, f64)>,
    /// Of an overloaded one: when it was called last, and how many calls it can take.
    room: Mutex<(f64, f64)>,
}

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5eed_0001);
        let (mut outages, mut at) = (Vec::new(), 0.0);
        while scenario.law().2 && at < 10.0 * SECONDS {
            let begins = at + exponential(&mut rng, 180.0);
            at = begins + exponential(&mut rng, 60.0);
            outages.push((begins, at));
        }
        Self { scenario, seed, outages, room: Mutex::new((0.0, CAPACITY.1)) }
    }

    fn has_room(&self, at: f64) -> bool {
        let mut room = self.room.lock();
        let left = (room.1 + (at - room.0).max(0.0) * CAPACITY.0).min(CAPACITY.1);
        let answers = left >= 1.0;
        *room = (at, (left - if answers { 1.0 } else { TURNED_AWAY }).max(0.0));
        answers
    }
}

impl Dependency for World {
    fn arrivals(&self) -> Vec<f64> {
        let mut rng = Rng::with_seed(self.seed ^ 0x5eed_0002);
        let (mut arrivals, mut at) = (Vec::new(), 0.0);
        loop {
            let rush = (RUSH[0]..RUSH[1]).contains(&at);
            let rate = if self.scenario.is_overload() { RATES[usize::from(rush)] } else { RATE };
            at += exponential(&mut rng, 1.0 / rate);
            if at >= SECONDS {
                return arrivals;
            }
            arrivals.push(at);
        }
    }

    fn call_takes(&self) -> Duration {
        CALL
    }

    fn call(&self, event: usize, attempt: u32, at: f64) -> Result<(), ErrorClass> {
        let luck = |of: u64| drawn(self.seed, of);
        let (fails, poison, _) = self.scenario.law();
        let event = (event as u64) << 8;
        let is_down = self.outages.iter().any(|(begins, ends)| (*begins..*ends).contains(&at));
        if is_down || luck(event) < poison || luck(event + u64::from(attempt.min(255))) < fails {
            return Err(ErrorClass::Transient);
        }
        if self.scenario.is_overload() && !self.has_room(at) {
            let says_so = self.scenario == Scenario::Overload;
            return Err(if says_so { ErrorClass::Throttled } else { ErrorClass::Transient });
        }
        Ok(())
    }
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// A number of [0, 1) that is drawn for one thing of one life. Generators whose seeds are near to each other begin with numbers
/// that are, so the seed is mixed first (the finalizer of `SplitMix64`).
fn drawn(seed: u64, of: u64) -> f64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(of);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Rng::with_seed(mixed ^ (mixed >> 31)).f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_as_likely_to_fail_whatever_was_before() {
        for seed in 0..30 {
            let world = World::new(Scenario::Blips, seed);
            let fails = |event: usize, attempt: u32| world.call(event, attempt, 0.0).is_err();
            let first: Vec<usize> = (0..5_000).filter(|event| fails(*event, 1)).collect();
            let again = first.iter().filter(|event| fails(**event, 2)).count();
            assert!((400..600).contains(&first.len()), "{} of 5,000 in life {seed}", first.len());
            assert!((20..90).contains(&again), "{again} of {} once more in life {seed}", first.len());
        }
    }
}
