//! Sources: what generates events, with or without a state of its own. `E = G(S)`.
//!
//! A source **with state** says in each batch how far it has come: its place, which is written with the events as one unit
//! and handed back to it. So it goes on exactly there after a restart or a crash: nothing is left out, nothing comes twice.
//! A source **without state** has no place, and what it generates is its own to repeat.
//!
//! - [`file()`] follows a file of events, one a line;
//! - [`interval`] and [`cron`] generate events on a schedule;
//! - [`Source`] is for your own.
//!
//! An app takes them with [`App::source`](crate::App::source), starts them after its handlers and stops them before.

mod cron;
mod error;
mod file;
mod info;
mod lines;
mod place;
mod run;
mod schedule;
mod unconfirmed;

use std::time::Duration;

pub use cron::CronError;
pub use error::{SourceError, SourceFailed};
pub use file::{FileError, FileSource, MAX_LINE_BYTES, file};
pub use info::{Activity, SourceInfo};
pub(crate) use info::{Sources, problems};
pub(crate) use run::Outlet;
pub use schedule::{Missed, Schedule, Tick, cron, interval};

use crate::{
    clock::Clock,
    event::{DEFAULT_TOPIC, Envelope},
    transport::{BoxFuture, EventRef, Settled},
};

/// Generates events: `E = G(S)`, where S is the place that it has come to.
///
/// A counter, with state:
///
/// ```
/// use oncue::{Clock, Envelope, source::{Batch, Source, SourceError}, transport::BoxFuture};
///
/// struct Counter;
///
/// impl Source for Counter {
///     fn id(&self) -> &str {
///         "counter"
///     }
///
///     fn generate<'a>(
///         &'a mut self,
///         place: Option<&'a str>,
///         _: &'a Clock,
///     ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>> {
///         Box::pin(async move {
///             let count = place.map_or(Ok(0), str::parse::<u32>)?;
///             if count == 3 {
///                 return Ok(None);
///             }
///             let event = Envelope::builder("counted").data(count.to_string()).build()?;
///             Ok(Some(Batch::new(vec![event]).at((count + 1).to_string())))
///         })
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> oncue::Result<()> {
/// let bus = oncue::App::open("memory:").await?.source(Counter).start().await?;
/// bus.exhausted().await?;
/// assert_eq!(bus.inspect().source("counter").place, "3");
/// # bus.shutdown().await
/// # }
/// ```
pub trait Source: Send + 'static {
    /// What its place is kept under: unique in the app, and the same at each start. At most [`MAX_ID_BYTES`].
    fn id(&self) -> &str;

    /// Waits until there is something, and gives the next batch; none when the source is exhausted.
    ///
    /// `place` is that of the last batch that was published, also by an earlier run; none before the first one, and always
    /// none for a source without state. What is given begins there. What a source remembers besides is there for speed
    /// alone: after an error it is asked again with the same place.
    ///
    /// Cancel-safe: the future is dropped when there is something to confirm, and at a shutdown; then nothing that it took
    /// may be lost to the next call. `clock` is what to wait by.
    ///
    /// # Errors
    /// By its class ([`SourceError`]) it is asked again after a growing delay, or not again in this run.
    fn generate<'a>(
        &'a mut self,
        place: Option<&'a str>,
        clock: &'a Clock,
    ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>>;

    /// Whether it wants to know what became of its events. Asked once, at the start; without it, nothing is kept.
    fn confirms(&self) -> Option<Confirm> {
        None
    }

    /// Tells what became of some of its events, in no order; each is told once. At a shutdown, and after a crash, events
    /// that were not told of yet are not: who must know of each keeps them until then, and generates them again.
    ///
    /// # Errors
    /// It is told the same again after a growing delay, or the source is given up, by the error's class.
    fn confirm<'a>(&'a mut self, confirmed: &'a [Confirmed]) -> BoxFuture<'a, Result<(), SourceError>> {
        let _ = confirmed;
        Box::pin(async { Ok(()) })
    }
}

/// Most bytes of a source's id.
pub const MAX_ID_BYTES: usize = 1024;

/// What a source generated: events, and the place that it came to with them. They are published as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The topic that the events go to.
    pub topic: String,
    /// The events; without any, the place alone is written.
    pub events: Vec<Envelope>,
    /// The place after these events, in the source's own words; none for a source without state. An empty one counts as
    /// none.
    pub place: Option<String>,
}

impl Batch {
    /// Events for the default topic, from a source without state.
    #[must_use]
    pub fn new(events: Vec<Envelope>) -> Self {
        Self { topic: DEFAULT_TOPIC.to_owned(), events, place: None }
    }

    /// The same for another topic.
    #[must_use]
    pub fn to(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// The same from a source with state, which has come to `place` with it.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

/// What a source wants to know of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// How long each event is waited for.
    pub wait: Duration,
    /// The handlers whose outcomes are wanted; empty: all that take the event.
    pub handlers: Vec<String>,
}

/// What became of one event of a source.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// The event, and where it stands.
    pub event: EventRef,
    /// Whether the same `source` and `id` had been published before; the outcomes are those of the first.
    pub duplicate: bool,
    /// Each handler that was asked about and takes the event, with what became of it there; none: not settled when the wait
    /// ended, and still to be.
    pub outcomes: Vec<(String, Option<Settled>)>,
}

impl Confirmed {
    /// Whether every handler is through with the event and acked it.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| *outcome == Some(Settled::Acked))
    }
}
