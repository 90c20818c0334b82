//! What publishing gives back.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};

use crate::{
    bus::Bus,
    transport::{EventAddress, EventRef, InspectError, Position, Settled},
};

/// Proof that an event was published, and the way to learn what became of it.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub(crate) bus: Bus,
    pub(crate) event: EventRef,
    pub(crate) duplicate: bool,
}

/// What became of an event for one handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// Handled, and what the handler emitted is published.
    Acked,
    /// Not handled: it comes `after` a handler that gave up on the event.
    Skipped,
    /// Not handled: the event's time to live was over.
    Expired,
    /// Not handled: its topic dropped the event before.
    Missed,
    /// Given up on, for this reason; it is kept as a dead letter.
    DeadLettered {
        /// The last error.
        error: String,
    },
    /// Not settled when the wait ended: it still will be.
    Pending,
}

impl From<Settled> for EventOutcome {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Acked => Self::Acked,
            Settled::Skipped => Self::Skipped,
            Settled::Expired => Self::Expired,
            Settled::Missed => Self::Missed,
            Settled::DeadLettered { error } => Self::DeadLettered { error },
        }
    }
}

impl From<Option<Settled>> for EventOutcome {
    fn from(settled: Option<Settled>) -> Self {
        settled.map_or(Self::Pending, Self::from)
    }
}

impl Receipt {
    /// Where the event stands, to be written down: [`Bus::receipt`] makes a receipt of it again, and
    /// [`Observer`](crate::Observer) asks with it from another process.
    #[must_use]
    pub fn address(&self) -> EventAddress {
        let EventRef { topic, position, envelope } = &self.event;
        EventAddress { topic: topic.to_string(), position: *position, id: envelope.id().to_owned() }
    }

    /// Where the event stands; of a duplicate, where the first one stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.event.position
    }

    /// Whether the same `source` and `id` had been published before; not known of a receipt that was written down.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.event.envelope.id()
    }

    /// Waits until a handler is through with the event, at most `wait` long.
    ///
    /// # Errors
    /// There is no such subscription, it does not take this event, or the log cannot be read.
    pub async fn outcome_of(&self, handler: &str, wait: Duration) -> Result<EventOutcome, InspectError> {
        let outcome = self.bus.transport().outcome(&self.event, handler);
        match select(outcome, self.bus.clock().sleep(wait)).await {
            Either::Left((settled, _)) => settled.map(EventOutcome::from),
            Either::Right(_) => Ok(EventOutcome::Pending),
        }
    }

    /// Waits until every handler that takes the event is through with it, at most `wait` long: handlers' ids with
    /// outcomes, in the order of registration. One that takes it no more by then, as its filter was changed, is not among them.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn outcomes(&self, wait: Duration) -> Result<Vec<(String, EventOutcome)>, InspectError> {
        let handlers: Vec<String> = self.bus.handlers_of(&self.event.topic, &self.event.envelope);
        let outcomes = join_all(handlers.iter().map(|handler| self.outcome_of(handler, wait))).await;
        let is_taken = |outcome: &Result<_, _>| !matches!(outcome, Err(InspectError::NotTaken { .. }));
        let taken = handlers.into_iter().zip(outcomes).filter(|(_, outcome)| is_taken(outcome));
        taken.map(|(handler, outcome)| Ok((handler, outcome?))).collect()
    }
}
