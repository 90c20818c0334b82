//! NATS `JetStream`: a stream per topic, a subject per partition and type (`TOPIC.PARTITION.TYPE`), and one stream for all
//! ledgers (`oncue-ledgers.SUBSCRIPTION.PARTITION`).
//!
//! An offset is a message's sequence in its stream, so a topic is in one order over all its partitions. A ledger is written
//! with the sequence that its subject is to end at: the server itself refuses who has lost a lease.

mod api;
mod connecting;
mod message;
mod refusals;
mod url;
mod watching;

use std::{
    collections::HashMap,
    sync::{Arc, Weak, mpsc},
};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future::FutureExt as _, stream};
use oncue::{
    Clock, Envelope,
    clock::Timestamp,
    transport::{
        BoxFuture, Capabilities, OpenError, Position, Published, Transport,
        broker::{Broker, BrokerError, BrokerTransport, Extent, LedgerName},
    },
};
use serde_json::json;
use tokio::{runtime::Runtime, sync::watch};

use self::{
    api::{Stored, StreamInfo, failed},
    message::{name, token},
    refusals::Connection,
    url::NatsUrl,
    watching::Heard,
};
use crate::not_opened;

/// The stream of all ledgers; no topic has such a name.
const LEDGERS: &str = "oncue-ledgers";
/// What a stream's metadata says of a topic's partitions.
const PARTITIONS: &str = "oncue.partitions";
/// Bytes of a message that are left for its headers.
const HEADER_BYTES: usize = 64 * 1024;
/// Most messages that are read at once.
const READ_MESSAGES: usize = 1000;
/// Most messages that wait for their confirmation at once.
const WAITING: usize = 1000;

/// A server, or a cluster.
struct Nats {
    /// For what is done on its own runtime, whoever asks.
    own: Weak<Self>,
    url: NatsUrl,
    server: Connection,
    heard: Arc<Heard>,
    /// Who begins to listen to a topic.
    following: tokio::sync::Mutex<()>,
    /// Its own: a transport is opened and asked from anywhere.
    runtime: Option<Runtime>,
    handle: tokio::runtime::Handle,
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether the URL is right.
pub(crate) fn check(url: &str) -> Result<(), OpenError> {
    NatsUrl::parse(url).map(drop)
}

/// Connects to a server.
pub(crate) fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    let url = NatsUrl::parse(url)?;
    let refused = |error: BrokerError| not_opened(&url.shown, error);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // One reads from the connection while another decodes.
    let runtime = builder.worker_threads(2).thread_name("oncue-nats").enable_all().build();
    let runtime = runtime.map_err(|error| refused(failed(error)))?;
    let (connected, connecting) = mpsc::sync_channel(1);
    let asked = url.clone();
    runtime.spawn(async move {
        // Who opens waits for it.
        let _ = connected.send(connecting::connect(&asked).await);
    });
    let server = match connecting.recv() {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            runtime.shutdown_background();
            return Err(refused(error));
        }
        Err(_) => return Err(refused(failed("connecting was given up"))),
    };
    let handle = runtime.handle().clone();
    let nats = Arc::new_cyclic(|own| Nats {
        own: Weak::clone(own),
        url,
        server,
        heard: Arc::default(),
        following: tokio::sync::Mutex::default(),
        runtime: Some(runtime),
        handle,
    });
    let (made, making) = mpsc::sync_channel(1);
    let ledgers = Arc::clone(&nats);
    nats.handle.spawn(async move {
        // Who opens waits for it.
        let _ = made.send(ledgers.open_ledgers().await);
    });
    match making.recv().unwrap_or_else(|_| Err(failed("opening was given up"))) {
        Ok(()) => Ok(Arc::new(BrokerTransport::new(nats, clock))),
        Err(error) => Err(not_opened(&nats.url.shown, error)),
    }
}

impl Nats {
    /// The name of a stream.
    fn stream(&self, name: &str) -> String {
        let prefix = self.url.prefix.as_ref().map_or(String::new(), |prefix| format!("{prefix}_"));
        format!("{prefix}{}", token(name))
    }

    /// What the subjects of a stream begin with.
    fn root(&self, name: &str) -> String {
        let prefix = self.url.prefix.as_ref().map_or(String::new(), |prefix| format!("{prefix}."));
        format!("{prefix}{}", token(name))
    }

