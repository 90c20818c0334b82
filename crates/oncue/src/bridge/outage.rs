//! What a bridge waits for: told, and shown, for as long as it does.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::{
    clock::{Clock, Timestamp},
    handler::{Blocked, BlockedHandle},
    policy::exponential,
    transport::{OpenError, PublishError},
};

/// So often it is said again that a bridge still waits.
const REMIND: Duration = Duration::from_secs(60);

/// Why the far side takes nothing.
pub(super) struct Cause {
    /// It was answered, and waiting alone does not help.
    pub(super) refused: bool,
    pub(super) text: String,
}

impl From<OpenError> for Cause {
    fn from(error: OpenError) -> Self {
        // A directory that another process has will be free, and a broker there again.
        let refused = !matches!(error, OpenError::Broker { .. } | OpenError::Directory(_));
        Self { refused, text: error.to_string() }
    }
}

impl From<PublishError> for Cause {
    fn from(error: PublishError) -> Self {
        // A log that is full has room again, and a node that takes no more writes may be started again.
        let passes =
            matches!(error, PublishError::Unreachable(_) | PublishError::Full { .. } | PublishError::Fenced(_));
        Self { refused: !passes, text: error.to_string() }
    }
}

/// The calls of a bridge that wait for its far side.
pub(super) struct Outages {
    waiting: Mutex<Waiting>,
    /// Of all that wait, what is shown: what is refused before what may pass; then, what has waited for the longest time.
    shown: watch::Sender<Option<Blocked>>,
}

#[derive(Default)]
struct Waiting {
    /// By their number. There are no more of them than the handler's concurrency.
    calls: BTreeMap<u64, Blocked>,
    numbers: u64,
    /// What was said last of them, and when: all of them together say it once.
    said: Option<(Timestamp, String)>,
}

impl Default for Outages {
    fn default() -> Self {
        Self { waiting: Mutex::default(), shown: watch::Sender::new(None) }
    }
}

impl Outages {
    pub(super) fn blocked(&self) -> BlockedHandle {
        self.shown.subscribe()
    }

    fn show(&self, waiting: &Waiting) {
        let shown = waiting.calls.values().min_by_key(|blocked| (!blocked.refused, blocked.since));
        self.shown.send_if_modified(|known| {
            let differs = known.as_ref() != shown;
            if differs {
                *known = shown.cloned();
            }
            differs
        });
    }
}

/// One call, while it waits. Dropped, it waits no more.
pub(super) struct Outage<'a> {
    outages: &'a Outages,
    bridge: &'a str,
    clock: &'a Clock,
    number: Option<u64>,
    failures: u32,
    over: bool,
}

impl<'a> Outage<'a> {
    pub(super) fn new(outages: &'a Outages, bridge: &'a str, clock: &'a Clock) -> Self {
        Self { outages, bridge, clock, number: None, failures: 0, over: false }
    }

    /// Says why it waits, if that is new or was said long ago, and waits until it is time to try again.
    pub(super) async fn wait(&mut self, cause: Cause) {
        self.note(cause);
        pause(&mut self.failures, self.clock).await;
    }

    /// The far side has taken what it waited with.
    pub(super) fn over(mut self) {
        self.over = true;
    }

    fn note(&mut self, Cause { refused, text }: Cause) {
        let now = self.clock.now();
        let mut waiting = self.outages.waiting.lock();
        let number = *self.number.get_or_insert_with(|| {
            waiting.numbers += 1;
            waiting.numbers
        });
        let since = waiting.calls.get(&number).map_or(now, |known| known.since);
        let is_known = waiting.said.as_ref().is_some_and(|(at, said)| *said == text && now.since(*at) < REMIND);
        if !is_known {
            if refused {
                tracing::warn!(bridge = self.bridge, reason = text, %since, "the far side refuses events: they wait");
            } else {
                tracing::warn!(bridge = self.bridge, reason = text, %since, "the far side takes no events: they wait");
            }
            waiting.said = Some((now, text.clone()));
        }
        waiting.calls.insert(number, Blocked { since, refused, reason: text });
        self.outages.show(&waiting);
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut waiting = self.outages.waiting.lock();
        waiting.calls.remove(&number);
        self.outages.show(&waiting);
        if self.over && waiting.calls.is_empty() && waiting.said.take().is_some() {
            tracing::info!(bridge = self.bridge, "the far side takes events again");
        }
    }
}

/// Waits longer with each failure, up to [`LONGEST_PAUSE`], and half of it at random.
pub(super) async fn pause(failures: &mut u32, clock: &Clock) {
    *failures = failures.saturating_add(1);
    let pauses = exponential().initial(FIRST_PAUSE).max_delay(LONGEST_PAUSE);
    clock.sleep(pauses.delay(*failures, fastrand::f64())).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn cause(refused: bool, text: &str) -> Cause {
        Cause { refused, text: text.to_owned() }
    }

    #[test]
    fn what_is_refused_is_shown_before_what_is_not_reached_until_it_over() {
        let (manual, outages) = (ManualClock::new(Timestamp::from_micros(0)), Outages::default());
        let clock = manual.clock();
        let begun = clock.now();
        let shown = outages.blocked();
        let mut one = Outage::new(&outages, "there", &clock);
        one.note(cause(false, "nobody answers"));
        manual.advance(Duration::from_secs(1));
        let mut other = Outage::new(&outages, "there", &clock);
        other.note(cause(true, "no right"));
        manual.advance(Duration::from_secs(1));
        one.note(cause(false, "still nobody"));
        assert!(shown.borrow().as_ref().is_some_and(|shown| shown.refused && shown.reason == "no right"));
        drop(other);
        let still = Blocked { since: begun, refused: false, reason: "still nobody".to_owned() };
        assert_eq!(*shown.borrow(), Some(still));
        one.over();
        assert_eq!(*shown.borrow(), None);
    }
}
