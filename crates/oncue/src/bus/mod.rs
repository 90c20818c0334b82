//! The running app: publishes events to topics and drives the subscriptions.

mod alerts;
mod attach;
mod bridges;
mod control;
mod dead_letters;
mod health;
mod learn;
mod lifecycle;
mod pull;
mod request;
mod serve;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;
use tracing::Instrument as _;

pub(crate) use bridges::OpenBridge;
pub use dead_letters::DeadLetters;
pub use health::{Health, HealthCause, HealthReason, HealthStatus};
pub use pull::{DEFAULT_LEASE, DEFAULT_UNSETTLED, Pull, Pulled, Puller};
pub use request::MAX_PENDING_REQUESTS;
pub(crate) use serve::{Handler, Provided, Serving};

use self::alerts::Alerting;
use crate::{
    clock::Clock,
    config::{self, Config, ConfigError},
    dispatch::DispatchError,
    error::{Result, StartError},
    event::{Envelope, IntoEvent},
    graph::Graph,
    handler::{BreakerHandle, LimitHandle, Registration},
    policy::AdmissionState,
    receipt::Receipt,
    source::{Outlet, Source, SourceInfo, Sources},
    transport::{
        EventAddress, EventRef, Inspect, InspectError, Publish, PublishError, Published, SourceMark, Transport,
    },
};

/// How long a shutdown lets handlers finish.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A running app. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    serving: Arc<Serving>,
    sources: Sources,
    failed: watch::Receiver<Option<DispatchError>>,
    /// What looks after the app, if alerts are on.
    alerting: OnceLock<Alerting>,
    requests: request::Requests,
}

impl Bus {
    pub(crate) fn new(serving: Arc<Serving>, sources: Vec<Box<dyn Source>>) -> Self {
        let takers = Arc::clone(&serving);
        let outlet = Outlet {
            transport: Arc::clone(&serving.provided.transport),
            clock: serving.provided.clock.clone(),
            takers: Arc::new(move |topic, event| takers.takers(topic, event)),
        };
        let sources = Sources::start(sources, &outlet);
        let transport = Arc::clone(&serving.provided.transport);
        serving.owns(tokio::spawn(async move { transport.upkeep().await }));
        let failed = serving.failed();
        let (alerting, requests) = (OnceLock::new(), request::Requests::default());
        Self(Arc::new(Inner { serving, sources, failed, alerting, requests }))
    }

    /// Takes over what a configuration file says, whenever that changes. What cannot be used changes nothing.
    pub(crate) fn follow(
        &self,
        mut watch: config::Watch,
        mut known: Config,
        usable: impl Fn(Config) -> Result<Config, ConfigError> + Send + 'static,
    ) {
        let serving = Arc::downgrade(&self.0.serving);
        let task = tokio::spawn(async move {
            loop {
                let changed = watch.changed().await.and_then(&usable);
                let Some(serving) = serving.upgrade() else { return };
                let served = match changed {
                    Ok(config) if config == known => continue,
                    Ok(config) => {
                        let served = serving.change(|_, served| served.clone_from(&config)).await;
                        served.map(|()| config)
                    }
                    Err(error) => Err(StartError::Config(error)),
                };
                match served {
                    Ok(config) => {
                        tracing::info!("the configuration file changed: its options count now");
                        known = config;
                    }
                    Err(StartError::Closed) => return,
                    Err(error) => {
                        tracing::error!(%error, "the configuration file cannot be used: the options from before stay");
                    }
                }
            }
        });
        self.0.serving.owns(task);
    }

    /// Publishes one event. When this returns, the event is as durable as the topic promises.
    ///
    /// # Errors
    /// The event is not acceptable, or could not be written; nothing of it is then.
    pub async fn publish(&self, event: impl IntoEvent) -> Result<Receipt> {
        let (topic, envelope) = event.into_event()?;
        self.publish_to(topic, envelope).await
    }

