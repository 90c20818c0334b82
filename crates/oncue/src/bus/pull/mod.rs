//! Pulling: a client asks for events when it has time for them, instead of being called.
//!
//! A puller is a handler as any other, so retries, dead letters, order and limits are those of handlers. Its calls wait
//! for a client that takes their events and says what became of them.

mod lease;

use std::{sync::Arc, time::Duration};

use super::Bus;
use crate::{
    error::{Error, LeaseError, Result, StartError},
    event::Envelope,
    filter::Filter,
    handler::{
        Location, OnDeadLetter, Order, Ordered, Outcome, Registration, Retry, Start,
        extract::{Context, EmitError},
    },
    transport::{Action, Position},
};
use lease::{Leases, Lender};

/// How long a client holds an event, unless the puller says otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// Events that a puller has taken from its subscription and that are not settled, at most, unless it says otherwise.
pub const DEFAULT_UNSETTLED: usize = 100;

impl Bus {
    /// Begins a subscription whose events are pulled: `bus.pull("mailer").types(["order.created"]).open().await?`.
    #[track_caller]
    pub fn pull(&self, id: impl Into<String>) -> Pull {
        let leases = Leases::new();
        let handler = Arc::new(Lender(Arc::clone(&leases)));
        let registration = Registration::new(id, handler, Location::caller());
        let registration = registration.timeout(DEFAULT_LEASE).concurrency(DEFAULT_UNSETTLED);
        Pull { bus: self.clone(), leases, registration }
    }
}

/// A subscription to be pulled from, before it is opened; made by [`Bus::pull`].
#[must_use = "nothing is subscribed to until it is opened"]
pub struct Pull {
    bus: Bus,
    leases: Arc<Leases>,
    registration: Registration,
}

impl Pull {
    fn with(mut self, change: impl FnOnce(Registration) -> Registration) -> Self {
        self.registration = change(self.registration);
        self
    }

    /// The event types to take; at least one.
    pub fn types<S: Into<String>>(self, types: impl IntoIterator<Item = S>) -> Self {
        self.with(|registration| registration.types(types))
    }

    /// What to take of these types.
    pub fn filter(self, filter: Filter) -> Self {
        self.with(|registration| registration.filter(filter))
    }

    /// The topic to read; without this, [`DEFAULT_TOPIC`](crate::event::DEFAULT_TOPIC).
    pub fn topic(self, topic: impl Into<String>) -> Self {
        self.with(|registration| registration.topic(topic))
    }

    /// The event types that a client may publish with an acknowledgement, replies apart.
    pub fn emits<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> Self {
        self.registration.emits.extend(types.into_iter().map(Into::into));
        self
    }

    /// How long a client holds an event, unless it extends that; without this, [`DEFAULT_LEASE`]. It is the handler's
    /// timeout: a configuration that gives this handler a timeout gives it this lease.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|registration| registration.timeout(lease))
    }

    /// Events offered or held at once, of different keys; 1 or more. Without this, [`DEFAULT_UNSETTLED`]. It is the
    /// handler's concurrency.
    pub fn max_unsettled(self, events: usize) -> Self {
        self.with(|registration| registration.concurrency(events))
    }

    /// What follows a failure, and a lease that is over.
    pub fn retry(self, retry: impl Into<Retry>) -> Self {
        self.with(|registration| registration.retry(retry))
    }

    /// Which of the waiting events is next. What is offered already stays as it is: the fewer events may be
    /// [unsettled](Self::max_unsettled), the more this says.
    pub fn order(self, order: Order) -> Self {
        self.with(|registration| registration.order(order))
    }

    /// How strictly order is kept within a key.
    pub fn ordered(self, ordered: Ordered) -> Self {
        self.with(|registration| registration.ordered(ordered))
    }

    /// What a dead letter does to later events of its key.
    pub fn on_dead_letter(self, on_dead_letter: OnDeadLetter) -> Self {
        self.with(|registration| registration.on_dead_letter(on_dead_letter))
    }

    /// Where the subscription begins if it is new.
    pub fn start(self, start: Start) -> Self {
        self.with(|registration| registration.start(start))
    }

    /// Subscribes.
    ///
    /// # Errors
    /// As [`Bus::subscribe`]: its id is taken, it has no event types, …
    pub async fn open(self) -> Result<Puller> {
        let Self { bus, leases, registration } = self;
        let id = registration.id.clone();
        bus.subscribe(registration).await?;
        Ok(Puller { bus, id, leases, closed: false })
    }
}

