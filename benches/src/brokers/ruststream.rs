//! `RustStream` on NATS and on Kafka, with its own clients and defaults: the other side of row 12.

use std::{
    convert::Infallible,
    hint::black_box,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use futures_util::future::try_join_all;
use rdkafka::{ClientConfig, admin::AdminClient};
use ruststream::{HeaderMap, OutgoingMessage, Publisher as _};
use ruststream_nats::{JetStreamPublish, JetStreamPublisher, JetStreamSubject, NatsBroker, prelude::*};
use ruststream_rdkafka::{Commit, KafkaBroker, KafkaPublish, KafkaPublisher, KafkaTopic, StartOffset};
use tokio::sync::Notify;

use super::{
    Place, kafka,
    measured::{Client, Handled},
    message::{ID, Template},
    nats,
};
use crate::measure::Result;

pub(super) const ON_NATS: &str = "ruststream-nats 0.7.1 (async-nats 0.50), RustStream 0.7.7";
pub(super) const ON_KAFKA: &str = "ruststream-rdkafka 0.7.1, RustStream 0.7.7";
pub(super) const HOW_NATS: &str = "Both as in row 5. Theirs: `publish` for each event, a batch of them together; \
    `JetStreamSubject`, durable, at most 4,096 not acknowledged, an async handler that returns at once; with keys, \
    `workers(8, by_key)`. It is measured to the last call: what is acknowledged after that is not waited for.";
pub(super) const HOW_KAFKA: &str = "Both as in row 5. Theirs: `publish` for each event, a batch of them together; \
    `KafkaTopic` with `Commit::Tracked`, an async handler that returns at once; with keys, `workers(8, by_key)`, as many \
    partitions as ours. It is measured to the last call: what is acknowledged after that is not waited for.";

const TYPE: &str = "bench";

/// The bytes as they are.
#[derive(Deserialized)]
struct Raw<'a>(&'a [u8]);

/// Where handlers that are mounted next read: their place is in their declaration.
static PLACE: Mutex<String> = Mutex::new(String::new());