    /// The subjects of a topic's partition, or of all.
    fn subjects(&self, topic: &str, partition: Option<u16>) -> String {
        let root = self.root(topic);
        partition.map_or_else(|| format!("{root}.*.>"), |partition| format!("{root}.{partition}.>"))
    }

    fn ledger(&self, ledger: &LedgerName) -> String {
        format!("{}.{}.{}", self.root(LEDGERS), token(&ledger.subscription), ledger.partition)
    }

    async fn open_ledgers(&self) -> Result<(), BrokerError> {
        self.open_stream(LEDGERS, &format!("{}.*.*", self.root(LEDGERS))).await?;
        self.watch(LEDGERS).await
    }

    /// A stream, made if it is not there.
    async fn open_stream(&self, of: &str, subjects: &str) -> Result<StreamInfo, BrokerError> {
        let stream = self.stream(of);
        if let Some(info) = api::stream(&self.server, &stream, "").await? {
            return Ok(info);
        }
        let config = json!({
            "name": stream,
            "subjects": [subjects],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": self.url.replicas,
            "allow_direct": true,
            "metadata": { PARTITIONS: self.url.partitions.to_string() },
        });
        let made = api::request::<StreamInfo>(&self.server, &format!("STREAM.CREATE.{stream}"), &config).await;
        // Another process may have made it at this moment, with other partitions.
        match api::stream(&self.server, &stream, "").await? {
            Some(info) => Ok(info),
            None => made,
        }
    }

    /// Hears of what is appended to a stream.
    async fn watch(&self, of: &str) -> Result<(), BrokerError> {
        let depth = self.root(of).split('.').count();
        watching::watch(&self.server.client, &self.stream(of), of, depth, Arc::clone(&self.heard)).await
    }

    async fn open_topic(&self, topic: &str) -> Result<u16, BrokerError> {
        if topic == LEDGERS {
            return Err(BrokerError::Failed(format!("`{LEDGERS}` is the name of what is kept beside topics")));
        }
        self.open_stream(topic, &self.subjects(topic, None)).await.map(|info| partitions(&info))
    }

    async fn follow_topic(&self, topic: &str) -> Result<(), BrokerError> {
        if self.heard.follows(topic) {
            return Ok(());
        }
        // One that asks at the same moment waits for the first one.
        let _following = self.following.lock().await;
        if self.heard.follows(topic) {
            return Ok(());
        }
        let partitions = self.open_topic(topic).await?;
        self.watch(topic).await?;
        for partition in 0..partitions {
            let next = self.last(topic, partition).await?.map_or(0, |last| last + 1);
            self.heard.raise(topic, partition, next);
        }
        self.heard.follow(topic);
        Ok(())
    }

    async fn last(&self, topic: &str, partition: u16) -> Result<Option<u64>, BrokerError> {
        let query = json!({ "last_by_subj": self.subjects(topic, Some(partition)) });
        let last = api::read(&self.server, &self.stream(topic), &query).await?.pop();
        Ok(last.map(|last| last.sequence))
    }

    async fn extent_of(&self, topic: &str, partition: u16) -> Result<Extent, BrokerError> {
        let (stream, subjects) = (self.stream(topic), self.subjects(topic, Some(partition)));
        let next = self.last(topic, partition).await?.map_or(0, |last| last + 1);
        let query = json!({ "seq": 1, "next_by_subj": subjects });
        let first = api::read(&self.server, &stream, &query).await?.pop().map_or(next, |first| first.sequence);
        let info = api::stream(&self.server, &stream, &subjects).await?;
        let events = info.map_or(0, |info| info.state.subjects.values().sum());
        Ok(Extent { first, next, events })
    }

