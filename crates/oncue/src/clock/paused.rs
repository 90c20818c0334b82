//! Time that moves by itself, from one timer to the next, whenever nothing else can go on.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use super::{Clock, Source, Timestamp};

/// The runtime's timers have ticks of a millisecond.
const TICK: Duration = Duration::from_millis(1);

/// The time of a runtime that is paused (`#[tokio::test(start_paused = true)]`): it stands still as long as any task of
/// the runtime, or anything on its blocking pool, can go on; then it jumps to the next timer. So a test that waits for
/// something gets it at once, in the order of time, and without a race. Timers of tokio itself run in the same time.
///
/// It goes in whole milliseconds. What waits for the outside (a socket, a thread of its own) does not hold it up.
#[derive(Clone, Debug)]
pub struct PausedClock(Arc<Paused>);

/// The runtime's time goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "time is not paused: write `#[tokio::test(start_paused = true)]`, which takes tokio's feature `test-util` and a \
     runtime of one thread"
)]
pub struct NotPaused;

#[derive(Debug)]
struct Paused {
    wall: Timestamp,
    start: Instant,
    stopped: Mutex<Stopped>,
}

/// Ticks that the runtime made and that do not count; see [`PausedClock::settle`].
#[derive(Debug, Default)]
struct Stopped {
    /// How long it was stopped before.
    before: Duration,
    /// Since when it is stopped, if it is, and by how many.
    now: Option<(Instant, usize)>,
}

impl PausedClock {
    /// A clock that shows `wall` now, and goes on with the time of the runtime that this is called on.
    ///
    /// # Errors
    /// That time is not paused.
    #[expect(clippy::disallowed_methods, reason = "to see that the runtime's time stands still, another one must move")]
    pub fn new(wall: Timestamp) -> Result<Self, NotPaused> {
        let (start, real) = (Instant::now(), std::time::Instant::now());
        while real.elapsed().is_zero() {
            std::hint::spin_loop();
        }
        if Instant::now() != start {
            return Err(NotPaused);
        }
        Ok(Self(Arc::new(Paused { wall, start, stopped: Mutex::default() })))
    }

    /// The clock to hand to the app under test.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Source::Paused(self.clone()))
    }

    /// Lets everything run that can, while this clock stands still.
    pub async fn settle(&self) {
        let _stop = Stop::of(self);
        // It ends when nothing else can go on: only then does the runtime make a tick.
        tokio::time::sleep(TICK).await;
    }

    /// Moves time forward. What is due meanwhile runs when it is due, and so does what is due at the end.
    pub async fn advance(&self, duration: Duration) {
        self.sleep(duration).await;
        self.settle().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.wall.after(self.monotonic())
    }

    pub(super) fn monotonic(&self) -> Duration {
        let stopped = self.0.stopped.lock();
        let now = stopped.now.map_or_else(Instant::now, |(since, _)| since);
        now.duration_since(self.0.start).saturating_sub(stopped.before)
    }

    pub(super) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + Sync + use<> {
        let clock = self.clone();
        let end = self.monotonic().saturating_add(duration);
        async move {
            // The runtime may have made ticks that do not count.
            while let Some(left) = end.checked_sub(clock.monotonic()).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left).await;
            }
        }
    }
}

/// The clock stands still until this is dropped.
struct Stop<'c>(&'c PausedClock);

impl<'c> Stop<'c> {
    fn of(clock: &'c PausedClock) -> Self {
        let mut stopped = clock.0.stopped.lock();
        stopped.now = match stopped.now {
            None => Some((Instant::now(), 1)),
            Some((since, by)) => Some((since, by + 1)),
        };
        Self(clock)
    }
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let mut stopped = self.0.0.stopped.lock();
        stopped.now = match stopped.now {
            Some((since, by)) if by > 1 => Some((since, by - 1)),
            Some((since, _)) => {
                stopped.before += since.elapsed();
                None
            }
            None => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn paused() -> PausedClock {
        PausedClock::new(Timestamp::from_micros(0)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_runs_in_the_order_of_time_and_up_to_the_end_of_it() {
        let paused = paused();
        let (told, mut heard) = mpsc::channel(10);
        for seconds in [3, 1, 2, 4] {
            let (clock, told) = (paused.clock(), told.clone());
            tokio::spawn(async move {
                clock.sleep(Duration::from_secs(seconds)).await;
                tokio::task::yield_now().await;
                told.send((seconds, clock.monotonic())).await.unwrap();
            });
        }
        paused.advance(Duration::from_secs(3)).await;
        for seconds in 1..=3 {
            assert_eq!(heard.try_recv(), Ok((seconds, Duration::from_secs(seconds))));
        }
        assert!(heard.try_recv().is_err(), "the fourth is not due");
        assert_eq!(paused.clock().now(), Timestamp::from_micros(3_000_000));
        paused.advance(Duration::from_secs(1)).await;
        assert_eq!(heard.try_recv(), Ok((4, Duration::from_secs(4))));
    }

    #[tokio::test(start_paused = true)]
    async fn settling_takes_no_time_even_of_those_who_sleep() {
        let paused = paused();
        let (told, mut heard) = mpsc::channel(1);
        let clock = paused.clock();
        tokio::spawn(async move {
            clock.sleep(Duration::from_millis(1)).await;
            told.send(clock.monotonic()).await.unwrap();
        });
        for _ in 0..100 {
            paused.settle().await;
        }
        assert!(heard.try_recv().is_err(), "no time has passed");
        paused.advance(Duration::from_millis(1)).await;
        assert_eq!(heard.try_recv(), Ok(Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_waits_for_the_blocking_pool() {
        let paused = paused();
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let clock = paused.clock();
        let blocking = tokio::task::spawn_blocking(move || {
            wait.recv().unwrap();
            clock.monotonic()
        });
        // Another thread lets it go, at a moment of its own.
        let other = std::thread::spawn(move || go.send(()).unwrap());
        paused.advance(Duration::from_secs(60)).await;
        assert_eq!(blocking.await.unwrap(), Duration::ZERO);
        other.join().unwrap();
    }

    #[tokio::test]
    async fn time_that_goes_on_is_refused() {
        assert_eq!(PausedClock::new(Timestamp::from_micros(0)).unwrap_err(), NotPaused);
    }
}