    /// As [`publish`](Self::publish), to a topic of the caller's choice.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_to(&self, topic: &str, envelope: Envelope) -> Result<Receipt> {
        let span = tracing::debug_span!("publish", topic, events = 1);
        if let Some(published) = span.in_scope(|| self.transport().publish_now(topic, &envelope)) {
            let (topic, Published { position, duplicate }) = published?;
            return Ok(Receipt { bus: self.clone(), event: EventRef { topic, position, envelope }, duplicate });
        }
        self.publish_alone(topic, envelope).await
    }

    /// Apart from what needs no waiting, which is then small.
    async fn publish_alone(&self, topic: &str, envelope: Envelope) -> Result<Receipt> {
        let mut receipts = self.publish_all(topic, vec![envelope], None).await?;
        Ok(receipts.pop().ok_or(PublishError::Closed)?)
    }

    /// Publishes events of one type together: on the embedded log all of them or none, by one write.
    ///
    /// ```
    /// # use oncue::prelude::*;
    /// # #[derive(Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(type = "order.created", key = id)]
    /// # struct OrderCreated { id: u32 }
    /// # #[tokio::main]
    /// # async fn main() -> oncue::Result<()> {
    /// # let app = App::open("memory:").await?.start().await?;
    /// let receipts = app.publish_batch((0..100).map(|id| OrderCreated { id })).await?;
    /// assert_eq!(receipts.len(), 100);
    /// # app.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish); the error names the event.
    pub async fn publish_batch<E: IntoEvent>(&self, events: impl IntoIterator<Item = E>) -> Result<Vec<Receipt>> {
        let events = events.into_iter().map(IntoEvent::into_event).collect::<Result<Vec<_>, _>>()?;
        let Some((topic, _)) = events.first() else { return Ok(Vec::new()) };
        let topic = *topic;
        self.publish_all(topic, events.into_iter().map(|(_, event)| event).collect(), None).await
    }

    /// Publishes a batch to one topic: on the embedded log all of it or nothing. A source with state gives its place,
    /// which is written with the events, so that it can go on exactly there.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); the error names the event.
    pub async fn publish_all(
        &self,
        topic: &str,
        events: Vec<Envelope>,
        source: Option<SourceMark>,
    ) -> Result<Vec<Receipt>> {
        Ok(self.write(topic, events, source).await?)
    }

    async fn write(
        &self,
        topic: &str,
        events: Vec<Envelope>,
        source: Option<SourceMark>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let span = tracing::debug_span!("publish", topic, events = events.len());
        let batch = Publish { topic: topic.into(), events, source };
        let published = self.transport().publish(&batch).instrument(span).await?;
        let receipt = |(envelope, published): (Envelope, Published)| Receipt {
            bus: self.clone(),
            event: EventRef { topic: Arc::clone(&batch.topic), position: published.position, envelope },
            duplicate: published.duplicate,
        };
        Ok(batch.events.into_iter().zip(published).map(receipt).collect())
    }

    /// The receipt of an event that was published here, by this process or another, also before a restart.
    ///
    /// # Errors
    /// There is no such event, or not any more: a topic may keep only what somebody still needs. The log cannot be read.
    pub fn receipt(&self, address: &EventAddress) -> Result<Receipt, InspectError> {
        Ok(Receipt { bus: self.clone(), event: self.inspect().event(address)?, duplicate: false })
    }

    /// The transport underneath.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        &*self.0.serving.provided.transport
    }

    /// What the transport knows: subscriptions, dead letters, keyed states, events.
    #[must_use]
    pub fn inspect(&self) -> &dyn Inspect {
        self.transport().inspect()
    }

    /// The clock that the app runs by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.serving.provided.clock
    }

    /// The graph of the handlers, as they are served now.
    #[must_use]
    pub fn graph(&self) -> Graph {
        self.0.serving.shown().graph.clone()
    }

    /// The handlers that this app serves, as they are served: with what the configuration and the run time say.
    #[must_use]
    pub fn handlers(&self) -> Vec<Registration> {
        self.0.serving.shown().handlers.clone()
    }

    /// The circuit breakers around the handlers: each once, also one that stands around several.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerHandle> {
        self.0.serving.shown().breakers()
    }

    /// The adaptive limits around the handlers: each once, also one that stands around several.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitHandle> {
        self.0.serving.shown().limits()
    }

    /// What the admission policies of handlers know and have decided since the app began, by subscription.
    #[must_use]
    pub fn admissions(&self) -> Vec<AdmissionState> {
        self.0.serving.admissions()
    }

    /// What the sources do, in the order of registration.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceInfo> {
        self.0.sources.list()
    }

    /// Ids of the handlers that take an event of this topic.
    #[must_use]
    pub fn handlers_of(&self, topic: &str, event: &Envelope) -> Vec<String> {
        self.0.serving.takers(topic, event)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("transport", &self.transport().url()).finish_non_exhaustive()
    }
}