    async fn read_all(
        &self,
        stream: &str,
        subjects: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, BrokerError> {
        let (mut found, mut from) = (Vec::new(), from.max(1));
        while found.len() < limit {
            let batch = (limit - found.len()).min(READ_MESSAGES);
            let query = json!({ "seq": from, "batch": batch, "next_by_subj": subjects });
            let (read, more) = api::read_on(&self.server, stream, &query).await?;
            let Some(last) = read.last() else { break };
            from = last.sequence + 1;
            found.extend(read);
            if !more {
                break;
            }
        }
        Ok(found)
    }

    /// A key's events stand in their order: each is sent when the one before it is confirmed. What was sent behind one that
    /// gets lost, with its connection or because the stream has no leader for a moment, would stand before it.
    async fn publish_all(&self, topic: &str, events: &[(u16, Envelope)]) -> Result<Vec<Published>, BrokerError> {
        let (mut lanes, mut of_keys) = (Vec::<Vec<usize>>::new(), HashMap::new());
        for (index, (_, event)) in events.iter().enumerate() {
            let lane = event.key().map_or(lanes.len(), |key| *of_keys.entry(key).or_insert(lanes.len()));
            match lanes.get_mut(lane) {
                Some(lane) => lane.push(index),
                None => lanes.push(vec![index]),
            }
        }
        let in_order = |lane: Vec<usize>| async move {
            let mut published = Vec::with_capacity(lane.len());
            for index in lane {
                let (partition, event) = &events[index];
                published.push((index, self.publish_one(topic, *partition, event).await?));
            }
            Ok::<_, BrokerError>(published)
        };
        let lanes = stream::iter(lanes.into_iter().map(in_order)).buffer_unordered(WAITING);
        let mut published = lanes.try_concat().await?;
        published.sort_unstable_by_key(|(index, _)| *index);
        let published: Vec<Published> = published.into_iter().map(|(_, published)| published).collect();
        let mut nexts: HashMap<u16, u64> = HashMap::new();
        for position in published.iter().map(|published| published.position) {
            let next = nexts.entry(position.partition()).or_default();
            *next = (*next).max(position.offset() + 1);
        }
        // Once, as who reads looks at each.
        nexts.into_iter().for_each(|(partition, next)| self.heard.raise(topic, partition, next));
        Ok(published)
    }

    async fn publish_one(&self, topic: &str, partition: u16, event: &Envelope) -> Result<Published, BrokerError> {
        let subject = format!("{}.{partition}.{}", self.root(topic), token(event.event_type()));
        // Asked again after a lost answer, it is recognised by its id.
        let headers = || message::headers(event);
        let confirmed = api::append(&self.server, &subject, headers, event.data().clone()).await?;
        Ok(Published { position: Position::new(partition, confirmed.seq, 0), duplicate: confirmed.duplicate })
    }
}

fn partitions(info: &StreamInfo) -> u16 {
    info.config.metadata.get(PARTITIONS).and_then(|text| text.parse().ok()).unwrap_or(1)
}

impl Broker for Nats {
    fn url(&self) -> String {
        self.url.shown.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            atomic_publish: false,
            atomic_settle: false,
            deduplicates: true,
            history: true,
            max_event_bytes: self.server.client.max_payload().saturating_sub(HEADER_BYTES),
        }
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        &self.handle
    }

    fn topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u16, BrokerError>> {
        self.open_topic(name).boxed()
    }

    fn follow<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.follow_topic(topic).boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<(String, u16)>, BrokerError>> {
        async move {
            let mut topics = Vec::new();
            let subjects = self.url.prefix.as_ref().map_or(">".to_owned(), |prefix| format!("{prefix}.>"));
            loop {
                let body = json!({ "offset": topics.len(), "subject": subjects });
                let listed: Listed = api::request(&self.server, "STREAM.LIST", &body).await?;
                if listed.streams.is_empty() {
                    break;
                }
                topics.extend(listed.streams);
            }
            let own = self.url.prefix.as_ref().map_or(String::new(), |prefix| format!("{prefix}_"));
            let topic = |info: &StreamInfo| {
                let topic = name(info.config.name.strip_prefix(&own)?);
                (topic != LEDGERS && info.config.metadata.contains_key(PARTITIONS)).then(|| (topic, partitions(info)))
            };
            Ok(topics.iter().filter_map(topic).collect())
        }
        .boxed()
    }

