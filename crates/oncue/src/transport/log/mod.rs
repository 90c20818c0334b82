//! `file:` and `memory:`: topics in the embedded log.
//!
//! One log holds everything: events of all topics, and the state records beside them. [`state::State`] is what the
//! records say. Every change is appended first and applied then, both under the state's lock, so that the order in the
//! log is the order of the changes.

mod consumer;
mod dedup;
mod handling;
mod inspect;
mod keyed;
mod offsets;
mod publish;
mod records;
mod replay;
mod retain;
mod settle;
mod snapshot;
mod state;
mod topics;
mod url;

use std::{collections::HashMap, future::poll_fn, sync::Arc};

use futures_util::future::FutureExt as _;
use oncue_log::{
    Batch, Lsn, Ticket, TopicId,
    storage::{FileStorage, MemoryStorage, Storage},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::{
    consumer::LogConsumer,
    records::{Change, Subscription, SubscriptionNumber},
    replay::Replayed,
    state::State,
    topics::{Topic, Topics},
};
pub use url::LogUrl;

use super::{
    BoxFuture, Capabilities, EventRef, Inspect, InspectError, MemberSpec, OpenError, Publish, PublishError, Published,
    SettleError, Settled, Start, SubscribeError, Subscribed, SubscriptionSpec, Transport,
};
use crate::{clock::Clock, codec::Writer, event::MAX_DATA_BYTES};

/// Segments of a log in memory.
const MEMORY_SEGMENT_BYTES: u64 = 8 << 20;

/// The embedded log as a transport.
pub struct LogTransport {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    url: LogUrl,
    log: oncue_log::Log,
    clock: Clock,
    topics: Topics,
    segment_bytes: u64,
    shared: Mutex<Shared>,
    /// Told whenever a subscription settles events or passes them by.
    progress: Notify,
}

/// What one lock protects.
#[derive(Default)]
struct Shared {
    state: State,
    /// Where everything appended so far ends: what a duplicate waits for.
    end: Lsn,
    /// Subscriptions that a handler of this process serves.
    attached: HashMap<SubscriptionNumber, ()>,
    /// Who waits for the outcome of an event, by subscription and offset.
    waiting: HashMap<(SubscriptionNumber, u64), Vec<oneshot::Sender<()>>>,
    /// Below the first, all that is wanted was written again; durable at the second.
    rewritten: Option<(Lsn, Lsn)>,
    batch: Batch,
    scratch: Writer,
}

impl Shared {
    /// Applies what was just written. It speaks of what is known, so it fits.
    fn applied(&mut self, change: &Change, lsn: Lsn) {
        if let Err(error) = self.state.apply(change, lsn) {
            tracing::error!(%error, "a change that was written does not apply");
        }
    }
}

impl LogTransport {
    /// Opens the log of a URL, replaying what it says.
    ///
    /// # Errors
    /// The directory is foreign, busy or unreadable; the log is damaged.
    pub fn open(url: &LogUrl, clock: Clock) -> Result<Self, OpenError> {
        let (storage, writer): (Box<dyn Storage>, _) = match &url.directory {
            Some(directory) => (Box::new(FileStorage::open(directory)?), oncue_log::Writer::Thread),
            None => (Box::new(MemoryStorage::new()), oncue_log::Writer::Inline),
        };
        let mut options = oncue_log::Options { durability: url.durability, writer, ..oncue_log::Options::default() };
        if url.directory.is_none() {
            // Memory is given back segment by segment.
            (options.segment_bytes, options.checkpoint_bytes) = (MEMORY_SEGMENT_BYTES, MEMORY_SEGMENT_BYTES);
        }
        Self::on_storage(url.clone(), storage, options, clock)
    }

    /// Opens the log on a storage of the caller's: for tests that make storage fail.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on_storage(
        url: LogUrl,
        storage: Box<dyn Storage>,
        options: oncue_log::Options,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let segment_bytes = options.segment_bytes;
        let mut replayed = Replayed::default();
        let mut replay = |replay: oncue_log::Replay<'_>| replayed.take(replay);
        let opened = oncue_log::Log::open(storage, options, clock.now().as_micros(), &mut replay)?;
        let log = opened.log;
        if let Some(tail) = &opened.report.torn {
            tracing::warn!(file = %tail.file, offset = tail.offset, bytes = tail.bytes,
                "cut a torn tail: the last write before the crash was never acknowledged");
        }
        let state = replayed.into_state(log.log_id(), clock.now(), url.window);
        let topics = Topics::new(&log, url.partitions);
        let shared = Mutex::new(Shared { state, ..Shared::default() });
        Ok(Self { inner: Arc::new(Inner { url, log, clock, topics, segment_bytes, shared, progress: Notify::new() }) })
    }

    /// The log underneath: for tools and reports.
    #[must_use]
    pub fn log(&self) -> &oncue_log::Log {
        &self.inner.log
    }
}

