//! Kafka, by librdkafka: a topic with one partition per stream.

mod clients;
mod message;
mod reading;
mod stream;
mod topics;
mod url;

use std::sync::Arc;

use oncue::{
    Clock,
    transport::{OpenError, Transport, broker::BrokerError},
};

use self::{clients::Clients, stream::Stream, url::KafkaUrl};
use crate::streams::{self, Kind, Streams};

/// Whether the URL is right.
pub(crate) fn check(url: &str) -> Result<(), OpenError> {
    KafkaUrl::parse(url).map(drop)
}

/// Connects to a broker, or a cluster.
pub(crate) fn open(url: &str, clock: Clock) -> Result<Arc<dyn Transport>, OpenError> {
    let url = KafkaUrl::parse(url)?;
    let shown = url.shown.clone();
    streams::open("oncue-kafka", &shown, Clients::connect(url), clock)
}

impl Streams for Clients {
    type Stream = Stream;

    fn shown(&self) -> &str {
        &self.url.shown
    }

    fn partitions(&self) -> u16 {
        self.url.partitions
    }

    /// What is not wanted any more is deleted; nothing else is.
    fn ledger_limit(&self) -> Option<u64> {
        None
    }

    async fn stream(self: &Arc<Self>, name: &str, kind: Kind) -> Result<Arc<Stream>, BrokerError> {
        let topic = self.url.topic(name, kind);
        let limit = self.declare(&topic, kind).await?;
        Ok(Stream::new(self, topic, limit))
    }

    /// What was confirmed stays, and everything else ends with its client.
    async fn close(&self) {}
}
