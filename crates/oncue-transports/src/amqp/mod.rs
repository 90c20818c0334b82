//! `RabbitMQ`, by AMQP 0-9-1: a stream per topic, a stream per ledger, and one that says which of them there are.
//!
//! An offset is a message's offset in its topic's stream, so a topic is in one order over all its partitions. A stream
//! has no conditions: what a ledger needs of them is in [`ledger`].

mod connecting;
mod ledger;
mod message;
mod reading;
mod registry;
mod stream;
mod topic;
mod url;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
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

use self::{connecting::Link, ledger::Ledger, registry::Registry, topic::Topic, url::AmqpUrl};

/// Payload of the largest event: more of such messages are on their way at once than memory should hold.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// The largest record of a ledger.
const MAX_RECORD_BYTES: usize = 16 << 20;
/// Longest name of a queue.
const MAX_QUEUE_BYTES: usize = 255;

/// What was opened, each once.
type Opened<K, V> = Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>;

/// A broker, or a cluster.
struct Amqp {
    link: Arc<Link>,
    clock: Clock,
    registry: Registry,
    topics: Opened<String, Topic>,
    ledgers: Opened<LedgerName, Ledger>,
    growth: watch::Sender<u64>,
    /// What the ids of its messages begin with, and how many it made.
    nonce: String,
    ids: AtomicU64,
    /// Its own: a transport is opened and asked from anywhere.
    runtime: Option<Runtime>,
    handle: tokio::runtime::Handle,
}

impl Drop for Amqp {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let link = Arc::clone(&self.link);
            // Whoever drops it need not wait until the broker knows.
            std::thread::spawn(move || {
                runtime.block_on(link.close());
                runtime.shutdown_background();
            });
        }
    }
}

/// Connects to a broker.
pub(crate) fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    let url = AmqpUrl::parse(url)?;
    let shown = url.shown.clone();
    let refused = |reason: String| OpenError::Broker { url: shown.clone(), reason };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name("oncue-amqp").enable_all().build();
    let runtime = runtime.map_err(|error| refused(error.to_string()))?;
    let (opened, opening) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let connecting = async {
            let link = Link::connect(url).await?;
            let registry = Registry::open(&link).await.map_err(|error| error.to_string())?;
            Ok((link, registry))
        };
        // Who opens waits for it.
        let _ = opened.send(connecting.await);
    });
    let (link, registry) = match opening.recv().unwrap_or_else(|_| Err("opening was given up".to_owned())) {
        Ok(opened) => opened,
        Err(reason) => {
            runtime.shutdown_background();
            return Err(refused(reason));
        }
    };
    let amqp = Amqp {
        link,
        clock: clock.clone(),
        registry,
        topics: Mutex::default(),
        ledgers: Mutex::default(),
        growth: watch::Sender::new(0),
        nonce: format!("{:016x}", fastrand::u64(..)),
        ids: AtomicU64::new(0),
        handle: runtime.handle().clone(),
        runtime: Some(runtime),
    };
    Ok(Arc::new(BrokerTransport::new(Arc::new(Asked(Arc::new(amqp))), clock)))
}