impl Inner {
    /// Completes when everything below `end` is durable.
    fn durable(self: &Arc<Self>, end: Lsn) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let inner = Arc::clone(self);
        poll_fn(move |cx| inner.log.poll_durable(end, cx.waker()).map_err(|fenced| fenced.reason))
    }

    /// Completes when a batch that met a full log may be tried again.
    fn space(self: &Arc<Self>) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let inner = Arc::clone(self);
        poll_fn(move |cx| inner.log.poll_space(cx.waker()).map_err(|fenced| fenced.reason))
    }

    /// Writes a checkpoint when enough has been written since the last one, and drops what may go. Never fails a
    /// caller: a log that cannot take one will say so at the next append.
    fn checkpoint_if_due(&self, shared: &mut Shared) {
        if !self.log.checkpoint_due() {
            return;
        }
        match self.log.checkpoint(&shared.state.checkpoint(), self.clock.now().as_micros()) {
            Ok(ticket) => {
                shared.end = shared.end.max(ticket.end);
                self.trim(shared);
            }
            Err(error) => tracing::warn!(%error, "no checkpoint was written; opening the log will take longer"),
        }
    }

    fn subscribe_member(self: &Arc<Self>, topic: &Topic, member: &MemberSpec) -> Result<Member, SubscribeError> {
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let known = shared.state.find(&member.id).map(|state| state.about.clone());
        let (first, next) = self.offsets(topic.id);
        let about = match known {
            Some(known) if known.topic != topic.id.0 => {
                let existing = self.topics.name(known.topic).unwrap_or_default();
                return Err(SubscribeError::OtherTopic {
                    id: member.id.clone(),
                    existing,
                    wanted: topic.name.to_string(),
                });
            }
            Some(known) if shared.attached.contains_key(&known.number) => {
                return Err(SubscribeError::Busy(member.id.clone()));
            }
            Some(known) if known.types == member.types => {
                shared.attached.insert(known.number, ());
                return Ok(Member { number: known.number, created: None, ticket: None });
            }
            Some(known) => Subscription { types: member.types.clone(), ..known },
            None => Subscription {
                number: shared.state.next_number(),
                id: member.id.clone(),
                topic: topic.id.0,
                types: member.types.clone(),
                from: if member.start == Start::Latest { next } else { first },
            },
        };
        let created = (shared.state.find(&member.id).is_none()).then(|| next - about.from);
        let number = about.number;
        let ticket = self.append_change(shared, &Change::Subscription(about)).map_err(SubscribeError::Publish)?;
        shared.attached.insert(number, ());
        Ok(Member { number, created, ticket: Some(ticket) })
    }

    /// The offsets of the topic's first event and of its next one.
    fn offsets(&self, topic: TopicId) -> (u64, u64) {
        let of_topic = self.log.topics().into_iter().find(|info| info.id == topic);
        of_topic.map_or((0, 0), |info| (info.first_offset, info.next_offset))
    }

    /// Appends and applies one change.
    fn append_change(&self, shared: &mut Shared, change: &Change) -> Result<Ticket, PublishError> {
        shared.batch.clear();
        shared.scratch.clear();
        change.encode(&mut shared.scratch);
        shared.batch.state(change.kind(), &[shared.scratch.as_slice()]);
        let ticket = self.log.append(&shared.batch, self.clock.now().as_micros()).map_err(publish::error)?;
        shared.end = shared.end.max(ticket.end);
        shared.applied(change, ticket.lsn);
        Ok(ticket)
    }

    async fn subscribe(self: Arc<Self>, spec: SubscriptionSpec) -> Result<Subscribed, SubscribeError> {
        let mut numbers = Vec::with_capacity(spec.members.len());
        let mut created = Vec::with_capacity(spec.members.len());
        let mut end = 0;
        let topic = self.topic(&spec.topic).await?;
        for member in &spec.members {
            let attached = self.subscribe_member(&topic, member).inspect_err(|_| self.detach(&numbers))?;
            numbers.push(attached.number);
            created.push(attached.created);
            end = end.max(attached.ticket.map_or(0, |ticket| ticket.end));
        }
        self.durable(end).await.map_err(|reason| {
            self.detach(&numbers);
            SubscribeError::Publish(PublishError::Fenced(reason))
        })?;
        Ok(Subscribed { consumer: Box::new(LogConsumer::new(self, topic, spec, numbers)), created })
    }

    fn detach(&self, numbers: &[SubscriptionNumber]) {
        let mut shared = self.shared.lock();
        for number in numbers {
            shared.attached.remove(number);
        }
    }
}

struct Member {
    number: SubscriptionNumber,
    created: Option<u64>,
    ticket: Option<Ticket>,
}

impl Transport for LogTransport {
    fn url(&self) -> String {
        self.inner.url.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: self.inner.url.directory.is_some(),
            atomic_publish: true,
            atomic_settle: true,
            deduplicates: true,
            history: true,
            max_event_bytes: MAX_DATA_BYTES,
        }
    }

    fn publish(&self, batch: Publish) -> BoxFuture<'_, Result<Vec<Published>, PublishError>> {
        publish::publish(Arc::clone(&self.inner), batch).boxed()
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        Arc::clone(&self.inner).subscribe(spec).boxed()
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        inspect::outcome(Arc::clone(&self.inner), event.clone(), subscription.to_owned()).boxed()
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        self.inner.progress.notified().boxed()
    }

    fn inspect(&self) -> &dyn Inspect {
        &*self.inner
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            // The closing write syncs: off the runtime's threads, so that nothing else waits for the disk.
            let closed = tokio::task::spawn_blocking(move || {
                let shared = inner.shared.lock();
                let now = inner.clock.now().as_micros();
                if inner.log.fenced().is_none() && inner.log.stats().records > 0 {
                    // What the log says now: the next opening replays nothing.
                    match inner.log.checkpoint(&shared.state.checkpoint(), now) {
                        Ok(_) | Err(oncue_log::AppendError::Closed) => {}
                        Err(error) => tracing::warn!(%error, "no checkpoint at close"),
                    }
                }
                inner.log.close(now)
            });
            match closed.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(settle::error(error)),
                Err(_) => Err(SettleError::Closed),
            }
        }
        .boxed()
    }
}
