//! How large the limit is: a function of what calls told, to which no clock and no chance belongs.

use crate::handler::{LimitReason, LimitState};

/// A look takes so many calls at least, and twice as many as may run at once.
const WINDOW: u32 = 50;
/// How much of the way to what a look says the limit goes.
const SMOOTHING: f64 = 0.2;
/// The least gradient: no look asks for less than a fifth.
const LEAST_GRADIENT: f64 = 0.2;
/// What is left of the limit after a look in which a call was throttled or took too long.
const BACKOFF: f64 = 0.8;
/// How much of the way the latency without load follows a look that was faster.
const FALL: f64 = 0.1;
/// After so many looks the latency without load is measured again, or when the limit is half of what it was then.
const PROBE_EVERY: u32 = 40;

/// What the user set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) initial: usize,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) tolerance: f64,
}

/// What a call told of what it called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    /// It worked, and took so many seconds.
    Latency(f64),
    /// It was throttled, or took too long.
    Overload,
    /// Nothing: it failed otherwise, was dropped, or put off.
    Nothing,
}

/// What the calls of a look told.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    calls: u32,
    seconds: f64,
    overloads: u32,
    /// Most that ran at once.
    busiest: usize,
}

impl Window {
    fn mean(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.seconds / f64::from(self.calls))
    }
}

/// Half of the limit for a while, to see how long calls take then.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// What the limit was before.
    before: f64,
    /// So many calls are left out first: those that end first are the short ones.
    skip: usize,
}

/// L, and what it follows from.
#[derive(Debug)]
pub(super) struct Gradient {
    bounds: Bounds,
    /// L. While it is probed, half of what it will be again.
    limit: f64,
    probing: Option<Probe>,
    /// w₀, in seconds.
    no_load: Option<f64>,
    /// w of the last look, in seconds.
    latency: Option<f64>,
    window: Window,
    /// Looks since the last probe, and L then.
    since: (u32, f64),
    /// Counts the probes' beginnings and ends: calls of before say nothing of how it is without load.
    term: u64,
    reason: LimitReason,
    decided: [u64; LimitReason::ALL.len()],
}

impl Gradient {
    pub(super) fn new(bounds: Bounds) -> Self {
        // What is said wrong is told at the start, and must do no harm until then.
        let bounds = Bounds { max: bounds.max.max(bounds.min), ..bounds };
        let limit = as_f64(bounds.initial.clamp(bounds.min, bounds.max));
        Self {
            bounds,
            limit,
            // The first look is a probe: what is known of no load must come from somewhere.
            probing: Some(Probe { before: limit, skip: 2 * whole(limit) }),
            no_load: None,
            latency: None,
            window: Window::default(),
            since: (0, limit),
            term: 0,
            reason: LimitReason::Initial,
            decided: [0; LimitReason::ALL.len()],
        }
    }

    /// How many calls may run at once.
    pub(super) fn limit(&self) -> usize {
        whole(self.limit).clamp(self.bounds.min, self.bounds.max)
    }

    /// What a call that begins now gives back when it ends.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    pub(super) fn state(&self) -> LimitState {
        let time =
            |seconds: Option<f64>| seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
        LimitState {
            limit: self.limit(),
            reason: self.reason,
            latency: time(self.latency),
            no_load: time(self.no_load),
            decided: self.decided,
        }
    }

    /// A call ended, while `running` ran, itself included. Whether something was decided by that.
    pub(super) fn ended(&mut self, term: u64, told: Told, running: usize) -> bool {
        self.window.busiest = self.window.busiest.max(running);
        let mut enough = WINDOW.max(u32::try_from(2 * self.limit()).unwrap_or(u32::MAX));
        if let Some(probe) = &mut self.probing {
            if term != self.term || told == Told::Nothing {
                return false;
            }
            if probe.skip > 0 && told != Told::Overload {
                probe.skip -= 1;
                return false;
            }
            enough = WINDOW;
        }
        match told {
            Told::Latency(seconds) => {
                self.window.calls += 1;
                self.window.seconds += seconds;
            }
            Told::Overload => self.window.overloads += 1,
            Told::Nothing => return false,
        }
        if self.window.calls + self.window.overloads < enough {
            return false;
        }
        let window = std::mem::take(&mut self.window);
        self.latency = window.mean().or(self.latency);
        let reason = match self.probing.take() {
            Some(probe) => self.probed(probe.before, &window),
            None => self.look(&window),
        };
        self.decide(reason);
        true
    }

    /// L ← L + s (g·L + √L − L), g = τ·w₀/w within [⅕, 1].
    fn look(&mut self, window: &Window) -> LimitReason {
        let before = self.limit;
        let (wanted, reason) = match window.mean() {
            Some(latency) if window.overloads == 0 => {
                let no_load = self.no_load.map_or(latency, |known| known + FALL * (latency - known).min(0.0));
                self.no_load = Some(no_load);
                let gradient = if latency > 0.0 { self.bounds.tolerance * no_load / latency } else { 1.0 };
                let target = before * gradient.clamp(LEAST_GRADIENT, 1.0) + before.sqrt();
                let reason = if target < before { LimitReason::Latency } else { LimitReason::Grew };
                (before + SMOOTHING * (target - before), reason)
            }
            _ => (before * BACKOFF, LimitReason::Overload),
        };
        let unused = wanted > before && 2 * window.busiest < self.limit();
        if !unused {
            self.limit = wanted.clamp(as_f64(self.bounds.min), as_f64(self.bounds.max));
        }
        self.since.0 += 1;
        if self.since.0 >= PROBE_EVERY || self.limit < self.since.1 / 2.0 {
            let before = self.limit;
            self.limit = (before / 2.0).max(as_f64(self.bounds.min));
            self.probing = Some(Probe { before, skip: 2 * self.limit() });
            self.term += 1;
            return LimitReason::Probing;
        }
        if unused { LimitReason::Unused } else { reason }
    }

    /// What half of it measured is how long calls take without load.
    fn probed(&mut self, before: f64, window: &Window) -> LimitReason {
        let (after, reason) =
            if window.overloads > 0 { (before * BACKOFF, LimitReason::Overload) } else { (before, LimitReason::Grew) };
        self.no_load = window.mean().or(self.no_load);
        self.limit = after.max(as_f64(self.bounds.min));
        self.since = (0, self.limit);
        self.term += 1;
        reason
    }

    fn decide(&mut self, reason: LimitReason) {
        self.reason = reason;
        if let Some(decided) =
            LimitReason::ALL.iter().position(|known| *known == reason).and_then(|at| self.decided.get_mut(at))
        {
            *decided += 1;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "calls at once, far below 2⁵²")]
fn as_f64(calls: usize) -> f64 {
    calls as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between the bounds, which are such numbers"
)]
fn whole(limit: f64) -> usize {
    limit.round() as usize
}

#[cfg(test)]
#[path = "gradient_tests.rs"]
mod tests;
