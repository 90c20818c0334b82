//! Reading a topic as it grows, without a subscription.

use std::sync::Arc;

use futures_util::future::FutureExt as _;

use super::Inner;
use crate::{
    event::Envelope,
    transport::{BoxFuture, ConsumeError, Position, PublishError, SubscribeError, Tail},
};

struct BrokerTail {
    inner: Arc<Inner>,
    topic: String,
    /// Per partition: what is read next.
    next: Vec<u64>,
}

pub(super) async fn tail(inner: Arc<Inner>, topic: String) -> Result<Box<dyn Tail>, SubscribeError> {
    let partitions = inner.partitions(&topic).await?;
    inner.broker.follow(&topic).await.map_err(PublishError::from)?;
    let mut next = Vec::with_capacity(usize::from(partitions));
    for partition in 0..partitions {
        next.push(inner.broker.end(&topic, partition).await.map_err(PublishError::from)?);
    }
    Ok(Box::new(BrokerTail { inner, topic, next }))
}

impl BrokerTail {
    async fn read(&mut self, limit: usize, out: &mut Vec<(Position, Envelope)>) -> Result<(), ConsumeError> {
        let mut growth = self.inner.broker.growth();
        loop {
            growth.borrow_and_update();
            for partition in 0..u16::try_from(self.next.len()).unwrap_or(u16::MAX) {
                let next = &mut self.next[usize::from(partition)];
                if out.len() >= limit || self.inner.broker.heard(&self.topic, partition) <= *next {
                    continue;
                }
                let read = self.inner.broker.events(&self.topic, Some(partition), *next, limit - out.len()).await;
                let read = read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
                if let Some((last, _)) = read.last() {
                    *next = last.offset() + 1;
                }
                out.extend(read);
            }
            if !out.is_empty() {
                return Ok(());
            }
            if growth.changed().await.is_err() {
                return Err(ConsumeError::Closed);
            }
        }
    }
}

impl Tail for BrokerTail {
    fn next<'a>(
        &'a mut self,
        limit: usize,
        out: &'a mut Vec<(Position, Envelope)>,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.read(limit, out).boxed()
    }
}
