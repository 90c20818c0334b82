//! Bridges: what is published to a topic of the app goes to another transport, too.
//!
//! A bridge is a handler whose effect is to publish. The topic that it reads is its outbox: what a handler emits there is
//! written with the handler's acknowledgement, and the bridge's subscription remembers how far it is.
//!
//! ```
//! use oncue::{App, Clock, bridge, prelude::*, transport};
//!
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! // Or, for any URL, reached when it can be: `oncue_transports::bridge("nats://127.0.0.1:4222", Clock::system())`.
//! let far = transport::open("file:./far", Clock::system())?;
//! let app = App::open("file:./data").await?.on(bridge::to(far).topic("orders").named("orders-to-far")).start().await?;
//! # Ok(())
//! # }
//! ```
//!
//! - **Nothing is lost**: an event is acknowledged when the far side has confirmed it.
//! - **Once, by its id**: what a crash repeats is known there, within the time for which that side knows ids.
//! - **In the order of its key.** Events without a key have no order.
//! - **A far side that is not there, or gives no right to publish, is not an event's fault**: the bridge tries again, with
//!   pauses that grow up to [`LONGEST_PAUSE`], for as long as that takes, and no attempt is counted. What waits stays in the
//!   log. [`Bus::health`](crate::Bus::health), [alerts](crate::alert) and the log say so, with the reason and what to do.
//! - What the far side will never take, as it is too large for it, is a dead letter of the bridge.
//!
//! As any handler it has a filter, types (all, unless some are named), a place in `oncue stats`, and a limit of what it has in
//! flight. It takes batches, and cannot be joined to others by `after`.

mod outage;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::OnceCell;

use crate::{
    clock::Clock,
    event::{Envelope, is_topic_name},
    handler::{BatchLimits, BlockedHandle, Call, ErasedHandler, Handler, Invocation, Location, Outcome, Registration},
    policy::{ErrorClass, exponential},
    transport::{self, LogUrl, OpenError, Publish, PublishError, Published, Transport},
};

use self::outage::{Cause, Outage, Outages, pause};

/// The pause after the first failure to reach the far side.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before the far side is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a bridge that is stopped waits for what it is publishing.
const STOPPING: Duration = Duration::from_secs(1);

type Open = dyn Fn() -> Result<Arc<dyn Transport>, OpenError> + Send + Sync;

/// A bridge to a transport that is open. It stays the caller's: the bridge publishes to it, and does not close it.
#[must_use]
pub fn to(far: Arc<dyn Transport>) -> Bridge {
    Bridge::new(Far { transport: OnceCell::new_with(Some(far)), open: None })
}

/// A bridge to a transport that is opened by `open`, on a thread that may wait, when there is the first event for it; and
/// again, with pauses, until it can be.
#[must_use]
pub fn opening(open: impl Fn() -> Result<Arc<dyn Transport>, OpenError> + Send + Sync + 'static) -> Bridge {
    Bridge::new(Far { transport: OnceCell::new(), open: Some(Arc::new(open)) })
}

/// A bridge to a log, `file:PATH` or `memory:`, as [`opening`]; for all transports, there is `oncue_transports::bridge_to`.
///
/// # Errors
/// Another scheme, or what is wrong with the URL. The log itself is opened when there is the first event for it.
pub fn to_url(url: &str, clock: Clock) -> Result<Bridge, OpenError> {
    url.parse::<LogUrl>()?;
    let url = url.to_owned();
    Ok(opening(move || transport::open(&url, clock.clone())))
}

/// A handler that publishes what it is given at another transport: see the [module](self).
pub struct Bridge {
    far: Arc<Far>,
    topic: Option<Arc<str>>,
    outages: Outages,
}

impl Bridge {
    fn new(far: Far) -> Self {
        Self { far: Arc::new(far), topic: None, outages: Outages::default() }
    }

    /// Another bridge to the same transport, which is opened once for both.
    pub(crate) fn beside(&self) -> Self {
        Self { far: Arc::clone(&self.far), topic: None, outages: Outages::default() }
    }

