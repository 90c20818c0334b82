//! Reading a stream: messages with their offsets, on a channel of its own.

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use oncue::transport::broker::BrokerError;
use tokio::time::timeout;

use super::{
    connecting::{ANSWER_WITHIN, NO_ANSWER, Session, answered, failed},
    message,
};
use crate::streams::{self, From};

/// Messages that are on their way at once.
const PREFETCH: u16 = 128;

/// A message that stands in a stream.
pub(super) struct Stored {
    pub(super) offset: u64,
    pub(super) properties: BasicProperties,
    pub(super) data: Bytes,
}

impl streams::Stored for Stored {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn number(&self, name: &str) -> Option<u64> {
        number(self.properties.headers().as_ref()?, name)
    }

    fn data(&self) -> &Bytes {
        &self.data
    }
}

impl streams::Coming<Self> for Stored {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn mark(&self) -> Option<streams::Mark<'_>> {
        message::mark(self)
    }

    fn keep(self) -> Self {
        self
    }
}

fn number(headers: &FieldTable, name: &str) -> Option<u64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongUInt(number) => Some(u64::from(*number)),
        _ => None,
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    At(From),
    /// At the last messages that were written together.
    Last,
}

/// Reads a stream on a channel of its own.
pub(super) struct Reader {
    channel: Channel,
    pub(super) consumer: Consumer,
    /// The last message that was taken, and how many were since it was told.
    last: u64,
    taken: u16,
}

impl Reader {
    pub(super) async fn attach(session: &Session, queue: &str, begin: Begin) -> Result<Self, BrokerError> {
        let channel = answered(session.connection.create_channel()).await?;
        answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let from = match begin {
            Begin::At(From::Offset(offset)) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            Begin::Last => AMQPValue::LongString("last".into()),
            Begin::At(From::Time(time)) => {
                AMQPValue::Timestamp(u64::try_from(time.as_micros().div_euclid(1_000_000)).unwrap_or_default())
            }
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from);
        let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = answered(consuming).await?;
        Ok(Self { channel, consumer, last: 0, taken: 0 })
    }

    /// What was sent before is on its way, or here, when this returns.
    pub(super) async fn synchronize(&mut self) -> Result<(), BrokerError> {
        self.tell().await?;
        // It changes nothing. The broker answers in its order, after what it sends.
        answered(self.channel.basic_qos(PREFETCH, BasicQosOptions::default())).await
    }

    /// The next message, which is known to be there.
    pub(super) async fn next(&mut self) -> Result<Stored, BrokerError> {
        let delivery = timeout(ANSWER_WITHIN, self.consumer.next()).await.map_err(|_| failed(NO_ANSWER))?;
        self.stored(delivery).await
    }

    /// The next message; nothing if none has come.
    pub(super) async fn arrived(&mut self) -> Result<Option<Stored>, BrokerError> {
        match self.consumer.next().now_or_never() {
            Some(delivery) => self.stored(delivery).await.map(Some),
            None => {
                self.tell().await?;
                Ok(None)
            }
        }
    }

    pub(super) async fn stored(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<Stored, BrokerError> {
        let delivery = delivery.ok_or_else(|| failed("the stream is gone"))?.map_err(failed)?;
        self.last = delivery.delivery_tag;
        self.taken += 1;
        if self.taken >= PREFETCH / 4 {
            self.tell().await?;
        }
        let headers = delivery.properties.headers().as_ref();
        let offset = headers.and_then(|headers| number(headers, "x-stream-offset"));
        let offset =
            offset.ok_or_else(|| BrokerError::Refused("the queue is no stream: use another name".to_owned()))?;
        Ok(Stored { offset, properties: delivery.properties, data: delivery.data.into() })
    }

    /// Tells the broker what was taken: it sends more for that.
    async fn tell(&mut self) -> Result<(), BrokerError> {
        if std::mem::take(&mut self.taken) == 0 {
            return Ok(());
        }
        answered(self.channel.basic_ack(self.last, BasicAckOptions { multiple: true })).await
    }

    /// The broker is told, and not waited for.
    pub(super) fn detach(self) {
        tokio::spawn(async move { answered(self.channel.close(200, "read".into())).await });
    }
}
