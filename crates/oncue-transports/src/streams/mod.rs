//! Brokers whose logs anybody appends to, and without a condition: a stream per topic, or one per partition of it, one per
//! ledger, and one that says which of them there are.
//!
//! Where a topic has one stream, an offset is a message's offset there, so it is in one order over all its partitions; where
//! it has more, they take turns. A stream has no conditions: what a ledger needs of them is in [`ledger`]. What a broker has to
//! give is [`Streams`] and [`Stream`].

mod extents;
mod ledger;
mod part;
mod registry;
mod stamps;
mod topic;
mod window;

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use oncue::{
    Clock, Envelope,
    clock::Timestamp,
    transport::{
        BoxFuture, Capabilities, OpenError, Position, Published, Transport,
        broker::{Broker, BrokerError, BrokerTransport, Extent, LedgerName},
    },
};
use parking_lot::Mutex;
use tokio::{
    runtime::Runtime,
    sync::{OnceCell, watch},
};

use self::{ledger::Ledger, registry::Registry, stamps::Stamps, topic::Topic};
use crate::not_opened;

/// Payload of the largest event: more of such messages are on their way at once than memory should hold.
pub(crate) const MAX_EVENT_BYTES: usize = 1 << 20;
/// The largest record of a ledger.
pub(crate) const MAX_RECORD_BYTES: usize = 16 << 20;

/// A broker that has streams.
pub(crate) trait Streams: Send + Sync + Sized + 'static {
    type Stream: Stream;

    /// The URL, without secrets.
    fn shown(&self) -> &str;

    /// How a topic that is made from now on is divided.
    fn division(&self) -> Division;

    /// How a topic is divided that somebody else has made; nothing if there is none, or the broker does not say.
    fn found(&self, name: &str) -> impl Future<Output = Result<Option<Division>, BrokerError>> + Send;

    /// The streams of a topic, made if they are not there.
    fn topic(
        self: &Arc<Self>,
        name: &str,
        division: Division,
    ) -> impl Future<Output = Result<Vec<Arc<Self::Stream>>, BrokerError>> + Send;

    /// Bytes of a ledger that may be wanted, where the broker keeps no more than some.
    fn ledger_limit(&self) -> Option<u64>;

    /// A stream beside topics, made if it is not there.
    fn stream(
        self: &Arc<Self>,
        name: &str,
        kind: Kind,
    ) -> impl Future<Output = Result<Arc<Self::Stream>, BrokerError>> + Send;

    /// Nothing is asked of it any more.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What a stream beside topics is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ledger,
    Registry,
}

/// How a topic is divided. It stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) partitions: u16,
    /// One for all partitions, or one for each.
    pub(crate) streams: u16,
}

impl Division {
    /// Of a topic that has all its partitions in one stream.
    pub(crate) fn within_one(partitions: u16) -> Self {
        Self { partitions, streams: 1 }
    }

    /// Of a topic that has a stream for each partition.
    #[cfg(feature = "kafka")]
    pub(crate) fn one_each(partitions: u16) -> Self {
        Self { partitions, streams: partitions }
    }
}

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Offset(u64),
    /// What was written together at that time or later.
    Time(Timestamp),
}

/// What is done with each message, in their order.
pub(crate) type Taking<S> = Box<dyn for<'a> Fn(<S as Stream>::Coming<'a>) + Send + Sync>;

/// What is done with messages of one's own that are next to be taken, by their index and where they stand: they need not
/// come back for that.
pub(crate) type TakingOurs<'a> = &'a (dyn Fn(usize, u64) + Send + Sync);

/// A message as it comes: it is kept by who wants to.
pub(crate) trait Coming<S> {
    fn offset(&self) -> u64;

    /// What an event says of itself, where it was written by us; nothing where that is known only once it is decoded.
    fn mark(&self) -> Option<Mark<'_>>;

    fn keep(self) -> S;
}

/// What an event is known by, without its data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark<'a> {
    source: &'a str,
    id: &'a str,
    /// What order is kept for.
    key: Option<&'a str>,
    published: Timestamp,
}

