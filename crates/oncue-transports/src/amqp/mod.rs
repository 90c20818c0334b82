//! `RabbitMQ`, by AMQP 0-9-1: its streams, which are queues that are read from any offset.

mod connecting;
mod message;
mod reading;
mod stream;
mod url;

use std::sync::Arc;

use oncue::{
    Clock,
    transport::{OpenError, Transport, broker::BrokerError},
};

use self::{connecting::Link, stream::Stream, url::AmqpUrl};
use crate::streams::{self, Division, Kind, Streams};

/// Longest name of a queue.
const MAX_QUEUE_BYTES: usize = 255;
/// What is wanted of a ledger may be such a part of what the broker keeps.
const WANTED_PART: u64 = 2;

/// Whether the URL is right.
pub(crate) fn check(url: &str) -> Result<(), OpenError> {
    AmqpUrl::parse(url).map(drop)
}

/// Connects to a broker.
pub(crate) fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    let url = AmqpUrl::parse(url)?;
    let shown = url.shown.clone();
    streams::open("oncue-amqp", &shown, Link::connect(url), clock)
}

impl Streams for Link {
    type Stream = Stream;

    fn shown(&self) -> &str {
        &self.url.shown
    }

    fn division(&self) -> Division {
        Division::within_one(self.url.partitions)
    }

    /// A broker lists no queues.
    async fn found(&self, _: &str) -> Result<Option<Division>, BrokerError> {
        Ok(None)
    }

    async fn topic(self: &Arc<Self>, name: &str, _: Division) -> Result<Vec<Arc<Stream>>, BrokerError> {
        Ok(vec![self.open_stream(name, None).await?])
    }

    fn ledger_limit(&self) -> Option<u64> {
        Some(self.url.ledger_bytes / WANTED_PART)
    }

    async fn stream(self: &Arc<Self>, name: &str, kind: Kind) -> Result<Arc<Stream>, BrokerError> {
        self.open_stream(name, (kind == Kind::Ledger).then_some(self.url.ledger_bytes)).await
    }

    async fn close(&self) {
        self.shut().await;
    }
}

impl Link {
    /// A stream that keeps as many bytes as it is told, or all.
    async fn open_stream(self: &Arc<Self>, name: &str, bytes: Option<u64>) -> Result<Arc<Stream>, BrokerError> {
        let queue = self.url.queue(name);
        if queue.len() > MAX_QUEUE_BYTES {
            return Err(BrokerError::Refused(format!("`{queue}` is longer than {MAX_QUEUE_BYTES} bytes")));
        }
        Stream::open(self, queue, bytes).await
    }
}
