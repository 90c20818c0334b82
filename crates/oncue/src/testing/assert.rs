//! Assertions that say what was seen when they fail.

use std::fmt::Debug;

use super::TestApp;
use crate::{event::Event, receipt::EventOutcome};

impl TestApp {
    /// Exactly these events of type `E` were published, in this order, by the test or by handlers.
    ///
    /// # Panics
    /// They were not.
    #[track_caller]
    pub fn assert_published<E: Event + PartialEq + Debug>(&self, expected: &[E]) {
        let published = self.published::<E>();
        assert!(
            published == expected,
            "other events were published:\n  expected {expected:#?}\n  published {published:#?}\n{}",
            self.seen()
        );
    }

    /// A handler has acked this many events.
    ///
    /// # Panics
    /// It has not, or there is no such handler.
    #[track_caller]
    pub fn assert_acked(&self, handler: &str, expected: usize) {
        let acked = self.settled(handler).iter().filter(|settled| settled.outcome == EventOutcome::Acked).count();
        self.assert_count(handler, "acked", acked, expected);
    }

    /// A handler has given up on this many events, which are dead letters now.
    ///
    /// # Panics
    /// It has not, or there is no such handler.
    #[track_caller]
    pub fn assert_dead(&self, handler: &str, expected: usize) {
        self.assert_count(handler, "dead letters", self.dead(handler).len(), expected);
    }

    /// A handler was called this often, for all its events together, attempts that the test made fail included.
    ///
    /// # Panics
    /// It was not, or there is no such handler.
    #[track_caller]
    pub fn assert_attempts(&self, handler: &str, expected: usize) {
        self.assert_count(handler, "attempts", self.attempts(handler).len(), expected);
    }

    /// Every handler is through with every event that it takes; dead letters count as that.
    ///
    /// # Panics
    /// One is not.
    #[track_caller]
    pub fn assert_idle(&self) {
        let unfinished = self.unfinished();
        assert!(unfinished.is_empty(), "not idle:\n  {}\n{}", unfinished.join("\n  "), self.seen());
    }

    #[track_caller]
    fn assert_count(&self, handler: &str, what: &str, found: usize, expected: usize) {
        assert!(found == expected, "handler `{handler}`: {found} {what}, expected {expected}\n{}", self.seen());
    }
}