impl<'a> Mark<'a> {
    /// From the attributes that headers say, and when it was published, in microseconds.
    pub(crate) fn new(attribute: impl Fn(&str) -> Option<&'a str>, published: i64) -> Option<Self> {
        let text = |name| attribute(name).filter(|text| !text.is_empty());
        let (source, id, key) = (text("source")?, text("id")?, text("partitionkey").or_else(|| text("subject")));
        Some(Self { source, id, key, published: Timestamp::from_micros(published) })
    }

    pub(crate) fn of(event: &'a Envelope) -> Self {
        Self { source: event.source(), id: event.id(), key: event.key(), published: event.published() }
    }
}

/// A message that stands in a stream.
pub(crate) trait Stored: Send {
    fn offset(&self) -> u64;

    /// A number that was written beside its data.
    fn number(&self, name: &str) -> Option<u64>;

    fn data(&self) -> &Bytes;
}

/// One stream: appended to, followed as it grows, and read from an offset on.
pub(crate) trait Stream: Sized + Send + Sync + 'static {
    type Message: Send + Sync;
    type Stored: Stored;
    type Coming<'a>: Coming<Self::Stored>;

    /// An event as a message.
    fn event(event: &Envelope, published: Timestamp) -> Self::Message;

    /// A message as an event, of another tool's if it is none of ours.
    fn decode(topic: &str, stored: &Self::Stored) -> Result<Envelope, String>;

    /// Data, and numbers beside them, as a message.
    fn record(numbers: &[(&'static str, u64)], data: Bytes) -> Self::Message;

    fn name(&self) -> &str;

    /// Everything before was taken.
    fn next(&self) -> u64;

    /// Nothing before is there any more; 0 where that is not known.
    fn first(&self) -> impl Future<Output = Result<u64, BrokerError>> + Send;

    /// One of the last messages, not followed by many; nothing if there is none, or none came in time.
    fn last(&self, within: Duration) -> impl Future<Output = Result<Option<Self::Stored>, BrokerError>> + Send;

    /// Takes all messages from an offset on, until the transport is gone.
    fn follow(self: &Arc<Self>, from: u64, take: Taking<Self>);

    /// Everything that was confirmed before is taken when this returns.
    fn catch_up(&self) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// A message that is known to be there is taken when this returns.
    fn reach(&self, offset: u64) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Reads messages that were taken already, from a place on, until it is enough.
    fn read(
        &self,
        from: From,
        is_enough: impl FnMut(Self::Stored) -> bool + Send,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Appends messages, and gives their offsets once the broker has confirmed all of them and all were taken. It may have
    /// been done where there is an error. `ours` takes those that it can, instead of who follows.
    fn append(
        &self,
        messages: Vec<Self::Message>,
        ours: Option<TakingOurs<'_>>,
    ) -> impl Future<Output = Result<Vec<u64>, BrokerError>> + Send;

    /// What is before an offset is of no use any more, and may go.
    fn purge(&self, before: u64) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// What was opened, each once.
type Opened<K, V> = Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>;

/// A broker, or a cluster.
struct Streamed<S: Streams> {
    streams: Arc<S>,
    stamps: Arc<Stamps>,
    registry: Registry<S::Stream>,
    topics: Opened<String, Topic<S::Stream>>,
    ledgers: Opened<LedgerName, Ledger<S::Stream>>,
    growth: watch::Sender<u64>,
    /// Its own: a transport is opened and asked from anywhere.
    runtime: Option<Runtime>,
    handle: tokio::runtime::Handle,
}

impl<S: Streams> Drop for Streamed<S> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let streams = Arc::clone(&self.streams);
            // Whoever drops it need not wait until the broker knows.
            std::thread::spawn(move || {
                runtime.block_on(streams.close());
                runtime.shutdown_background();
            });
        }
    }
}

/// A transport on a broker, once that is connected to; `thread`: the name of the one that does it.
pub(crate) fn open<S: Streams>(
    thread: &str,
    shown: &str,
    connect: impl Future<Output = Result<Arc<S>, BrokerError>> + Send + 'static,
    clock: Clock,
) -> Result<Arc<dyn Transport>, OpenError> {
    let refused = |error: BrokerError| not_opened(shown, error);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name(thread).enable_all().build();
    let runtime = runtime.map_err(|error| refused(BrokerError::Failed(error.to_string())))?;
    let given_up = || BrokerError::Failed("opening was given up".to_owned());
    let (opened, opening) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let connecting = async {
            let streams = connect.await?;
            let registry = Registry::open(&streams).await?;
            Ok((streams, registry))
        };
        // Who opens waits for it.
        let _ = opened.send(connecting.await);
    });
    let (streams, registry) = match opening.recv().unwrap_or_else(|_| Err(given_up())) {
        Ok(opened) => opened,
        Err(error) => {
            runtime.shutdown_background();
            return Err(refused(error));
        }
    };
    let streamed = Streamed {
        streams,
        stamps: Arc::new(Stamps::new(clock.clone())),
        registry,
        topics: Mutex::default(),
        ledgers: Mutex::default(),
        growth: watch::Sender::new(0),
        handle: runtime.handle().clone(),
        runtime: Some(runtime),
    };
    Ok(Arc::new(BrokerTransport::new(Arc::new(Asked(Arc::new(streamed))), clock)))
}

