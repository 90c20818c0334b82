//! `file:` and `memory:`: topics in the embedded log.
//!
//! One log holds everything: events of all topics, and the state records beside them. [`state::State`] is what the
//! records say. Every change is appended first and applied then, both under the state's lock, so that the order in the
//! log is the order of the changes.

mod again;
mod consumer;
pub(in crate::transport) mod control;
mod dedup;
pub(in crate::transport) mod feed;
mod feedback;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(in crate::transport) mod giving;
pub(in crate::transport) mod hand;
mod handling;
mod inspect;
pub(in crate::transport) mod keyed;
mod lesson;
pub mod maintenance;
mod missed;
pub(in crate::transport) mod offsets;
mod overtaken;
mod publish;
mod reading;
mod recent;
mod recorded;
pub(in crate::transport) mod records;
mod replay;
mod retain;
pub(in crate::transport) mod schedule;
mod service;
pub(in crate::transport) mod settle;
mod snapshot;
pub(in crate::transport) mod standing;
pub(in crate::transport) mod state;
mod tail;
mod topics;
mod trial;
mod url;
mod waiting;

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Weak},
};

use futures_util::future::FutureExt as _;
use oncue_log::{
    AppendError, Batch, Cursor, Lsn, Ticket, TopicId,
    storage::{FileStorage, MemoryStorage, Storage},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::{
    consumer::{Core, LogConsumer},
    feed::{FedEvent, Feed, Seat},
    recent::Recent,
    records::{Change, Subscription, SubscriptionNumber},
    replay::Replayed,
    retain::Keeper,
    state::State,
    tail::Tails,
    topics::{Topic, Topics},
};
pub use url::LogUrl;

use super::{
    BoxFuture, Capabilities, ConsumeError, Control, ControlError, EventRef, Inspect, InspectError, MemberSpec,
    OpenError, Publish, PublishError, Published, SettleError, Settled, SubscribeError, Subscribed, SubscriptionSpec,
    Tail, TopicControl, Transport,
};
use crate::{
    clock::Clock,
    codec::Writer,
    event::{Envelope, MAX_DATA_BYTES},
};

/// Segments of a log in memory.
const MEMORY_SEGMENT_BYTES: u64 = 8 << 20;

/// Of so many of the newest bytes readers get the frames that were written, instead of reading them. Few where that reads
/// memory; and who keeps up reads neither.
const MEMORY_TAIL_BYTES: usize = 2 << 20;
const FILE_TAIL_BYTES: usize = 12 << 20;

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
    /// What is appended is durable when that returns.
    at_once: bool,
    shared: Mutex<Shared>,
    /// The common readers of topics with many subscriptions.
    feeds: Mutex<HashMap<TopicId, Arc<Feed>>>,
    /// Told whenever a subscription settles events or passes them by.
    progress: Notify,
    /// Who reads a topic without a subscription.
    tails: Tails,
    keeper: Keeper,
}

/// What one lock protects.
#[derive(Default)]
struct Shared {
    state: State,
    /// Where everything appended so far ends: what a duplicate waits for.
    end: Lsn,
    /// Where the last batch with events ends: whoever waits for these is told when they are durable.
    events_end: Lsn,
    /// Subscriptions that a handler of this process serves.
    attached: HashMap<SubscriptionNumber, Weak<Core>>,
    /// Who waits for the outcome of an event, by subscription and offset.
    waiting: HashMap<(SubscriptionNumber, u64), Vec<oneshot::Sender<()>>>,
    recent: Recent,
    /// Memory for what becomes of the events of a batch.
    plans: Vec<publish::Plan>,
    /// The events of the batch that is being settled.
    emitted: Vec<(TopicId, u16, Envelope)>,
    batch: Batch,
    scratch: Writer,
}