    fn extent<'a>(&'a self, topic: &'a str, partition: u16) -> BoxFuture<'a, Result<Extent, BrokerError>> {
        self.extent_of(topic, partition).boxed()
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        events: &'a [(u16, Envelope)],
    ) -> BoxFuture<'a, Result<Vec<Published>, BrokerError>> {
        let (own, topic, events) = (self.own.upgrade(), topic.to_owned(), events.to_vec());
        // Beside its connection: each confirmation would wake another thread elsewhere.
        let publishing = self.handle.spawn(async move {
            let nats = own.ok_or(BrokerError::Closed)?;
            nats.publish_all(&topic, &events).await
        });
        async move { publishing.await.unwrap_or(Err(BrokerError::Closed)) }.boxed()
    }

    fn events<'a>(
        &'a self,
        topic: &'a str,
        partition: Option<u16>,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(Position, Envelope)>, BrokerError>> {
        async move {
            let (stream, root) = (self.stream(topic), self.root(topic));
            let read = self.read_all(&stream, &self.subjects(topic, partition), from, limit).await?;
            let event = |stored: Stored| {
                let rest = stored.subject.strip_prefix(&root).and_then(|rest| rest.strip_prefix('.'));
                let partition = rest.and_then(|rest| rest.split('.').next()?.parse().ok()).unwrap_or(0);
                let event = message::decode(topic, stored.sequence, &stored.headers, &stored.data, stored.time);
                let event = event.map_err(|error| failed(format!("{stream}: {error}")))?;
                Ok((Position::new(partition, stored.sequence, 0), event))
            };
            read.into_iter().map(event).collect()
        }
        .boxed()
    }

    fn since<'a>(
        &'a self,
        topic: &'a str,
        partition: u16,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Option<u64>, BrokerError>> {
        async move {
            let subjects = self.subjects(topic, Some(partition));
            let query = json!({ "start_time": time.to_rfc3339(), "batch": 1, "next_by_subj": subjects });
            let first = api::read(&self.server, &self.stream(topic), &query).await?.into_iter().next();
            Ok(first.map(|first| first.sequence))
        }
        .boxed()
    }

    fn append<'a>(
        &'a self,
        ledger: &'a LedgerName,
        record: Bytes,
        after: u64,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
            // Asked again after a lost answer, it is recognised.
            headers.insert("Nats-Msg-Id", self.server.client.new_inbox());
            let confirmed = api::append(&self.server, &self.ledger(ledger), || headers.clone(), record).await?;
            self.heard.stir();
            Ok(confirmed.seq)
        }
        .boxed()
    }

    fn records<'a>(
        &'a self,
        ledger: &'a LedgerName,
        from: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(u64, Bytes)>, BrokerError>> {
        async move {
            let read = self.read_all(&self.stream(LEDGERS), &self.ledger(ledger), from, limit).await?;
            Ok(read.into_iter().map(|stored| (stored.sequence, stored.data)).collect())
        }
        .boxed()
    }

    fn purge<'a>(&'a self, ledger: &'a LedgerName, before: u64) -> BoxFuture<'a, Result<(), BrokerError>> {
        async move {
            let what = format!("STREAM.PURGE.{}", self.stream(LEDGERS));
            let body = json!({ "filter": self.ledger(ledger), "seq": before });
            api::request::<serde_json::Value>(&self.server, &what, &body).await.map(drop)
        }
        .boxed()
    }

    fn ledgers(&self) -> BoxFuture<'_, Result<Vec<LedgerName>, BrokerError>> {
        async move {
            let root = format!("{}.", self.root(LEDGERS));
            let info = api::stream(&self.server, &self.stream(LEDGERS), ">").await?;
            let subjects = info.map(|info| info.state.subjects).unwrap_or_default();
            let ledger = |subject: &String| {
                let (subscription, partition) = subject.strip_prefix(&root)?.split_once('.')?;
                Some(LedgerName { subscription: name(subscription), partition: partition.parse().ok()? })
            };
            Ok(subjects.keys().filter_map(ledger).collect())
        }
        .boxed()
    }

    fn heard(&self, topic: &str, partition: u16) -> u64 {
        self.heard.next(topic, partition)
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.heard.growth()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            // What was asked for is on its way; one that is gone already needs none.
            let _ = self.server.client.flush().await;
        }
        .boxed()
    }
}

/// Streams, a page of them.
#[derive(serde::Deserialize)]
struct Listed {
    #[serde(default)]
    streams: Vec<StreamInfo>,
}
