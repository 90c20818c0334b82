//! When events were published: no two of a process at the same time, so that their order is known where nothing else says it.

use std::sync::atomic::{AtomicI64, Ordering};

use oncue::{Clock, clock::Timestamp};

pub(super) struct Stamps {
    clock: Clock,
    /// Everything before was given.
    next: AtomicI64,
}

/// Microseconds, one for each of the events that are published together.
#[derive(Clone, Copy)]
pub(super) struct Stamp(i64);

impl Stamps {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, next: AtomicI64::new(i64::MIN) }
    }

    /// Of so many events. Where more than a million come in a second, the last ones are ahead of the clock.
    pub(super) fn take(&self, events: usize) -> Stamp {
        let (now, events) = (self.clock.now().as_micros(), i64::try_from(events).unwrap_or(i64::MAX));
        let after = |next: i64| Some(next.max(now).saturating_add(events));
        let before = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        // The update always gives a number.
        Stamp(before.unwrap_or(now).max(now))
    }
}

impl Stamp {
    pub(super) fn of(self, index: usize) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(i64::try_from(index).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use oncue::clock::ManualClock;

    use super::*;

    #[test]
    fn no_two_events_have_a_stamp_and_later_ones_have_later_ones() {
        let manual = ManualClock::new(Timestamp::from_micros(50));
        let stamps = Stamps::new(manual.clock());
        let (first, second) = (stamps.take(3), stamps.take(2));
        let given = [first.of(0), first.of(2), second.of(0), second.of(1)].map(Timestamp::as_micros);
        assert_eq!(given, [50, 52, 53, 54]);
        manual.advance(std::time::Duration::from_secs(1));
        assert_eq!(stamps.take(1).of(0).as_micros(), 1_000_050);
    }
}
