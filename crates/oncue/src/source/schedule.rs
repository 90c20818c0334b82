//! Events on a schedule: at intervals, or by a cron expression.

use std::time::Duration;

use super::{Batch, CronError, Source, SourceError, cron::Due};
use crate::{
    clock::{Clock, Timestamp},
    event::{Envelope, IntoEvent, InvalidEvent},
    transport::BoxFuture,
};

/// How late a tick may be with [`Missed::Skip`].
const ON_TIME: Duration = Duration::from_secs(10);
/// A schedule is wall time, a sleep is not: after a step of the wall clock this is how long it goes unnoticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Most ticks of one batch.
const MAX_BATCH_TICKS: usize = 512;

/// What becomes of ticks that fell due while nobody was there: the app was down, the log was full, or the wall clock
/// stepped forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// They are left out: a tick that is more than 10 s late is not fired.
    Skip,
    /// The latest of them is fired, in place of all.
    #[default]
    Latest,
    /// All are fired, one after the other, each with its own due time.
    All,
}

/// One due time of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When it was due; it may be later by now.
    pub due: Timestamp,
    /// The tick before that was fired, or left out with those that were missed; the first start of the source, if there
    /// was none. What happened after it, up to `due`, is this one's.
    pub previous: Timestamp,
}

type Make = Box<dyn FnMut(Tick) -> Result<(&'static str, Envelope), InvalidEvent> + Send>;

/// A source that generates an event at each multiple of `every` since 1970-01-01T00:00:00Z: each 15 minutes is at :00, :15,
/// :30 and :45. Less than a millisecond counts as one.
///
/// What [`cron`] says of ticks holds here too.
pub fn interval<E: IntoEvent>(
    id: impl Into<String>,
    every: Duration,
    make: impl FnMut(Tick) -> E + Send + 'static,
) -> Schedule {
    Schedule::new(id.into(), Due::every(every), make)
}

/// A source that generates an event by a cron expression: `minute hour day-of-month month day-of-week`, such as
/// `0 9 * * MON-FRI`, or six fields that begin with the second. Names, lists, ranges, steps, `L`, `W` and `#` are understood,
/// and `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. In UTC, unless [`Schedule::time_zone`] says otherwise: there, a
/// time that a change of the clocks skips is due right after it, and one that comes twice is due once.
///
/// **Each tick is fired once.** Its place is the last due time, written with the event; and the event, unless it brings an
/// id of its own, gets one that is made of the source's id and the due time, so that two instances with one log make one
/// event. Its `time`, unless it brings one, is the due time. Nothing is due before the first start of the source.
///
/// **When the wall clock steps** forward, the ticks in between were missed ([`Schedule::missed`]). When it steps back,
/// nothing is due until it has passed the last due time again. A step is noticed within a second.
///
/// ```
/// use oncue::{prelude::*, source};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "report.due")]
/// struct ReportDue { day: String }
///
/// # fn doc() -> oncue::Result<()> {
/// let reports = source::cron("daily-report", "0 9 * * MON-FRI", |tick| ReportDue { day: tick.due.to_rfc3339() })?;
/// let reports = reports.time_zone("Europe/Berlin")?;
/// # let _ = reports;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// It is no cron expression, or it is never due.
pub fn cron<E: IntoEvent>(
    id: impl Into<String>,
    expression: &str,
    make: impl FnMut(Tick) -> E + Send + 'static,
) -> Result<Schedule, CronError> {
    Ok(Schedule::new(id.into(), Due::cron(expression)?, make))
}

/// See [`interval`] and [`cron`].
#[must_use = "a source does nothing until an app has it"]
pub struct Schedule {
    id: String,
    due: Due,
    make: Make,
    missed: Missed,
    topic: Option<String>,
    /// Whether it was said that the wall clock stands before the last tick.
    told: bool,
}

impl Schedule {
    fn new<E: IntoEvent>(id: String, due: Due, mut make: impl FnMut(Tick) -> E + Send + 'static) -> Self {
        let make: Make = Box::new(move |tick| make(tick).into_event());
        Self { id, due, make, missed: Missed::default(), topic: None, told: false }
    }

    /// What becomes of ticks that fell due while nobody was there; [`Missed::Latest`] if it is not said.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// The time zone of a cron expression, by its name in the IANA database, such as `Europe/Berlin`. An interval has
    /// none: it stays as it is.
    ///
    /// # Errors
    /// There is no such time zone.
    pub fn time_zone(mut self, name: &str) -> Result<Self, CronError> {
        self.due = self.due.in_time_zone(name)?;
        Ok(self)
    }

    /// The topic that its events go to, instead of their own.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Waits for the first time after `last` that is to be fired; none at the end of all times.
    async fn next(&mut self, last: Timestamp, clock: &Clock) -> Option<Timestamp> {
        loop {
            let now = clock.now();
            let from = match self.missed {
                Missed::Skip => last.max(before(now, ON_TIME)),
                Missed::Latest | Missed::All => last,
            };
            let next = self.due.next_after(from)?;
            if next <= now {
                return Some(match self.missed {
                    Missed::All => next,
                    Missed::Latest | Missed::Skip => self.due.last_until(now).map_or(next, |latest| latest.max(next)),
                });
            }
            if last > now.after(LONGEST_SLEEP) && !self.told {
                self.told = true;
                tracing::warn!(%last, %now, "the clock stands before the last tick: nothing is due until it has passed that; \
                     if that was a wrong clock's, give the source another id");
            }
            clock.sleep(next.since(now).min(LONGEST_SLEEP)).await;
        }
    }

    /// The events of `due` and of what is due after it up to `now`, as far as one batch takes them.
    fn fire(&mut self, mut previous: Timestamp, due: Timestamp, now: Timestamp) -> Result<Option<Batch>, SourceError> {
        let mut batch: Option<Batch> = None;
        let mut next = Some(due);
        while let Some(due) = next.filter(|due| *due <= now) {
            let made = (self.make)(Tick { due, previous });
            // It would be the same again.
            let (topic, event) = made.map_err(SourceError::permanent)?;
            let topic = self.topic.as_deref().unwrap_or(topic);
            let place = due.to_rfc3339();
            let event = event.generated_by(&self.id, &place, Some(due));
            let batch = batch.get_or_insert_with(|| Batch::new(Vec::new()).to(topic));
            if batch.topic != topic {
                break;
            }
            batch.events.push(event);
            batch.place = Some(place);
            if self.missed != Missed::All || batch.events.len() == MAX_BATCH_TICKS {
                break;
            }
            previous = due;
            next = self.due.next_after(due);
        }
        Ok(batch)
    }
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
}

impl Source for Schedule {
    fn id(&self) -> &str {
        &self.id
    }

    fn generate<'a>(
        &'a mut self,
        place: Option<&'a str>,
        clock: &'a Clock,
    ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>> {
        Box::pin(async move {
            let Some(place) = place else {
                // From here on ticks can be missed.
                return Ok(Some(Batch::new(Vec::new()).at(clock.now().to_rfc3339())));
            };
            let last = Timestamp::parse_rfc3339(place).map_err(|_| {
                let id = &self.id;
                SourceError::permanent(format!(
                    "the place kept for this source is `{place}`, which is no time: another source had the id `{id}`; give \
                     this one another"
                ))
            })?;
            let Some(due) = self.next(last, clock).await else { return Ok(None) };
            self.fire(last, due, clock.now().max(due))
        })
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule").field("id", &self.id).field("due", &self.due).finish_non_exhaustive()
    }
}