impl Shared {
    /// Tells those who wait for the outcome of an event that it is known.
    fn tell(&mut self, outcome: (SubscriptionNumber, u64)) {
        // Mostly nobody waits, and outcomes are many.
        if self.waiting.is_empty() {
            return;
        }
        for told in self.waiting.remove(&outcome).into_iter().flatten() {
            // A receipt that nobody waits for any more.
            let _ = told.send(());
        }
    }

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
            None => (Box::new(MemoryStorage::new()), oncue_log::Writer::OnDemand),
        };
        let (durability, tail_bytes) = (url.durability, FILE_TAIL_BYTES);
        let mut options = oncue_log::Options { durability, writer, tail_bytes, ..oncue_log::Options::default() };
        if url.directory.is_none() {
            // Memory is given back segment by segment.
            (options.segment_bytes, options.checkpoint_bytes) = (MEMORY_SEGMENT_BYTES, MEMORY_SEGMENT_BYTES);
            options.tail_bytes = MEMORY_TAIL_BYTES;
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
        let (segment_bytes, at_once) = (options.segment_bytes, options.writer != oncue_log::Writer::Thread);
        let mut replayed = Replayed::default();
        let mut replay = |replay: oncue_log::Replay<'_>| replayed.take(replay);
        let opened = oncue_log::Log::open(storage, options, clock.now().as_micros(), &mut replay)?;
        let log = opened.log;
        if let Some(tail) = &opened.report.torn {
            tracing::warn!(file = %tail.file, offset = tail.offset, bytes = tail.bytes,
                "cut a torn tail: the last write before the crash was never acknowledged");
        }
        let known = replayed.state.dedup.window();
        let window = url.window.over(known);
        let state = replayed.into_state(log.log_id(), clock.now(), window);
        let topics = Topics::new(&log, url.partitions, (url.retention(), !url.is_memory()));
        let shared = Mutex::new(Shared { state, ..Shared::default() });
        let (feeds, tails, progress) = (Mutex::default(), Tails::default(), Notify::new());
        let keeper = Keeper::default();
        let inner = Inner { url, log, clock, topics, segment_bytes, at_once, shared, feeds, tails, progress, keeper };
        if window != known {
            // Whoever opens the log next, and says nothing of it, must not cut it.
            inner.append_change(&mut inner.shared.lock(), &Change::Window(window)).map_err(OpenError::Window)?;
        }
        Ok(Self { inner: Arc::new(inner) })
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
        poll_fn(move |cx| {
            inner.log.poll_durable(end, cx.waker()).map_err(|fenced| {
                // The disk may be full: what need not be kept goes.
                inner.keeper.asked.notify_one();
                fenced.reason
            })
        })
    }

    /// Completes when a batch that met a full log may be tried again.
    fn space(self: &Arc<Self>) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let inner = Arc::clone(self);
        poll_fn(move |cx| inner.log.poll_space(cx.waker()).map_err(|fenced| fenced.reason))
    }

    /// Writes a checkpoint when enough has been written since the last one. Never fails a
    /// caller: a log that cannot take one will say so at the next append.
    fn checkpoint_if_due(&self, shared: &mut Shared) {
        if !self.log.checkpoint_due() {
            return;
        }
        match self.log.checkpoint(&shared.state.checkpoint(), self.clock.now().as_micros()) {
            Ok(ticket) => {
                shared.end = shared.end.max(ticket.end);
                // What it stands for may go.
                self.keeper.asked.notify_one();
            }
            Err(error) => tracing::warn!(%error, "no checkpoint was written; opening the log will take longer"),
        }
    }

    fn subscribe_member(self: &Arc<Self>, topic: &Topic, member: &MemberSpec) -> Result<Member, SubscribeError> {
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let known = shared.state.find(&member.id).map(|state| state.about.clone());
        let (_, next) = self.offsets(topic.id);
        let about = match &known {
            Some(known) if known.topic != topic.id.0 => {
                let existing = self.topics.name(known.topic).unwrap_or_default();
                return Err(SubscribeError::OtherTopic {
                    id: member.id.clone(),
                    existing,
                    wanted: topic.name.to_string(),
                });
            }
            Some(known) if known.is_as(member) => {
                return Ok(Member { number: known.number, created: None, ticket: None });
            }
            Some(known) => {
                Subscription { number: known.number, from: known.from, ..Subscription::of(member, topic.id) }
            }
            None => {
                let number = shared.state.next_number();
                let from = self.offset_of(topic.id, member.start);
                let from = from.map_err(|error| SubscribeError::Publish(PublishError::Fenced(error.to_string())))?;
                Subscription { number, from, ..Subscription::of(member, topic.id) }
            }
        };
        let created = (shared.state.find(&member.id).is_none()).then(|| next - about.from);
        let number = about.number;
        let about = about.learning_from(self.log.next_offset(topic.id), known.as_ref());
        let ticket = self.append_change(shared, &Change::Subscription(about)).map_err(SubscribeError::Publish)?;
        Ok(Member { number, created, ticket: Some(ticket) })
    }

    /// A place among those that the topic's feed reads for, if the topic has one, and has come as far.
    fn seat(self: &Arc<Self>, topic: &Topic, offset: u64, members: &[MemberSpec]) -> Option<Seat> {
        let served = {
            let shared = self.shared.lock();
            let reads =
                |number: &&SubscriptionNumber| shared.state.subscriptions[**number as usize].about.topic == topic.id.0;
            shared.attached.keys().filter(reads).take(self.url.feed_from).count()
        };
        if served < self.url.feed_from {
            return None;
        }
        let feed = {
            let mut feeds = self.feeds.lock();
            let feed = feeds.entry(topic.id).or_insert_with(|| Feed::new(self.log.cursor(topic.id, offset)));
            Arc::clone(feed)
        };
        feed.join(self, topic.id, offset, members)
    }

    /// The offsets of the topic's first event and of its next one.
    fn offsets(&self, topic: TopicId) -> (u64, u64) {
        let of_topic = self.log.topics().into_iter().find(|info| info.id == topic);
        of_topic.map_or((0, 0), |info| (info.first_offset, info.next_offset))
    }

    /// Reads a topic's next events: what was published lately is handed over, the rest is read from the log.
    fn read_events(
        &self,
        cursor: &mut Cursor,
        (most, most_bytes): (usize, usize),
        out: &mut Vec<FedEvent>,
    ) -> Result<(), ConsumeError> {
        let (place, durable) = ((cursor.topic(), cursor.offset()), self.log.durable());
        let handed = self.shared.lock().recent.read(place, durable, (most, most_bytes), out);
        if let Some(handed) = handed {
            if handed > 0 {
                *cursor = self.log.cursor(cursor.topic(), cursor.offset() + handed as u64);
            }
            return Ok(());
        }
        let mut records = Vec::new();
        let read = self.read_kept(cursor, (most, most_bytes), &mut records);
        for record in &records {
            out.push(FedEvent::of(record)?);
        }
        read.map(drop).map_err(|error| ConsumeError::Storage(error.to_string()))
    }

    /// Appends and applies one change.
    fn append_change(&self, shared: &mut Shared, change: &Change) -> Result<Ticket, PublishError> {
        self.try_append(shared, change).map_err(publish::error)
    }

    /// The same, where a full log is something to wait for.
    fn try_append(&self, shared: &mut Shared, change: &Change) -> Result<Ticket, AppendError> {
        shared.batch.clear();
        shared.scratch.clear();
        change.encode(&mut shared.scratch);
        shared.batch.state(change.kind(), &[shared.scratch.as_slice()]);
        let ticket = self.log.append(&shared.batch, self.clock.now().as_micros())?;
        shared.end = shared.end.max(ticket.end);
        shared.applied(change, ticket.lsn);
        Ok(ticket)
    }

    async fn subscribe(self: Arc<Self>, spec: SubscriptionSpec) -> Result<Subscribed, SubscribeError> {
        let topic = self.topic(&spec.topic).await?;
        loop {
            if let Some(core) = self.served(&spec)? {
                // Another instance serves it: they share. If that one goes at this moment, this one serves it anew.
                let Some(consumer) = core.join(false) else { continue };
                return Ok(Subscribed { consumer: Box::new(consumer), created: vec![None; spec.members.len()] });
            }
            let noted = self.note_gaps(topic.id);
            noted.map_err(|error| SubscribeError::Publish(publish::error(error)))?;
            let mut numbers = Vec::with_capacity(spec.members.len());
            let mut created = Vec::with_capacity(spec.members.len());
            let mut end = 0;
            for member in &spec.members {
                let attached = self.subscribe_member(&topic, member)?;
                numbers.push(attached.number);
                created.push(attached.created);
                end = end.max(attached.ticket.map_or(0, |ticket| ticket.end));
            }
            // Also what instances that are gone had said: nothing is handed out that follows from what a crash may take back.
            let end = end.max(self.shared.lock().end);
            let durable = self.durable(end).await;
            durable.map_err(|reason| SubscribeError::Publish(PublishError::Fenced(reason)))?;
            let core = Arc::new(Core::new(Arc::clone(&self), topic.clone(), spec.clone(), numbers));
            if let Some(consumer) = self.attach(&core) {
                return Ok(Subscribed { consumer: Box::new(consumer), created });
            }
        }
    }

    /// Who serves these handlers already, as one and with the same options.
    fn served(&self, spec: &SubscriptionSpec) -> Result<Option<Arc<Core>>, SubscribeError> {
        let shared = self.shared.lock();
        let served = spec.members.iter().find_map(|member| {
            let number = shared.state.find(&member.id)?.about.number;
            Some((member, shared.attached.get(&number)?.upgrade()?))
        });
        match served {
            Some((_, core)) if core.spec == *spec => Ok(Some(core)),
            Some((member, _)) => Err(SubscribeError::Busy(member.id.clone())),
            None => Ok(None),
        }
    }

    /// Serves its subscriptions by this core, unless somebody came first.
    fn attach(&self, core: &Arc<Core>) -> Option<LogConsumer> {
        let consumer = core.join(true);
        let mut shared = self.shared.lock();
        let is_taken = |number| shared.attached.get(number).is_some_and(|known| known.strong_count() > 0);
        if core.numbers.iter().any(is_taken) {
            drop(shared);
            return None;
        }
        for number in &core.numbers {
            shared.attached.insert(*number, Arc::downgrade(core));
        }
        shared.recent.follow(core.topic.id);
        drop(shared);
        consumer
    }

    fn detach(&self, core: &Core) {
        let mut shared = self.shared.lock();
        let attached = shared.attached.len();
        shared.attached.retain(|_, known| !std::ptr::eq(known.as_ptr(), core));
        if shared.attached.len() < attached {
            shared.recent.unfollow(core.topic.id);
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

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        publish::publish(&self.inner, batch).boxed()
    }

    fn publish_now(&self, topic: &str, event: &Envelope) -> Option<Result<(Arc<str>, Published), PublishError>> {
        publish::publish_now(&self.inner, topic, event)
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        Arc::clone(&self.inner).subscribe(spec).boxed()
    }

    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        control::control(Arc::clone(&self.inner), subscription.to_owned(), control).boxed()
    }

    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        retain::control(Arc::clone(&self.inner), control).boxed()
    }

    fn upkeep(&self) -> BoxFuture<'_, ()> {
        retain::upkeep(Arc::clone(&self.inner)).boxed()
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        tail::tail(Arc::clone(&self.inner), topic.to_owned()).boxed()
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        inspect::outcome(Arc::clone(&self.inner), event.clone(), subscription.to_owned()).boxed()
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        inspect::progress(&self.inner).boxed()
    }

    fn inspect(&self) -> &dyn Inspect {
        &*self.inner
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            inner.keeper.close().await;
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