/// An event that a client holds.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Names the lease; of this process, and hard to guess. Whoever has it can settle the event.
    pub token: String,
    /// The event.
    pub envelope: Envelope,
    /// Where it stands.
    pub position: Position,
    /// Which attempt this is: 1 is the first.
    pub attempt: u32,
}

/// Hands out the events of a subscription to those who ask for them. Any number may ask at once.
///
/// The next event of a key is handed out when the one before it is settled. Dropping the puller ends it: what is offered
/// or held goes back, which counts as no attempt, and the subscription stays, detached. Until that is done its id is
/// taken; [`close`](Self::close) waits for it.
///
/// ```
/// # use std::time::Duration;
/// # use oncue::prelude::*;
/// # #[tokio::main]
/// # async fn main() -> oncue::Result<()> {
/// # let app = App::open("memory:").await?.start().await?;
/// # app.publish(Envelope::builder("order.created").subject("o-1").build().unwrap()).await?;
/// let puller = app.pull("mailer").types(["order.created"]).lease(Duration::from_secs(60)).open().await?;
/// for pulled in puller.next(10, Duration::from_secs(5)).await {
///     println!("{} attempt {}", pulled.envelope.id(), pulled.attempt);
///     puller.settle(&pulled.token, Outcome::Ack).await?;
/// }
/// # app.shutdown().await
/// # }
/// ```
pub struct Puller {
    bus: Bus,
    id: String,
    leases: Arc<Leases>,
    closed: bool,
}

impl Puller {
    /// The id of its subscription.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes up to `max` events, as soon as there is one; none after `wait`. Their leases begin. Cancel-safe: what is not
    /// returned is not taken.
    pub async fn next(&self, max: usize, wait: Duration) -> Vec<Pulled> {
        let mut over = self.bus.clock().sleep(wait);
        loop {
            let more = self.leases.more();
            let taken = self.leases.take(max);
            if !taken.is_empty() || max == 0 {
                return taken;
            }
            tokio::select! {
                biased;
                () = more => {}
                () = &mut over => return Vec::new(),
            }
        }
    }

    /// Says what became of an event, and returns what follows from it once that is durable: it is acknowledged, tried again
    /// at a time, or a dead letter. Its lease ends with the first poll, whether the future completes or not.
    ///
    /// # Errors
    /// The lease is over, or the outcome could not be recorded: the event is delivered again then.
    pub async fn settle(&self, token: &str, outcome: Outcome) -> Result<Action, LeaseError> {
        let follows = self.leases.settle(token, outcome, |_| Ok(()))?;
        follows.await.map_err(|_| LeaseError::Lost)
    }

    /// Acknowledges an event, and publishes with it what is given to the context: emitted events, a reply.
    ///
    /// # Errors
    /// As [`settle`](Self::settle); or what `effects` refuses, and then the lease goes on.
    pub async fn ack_with(
        &self,
        token: &str,
        effects: impl FnOnce(&Context) -> Result<(), EmitError> + Send,
    ) -> Result<Action, LeaseError> {
        let follows = self.leases.settle(token, Outcome::Ack, effects)?;
        follows.await.map_err(|_| LeaseError::Lost)
    }

    /// Gives a client more time: at least this long from now.
    ///
    /// # Errors
    /// The lease is over.
    pub fn extend(&self, token: &str, time: Duration) -> Result<(), LeaseError> {
        self.leases.extend(token, time)
    }

    /// Ends it, as dropping does, and completes when that is done; at once if the app is shut down.
    ///
    /// # Errors
    /// Another handler comes `after` it, or there is no such handler any more.
    pub async fn close(mut self) -> Result<()> {
        self.leases.close();
        let closed = self.bus.unsubscribe(&self.id).await;
        self.closed = true;
        match closed {
            Err(Error::Start(StartError::Closed)) => Ok(()),
            closed => closed,
        }
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        self.leases.close();
        // Without a runtime nothing is delivered any more, and without the app there is nothing to end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (app, id) = (Arc::downgrade(&self.bus.0), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            let Some(bus) = app.upgrade().map(Bus) else { return };
            if let Err(error) = bus.unsubscribe(&id).await {
                tracing::debug!(puller = %id, %error, "a dropped puller was not unsubscribed");
            }
        });
    }
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("id", &self.id).finish_non_exhaustive()
    }
}