fn place() -> String {
    PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn subject() -> String {
    format!("{}.0.{TYPE}", place())
}

macro_rules! handler {
    ($name:ident, $($subscribed:tt)*) => {
        #[subscriber($($subscribed)*)]
        async fn $name(data: &Raw<'_>, context: &mut Context<'_, (), Handled>) -> HandlerOutcome {
            black_box(data.0[0]);
            context.state().arrived();
            HandlerOutcome::ack()
        }
    };
}

handler!(from_nats, JetStreamSubject::new(subject(), place()).durable("bench").max_ack_pending(4096));
handler!(
    from_nats_keyed,
    JetStreamSubject::new(subject(), place()).durable("bench").max_ack_pending(4096),
    workers(8, by_key)
);
handler!(from_kafka, KafkaTopic::new(place()).group(place()).commit(Commit::Tracked).start(StartOffset::Earliest));
handler!(
    from_kafka_keyed,
    KafkaTopic::new(place()).group(place()).commit(Commit::Tracked).start(StartOffset::Earliest),
    workers(8, by_key)
);

/// Handles until all is handled.
macro_rules! handled {
    ($broker:expr, $handler:ident, $handled:expr, $place:expr) => {{
        PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone_from($place);
        let state = $handled.clone();
        let app = RustStream::new(AppInfo::new("bench", "0.0.0"))
            .on_startup(async move |()| Ok::<_, Infallible>(state))
            .with_broker($broker, |broker| {
                broker.include($handler);
            });
        let running = app.start().await?;
        $handled.all().await;
        $handled.finish();
        running.shutdown().await?;
        Ok(())
    }};
}

fn headers(template: &Template, prefix: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(format!("{prefix}specversion"), "1.0");
    for (name, value) in &*template.attributes {
        headers.insert(format!("{prefix}{name}"), value.clone());
    }
    headers
}

/// On `JetStream`.
#[derive(Clone)]
pub(super) struct OnNats {
    publisher: JetStreamPublisher,
    stop: Arc<Notify>,
    raw: nats::Raw,
    place: Arc<Place>,
    subject: String,
    headers: HeaderMap,
    template: Template,
}

impl Client for OnNats {
    async fn open(place: Place) -> Result<Self> {
        let raw = nats::Raw::open(place.clone()).await?;
        let broker = NatsBroker::new(place.url.clone()).bindable();
        let publishing = broker.bind(JetStreamPublish::default());
        let running = RustStream::new(AppInfo::new("bench", "0.0.0")).with_broker(broker, |_| {}).start().await?;
        let publisher = running.publisher(publishing).await?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        tokio::spawn(async move {
            stopped.notified().await;
            running.shutdown().await
        });
        let template = Template::new(place.keyed())?;
        let headers = headers(&template, "ce-");
        let subject = format!("{}.0.{TYPE}", place.name);
        Ok(Self { publisher, stop, raw, place: Arc::new(place), subject, headers, template })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let publishing = (0..count).map(|_| {
            let (id, key) = self.template.next();
            let mut headers = self.headers.clone();
            headers.insert(format!("ce-{ID}"), id.clone());
            if let Some((_, key)) = key {
                headers.insert(ruststream_nats::PARTITION_KEY_HEADER, key);
            }
            headers.insert("Nats-Msg-Id", id);
            let message = OutgoingMessage::assembled(&self.subject, BytesMut::from(&*self.template.data), headers);
            self.publisher.publish(message, None)
        });
        try_join_all(publishing).await?;
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let broker = NatsBroker::new(self.place.url.clone());
        if self.place.keyed() {
            handled!(broker, from_nats_keyed, handled, &self.place.name)
        } else {
            handled!(broker, from_nats, handled, &self.place.name)
        }
    }

    async fn close(self) -> Result<()> {
        self.stop.notify_one();
        self.raw.close().await
    }
}

/// On Kafka.
#[derive(Clone)]
pub(super) struct OnKafka {
    publisher: KafkaPublisher,
    stop: Arc<Notify>,
    place: Arc<Place>,
    headers: HeaderMap,
    template: Template,
}

fn broker(url: &str) -> KafkaBroker {
    let broker = KafkaBroker::new([kafka::servers(url)]).config("socket.nagle.disable", "true");
    let broker = kafka::FETCHING.iter().fold(broker, |broker, (name, value)| broker.config(*name, *value));
    kafka::PRODUCING.iter().fold(broker, |broker, (name, value)| broker.producer_config(*name, *value))
}

impl Client for OnKafka {
    async fn open(place: Place) -> Result<Self> {
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", kafka::servers(&place.url)).create()?;
        let partitions = if place.keyed() { i32::from(super::PARTITIONS) } else { 1 };
        kafka::make(&admin, &place.name, partitions).await?;
        let broker = broker(&place.url).bindable();
        let publishing = broker.bind(KafkaPublish::default());
        let running = RustStream::new(AppInfo::new("bench", "0.0.0")).with_broker(broker, |_| {}).start().await?;
        let publisher = running.publisher(publishing).await?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        tokio::spawn(async move {
            stopped.notified().await;
            running.shutdown().await
        });
        let template = Template::new(place.keyed())?;
        let headers = headers(&template, "ce_");
        Ok(Self { publisher, stop, place: Arc::new(place), headers, template })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let publishing = (0..count).map(|_| {
            let (id, key) = self.template.next();
            let mut headers = self.headers.clone();
            headers.insert(format!("ce_{ID}"), id);
            if let Some((_, key)) = key {
                headers.insert(ruststream_rdkafka::PARTITION_KEY_HEADER, key);
            }
            let message = OutgoingMessage::new(&self.place.name, &self.template.data).with_headers(headers);
            self.publisher.publish(message, None)
        });
        try_join_all(publishing).await?;
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let broker = broker(&self.place.url);
        if self.place.keyed() {
            handled!(broker, from_kafka_keyed, handled, &self.place.name)
        } else {
            handled!(broker, from_kafka, handled, &self.place.name)
        }
    }

    async fn close(self) -> Result<()> {
        self.stop.notify_one();
        Ok(())
    }
}
