//! When a breaker opens and closes: a state machine to which time is told.

use std::{collections::VecDeque, time::Duration};

/// When a breaker opens, and when it closes again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many calls are looked back on.
    pub(super) window: usize,
    /// How many of them there must be before their failures count.
    pub(super) minimum: usize,
    /// The share of failures that opens it.
    pub(super) share: f64,
    pub(super) open_for: Duration,
    /// Calls that try while it is half-open, and all must succeed.
    pub(super) probes: usize,
}

/// What a call tells of what is behind the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Works,
    Fails,
    /// Nothing: it was dropped, or put off.
    Unknown,
}

/// Whether a call may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may; its verdict counts in this term.
    Pass(u64),
    /// Not before this has passed.
    Later(Duration),
    /// Others try: what becomes of them decides.
    Others,
}

#[derive(Debug)]
pub(super) enum State {
    Closed(Window),
    /// Until then, in monotonic time.
    Open(Duration),
    HalfOpen {
        /// Calls that try now.
        running: usize,
        /// Those that worked.
        worked: usize,
    },
}

/// The last calls, as long as it is closed.
#[derive(Debug, Default)]
pub(super) struct Window {
    failed: VecDeque<bool>,
    failures: usize,
}

impl Window {
    fn add(&mut self, failed: bool, limits: &Limits) {
        if self.failed.len() >= limits.window && self.failed.pop_front() == Some(true) {
            self.failures -= 1;
        }
        self.failed.push_back(failed);
        self.failures += usize::from(failed);
    }

    #[expect(clippy::cast_precision_loss, reason = "as many calls as are looked back on, far below 2⁵²")]
    fn is_too_bad(&self, limits: &Limits) -> bool {
        let calls = self.failed.len();
        self.failures > 0 && calls >= limits.minimum && self.failures as f64 >= limits.share * calls as f64
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    limits: Limits,
    state: State,
    /// Counts the changes of state. What a call of an earlier term tells comes too late.
    term: u64,
}

impl Machine {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Closed(Window::default()), term: 0 }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Counts up with each change of the state.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Whether a call may pass now. The first one after the time is over makes it half-open.
    pub(super) fn enter(&mut self, now: Duration) -> Entry {
        match &mut self.state {
            State::Closed(_) => Entry::Pass(self.term),
            State::Open(until) if now < *until => Entry::Later(*until - now),
            State::Open(_) => {
                self.change(State::HalfOpen { running: 1, worked: 0 });
                Entry::Pass(self.term)
            }
            State::HalfOpen { running, worked } if *running + *worked < self.limits.probes => {
                *running += 1;
                Entry::Pass(self.term)
            }
            State::HalfOpen { .. } => Entry::Others,
        }
    }