    /// The topic of the far side, instead of one of the same name as the topic that is read.
    #[must_use]
    pub fn into_topic(mut self, topic: &str) -> Self {
        self.topic = Some(topic.into());
        self
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.far.transport.get().map(|far| far.url());
        f.debug_struct("Bridge").field("far", &url).field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Marks bridges; see [`Handler`].
#[doc(hidden)]
pub struct Bridged;

impl Handler<Bridged> for Bridge {
    fn register(self, location: Location) -> Registration {
        let wrong = self.topic.as_deref().is_some_and(|topic| !is_topic_name(topic));
        let mut registration = Registration::new("", Arc::new(Erased(Arc::new(self))), location).every_type();
        registration.options.batch = Some(BatchLimits::default());
        // What fails an attempt beside the far side, as a timeout, is not the event's fault either.
        registration = registration.retry(exponential().max_delay(LONGEST_PAUSE).max_attempts(u32::MAX));
        if wrong {
            registration.refuse(
                "the topic of its far side has a name that no transport takes: 1 to 200 letters, digits, `.`, `_` or `-`",
            );
        }
        registration
    }
}

struct Erased(Arc<Bridge>);

impl ErasedHandler for Erased {
    /// A batch of one.
    fn call(&self, invocation: &Invocation) -> Call {
        let outcomes = run(Arc::clone(&self.0), vec![invocation.clone()]);
        Call::Future(outcomes.map(|mut outcomes| outcomes.pop().unwrap_or(Outcome::Ack)).boxed())
    }

    fn call_batch(&self, batch: Vec<Invocation>) -> Option<BoxFuture<'static, Vec<Outcome>>> {
        Some(run(Arc::clone(&self.0), batch).boxed())
    }

    fn blocked(&self) -> Option<BlockedHandle> {
        Some(self.0.outages.blocked())
    }
}

/// Publishes a batch in its order; where one of it is at fault, one by one.
async fn run(bridge: Arc<Bridge>, batch: Vec<Invocation>) -> Vec<Outcome> {
    let Some(first) = batch.first() else { return Vec::new() };
    let topic = bridge.topic.clone().unwrap_or_else(|| Arc::clone(&first.binding().topic));
    let (name, clock) = (&*first.binding().subscription, &first.binding().clock);
    let forward = async |events| {
        let publish = Publish { topic: Arc::clone(&topic), events, source: None };
        let forwarding = bridge.far.forward(&publish, Outage::new(&bridge.outages, name, clock));
        let stopped = async {
            first.binding().draining.begun().await;
            clock.sleep(STOPPING).await;
        };
        tokio::select! {
            biased;
            forwarded = forwarding => Some(forwarded),
            // It is delivered again at the next start. What arrived nevertheless is known by its id.
            () = stopped => None,
        }
    };
    let envelopes: Vec<Envelope> = batch.iter().map(|invocation| invocation.envelope().clone()).collect();
    let deferred = || Outcome::Defer(Duration::ZERO);
    match forward(envelopes.clone()).await {
        Some(Ok(_)) => return vec![Outcome::Ack; batch.len()],
        None => return batch.iter().map(|_| deferred()).collect(),
        Some(Err(error)) if batch.len() == 1 => return vec![refused(&error)],
        Some(Err(_)) => {}
    }
    let (mut outcomes, mut held) = (Vec::with_capacity(batch.len()), HashSet::new());
    for event in envelopes {
        let key = event.key().map(str::to_owned);
        // Behind one that was refused, it is delivered again; or waits, if the key is to be held.
        if key.as_ref().is_some_and(|key| held.contains(key)) {
            outcomes.push(deferred());
            continue;
        }
        let outcome = match forward(vec![event]).await {
            Some(Ok(_)) => Outcome::Ack,
            Some(Err(error)) => refused(&error),
            None => deferred(),
        };
        if outcome != Outcome::Ack {
            held.extend(key);
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn refused(error: &PublishError) -> Outcome {
    Outcome::Reject { class: ErrorClass::Permanent, error: format!("the far side does not take it: {error}") }
}

/// A transport that is published to, once it is there.
struct Far {
    transport: OnceCell<Arc<dyn Transport>>,
    open: Option<Arc<Open>>,
}

impl Far {
    /// Publishes all, however long the far side cannot be reached, or refuses it.
    ///
    /// # Errors
    /// One of the events is at fault.
    async fn forward(&self, events: &Publish, mut outage: Outage<'_>) -> Result<Vec<Published>, PublishError> {
        let far = self.reach(&mut outage).await;
        loop {
            match far.publish(events).await {
                Ok(published) => {
                    outage.over();
                    return Ok(published);
                }
                Err(error @ (PublishError::Invalid { .. } | PublishError::TooLarge { .. })) => return Err(error),
                Err(error) => outage.wait(Cause::from(error)).await,
            }
        }
    }

    async fn reach(&self, outage: &mut Outage<'_>) -> &Arc<dyn Transport> {
        let open = async || match &self.open {
            Some(open) => {
                let open = Arc::clone(open);
                let opened = tokio::task::spawn_blocking(move || open()).await;
                opened.map_err(|panicked| Cause { refused: true, text: panicked.to_string() })?.map_err(Cause::from)
            }
            None => Err(Cause { refused: true, text: "there is nothing to open".to_owned() }),
        };
        loop {
            match self.transport.get_or_try_init(open).await {
                Ok(far) => return far,
                Err(cause) => outage.wait(cause).await,
            }
        }
    }
}

/// Publishes a batch, however long the transport cannot be reached: with pauses that grow, and are random in part.
///
/// # Errors
/// What no pause mends: an event that is not acceptable, a batch that is too large, a topic's name, a right that is missing, or
/// that the transport is closed.
pub async fn publish(far: &dyn Transport, batch: &Publish, clock: &Clock) -> Result<Vec<Published>, PublishError> {
    use PublishError::{Closed, Invalid, Refused, TooLarge, TopicName};
    let mut failures = 0;
    loop {
        match far.publish(batch).await {
            Ok(published) => return Ok(published),
            Err(error @ (Invalid { .. } | TooLarge { .. } | TopicName(_) | Refused(_) | Closed)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, failures, "the far side takes no events: it is tried again");
                pause(&mut failures, clock).await;
            }
        }
    }
}