impl<S: Streams> Streamed<S> {
    async fn open_topic(&self, name: &str) -> Result<Arc<Topic<S::Stream>>, BrokerError> {
        let place = Arc::clone(self.topics.lock().entry(name.to_owned()).or_default());
        let opening = async {
            if name == registry::NAME || name.starts_with(ledger::PREFIX) {
                return Err(BrokerError::Refused(format!("`{name}` is the name of what is kept beside topics")));
            }
            let (division, is_new) = self.division(name).await?;
            let streams = self.streams.topic(name, division).await?;
            Topic::open(streams, name, (division, is_new), &self.stamps, &self.growth).await.map(Arc::new)
        };
        place.get_or_try_init(|| opening).await.cloned()
    }

    /// How a topic is divided, and whether it is made now.
    async fn division(&self, name: &str) -> Result<(Division, bool), BrokerError> {
        if let Some(known) = self.registry.topic(name).await? {
            return Ok((known, false));
        }
        let found = self.streams.found(name).await?;
        let division = self.registry.enter_topic(name, found.unwrap_or_else(|| self.streams.division())).await?;
        Ok((division, found.is_none()))
    }

    fn opened_topic(&self, name: &str) -> Option<Arc<Topic<S::Stream>>> {
        self.topics.lock().get(name)?.get().cloned()
    }

    /// A ledger, if it is there.
    async fn ledger(&self, name: &LedgerName) -> Result<Option<Arc<Ledger<S::Stream>>>, BrokerError> {
        if self.opened_ledger(name).is_none() && !self.registry.has_ledger(name).await? {
            return Ok(None);
        }
        self.open_ledger(name).await.map(Some)
    }

    fn opened_ledger(&self, name: &LedgerName) -> Option<Arc<Ledger<S::Stream>>> {
        self.ledgers.lock().get(name)?.get().cloned()
    }

    /// A ledger, made if it is not there.
    async fn open_ledger(&self, name: &LedgerName) -> Result<Arc<Ledger<S::Stream>>, BrokerError> {
        let place = Arc::clone(self.ledgers.lock().entry(name.clone()).or_default());
        let opening = async {
            let is_new = !self.registry.has_ledger(name).await?;
            let stream = self.streams.stream(&ledger::stream(name), Kind::Ledger).await?;
            let limit = self.streams.ledger_limit();
            let ledger = Ledger::open(stream, limit, is_new, self.growth.clone()).await?;
            if is_new {
                self.registry.enter_ledger(name).await?;
            }
            Ok(Arc::new(ledger))
        };
        place.get_or_try_init(|| opening).await.cloned()
    }
}

/// What is asked is done on the broker's own runtime: who asks may hold up another one, on which somebody waits for it.
struct Asked<S: Streams>(Arc<Streamed<S>>);

