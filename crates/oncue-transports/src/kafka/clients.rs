//! The clients of a cluster: one that writes, one that follows, one that reads what is older, one that makes topics. They
//! connect again by themselves.

use std::{sync::Arc, time::Duration};

use oncue::transport::broker::BrokerError;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::AdminClient,
    config::RDKafkaLogLevel,
    consumer::{Consumer as _, ConsumerContext, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{FutureProducer, Producer as _},
};
use tokio::time::{sleep, timeout};

use super::{reading::ReadTo, url::KafkaUrl};
use crate::streams::MAX_RECORD_BYTES;

/// How long a broker may take until it is known, at the start.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time that a broker may take for one answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long what may be repeated is, where nobody answers: a broker that starts again is back by then.
pub(super) const TRIED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a record beside its data, at most.
pub(super) const HEADER_BYTES: usize = 64 * 1024;

pub(super) type Consumer = StreamConsumer<Context>;

pub(crate) struct Clients {
    pub(super) url: KafkaUrl,
    config: ClientConfig,
    context: Context,
    producer: Mutex<FutureProducer<Context>>,
    pub(super) following: Arc<Consumer>,
    /// It is asked, too: one that follows answers only once what it waits for has come, or has not for a while.
    pub(super) reading: Arc<Consumer>,
    /// Who reads by it, and where the last one stopped.
    pub(super) reader: tokio::sync::Mutex<Option<ReadTo>>,
    pub(super) admin: AdminClient<Context>,
}

/// What a client says, and the last error of it.
#[derive(Clone, Default)]
pub(super) struct Context(Arc<Mutex<Option<(Code, String)>>>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, message, "librdkafka");
            }
            // That a connection is lost is no news: whoever needs it says so.
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        match &mut *last {
            // What comes before says more than that it was the last one.
            Some((known, _)) if code == Code::AllBrokersDown && !is_final(*known) => *known = code,
            Some((known, _)) if is_final(*known) => {}
            last => *last = Some((code, reason.to_owned())),
        }
    }
}

impl ConsumerContext for Context {}

pub(super) fn failed(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Failed(error.to_string())
}

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: i32,
}

impl Partition {
    /// It, from an offset on.
    pub(super) fn from(&self, offset: u64) -> Result<TopicPartitionList, BrokerError> {
        self.at(Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)))
    }

    pub(super) fn at(&self, offset: Offset) -> Result<TopicPartitionList, BrokerError> {
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(&self.topic, self.number, offset).map_err(failed)?;
        Ok(places)
    }
}

impl Clients {
    /// Connected clients; the error says why there are none, and how to mend it.
    pub(super) async fn connect(url: KafkaUrl) -> Result<Arc<Self>, BrokerError> {
        let (config, context) = (config(&url).map_err(BrokerError::Refused)?, Context::default());
        let made = |error: KafkaError| failed(error);
        let consumer = || {
            let mut config = config.clone();
            // No group is joined; the client wants to know a name.
            config.set("group.id", "oncue").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
            // A stream that is opened is followed once what others wait for is answered.
            config
                .set("enable.partition.eof", "true")
                .set("fetch.wait.max.ms", "25")
                .set("fetch.error.backoff.ms", "50");
            config.set("queued.min.messages", "10000").set("queued.max.messages.kbytes", "32768");
            // Who has read so much goes on at once, and not a second later.
            config.set("fetch.queue.backoff.ms", "10");
            config.create_with_context::<_, Consumer>(context.clone()).map_err(made).map(Arc::new)
        };
        let clients = Self {
            producer: Mutex::new(writer(&config, &context).map_err(made)?),
            following: consumer()?,
            reading: consumer()?,
            reader: tokio::sync::Mutex::default(),
            admin: config.create_with_context(context.clone()).map_err(made)?,
            url,
            config,
            context,
        };
        clients.reach().await?;
        let following = Arc::downgrade(&clients.following);
        tokio::spawn(async move {
            // Records come by their own queues: here is only what the client says of itself.
            while let Some(following) = following.upgrade() {
                if let Ok(Err(error)) = timeout(ANSWER_WITHIN, following.recv()).await {
                    tracing::debug!(%error, "following was interrupted");
                }
            }
        });
        Ok(Arc::new(clients))
    }

    /// Waits until a broker has answered.
    async fn reach(&self) -> Result<(), BrokerError> {
        let heard = || self.context.0.lock().clone();
        let trying = async {
            loop {
                let producer = self.writer();
                let known = tokio::task::spawn_blocking(move || producer.client().fetch_cluster_id(LOOK)).await;
                if known.is_ok_and(|id| id.is_some()) {
                    return Ok(());
                }
                if let Some((code, reason)) = heard().filter(|(code, _)| is_final(*code)) {
                    return Err(unreached(code, &reason));
                }
            }
        };
        let tried = timeout(CONNECT_WITHIN, trying).await;
        tried.unwrap_or_else(|_| match heard() {
            Some((code, reason)) => Err(unreached(code, &reason)),
            None => Err(failed(format!("no answer in {} s: is it a port of Kafka?", CONNECT_WITHIN.as_secs()))),
        })
    }

