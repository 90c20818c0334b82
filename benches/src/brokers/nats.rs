//! NATS by async-nats, used by hand.

use std::{hint::black_box, time::Duration};

use async_nats::{
    Client as Connection, HeaderMap,
    jetstream::{
        self, Context,
        consumer::{AckPolicy, DeliverPolicy, pull},
        message::PublishMessage,
        stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use futures_util::StreamExt as _;

use super::{
    Place, WINDOW,
    measured::{Client, Handled},
    message::{ID, Template},
};
use crate::measure::Result;

pub(super) const HOW: &str = "Both: a JetStream stream on file, one replica, which the server syncs as it was configured \
    (`cargo xtask brokers`: always); events with the same headers, among them the id by which the server finds \
    repetitions. Theirs: `send_publish` for each, then their confirmations; a durable pull consumer with explicit \
    acknowledgement, 512 messages a request, at most 4,096 not acknowledged, `ack` for each, `double_ack` for the last; the \
    server does not sync acknowledgements. Ours: acknowledgements are appended to a ledger, a stream as well, and synced.";

/// Messages that one request asks for: as many as ours reads.
const READ: usize = 512;
const DUPLICATES: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub(super) struct Raw {
    connection: Connection,
    context: Context,
    name: String,
    subject: String,
    headers: HeaderMap,
    template: Template,
}

/// Makes a stream as ours makes it.
pub(super) async fn make(context: &Context, name: &str, subjects: String) -> Result<()> {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subjects],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: 1,
        allow_direct: true,
        duplicate_window: DUPLICATES,
        ..stream::Config::default()
    };
    context.create_stream(config).await?;
    Ok(())
}

impl Client for Raw {
    async fn open(place: Place) -> Result<Self> {
        let connection = async_nats::connect(&place.url).await?;
        let context = jetstream::new(connection.clone());
        make(&context, &place.name, format!("{}.*.>", place.name)).await?;
        let template = Template::new(place.keyed())?;
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", "1.0");
        for (name, value) in &*template.attributes {
            headers.insert(format!("ce-{name}"), value.as_str());
        }
        let subject = format!("{}.0.bench", place.name);
        Ok(Self { connection, context, name: place.name, subject, headers, template })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let mut sent = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, key) = self.template.next();
            let mut headers = self.headers.clone();
            headers.insert(format!("ce-{ID}"), id.as_str());
            if let Some((name, key)) = key {
                headers.insert(format!("ce-{name}"), key);
            }
            headers.insert("Nats-Msg-Id", id);
            let message = PublishMessage::build().headers(headers).payload(self.template.data.clone());
            sent.push(self.context.send_publish(self.subject.clone(), message).await?);
        }
        for confirming in sent {
            confirming.await?;
        }
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let config = pull::Config {
            durable_name: Some("bench".to_owned()),
            ack_policy: AckPolicy::Explicit,
            deliver_policy: DeliverPolicy::All,
            max_ack_pending: i64::try_from(WINDOW)?,
            ..pull::Config::default()
        };
        let stream = self.context.get_stream_no_info(&self.name).await?;
        let consumer = stream.create_consumer(config).await?;
        let mut messages = consumer.stream().max_messages_per_batch(READ).messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            black_box(message.payload.len());
            if handled.arrived() {
                message.double_ack().await?;
                return Ok(());
            }
            message.ack().await?;
        }
        Err("the messages ended".into())
    }

    async fn close(self) -> Result<()> {
        self.context.delete_stream(&self.name).await?;
        Ok(self.connection.drain().await?)
    }
}