impl<S: Streams> Asked<S> {
    fn ask<T, F>(&self, ask: impl FnOnce(Arc<Streamed<S>>) -> F) -> BoxFuture<'static, Result<T, BrokerError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BrokerError>> + Send + 'static,
    {
        let asked = self.0.handle.spawn(ask(Arc::clone(&self.0)));
        async move { asked.await.unwrap_or(Err(BrokerError::Closed)) }.boxed()
    }
}

impl<S: Streams> Broker for Asked<S> {
    fn url(&self) -> String {
        self.0.streams.shown().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            atomic_publish: false,
            atomic_settle: false,
            deduplicates: true,
            history: true,
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        &self.0.handle
    }

    fn topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u16, BrokerError>> {
        let name = name.to_owned();
        self.ask(|streamed| async move { Ok(streamed.open_topic(&name).await?.division.partitions) })
    }

    fn follow<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), BrokerError>> {
        let topic = topic.to_owned();
        self.ask(|streamed| async move {
            streamed.open_topic(&topic).await?.keep_recent();
            Ok(())
        })
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<(String, u16)>, BrokerError>> {
        self.ask(|streamed| async move { streamed.registry.topics().await })
    }

    fn extent<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<Extent, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |streamed| async move { streamed.open_topic(&topic).await?.extent(partition).await })
    }

    fn end<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<u64, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |streamed| async move { streamed.open_topic(&topic).await?.end(partition).await })
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        events: &'a [(u16, Envelope)],
    ) -> BoxFuture<'a, Result<Vec<Published>, BrokerError>> {
        let (topic, events) = (topic.to_owned(), events.to_vec());
        self.ask(|streamed| async move { streamed.open_topic(&topic).await?.publish(events).await })
    }

    fn events<'a>(
        &'a self,
        topic: &'a str,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Position, Envelope)>, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |streamed| async move { streamed.open_topic(&topic).await?.events(partition, from, limit).await })
    }

    fn since<'a>(
        &'a self,
        topic: &'a str,
        partition: u16,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |streamed| async move { streamed.open_topic(&topic).await?.since(partition, time).await })
    }

    fn append<'a>(
        &'a self,
        ledger: &'a LedgerName,
        record: Bytes,
        after: u64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        let ledger = ledger.clone();
        self.ask(move |streamed| async move {
            if record.len() > MAX_RECORD_BYTES {
                return Err(BrokerError::TooLarge { bytes: record.len(), limit: MAX_RECORD_BYTES });
            }
            streamed.open_ledger(&ledger).await?.append(record, after).await
        })
    }

    fn records<'a>(
        &'a self,
        ledger: &'a LedgerName,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, Bytes)>, BrokerError>> {
        let ledger = ledger.clone();
        self.ask(move |streamed| async move {
            match streamed.ledger(&ledger).await? {
                Some(ledger) => ledger.records(from, limit).await,
                None => Ok(Vec::new()),
            }
        })
    }

    fn purge<'a>(&'a self, ledger: &'a LedgerName, before: u64) -> BoxFuture<'a, Result<(), BrokerError>> {
        let opened = self.0.opened_ledger(ledger);
        self.ask(move |_| async move {
            match opened {
                Some(ledger) => ledger.purge(before).await,
                None => Ok(()),
            }
        })
    }

    fn ledgers(&self) -> BoxFuture<'_, Result<Vec<LedgerName>, BrokerError>> {
        self.ask(|streamed| async move { streamed.registry.ledgers().await })
    }

    fn heard(&self, topic: &str, partition: u16) -> u64 {
        self.0.opened_topic(topic).map_or(0, |topic| topic.heard(partition))
    }

    fn recent(&self, topic: &str, partition: u16, from: u64, limit: usize) -> Option<Vec<(Position, Envelope)>> {
        self.0.opened_topic(topic)?.recent(partition, from, limit)
    }

    fn turns(&self, topic: &str) -> u16 {
        self.0.opened_topic(topic).map_or(1, |topic| topic.division.streams)
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.0.growth.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // All that was sent was waited for, and what stands there may still be looked at.
        std::future::ready(()).boxed()
    }
}
