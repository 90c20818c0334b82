//! The only module that reads the machine's clock. Everything else is given a [`Clock`].
//!
//! Two times, never mixed: **wall** time ([`Clock::now`]) for what people and other machines agree on (when an event was
//! published, when a retry is due), and **monotonic** time ([`Clock::monotonic`]) for how long something took or may
//! take. A step of the wall clock moves schedules, as it should, and never a timeout.

mod paused;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

pub use paused::{NotPaused, PausedClock};

/// The wall clock may be stepped: who waits for a time of it looks again at least this often.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Wall-clock time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This time and `duration` more; stops at the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not (a clock may step back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }

    /// As [`since`](Self::since), in microseconds.
    pub(crate) fn micros_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// RFC 3339 text in UTC, as `CloudEvents` writes `time`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        self.to_string()
    }

    /// Reads RFC 3339 text.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| error.to_string())?;
        Ok(Self(time.as_microsecond()))
    }
}

/// As [`to_rfc3339`](Timestamp::to_rfc3339), without an allocation. A precision is how many digits a second has after the
/// point: `{:.6}` makes all times equally long.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is outside of the years that RFC 3339 can write is shown as its number.
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A wait that a [`Clock`] ends.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// What time it is, and how to wait. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { start: std::time::Instant },
    Manual(ManualClock),
    Paused(PausedClock),
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System { .. } => "Clock::system",
            Source::Manual(_) => "Clock::manual",
            Source::Paused(_) => "Clock::paused",
        })
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The machine's clocks. All of a process tell the same time, the monotonic one too.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn system() -> Self {
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        Self(Source::System { start: *START })
    }

    /// Wall-clock time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let micros = since.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(since.subsec_micros()));
                Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
            }
            Source::Manual(manual) => manual.0.lock().wall,
            Source::Paused(paused) => paused.now(),
        }
    }

    /// Time since an arbitrary start; never steps back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual(manual) => manual.0.lock().monotonic,
            Source::Paused(paused) => paused.monotonic(),
        }
    }

    /// Completes when `duration` of monotonic time has passed.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        match &self.0 {
            Source::System { .. } => Box::pin(tokio::time::sleep(duration)),
            Source::Manual(manual) => Box::pin(manual.sleep(duration)),
            Source::Paused(paused) => Box::pin(paused.sleep(duration)),
        }
    }

    /// Completes when the wall clock shows `time`, or earlier: where it may be stepped, it is to be looked at again.
    #[must_use]
    pub fn sleep_until(&self, time: Timestamp) -> Sleep {
        let wait = time.since(self.now());
        self.sleep(if matches!(self.0, Source::Paused(_)) { wait } else { wait.min(LONGEST_LOOK) })
    }
}

/// Time that moves only when told to: for tests, which then need no real waiting.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Manual>>);

#[derive(Debug)]
struct Manual {
    wall: Timestamp,
    monotonic: Duration,
    next_sleep: u64,
    sleeping: BTreeMap<(Duration, u64), Option<Waker>>,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        let state = Manual { wall, monotonic: Duration::ZERO, next_sleep: 0, sleeping: BTreeMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The clock to hand to the app under test.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    /// Moves both times forward and ends every sleep that is over.
    pub fn advance(&self, duration: Duration) {
        let woken: Vec<Waker> = {
            let mut state = self.0.lock();
            state.wall = state.wall.after(duration);
            state.monotonic += duration;
            let now = state.monotonic;
            let later = state.sleeping.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.sleeping, later).into_values().flatten().collect()
        };
        for waker in woken {
            waker.wake();
        }
    }

    /// Steps the wall clock alone, as an administrator or NTP does.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.lock().wall = wall;
    }

    /// How long until the next sleep ends, if anything sleeps.
    #[must_use]
    pub fn until_next(&self) -> Option<Duration> {
        let state = self.0.lock();
        state.sleeping.keys().next().map(|(due, _)| due.saturating_sub(state.monotonic))
    }

    fn sleep(&self, duration: Duration) -> ManualSleep {
        let mut state = self.0.lock();
        let key = (state.monotonic.saturating_add(duration), state.next_sleep);
        state.next_sleep += 1;
        if !duration.is_zero() {
            state.sleeping.insert(key, None);
        }
        ManualSleep { clock: self.clone(), key }
    }
}

struct ManualSleep {
    clock: ManualClock,
    key: (Duration, u64),
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let mut state = self.clock.0.lock();
        match state.sleeping.get_mut(&self.key) {
            None => Poll::Ready(()),
            Some(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        self.clock.0.lock().sleeping.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_sleep_ends_when_time_is_moved_past_it() {
        let manual = ManualClock::new(Timestamp::from_micros(0));
        let sleep = manual.clock().sleep(Duration::from_secs(2));
        assert_eq!(manual.until_next(), Some(Duration::from_secs(2)));
        manual.advance(Duration::from_secs(1));
        assert_eq!(manual.until_next(), Some(Duration::from_secs(1)));
        manual.advance(Duration::from_secs(1));
        sleep.await;
        assert_eq!(manual.clock().now(), Timestamp::from_micros(2_000_000));
    }

    #[test]
    fn a_step_back_of_the_wall_clock_does_not_move_the_monotonic_one() {
        let manual = ManualClock::new(Timestamp::from_micros(5_000_000));
        manual.advance(Duration::from_secs(1));
        manual.set_wall(Timestamp::from_micros(0));
        assert_eq!(manual.clock().monotonic(), Duration::from_secs(1));
        assert_eq!(manual.clock().now().since(Timestamp::from_micros(7)), Duration::ZERO);
    }

    #[test]
    fn system_clocks_tell_the_same_time() {
        let (earlier, later) = (Clock::system(), Clock::system());
        let (before, between, after) = (earlier.monotonic(), later.monotonic(), earlier.monotonic());
        assert!(before <= between && between <= after, "{before:?} {between:?} {after:?}");
    }

    #[test]
    fn rfc3339_goes_there_and_back() {
        let time = Timestamp::parse_rfc3339("2016-09-04T21:15:19Z").unwrap();
        assert_eq!(time.to_rfc3339(), "2016-09-04T21:15:19Z");
        assert_eq!(format!("{time:.6}"), "2016-09-04T21:15:19.000000Z");
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
    }
}