    /// A call that passed has ended.
    pub(super) fn leave(&mut self, term: u64, verdict: Verdict, now: Duration) {
        if term != self.term {
            return;
        }
        let open = State::Open(now.saturating_add(self.limits.open_for));
        match (&mut self.state, verdict) {
            (State::Closed(window), Verdict::Works | Verdict::Fails) => {
                window.add(verdict == Verdict::Fails, &self.limits);
                if window.is_too_bad(&self.limits) {
                    self.change(open);
                }
            }
            (State::HalfOpen { .. }, Verdict::Fails) => self.change(open),
            (State::HalfOpen { running, worked }, _) => {
                *running -= 1;
                *worked += usize::from(verdict == Verdict::Works);
                if *worked >= self.limits.probes {
                    self.change(State::Closed(Window::default()));
                }
            }
            (State::Closed(_), Verdict::Unknown) | (State::Open(_), _) => {}
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.term += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { window: 4, minimum: 3, share: 0.4, open_for: Duration::from_secs(10), probes: 2 };
    const NOW: Duration = Duration::from_secs(100);

    fn passed(machine: &mut Machine, now: Duration) -> u64 {
        match machine.enter(now) {
            Entry::Pass(term) => term,
            other => panic!("{other:?}"),
        }
    }

    fn after(verdicts: &[Verdict]) -> Machine {
        let mut machine = Machine::new(LIMITS);
        for verdict in verdicts {
            let term = passed(&mut machine, NOW);
            machine.leave(term, *verdict, NOW);
        }
        machine
    }

    #[test]
    fn it_opens_when_the_share_of_failures_is_reached_and_not_before_there_are_enough_calls() {
        use Verdict::{Fails, Unknown, Works};
        let is_open = |verdicts: &[Verdict]| matches!(after(verdicts).state(), State::Open(_));
        assert!(!is_open(&[Fails, Fails]), "too few to say");
        assert!(is_open(&[Fails, Fails, Fails]));
        assert!(!is_open(&[Fails, Works, Works]));
        assert!(is_open(&[Works, Fails, Works, Fails]), "two of four");
        assert!(!is_open(&[Fails, Works, Works, Works, Fails]), "the first one is out of the window");
        assert!(!is_open(&[Fails, Unknown, Unknown, Unknown, Fails, Unknown]), "what says nothing does not count");
    }

    #[test]
    fn after_its_time_as_many_as_the_probes_try_and_all_must_work() {
        let mut machine = after(&[Verdict::Fails; 3]);
        assert_eq!(machine.enter(NOW + Duration::from_secs(3)), Entry::Later(Duration::from_secs(7)));
        let later = NOW + LIMITS.open_for;
        let probes = [passed(&mut machine, later), passed(&mut machine, later)];
        assert_eq!(machine.enter(later), Entry::Others);
        machine.leave(probes[0], Verdict::Works, later);
        assert_eq!(machine.enter(later), Entry::Others, "it has done its part");
        machine.leave(probes[1], Verdict::Unknown, later);
        let again = passed(&mut machine, later);
        machine.leave(again, Verdict::Works, later);
        assert!(matches!(machine.state(), State::Closed(_)));
        let term = passed(&mut machine, later);
        machine.leave(term, Verdict::Fails, later);
        assert!(matches!(machine.state(), State::Closed(_)), "earlier failures are forgotten");
    }

    #[test]
    fn a_probe_that_fails_opens_it_anew_and_later_verdicts_of_others_do_not_count() {
        let mut machine = after(&[Verdict::Works]);
        let early: Vec<u64> = (0..4).map(|_| passed(&mut machine, NOW)).collect();
        for term in &early[..2] {
            machine.leave(*term, Verdict::Fails, NOW);
        }
        assert!(matches!(machine.state(), State::Open(_)));
        let later = NOW + LIMITS.open_for;
        let probes = [passed(&mut machine, later), passed(&mut machine, later)];
        machine.leave(early[2], Verdict::Fails, later);
        assert!(matches!(machine.state(), State::HalfOpen { .. }), "a call from before it opened");
        machine.leave(probes[0], Verdict::Fails, later);
        assert_eq!(machine.enter(later), Entry::Later(LIMITS.open_for));
        machine.leave(probes[1], Verdict::Works, later);
        assert_eq!(machine.enter(later), Entry::Later(LIMITS.open_for));
    }

    proptest! {
        #[test]
        fn whatever_happens_an_open_breaker_lets_nothing_pass_and_a_half_open_one_no_more_than_its_probes(
            story in proptest::collection::vec((0_u64..4, 0_usize..6, 0_u8..3), 1..200),
        ) {
            let mut machine = Machine::new(LIMITS);
            let (mut now, mut running): (Duration, Vec<(u64, bool)>) = (NOW, Vec::new());
            for (seconds, which, verdict) in story {
                now += Duration::from_secs(seconds);
                let open = match machine.state() { State::Open(until) => now < *until, _ => false };
                match machine.enter(now) {
                    Entry::Pass(term) => {
                        prop_assert!(!open);
                        running.push((term, matches!(machine.state(), State::HalfOpen { .. })));
                    }
                    Entry::Later(wait) => prop_assert!(open && wait <= LIMITS.open_for),
                    Entry::Others => prop_assert!(running.iter().any(|(term, _)| *term == machine.term()), "nobody tries"),
                }
                let trying = running.iter().filter(|(term, probe)| *probe && *term == machine.term()).count();
                prop_assert!(trying <= LIMITS.probes);
                if which < running.len() {
                    let (term, _) = running.swap_remove(which);
                    machine.leave(term, [Verdict::Works, Verdict::Fails, Verdict::Unknown][usize::from(verdict)], now);
                }
            }
        }
    }
}
