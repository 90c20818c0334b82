//! How fast that may be called which turns calls away as too many.
//!
//! It is a queue whose server tells nothing but when it is full. Who calls at the rate that it answers loses nothing and waits
//! least: calls then wait before it, where they cost it nothing and use up no attempt. So the rate is what was answered between
//! calls that were turned away; and since more may be answered by now, it grows until one is turned away again.

use std::time::Duration;

use super::model::SHORTEST_S;

/// So many of the times between calls that were turned away are remembered.
const REMEMBERED: f64 = 8.0;
/// The rate rests on so many answered calls at most: it doubles whenever as many as it rests on were answered without any being
/// turned away. What lies further apart are two bouts, and nothing is learned of what was between.
const MOST: f64 = 50.0;
/// The same in seconds; and the longest that a call waits behind another: what is slower than that counts as down.
const BOUT_S: f64 = 10.0;
/// Calls are not paced where so few are turned away: growing turns about as many away.
const FEW: f64 = 0.125;
/// A call that failed and does not say that there are too many counts as so much of one that does: about every second one has
/// to fail before it is tried whether fewer calls fail less.
const MAY_BE: f64 = 0.4;
/// How many calls are remembered of those that went at once, and of those that were paced.
const CALLS: [f64; 2] = [32.0, 64.0];
/// Before any was seen, so many calls were not turned away.
const PRIOR: f64 = 16.0;
/// Where waiting did not help, it is tried again after so many calls that went at once were turned away; twice as many after
/// each time that it did not, up to the second number.
const TRIED_AGAIN: [u32; 2] = [16, 512];

/// How many calls were turned away, of the last ones.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    turned_away: f64,
    calls: f64,
}

impl Share {
    fn see(&mut self, turned_away: f64, most: f64) {
        self.calls += 1.0;
        self.turned_away += turned_away;
        if self.calls > most {
            self.turned_away *= most / self.calls;
            self.calls = most;
        }
    }

    fn of_calls(self) -> f64 {
        self.turned_away / (self.calls + PRIOR)
    }
}

/// What is known since a call was turned away first. Time is told to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Calls that were answered between some that were turned away, and the seconds in which they were.
    answered: f64,
    seconds: f64,
    /// When a call was turned away last; none if what was since tells nothing.
    since: Option<Duration>,
    /// Calls that were answered since.
    after: f64,
    /// When the next call may go.
    next: Duration,
    /// Of calls that went at once.
    free: Share,
    /// Of calls that waited for their turn.
    paced: Share,
    /// Calls that are to be turned away before waiting is tried again.
    untried: u32,
    /// The same, after the next time that it does not help; 0 while it does.
    next_untried: u32,
}

impl Pace {
    /// Whether calls are paced: many are turned away, and as far as is known not half as many of those that wait.
    pub(super) fn helps(&self) -> bool {
        self.untried == 0 && self.free.of_calls() > FEW
    }

    /// Calls per second; none while nothing is known.
    fn rate(&self) -> Option<f64> {
        let answered = self.answered.max(1.0);
        let grown = answered / self.seconds * (self.after / answered).exp2();
        (self.seconds > 0.0).then(|| grown.max(1.0 / BOUT_S))
    }

    /// A call goes, or how long it has to wait.
    pub(super) fn enter(&mut self, now: Duration) -> Option<Duration> {
        let rate = self.rate().filter(|_| self.helps())?;
        if now < self.next {
            return Some(self.next - now);
        }
        // Who comes late because timers are coarse is made up for.
        let late = now.saturating_sub(Duration::from_secs_f64(SHORTEST_S));
        self.next = self.next.max(late) + Duration::from_secs_f64(1.0 / rate);
        None
    }

    /// A call was answered, whatever the answer; `paced`: it had waited.
    pub(super) fn answered(&mut self, paced: bool) {
        self.tells(paced, 0.0);
        self.after += 1.0;
    }

    /// A call was turned away, or failed as one may that is; `says_so`: as too many.
    pub(super) fn turned_away(&mut self, (paced, says_so): (bool, bool), now: Duration) {
        self.tells(paced, if says_so { 1.0 } else { MAY_BE });
        let (last, answered) = (self.since.replace(now), std::mem::take(&mut self.after));
        let Some(last) = last else { return };
        let seconds = now.saturating_sub(last).as_secs_f64();
        // It could have answered more, had it been asked: what is less than is known counts within a bout only.
        let is_more = self.seconds > 0.0 && answered * self.seconds > self.answered * seconds;
        if !is_more && (seconds > BOUT_S || answered > MOST) {
            return;
        }
        let fades = 1.0 - 1.0 / REMEMBERED;
        self.answered = self.answered * fades + answered;
        self.seconds = self.seconds * fades + seconds;
        if self.answered > MOST {
            self.seconds *= MOST / self.answered;
            self.answered = MOST;
        }
        self.next = now + self.rate().map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
    }

    /// It was down: what was since the last call that was turned away tells nothing.
    pub(super) fn interrupted(&mut self) {
        self.since = None;
        self.after = 0.0;
    }

    /// Who turns calls away by chance, or for what others do, does it however slowly they come: to slow down would only be to
    /// wait.
    fn tells(&mut self, paced: bool, turned_away: f64) {
        let is_turned_away = turned_away > 0.0;
        if !paced {
            self.free.see(turned_away, CALLS[0]);
            self.untried = self.untried.saturating_sub(u32::from(is_turned_away));
            return;
        }
        self.paced.see(turned_away, CALLS[1]);
        if is_turned_away && self.paced.of_calls() >= self.free.of_calls() / 2.0 {
            self.paced = Share::default();
            self.untried = self.next_untried.max(TRIED_AGAIN[0]);
            self.next_untried = (2 * self.untried).min(TRIED_AGAIN[1]);
        } else if self.paced.calls >= CALLS[0] {
            self.next_untried = 0;
        }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
