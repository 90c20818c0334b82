//! A node as a transport.

use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use oncue::{
    Envelope,
    transport::{
        BoxFuture, Capabilities, ConsumeError, Control, ControlError, EventRef, Inspect, InspectError, OpenError,
        Position, Publish, PublishError, Published, SettleError, Settled, SubscribeError, Subscribed, SubscriptionSpec,
        Tail, TopicControl, Transport,
    },
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{
    caller::{CallError, Caller, Link, PATIENCE},
    consumer::RemoteConsumer,
    message::{Refusal, Reply, Request, Session, VERSION},
};

/// How long a request may wait at the node before it is asked again.
pub(super) const WAIT_MILLIS: u64 = 5_000;
/// How long opening waits for a node that is just being started.
const OPENING: Duration = Duration::from_secs(5);

/// How long somebody who leaves waits for an answer.
const GOODBYE: Duration = Duration::from_secs(2);

/// The topics of a node, over a wire.
pub struct Remote(pub(super) Arc<Ends>);

/// What the transport, its consumers and its tails share.
pub(super) struct Ends {
    pub(super) caller: Caller,
    capabilities: Capabilities,
    /// How long a session goes on that the node hears nothing of.
    pub(super) lease: Duration,
    closed: AtomicBool,
    /// The node's count of progress, as far as it is known here.
    progress: AtomicU64,
    /// The sessions that go on.
    open: Mutex<HashSet<Session>>,
    /// Goodbyes on their way.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) fn new_session() -> Session {
    fastrand::u128(..)
}

impl Remote {
    /// Reaches a node. Stands still until it answers, for at most a few seconds.
    pub(crate) fn open(link: &Arc<dyn Link>) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Url { url: link.url().to_owned(), reason };
        let caller = Caller::new(Arc::clone(link)).map_err(|error| wrong(error.to_string()))?;
        match caller.call_blocking(&Request::Hello { version: VERSION }, OPENING) {
            Ok(Reply::Hello { capabilities, lease }) => {
                let lease = Duration::from_millis(lease);
                let ends = Arc::new(Ends {
                    caller,
                    capabilities,
                    lease,
                    closed: AtomicBool::new(false),
                    progress: AtomicU64::new(0),
                    open: Mutex::default(),
                    leaving: Mutex::default(),
                });
                ends.caller.spawn(extend(Arc::downgrade(&ends), lease / 3));
                Ok(Self(ends))
            }
            Ok(other) => Err(wrong(format!("this is no Oncue node: it answers {other:?}"))),
            Err(error @ CallError::Unreachable { .. }) => {
                let mend = "start one with `oncue serve --listen URL --data DIR`, or correct the URL";
                Err(OpenError::Broker { url: link.url().to_owned(), reason: format!("{error}; {mend}") })
            }
            Err(CallError::Refused(refusal)) => {
                Err(OpenError::Refused { url: link.url().to_owned(), reason: refusal.to_string() })
            }
        }
    }
}

impl Remote {
    /// What the node knows.
    pub(crate) fn looking(&self) -> Arc<dyn Inspect> {
        Arc::clone(&self.0) as Arc<dyn Inspect>
    }
}

impl Ends {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Keeps a session alive from now on.
    pub(super) fn hold(&self, session: Session) {
        self.open.lock().insert(session);
    }

    /// The sessions that go on.
    pub(super) fn sessions(&self) -> Vec<Session> {
        self.open.lock().iter().copied().collect()
    }

    /// A session is over at the node.
    pub(super) fn lost(&self, session: Session) {
        self.open.lock().remove(&session);
    }

    /// Waits until the node knows of each session that it is over.
    async fn left(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        for goodbye in leaving {
            // Its task says what went wrong; the lease ends it then.
            let _ = goodbye.await;
        }
    }

    /// Tells the node that a session is over, after what is still asked in it; does not wait for that for long.
    pub(super) fn leave(self: &Arc<Self>, session: Session, after: impl Future<Output = ()> + Send + 'static) {
        let ends = Arc::clone(self);
        let goodbye = async move {
            if tokio::time::timeout(GOODBYE, after).await.is_err() {
                tracing::debug!("a session is left with questions that have no answer");
            }
            ends.lost(session);
            if let Err(error) = ends.caller.call(&Request::Leave { session }, Some(GOODBYE)).await {
                tracing::debug!(%error, "a session is not left but goes on until its lease is over");
            }
        };
        let mut leaving = self.leaving.lock();
        leaving.retain(|task| !task.is_finished());
        leaving.push(self.caller.spawn(goodbye));
    }

    pub(super) fn look(&self, question: super::message::Question) -> Result<Reply, InspectError> {
        match self.caller.call_blocking(&Request::Inspect(question), PATIENCE) {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(Refusal::Inspect(error))) => Err(error),
            Err(error) => Err(InspectError::Storage(error.to_string())),
        }
    }
}

/// An answer to another question than was asked.
pub(super) fn strange(reply: &Reply) -> String {
    format!("the node answers something else than was asked: {reply:?}")
}

pub(super) fn publish_error(error: CallError) -> PublishError {
    match error {
        CallError::Refused(Refusal::Append(error)) => error,
        CallError::Refused(Refusal::TooLarge { bytes, limit }) => PublishError::TooLarge { bytes, limit },
        other => PublishError::Unreachable(other.to_string()),
    }
}

pub(super) fn consume_error(error: CallError) -> ConsumeError {
    match error {
        CallError::Refused(Refusal::Consume(error)) => error,
        other => ConsumeError::Storage(other.to_string()),
    }
}

