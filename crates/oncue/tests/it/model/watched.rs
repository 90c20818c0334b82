//! The transport, with the model looking on: when it is that a subscription is served, in which order, and from where.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use oncue::{
    Envelope,
    transport::{
        BoxFuture, Capabilities, ConsumeError, Consumer, Control, ControlError, Delivered, EventRef, Inspect,
        InspectError, Limit, LogTransport, Publish, PublishError, Published, SettleError, Settled, Settlement, Start,
        SubscribeError, Subscribed, SubscriptionSpec, Tail, TopicControl, Transport,
    },
};
use parking_lot::Mutex;

use super::{
    flaws::Flaw,
    known::{Model, subscription_of},
};

/// What one app has of a log that others may share.
pub(super) struct Watched {
    pub(super) log: Arc<LogTransport>,
    pub(super) model: Arc<Mutex<Model>>,
    /// How many apps have it open: the last one closes it.
    pub(super) open: Arc<AtomicUsize>,
    /// Whether keyed states come late.
    pub(super) slow_states: bool,
    pub(super) flaw: Option<Flaw>,
}

/// One of the instances that share a subscription.
struct Instance {
    consumer: Box<dyn Consumer>,
    model: Arc<Mutex<Model>>,
    members: Vec<usize>,
    slow_states: bool,
    flaw: Option<Flaw>,
}

impl Watched {
    /// The first event that the topic has, and the one that comes next.
    fn bounds(&self) -> (u64, u64) {
        let topic = self.log.log().topics().into_iter().find(|topic| topic.name == "events");
        topic.map_or((0, 0), |topic| (topic.first_offset, topic.next_offset))
    }

    /// The first offset that `start` stands for.
    fn offset_of(&self, start: Start) -> u64 {
        let (first, next) = self.bounds();
        match start {
            Start::Earliest => first,
            Start::Latest => next,
            Start::At(position) => position.offset().clamp(first, next),
            Start::Since(time) => {
                let events = self.log.inspect().browse("events", first, usize::MAX).unwrap_or_default();
                let since = |(_, event): &&(_, Envelope)| event.published() >= time;
                events.iter().find(since).map_or(next, |(position, _)| position.offset())
            }
        }
    }
}

impl Transport for Watched {
    fn url(&self) -> String {
        self.log.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        self.log.publish(batch)
    }

    fn publish_now(&self, topic: &str, event: &Envelope) -> Option<Result<(Arc<str>, Published), PublishError>> {
        self.log.publish_now(topic, event)
    }

    fn subscribe(&self, mut spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        async move {
            let members: Vec<usize> = spec.members.iter().map(|member| subscription_of(&member.id)).collect();
            let first = self.bounds().0;
            self.model.lock().subscribes(&spec, first);
            self.flaw.inspect(|flaw| flaw.in_spec(&mut spec));
            let Subscribed { consumer, mut created } = self.log.subscribe(spec).await?;
            self.flaw.inspect(|flaw| flaw.in_created(&mut created));
            self.model.lock().subscribed(&members, &created);
            let (model, slow_states, flaw) = (Arc::clone(&self.model), self.slow_states, self.flaw);
            Ok(Subscribed { consumer: Box::new(Instance { consumer, model, members, slow_states, flaw }), created })
        }
        .boxed()
    }

    fn control(&self, subscription: &str, mut control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        let (id, which) = (subscription.to_owned(), subscription_of(subscription));
        async move {
            let anew = match &control {
                Control::Reset(start) => Some(Some(self.offset_of(*start))),
                Control::Remove => Some(None),
                Control::Resolve(_) | Control::Remember(_) => None,
            };
            if let Some(from) = anew {
                self.model.lock().begins_anew(which, from);
            }
            self.flaw.inspect(|flaw| flaw.in_control(&mut control));
            let mut done = self.log.control(&id, control).await;
            self.flaw.inspect(|flaw| flaw.in_controlled(&mut done));
            if anew.is_some() {
                self.model.lock().began_anew(&done);
            }
            done
        }
        .boxed()
    }

    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        self.log.topics(control)
    }

    fn upkeep(&self) -> BoxFuture<'_, ()> {
        self.log.upkeep()
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        self.log.tail(topic)
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        self.log.outcome(event, subscription)
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        self.log.progress()
    }

    fn inspect(&self) -> &dyn Inspect {
        self.log.inspect()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        if self.open.fetch_sub(1, Ordering::SeqCst) > 1 {
            return std::future::ready(Ok(())).boxed();
        }
        self.log.close()
    }
}

impl Consumer for Instance {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        let Some(flaw) = self.flaw else { return self.consumer.next(limit, out) };
        async move {
            let before = out.len();
            while out.len() == before {
                self.consumer.next(limit, out).await?;
                let acked = flaw.in_delivered(before, out);
                drop(self.consumer.settle(acked));
            }
            Ok(())
        }
        .boxed()
    }

    fn settle(&self, mut batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        self.flaw.inspect(|flaw| flaw.in_settled(&mut batch));
        self.consumer.settle(batch)
    }

    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let state = self.consumer.state(member, partition, key);
        if !self.slow_states {
            return state;
        }
        async move {
            tokio::task::yield_now().await;
            state.await
        }
        .boxed()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.model.lock().detached(&self.members);
    }
}