impl Amqp {
    /// A fresh id of a message.
    fn id(&self) -> String {
        format!("{}-{:x}", self.nonce, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    async fn open_topic(&self, name: &str) -> Result<Arc<Topic>, BrokerError> {
        let place = Arc::clone(self.topics.lock().entry(name.to_owned()).or_default());
        let opening = async {
            if name == registry::NAME || name.starts_with(ledger::PREFIX) {
                return Err(BrokerError::Refused(format!("`{name}` is the name of what is kept beside topics")));
            }
            let partitions = self.registry.topic(name, self.link.url.partitions, &self.id()).await?;
            let growth = self.growth.clone();
            Topic::open(&self.link, name, partitions, self.clock.clone(), growth).await.map(Arc::new)
        };
        place.get_or_try_init(|| opening).await.cloned()
    }

    /// A ledger, if it is there.
    async fn ledger(&self, name: &LedgerName) -> Result<Option<Arc<Ledger>>, BrokerError> {
        if self.opened_ledger(name).is_none() && !self.registry.has_ledger(name).await? {
            return Ok(None);
        }
        self.open_ledger(name).await.map(Some)
    }

    fn opened_ledger(&self, name: &LedgerName) -> Option<Arc<Ledger>> {
        self.ledgers.lock().get(name)?.get().cloned()
    }

    /// A ledger, made if it is not there.
    async fn open_ledger(&self, name: &LedgerName) -> Result<Arc<Ledger>, BrokerError> {
        let place = Arc::clone(self.ledgers.lock().entry(name.clone()).or_default());
        let opening = async {
            let queue = self.link.url.queue(&ledger::queue(name));
            if queue.len() > MAX_QUEUE_BYTES {
                return Err(BrokerError::Refused(format!("`{queue}` is longer than {MAX_QUEUE_BYTES} bytes")));
            }
            let is_new = !self.registry.has_ledger(name).await?;
            let ledger = Ledger::open(&self.link, queue, is_new, self.growth.clone()).await?;
            if is_new {
                self.registry.enter_ledger(name, &self.id()).await?;
            }
            Ok(Arc::new(ledger))
        };
        place.get_or_try_init(|| opening).await.cloned()
    }
}

/// What is asked is done on the broker's own runtime: who asks may hold up another one, on which somebody waits for it.
struct Asked(Arc<Amqp>);

impl Asked {
    fn ask<T, F>(&self, ask: impl FnOnce(Arc<Amqp>) -> F) -> BoxFuture<'static, Result<T, BrokerError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BrokerError>> + Send + 'static,
    {
        let asked = self.0.handle.spawn(ask(Arc::clone(&self.0)));
        async move { asked.await.unwrap_or(Err(BrokerError::Closed)) }.boxed()
    }
}

impl Broker for Asked {
    fn url(&self) -> String {
        self.0.link.url.shown.clone()
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
        self.ask(|amqp| async move { Ok(amqp.open_topic(&name).await?.partitions) })
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<(String, u16)>, BrokerError>> {
        self.ask(|amqp| async move { amqp.registry.topics().await })
    }

    fn extent<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<Extent, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |amqp| async move { amqp.open_topic(&topic).await?.extent(partition).await })
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        events: &'a [(u16, Envelope)],
    ) -> BoxFuture<'a, Result<Vec<Published>, BrokerError>> {
        let (topic, events) = (topic.to_owned(), events.to_vec());
        self.ask(|amqp| async move { amqp.open_topic(&topic).await?.publish(&events, || amqp.id()).await })
    }

    fn events<'a>(
        &'a self,
        topic: &'a str,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Position, Envelope)>, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |amqp| async move { amqp.open_topic(&topic).await?.events(partition, from, limit).await })
    }

    fn since<'a>(
        &'a self,
        topic: &'a str,
        partition: u16,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, BrokerError>> {
        let topic = topic.to_owned();
        self.ask(move |amqp| async move { amqp.open_topic(&topic).await?.since(partition, time).await })
    }

    fn append<'a>(
        &'a self,
        ledger: &'a LedgerName,
        record: Bytes,
        after: u64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        let ledger = ledger.clone();
        self.ask(move |amqp| async move {
            if record.len() > MAX_RECORD_BYTES {
                return Err(BrokerError::TooLarge { bytes: record.len(), limit: MAX_RECORD_BYTES });
            }
            amqp.open_ledger(&ledger).await?.append(record, after, &amqp.id()).await
        })
    }

    fn records<'a>(
        &'a self,
        ledger: &'a LedgerName,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, Bytes)>, BrokerError>> {
        let ledger = ledger.clone();
        self.ask(move |amqp| async move {
            match amqp.ledger(&ledger).await? {
                Some(ledger) => ledger.records(from, limit).await,
                None => Ok(Vec::new()),
            }
        })
    }

    fn purge<'a>(&'a self, ledger: &'a LedgerName, before: u64) -> BoxFuture<'a, Result<(), BrokerError>> {
        if let Some(ledger) = self.0.opened_ledger(ledger) {
            ledger.purge(before);
        }
        std::future::ready(Ok(())).boxed()
    }

    fn ledgers(&self) -> BoxFuture<'_, Result<Vec<LedgerName>, BrokerError>> {
        self.ask(|amqp| async move { amqp.registry.ledgers().await })
    }

    fn heard(&self, topic: &str, partition: u16) -> u64 {
        let opened = self.0.topics.lock().get(topic).and_then(|topic| topic.get().cloned());
        opened.map_or(0, |topic| topic.heard(partition))
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.0.growth.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // All that was sent was waited for, and what stands there may still be looked at.
        std::future::ready(()).boxed()
    }
}
