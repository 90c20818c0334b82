//! RabbitMQ by lapin, used by hand.

use std::{hint::black_box, sync::Arc};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{
    Place,
    measured::{Client, Handled},
    message::{ID, Template},
};
use crate::measure::Result;

pub(super) const HOW: &str = "Both: a durable stream queue, persistent messages, mandatory, with publisher confirms; the \
    same headers; 128 messages of prefetch. Theirs: `basic_ack` for each message, which for a stream gives credit and is \
    kept nowhere. Ours: publishing waits until the message is seen in the stream, too, which is how it learns its offset; \
    acknowledgements are appended to a ledger, a stream as well, each record confirmed and seen.";

/// As ours.
const PREFETCH: u16 = 128;

#[derive(Clone)]
pub(super) struct Raw {
    connection: Arc<Connection>,
    publishing: Channel,
    name: String,
    headers: FieldTable,
    template: Template,
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

impl Client for Raw {
    async fn open(place: Place) -> Result<Self> {
        let connection = Arc::new(Connection::connect(&place.url, ConnectionProperties::default()).await?);
        let publishing = connection.create_channel().await?;
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("stream"));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        publishing.queue_declare(place.name.as_str().into(), options, arguments).await?;
        let template = Template::new(place.keyed())?;
        let mut headers = FieldTable::default();
        headers.insert("cloudEvents_specversion".into(), text("1.0"));
        for (name, value) in &*template.attributes {
            headers.insert(format!("cloudEvents_{name}").into(), text(value));
        }
        Ok(Self { connection, publishing, name: place.name, headers, template })
    }

    async fn publish(&self, count: usize) -> Result<()> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut sent = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, key) = self.template.next();
            let mut headers = self.headers.clone();
            headers.insert(format!("cloudEvents_{ID}").into(), text(&id));
            if let Some((name, key)) = key {
                headers.insert(format!("cloudEvents_{name}").into(), text(&key));
            }
            let properties =
                BasicProperties::default().with_headers(headers).with_delivery_mode(2).with_message_id(id.into());
            let data = &self.template.data;
            sent.push(
                self.publishing.basic_publish("".into(), self.name.as_str().into(), options, data, properties).await?,
            );
        }
        for confirming in sent {
            if !confirming.await?.is_ack() {
                return Err("RabbitMQ refused a message".into());
            }
        }
        Ok(())
    }

    async fn handle(&self, handled: Handled) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), text("first"));
        let options = BasicConsumeOptions::default();
        let mut messages = channel.basic_consume(self.name.as_str().into(), "".into(), options, arguments).await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            black_box(message.data.len());
            let is_last = handled.arrived();
            channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
            if is_last {
                // Answered after what was sent before.
                return Ok(channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?);
            }
        }
        Err("the messages ended".into())
    }

    async fn close(self) -> Result<()> {
        self.publishing.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default()).await?;
        Ok(self.connection.close(200, "done".into()).await?)
    }
}
