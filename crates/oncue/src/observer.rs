//! Learning what became of events from outside: beside the process that handles them, or when none does.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    error::Result,
    receipt::EventOutcome,
    transport::{EventAddress, Inspect, InspectError, LogTransport, LogUrl, OpenError},
};

/// Shortest and longest time between two looks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);
/// The part of the time that looking may take: one tenth.
const PART: u32 = 10;
/// How often a look begins anew at once. Old segments may be dropped while they are read.
const TRIES: u32 = 3;

type Look = dyn Fn() -> Result<Arc<dyn Inspect>, OpenError> + Send + Sync;

/// Learns what became of events without taking part: it locks nothing, writes nothing, and needs no other process.
///
/// A publisher writes down its receipt's [address](crate::Receipt::address). Whoever has it asks an observer, or
/// [`Bus::receipt`](crate::Bus::receipt) once it has the log open itself.
///
/// ```
/// use std::time::Duration;
/// use oncue::{Observer, prelude::*};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "order.created")]
/// struct OrderCreated { cents: u64 }
///
/// #[handler]
/// async fn charge(_: OrderCreated) {}
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let url = format!("file:{}", directory.path().display());
/// // A process that publishes, and goes.
/// let publisher = App::open(&url).await?.start().await?;
/// let receipt = publisher.publish(OrderCreated { cents: 4200 }).await?;
/// let written = serde_json::to_string(&receipt.address())?;
/// # drop(receipt);
/// publisher.shutdown().await?;
/// # drop(publisher);
///
/// // Another one, that handles.
/// let app = App::open(&url).await?.on(charge).start().await?;
///
/// // A third one, that has the address.
/// let observer = Observer::new(&url)?;
/// let outcome = observer.outcome_of(&serde_json::from_str(&written)?, "charge", Duration::from_secs(10)).await?;
/// assert_eq!(outcome, EventOutcome::Acked);
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// It sees what is written, which may be a moment before that is safe from a loss of power: an acknowledgement that
/// such a loss undoes is made again, as the event is handled again.
#[derive(Clone)]
pub struct Observer {
    look: Arc<Look>,
    clock: Clock,
}

impl Observer {
    /// Of the log of a URL: `file:PATH`.
    ///
    /// # Errors
    /// An unknown scheme, or `memory:`, which only its own process can look at.
    pub fn new(url: &str) -> Result<Self, OpenError> {
        let (url, clock): (LogUrl, _) = (url.parse()?, Clock::system());
        if url.is_memory() {
            // Refused, with the reason.
            LogTransport::snapshot(&url, &clock)?;
        }
        let looking = clock.clone();
        Ok(Self::with(clock, move || LogTransport::snapshot(&url, &looking)))
    }

    /// Of whatever `look` shows; it is called again and again, and shows what there is at each call.
    pub fn with(clock: Clock, look: impl Fn() -> Result<Arc<dyn Inspect>, OpenError> + Send + Sync + 'static) -> Self {
        Self { look: Arc::new(look), clock }
    }

    /// Waits until a handler is through with the event, at most `wait` long. Looks once at least.
    ///
    /// # Errors
    /// There is no such event or subscription, it does not take this event, or the log cannot be read.
    pub async fn outcome_of(&self, event: &EventAddress, handler: &str, wait: Duration) -> Result<EventOutcome> {
        let (event, handler) = (event.clone(), handler.to_owned());
        let look = move |log: &dyn Inspect| Ok(log.settled(&log.event(&event)?, &handler)?.into());
        self.until(wait, look, |outcome| *outcome != EventOutcome::Pending).await
    }

    /// Waits until every subscription that takes the event is through with it, at most `wait` long. Looks once at least.
    /// Ids with outcomes, in the order in which the subscriptions were made.
    ///
    /// # Errors
    /// There is no such event, or the log cannot be read.
    pub async fn outcomes(&self, event: &EventAddress, wait: Duration) -> Result<Vec<(String, EventOutcome)>> {
        let event = event.clone();
        let look = move |log: &dyn Inspect| {
            let event = log.event(&event)?;
            let outcome = |id: String| match log.settled(&event, &id) {
                Ok(settled) => Some(Ok((id, settled.into()))),
                Err(InspectError::NotTaken { .. }) => None,
                Err(error) => Some(Err(error)),
            };
            log.subscriptions().into_iter().filter_map(|known| outcome(known.id)).collect()
        };
        let is_enough = |all: &Vec<(_, EventOutcome)>| all.iter().all(|(_, outcome)| *outcome != EventOutcome::Pending);
        self.until(wait, look, is_enough).await
    }

    /// Looks again until `is_enough` or the time is over.
    async fn until<T: Send + 'static>(
        &self,
        wait: Duration,
        look: impl Fn(&dyn Inspect) -> Result<T, InspectError> + Send + Sync + 'static,
        is_enough: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let deadline = self.clock.monotonic().saturating_add(wait);
        let look = Arc::new(look);
        loop {
            let begun = self.clock.monotonic();
            let seen = self.look(Arc::clone(&look)).await?;
            let now = self.clock.monotonic();
            if is_enough(&seen) || now >= deadline {
                return Ok(seen);
            }
            let pause = (now.saturating_sub(begun) * PART).clamp(SHORTEST, LONGEST);
            self.clock.sleep(pause.min(deadline - now)).await;
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: Arc<impl Fn(&dyn Inspect) -> Result<T, InspectError> + Send + Sync + 'static>,
    ) -> Result<T> {
        let open = Arc::clone(&self.look);
        let looked = move || {
            let mut tries = 1;
            loop {
                match look(&*open()?) {
                    Err(InspectError::Storage(_)) if tries < TRIES => tries += 1,
                    looked => return Ok(looked?),
                }
            }
        };
        // Reads files: off the runtime's threads.
        tokio::task::spawn_blocking(looked).await.unwrap_or(Err(InspectError::Closed.into()))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}
