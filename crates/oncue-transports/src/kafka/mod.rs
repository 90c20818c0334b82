//! Kafka, by librdkafka: a partition of a topic per stream.

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

use self::{
    clients::{Clients, Partition},
    stream::Stream,
    topics::Wanted,
    url::KafkaUrl,
};
use crate::streams::{self, Division, Kind, Streams};

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

    fn division(&self) -> Division {
        Division::within_one(self.url.partitions)
    }

    async fn found(&self, name: &str) -> Result<Option<Division>, BrokerError> {
        let topic = self.url.topic(name);
        let count = self.again(|| Self::partitions(&self.reading, &topic)).await?;
        // One partition need not be all that a topic has.
        Ok(match u16::try_from(count).unwrap_or(u16::MAX) {
            0 => None,
            1 => Some(Division::within_one(self.url.partitions)),
            count => Some(Division::one_each(count)),
        })
    }

    async fn topic(self: &Arc<Self>, name: &str, division: Division) -> Result<Vec<Arc<Stream>>, BrokerError> {
        let topic = self.url.topic(name);
        let limit = self.declare(&topic, Wanted::events(division.streams)).await?;
        let partitions = (0..i32::from(division.streams)).map(|number| Partition { topic: topic.clone(), number });
        Ok(partitions.map(|partition| Stream::new(self, partition, limit, true)).collect())
    }

    /// What is not wanted any more is deleted; nothing else is.
    fn ledger_limit(&self) -> Option<u64> {
        None
    }

    async fn stream(self: &Arc<Self>, name: &str, kind: Kind) -> Result<Arc<Stream>, BrokerError> {
        let (topic, wanted) = match kind {
            Kind::Ledger => (self.url.ledger(name), Wanted::ledger()),
            Kind::Registry => (self.url.topic(name), Wanted::registry()),
        };
        let limit = self.declare(&topic, wanted).await?;
        Ok(Stream::new(self, Partition { topic, number: 0 }, limit, false))
    }

    /// What was confirmed stays, and everything else ends with its client.
    async fn close(&self) {}
}
