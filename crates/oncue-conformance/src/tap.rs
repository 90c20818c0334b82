//! A transport with something between it and the bus: to count what passes, or to break it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::transport::{
    Capabilities, ConsumeError, Consumer, Control, ControlError, Delivered, EventRef, Inspect, InspectError, Limit,
    Publish, PublishError, Published, SettleError, Settled, Settlement, SubscribeError, Subscribed, SubscriptionSpec,
    Tail, TopicControl, Transport,
};

/// What stands between a transport and the bus. Each method lets everything pass unless it is implemented.
pub trait Tap: Send + Sync + 'static {
    /// Publishing.
    fn publish<'a>(
        &'a self,
        inner: &'a dyn Transport,
        batch: &'a Publish,
    ) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        inner.publish(batch)
    }

    /// What a subscription asks for.
    fn spec(&self, spec: SubscriptionSpec) -> SubscriptionSpec {
        spec
    }

    /// What is done to a subscription from outside; nothing is done if it gives nothing.
    fn control(&self, control: Control) -> Option<Control> {
        Some(control)
    }

    /// Completes when the next events may be asked for.
    fn may_read(&self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    /// How much may be handed out.
    fn limit(&self, limit: Limit) -> Limit {
        limit
    }

    /// What is handed out.
    fn delivered(&self, events: &mut Vec<Delivered>) {
        let _ = events;
    }

    /// Settling.
    fn settle(&self, inner: &dyn Consumer, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        inner.settle(batch)
    }

    /// A keyed state.
    fn state(&self, state: Option<Bytes>) -> Option<Bytes> {
        state
    }

    /// What a receipt is told.
    fn outcome(&self, settled: Settled) -> Settled {
        settled
    }

    /// A consumer is dropped.
    fn dropped(&self, inner: &dyn Consumer) {
        let _ = inner;
    }

    /// Closing.
    fn close<'a>(&'a self, inner: &'a dyn Transport) -> BoxFuture<'a, Result<(), SettleError>> {
        inner.close()
    }
}

/// A transport with a [`Tap`].
pub struct Tapped {
    inner: Arc<dyn Transport>,
    tap: Arc<dyn Tap>,
}

impl Tapped {
    /// Puts a tap between `inner` and whoever gets this.
    pub fn new(inner: Arc<dyn Transport>, tap: Arc<dyn Tap>) -> Self {
        Self { inner, tap }
    }
}

/// Another connection to a transport: closing it closes nothing for the others.
#[must_use]
pub fn connection(transport: Arc<dyn Transport>) -> Arc<dyn Transport> {
    Arc::new(Tapped::new(transport, Arc::new(Connection)))
}

struct Connection;

impl Tap for Connection {
    fn close<'a>(&'a self, _: &'a dyn Transport) -> BoxFuture<'a, Result<(), SettleError>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl Transport for Tapped {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        self.tap.publish(&*self.inner, batch)
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        async move {
            let Subscribed { consumer, created } = self.inner.subscribe(self.tap.spec(spec)).await?;
            let tap = Arc::clone(&self.tap);
            Ok(Subscribed { consumer: Box::new(TappedConsumer { inner: consumer, tap }), created })
        }
        .boxed()
    }

    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        match self.tap.control(control) {
            Some(control) => self.inner.control(subscription, control),
            None => std::future::ready(Ok(())).boxed(),
        }
    }

    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        self.inner.topics(control)
    }

    fn upkeep(&self) -> BoxFuture<'_, ()> {
        self.inner.upkeep()
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        self.inner.tail(topic)
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        let settled = self.inner.outcome(event, subscription);
        async move { Ok(self.tap.outcome(settled.await?)) }.boxed()
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        self.inner.progress()
    }

    fn inspect(&self) -> &dyn Inspect {
        self.inner.inspect()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        self.tap.close(&*self.inner)
    }
}

struct TappedConsumer {
    inner: Box<dyn Consumer>,
    tap: Arc<dyn Tap>,
}

impl Consumer for TappedConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        async move {
            self.tap.may_read().await;
            let mut events = Vec::new();
            self.inner.next(self.tap.limit(limit), &mut events).await?;
            self.tap.delivered(&mut events);
            out.append(&mut events);
            Ok(())
        }
        .boxed()
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        self.tap.settle(&*self.inner, batch)
    }

    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let (state, tap) = (self.inner.state(member, partition, key), Arc::clone(&self.tap));
        async move { Ok(tap.state(state.await?)) }.boxed()
    }
}

impl Drop for TappedConsumer {
    fn drop(&mut self) {
        self.tap.dropped(&*self.inner);
    }
}
