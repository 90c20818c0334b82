//! The running app: publishes events to topics and drives the subscriptions.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};
use tracing::Instrument as _;

use crate::{
    clock::Clock,
    dispatch::{DispatchError, Dispatcher, Phase},
    error::Result,
    event::{Envelope, IntoEvent, takes},
    graph::Graph,
    receipt::Receipt,
    source::{Outlet, Source, SourceInfo, Sources},
    transport::{EventRef, Inspect, Publish, PublishError, Published, SourceMark, Transport},
};

/// How long a shutdown lets handlers finish.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A running app. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    transport: Arc<dyn Transport>,
    clock: Clock,
    graph: Graph,
    phase: watch::Sender<Phase>,
    handlers: Arc<[HandlerInfo]>,
    sources: Sources,
    /// Held while shutting down, so that a second call waits for the first.
    dispatchers: Mutex<JoinSet<()>>,
    failed: watch::Receiver<Option<DispatchError>>,
}

/// Id, topic and event types of a handler.
type HandlerInfo = (String, String, Vec<String>);

/// The dispatchers of an app.
pub(crate) struct Running {
    handlers: Vec<HandlerInfo>,
    dispatchers: JoinSet<()>,
    failed: watch::Sender<Option<DispatchError>>,
}

impl Running {
    pub(crate) fn new(handlers: Vec<HandlerInfo>) -> Self {
        Self { handlers, dispatchers: JoinSet::new(), failed: watch::Sender::new(None) }
    }

    pub(crate) fn spawn(&mut self, mut dispatcher: Dispatcher) {
        let failed = self.failed.clone();
        self.dispatchers.spawn(async move {
            // It is told before the dispatcher goes, and with it its subscriptions: else all would seem settled.
            if let Err(error) = dispatcher.run().await {
                tracing::error!(%error, "a subscription stopped");
                // The first failure is the cause; those after it follow from it.
                failed.send_if_modified(|known| known.is_none() && known.replace(error).is_none());
            }
        });
    }
}

impl Bus {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        clock: Clock,
        graph: Graph,
        phase: watch::Sender<Phase>,
        running: Running,
        sources: Vec<Box<dyn Source>>,
    ) -> Self {
        let Running { handlers, dispatchers, failed } = running;
        let (dispatchers, failed) = (Mutex::new(dispatchers), failed.subscribe());
        let handlers: Arc<[HandlerInfo]> = handlers.into();
        let outlet = Outlet {
            transport: Arc::clone(&transport),
            clock: clock.clone(),
            takers: {
                let handlers = Arc::clone(&handlers);
                Arc::new(move |topic, envelope| takers(&handlers, topic, envelope.event_type()))
            },
        };
        let sources = Sources::start(sources, &outlet);
        Self(Arc::new(Inner { transport, clock, graph, phase, handlers, sources, dispatchers, failed }))
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
        let mut receipts = self.publish_all(topic, vec![envelope], None).await?;
        Ok(receipts.pop().ok_or(PublishError::Closed)?)
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
        let span = tracing::debug_span!("publish", topic, events = events.len());
        let batch = Publish { topic: topic.to_owned(), events: events.clone(), source };
        let published = self.0.transport.publish(batch).instrument(span).await?;
        let topic: Arc<str> = topic.into();
        let receipt = |(envelope, published): (Envelope, Published)| Receipt {
            bus: self.clone(),
            event: EventRef { topic: Arc::clone(&topic), position: published.position, envelope },
            duplicate: published.duplicate,
        };
        Ok(events.into_iter().zip(published).map(receipt).collect())
    }

    /// The transport underneath.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        &*self.0.transport
    }

    /// What the transport knows: subscriptions, dead letters, keyed states, events.
    #[must_use]
    pub fn inspect(&self) -> &dyn Inspect {
        self.0.transport.inspect()
    }

    /// The clock that the app runs by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The graph of the handlers.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// Ids of the handlers that take events of this type from this topic.
    #[must_use]
    pub fn handlers_of(&self, topic: &str, event_type: &str) -> Vec<String> {
        takers(&self.0.handlers, topic, event_type)
    }

    /// What the sources do, in the order of registration.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceInfo> {
        self.0.sources.list()
    }

    /// Waits until every source is exhausted, or stopped by a shutdown. A source that follows never is.
    ///
    /// # Errors
    /// A source gave up.
    pub async fn exhausted(&self) -> Result<()> {
        Ok(self.0.sources.exhausted().await?)
    }

    /// Waits until every handler is through with every event, and with all that these caused. Events that wait for a
    /// retry are waited for, and so is what a dead letter holds: with one of those it does not return.
    ///
    /// # Errors
    /// A handler stopped.
    pub async fn idle(&self) -> Result<()> {
        loop {
            let progress = self.0.transport.progress();
            self.check()?;
            if self.inspect().unsettled() == 0 {
                return Ok(());
            }
            tokio::select! {
                () = progress => {}
                stopped = self.stopped() => return stopped,
            }
        }
    }

    /// Whether a handler stopped, and why.
    ///
    /// # Errors
    /// It did.
    pub fn check(&self) -> Result<()> {
        self.0.failed.borrow().clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Runs until Ctrl-C or SIGTERM, then shuts down; a second one stops at once.
    ///
    /// # Errors
    /// A handler stopped, or closing failed.
    pub async fn run_until_ctrl_c(&self) -> Result<()> {
        tokio::select! {
            () = signal() => {}
            stopped = self.stopped() => return stopped,
        }
        tokio::select! {
            closed = self.shutdown() => closed,
            () = signal() => {
                self.0.phase.send_replace(Phase::Stop);
                Ok(self.0.transport.close().await?)
            }
        }
    }

    /// Completes when a handler stops by itself.
    async fn stopped(&self) -> Result<()> {
        let mut failed = self.0.failed.clone();
        if failed.wait_for(Option::is_some).await.is_err() {
            // Every dispatcher ended as it should: nothing is left to fail.
            std::future::pending::<()>().await;
        }
        self.check()
    }

    /// Stops the sources, then taking events; lets handlers finish within [`DEFAULT_GRACE`], and closes the transport.
    /// What is not finished is delivered again at the next start. Idempotent.
    ///
    /// # Errors
    /// Closing failed.
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown_within(DEFAULT_GRACE).await
    }

    /// As [`shutdown`](Self::shutdown), with a grace time of the caller's.
    ///
    /// # Errors
    /// Closing failed.
    pub async fn shutdown_within(&self, grace: Duration) -> Result<()> {
        self.0.sources.stop(grace).await;
        self.0.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Run;
            if first {
                *phase = Phase::Drain(grace);
            }
            first
        });
        let mut dispatchers = self.0.dispatchers.lock().await;
        while dispatchers.join_next().await.is_some() {}
        self.0.transport.close().await?;
        self.check()
    }
}

fn takers(handlers: &[HandlerInfo], topic: &str, event_type: &str) -> Vec<String> {
    let wanted = |(_, from, types): &&HandlerInfo| from == topic && takes(types, event_type);
    handlers.iter().filter(wanted).map(|(id, ..)| id.clone()).collect()
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("transport", &self.0.transport.url()).finish_non_exhaustive()
    }
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without a signal to wait for, run until the process is ended.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