fn control_error(error: CallError) -> ControlError {
    match error {
        CallError::Refused(Refusal::Control(error)) => error,
        other => publish_error(other).into(),
    }
}

fn subscribe_error(error: CallError) -> SubscribeError {
    match error {
        CallError::Refused(Refusal::Subscribe(error)) => error,
        other => publish_error(other).into(),
    }
}

impl Transport for Remote {
    fn url(&self) -> String {
        self.0.caller.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        Box::pin(async move {
            if self.0.is_closed() {
                return Err(PublishError::Closed);
            }
            match self.0.caller.call(&Request::Append(batch.clone()), Some(PATIENCE)).await.map_err(publish_error)? {
                Reply::Appended(published) => Ok(published),
                other => Err(PublishError::Unreachable(strange(&other))),
            }
        })
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        Box::pin(async move {
            if self.0.is_closed() {
                return Err(PublishError::Closed.into());
            }
            self.0.left().await;
            let session = new_session();
            let request = Request::Subscribe { session, spec: spec.clone() };
            match self.0.caller.call(&request, Some(PATIENCE)).await.map_err(subscribe_error)? {
                Reply::Subscribed { created } => {
                    let consumer = Box::new(RemoteConsumer::new(Arc::clone(&self.0), session, spec));
                    Ok(Subscribed { consumer, created })
                }
                other => Err(PublishError::Unreachable(strange(&other)).into()),
            }
        })
    }

    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        let request = Request::Control { subscription: subscription.to_owned(), control };
        Box::pin(async move {
            // Who is served no more here is served no more there.
            self.0.left().await;
            self.0.caller.call(&request, Some(PATIENCE)).await.map(|_| ()).map_err(control_error)
        })
    }

    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        let call = self.0.caller.call(&Request::Topics(control), Some(PATIENCE));
        Box::pin(async move { call.await.map(|_| ()).map_err(control_error) })
    }

    /// The node's own.
    fn upkeep(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        let (session, topic) = (new_session(), topic.to_owned());
        Box::pin(async move {
            let request = Request::Tail { session, topic: topic.clone() };
            self.0.caller.call(&request, Some(PATIENCE)).await.map_err(subscribe_error)?;
            self.0.hold(session);
            let tail = RemoteTail { ends: Arc::clone(&self.0), topic, session, last: 0 };
            Ok(Box::new(tail) as Box<dyn Tail>)
        })
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        let request =
            Request::Outcome { event: event.clone(), subscription: subscription.to_owned(), wait: WAIT_MILLIS };
        Box::pin(async move {
            loop {
                match self.0.caller.call(&request, None).await {
                    Ok(Reply::Outcome(Some(settled))) => return Ok(settled),
                    Ok(_) => {}
                    Err(CallError::Refused(Refusal::Inspect(error))) => return Err(error),
                    Err(error) => return Err(InspectError::Storage(error.to_string())),
                }
            }
        })
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        // What is known now: progress between this call and the node's answer is progress since.
        let seen = self.0.progress.load(Ordering::Acquire);
        Box::pin(async move {
            while let Ok(Reply::Progress(now)) =
                self.0.caller.call(&Request::Progress { seen, wait: WAIT_MILLIS }, None).await
            {
                self.0.progress.fetch_max(now, Ordering::AcqRel);
                if now != seen {
                    return;
                }
            }
        })
    }

    fn inspect(&self) -> &dyn Inspect {
        &*self.0
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        Box::pin(async move {
            self.0.closed.store(true, Ordering::Release);
            self.0.left().await;
            Ok(())
        })
    }
}

/// A topic as it grows.
struct RemoteTail {
    ends: Arc<Ends>,
    topic: String,
    session: Session,
    last: u64,
}

impl Tail for RemoteTail {
    fn next<'a>(
        &'a mut self,
        limit: usize,
        out: &'a mut Vec<(Position, Envelope)>,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        Box::pin(async move {
            loop {
                if self.ends.is_closed() {
                    return Err(ConsumeError::Closed);
                }
                let request = Request::Follow { session: self.session, limit, last: self.last, wait: WAIT_MILLIS };
                match self.ends.caller.call(&request, None).await {
                    Ok(Reply::Followed { number, events }) if number != self.last => {
                        self.last = number;
                        out.extend(events);
                        return Ok(());
                    }
                    Ok(_) => {}
                    Err(CallError::Refused(Refusal::UnknownSession(_))) => {
                        let (session, topic) = (new_session(), self.topic.clone());
                        self.ends.caller.call(&Request::Tail { session, topic }, None).await.map_err(consume_error)?;
                        self.ends.lost(self.session);
                        self.ends.hold(session);
                        (self.session, self.last) = (session, 0);
                    }
                    Err(error) => return Err(consume_error(error)),
                }
            }
        })
    }
}

impl Drop for RemoteTail {
    fn drop(&mut self) {
        self.ends.leave(self.session, std::future::ready(()));
    }
}

/// Tells the node again and again that sessions go on: a handler may be at an event for longer than a lease.
async fn extend(ends: Weak<Ends>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        let Some(ends) = ends.upgrade() else { return };
        let sessions = ends.sessions();
        if sessions.is_empty() {
            continue;
        }
        let call = ends.caller.call(&Request::Extend { sessions }, Some(every));
        drop(ends);
        if let Err(error) = call.await {
            tracing::debug!(%error, "sessions may end");
        }
    }
}