    pub(super) fn writer(&self) -> FutureProducer<Context> {
        self.producer.lock().clone()
    }

    /// One that gave up for good is replaced by another.
    pub(super) fn renew_writer(&self) {
        let mut producer = self.producer.lock();
        if producer.client().fatal_error().is_some() {
            match writer(&self.config, &self.context) {
                Ok(another) => *producer = another,
                Err(error) => tracing::warn!(%error, "no other client to write by"),
            }
        }
    }

    /// Asks until somebody answers. Only what changes nothing when it is asked twice.
    pub(super) async fn again<T, F>(&self, ask: impl Fn() -> F + Send) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>> + Send,
        T: Send,
    {
        let mut last = failed("no answer");
        let trying = async {
            loop {
                match ask().await {
                    Err(BrokerError::Failed(reason)) => {
                        tracing::debug!(reason, "no answer: asked again");
                        last = BrokerError::Failed(reason);
                    }
                    answer => return answer,
                }
                sleep(PAUSE).await;
            }
        };
        let tried = timeout(TRIED_FOR, trying).await;
        tried.unwrap_or(Err(last))
    }

    /// The first offset of a partition, and the one after its last record.
    pub(super) async fn extent(&self, partition: &Partition) -> Result<(u64, u64), BrokerError> {
        self.again(|| async {
            let (reading, Partition { topic, number }) = (Arc::clone(&self.reading), partition.clone());
            let asking = tokio::task::spawn_blocking(move || reading.fetch_watermarks(&topic, number, ANSWER_WITHIN));
            let (low, high) = asking.await.map_err(|_| BrokerError::Closed)?.map_err(failed)?;
            Ok((u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default()))
        })
        .await
    }
}

fn writer(config: &ClientConfig, context: &Context) -> Result<FutureProducer<Context>, KafkaError> {
    let mut config = config.clone();
    config.set("enable.idempotence", "true").set("acks", "all").set("queue.buffering.max.kbytes", "65536");
    // What is published waits for nobody; what comes meanwhile goes together.
    config.set("linger.ms", "0").set("message.timeout.ms", TRIED_FOR.as_millis().to_string());
    config.create_with_context(context.clone())
}

/// What all clients are told.
fn config(url: &KafkaUrl) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &url.servers)
        .set("client.id", "oncue")
        .set("socket.timeout.ms", "10000")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set("message.max.bytes", (MAX_RECORD_BYTES + HEADER_BYTES).to_string())
        .set_log_level(RDKafkaLogLevel::Info);
    let protocol = match (url.user.is_some(), url.tls) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some((user, password)) = &url.user {
        config.set("sasl.mechanism", &url.mechanism).set("sasl.username", user).set("sasl.password", password);
    }
    let security = &url.security;
    let files = [("ca", &security.ca), ("certificate", &security.cert), ("key", &security.key)];
    for (name, path) in files {
        if let Some(path) = path {
            let path = path.to_str().ok_or_else(|| format!("{}: the name is no UTF-8", path.display()))?;
            config.set(format!("ssl.{name}.location"), path);
        }
    }
    Ok(config)
}

/// What does not get better by waiting.
fn is_final(code: Code) -> bool {
    matches!(code, Code::Authentication | Code::SSL | Code::Resolve | Code::AllBrokersDown)
}

fn unreached(code: Code, reason: &str) -> BrokerError {
    let mended = mended(code, reason);
    if matches!(code, Code::Authentication | Code::SSL) { BrokerError::Refused(mended) } else { failed(mended) }
}

/// What went wrong, and how to mend it.
fn mended(code: Code, reason: &str) -> String {
    let mend = match code {
        Code::Authentication => "the broker refuses these credentials: write `kafka://USER:PASSWORD@HOST:PORT`",
        // What the broker does not like of a handshake is told as any other error of the connection.
        _ if code == Code::SSL || reason.contains("SSL alert") => {
            "encryption failed: `ca=FILE` names who signed the broker's certificate, `cert=FILE&key=FILE` one's own"
        }
        Code::Resolve => "the host is not known: check its name",
        _ => {
            "is a broker there, and does it take connections from here? Does it ask for credentials \
             (`kafka://USER:PASSWORD@HOST:PORT`) or encryption (`tls=true`)?"
        }
    };
    format!("{reason}: {mend}")
}
