//! Kafka by rdkafka, used by hand.

use std::{hint::black_box, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use super::{
    Place,
    measured::{Client, Handled},
    message::{ID, Template},
};
use crate::measure::Result;

pub(super) const HOW: &str = "Both: a topic with one partition, `acks=all`, an idempotent producer, `linger.ms=0`, \
    `fetch.wait.max.ms=25`, `fetch.queue.backoff.ms=10`; the same headers; the broker syncs as it likes. Theirs: \
    `send_result` for each, then their confirmations; a group of one consumer, `store_offset` for each event, committed every 100 ms, and at the end by a \
    commit that is waited for: one position of a partition, not each event. Ours: acknowledgements are appended to a \
    ledger, a topic as well, each record with `acks=all`, seen in its order.";

const FULL: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub(super) struct Raw {
    config: ClientConfig,
    producer: FutureProducer,
    admin: Arc<AdminClient<DefaultClientContext>>,
    name: String,
    headers: OwnedHeaders,
    template: Template,
}

/// The address in a URL.
pub(super) fn servers(url: &str) -> &str {
    url.trim_start_matches("kafka://")
}

/// What consumers are told, as ours are.
pub(super) const FETCHING: [(&str, &str); 6] = [
    ("auto.offset.reset", "earliest"),
    ("fetch.wait.max.ms", "25"),
    ("fetch.error.backoff.ms", "50"),
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "10"),
];
/// What producers are told, as ours are.
pub(super) const PRODUCING: [(&str, &str); 4] =
    [("enable.idempotence", "true"), ("acks", "all"), ("queue.buffering.max.kbytes", "65536"), ("linger.ms", "0")];

/// Makes a topic as ours makes it, with so many partitions.
pub(super) async fn make(admin: &AdminClient<DefaultClientContext>, name: &str, partitions: i32) -> Result<()> {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(name, code)| format!("the topic `{name}` cannot be made: {code}"))?;
    }
    Ok(())
}

fn with(config: &ClientConfig, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = config.clone();
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

fn header(headers: OwnedHeaders, name: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key: &format!("ce_{name}"), value: Some(value) })
}

impl Client for Raw {
    async fn open(place: Place) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers(&place.url)).set("socket.nagle.disable", "true");
        config.set_log_level(RDKafkaLogLevel::Critical);
        let admin: AdminClient<_> = config.create()?;
        make(&admin, &place.name, 1).await?;
        let producer = with(&config, &PRODUCING).create()?;
        let template = Template::new(place.keyed())?;
        let headers = header(OwnedHeaders::new(), "specversion", "1.0");
        let headers = template.attributes.iter().fold(headers, |headers, (name, value)| header(headers, name, value));
        Ok(Self { config, producer, admin: Arc::new(admin), name: place.name, headers, template })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let mut sent = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, key) = self.template.next();
            let mut headers = header(self.headers.clone(), ID, &id);
            if let Some((name, key)) = &key {
                headers = header(headers, name, key);
            }
            let mut record =
                FutureRecord::<str, [u8]>::to(&self.name).partition(0).payload(&self.template.data).headers(headers);
            if let Some((_, key)) = &key {
                record = record.key(key);
            }
            loop {
                match self.producer.send_result(record) {
                    Ok(confirming) => break sent.push(confirming),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                        record = again;
                        tokio::time::sleep(FULL).await;
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        for confirming in sent {
            confirming.await?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let mut config = with(&self.config, &FETCHING);
        config.set("group.id", &self.name).set("enable.auto.offset.store", "false");
        let consumer: StreamConsumer = config.set("auto.commit.interval.ms", "100").create()?;
        consumer.subscribe(&[&self.name])?;
        loop {
            let message = consumer.recv().await?;
            black_box(message.payload().map(<[u8]>::len));
            let is_last = handled.arrived();
            consumer.store_offset_from_message(&message)?;
            if is_last {
                drop(message);
                tokio::task::block_in_place(|| consumer.commit_consumer_state(CommitMode::Sync))?;
                return Ok(());
            }
        }
    }

    async fn close(self) -> Result<()> {
        self.admin.delete_topics(&[&self.name], &AdminOptions::new()).await?;
        Ok(())
    }
}
