//! Reading a topic of the log as it grows.

use std::{
    future::poll_fn,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::FutureExt as _;
use oncue_log::{Cursor, Record, TopicId};
use parking_lot::Mutex;

use super::Inner;
use crate::{
    event::Envelope,
    transport::{BoxFuture, ConsumeError, Position, SubscribeError, Tail},
};

struct LogTail {
    inner: Arc<Inner>,
    cursor: Cursor,
    records: Vec<Record>,
    /// The offset that is read next.
    next: Arc<AtomicU64>,
}

/// Where those stand who read a topic without a subscription.
#[derive(Default)]
pub(super) struct Tails(Mutex<Vec<(TopicId, Weak<AtomicU64>)>>);

impl Tails {
    fn enter(&self, topic: TopicId, next: u64) -> Arc<AtomicU64> {
        let next = Arc::new(AtomicU64::new(next));
        let mut tails = self.0.lock();
        tails.retain(|(_, known)| known.strong_count() > 0);
        tails.push((topic, Arc::downgrade(&next)));
        next
    }

    /// The lowest offset of a topic that somebody has yet to read.
    pub(super) fn lowest(&self, topic: TopicId) -> Option<u64> {
        let tails = self.0.lock();
        let of_topic = tails.iter().filter(|(known, _)| *known == topic);
        of_topic.filter_map(|(_, next)| Some(next.upgrade()?.load(Ordering::Acquire))).min()
    }
}

pub(super) async fn tail(inner: Arc<Inner>, topic: String) -> Result<Box<dyn Tail>, SubscribeError> {
    let topic = inner.topic(&topic).await?;
    let (_, next) = inner.offsets(topic.id);
    let cursor = inner.log.cursor(topic.id, next);
    let next = inner.tails.enter(topic.id, next);
    Ok(Box::new(LogTail { inner, cursor, records: Vec::new(), next }))
}

impl LogTail {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        out: &mut Vec<(Position, Envelope)>,
    ) -> Poll<Result<(), ConsumeError>> {
        loop {
            // Taken before reading: what becomes durable meanwhile wakes us at once.
            let durable = self.inner.log.durable();
            self.records.clear();
            // Who only watches holds nothing back: what went meanwhile is passed by.
            let read = self.inner.read_kept(&mut self.cursor, (limit, usize::MAX), &mut self.records);
            read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
            self.next.store(self.cursor.offset(), Ordering::Release);
            for record in self.records.drain(..) {
                let envelope = Envelope::from_stored(&record.data);
                let envelope = envelope.map_err(|error| ConsumeError::Storage(error.to_string()))?;
                out.push((Position::new(record.partition, record.offset, 0), envelope));
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.inner.log.poll_durable(durable + 1, cx.waker()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(fenced)) => return Poll::Ready(Err(ConsumeError::Storage(fenced.reason))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Tail for LogTail {
    fn next<'a>(
        &'a mut self,
        limit: usize,
        out: &'a mut Vec<(Position, Envelope)>,
    ) -> BoxFuture<'a, Result<(), ConsumeError>> {
        poll_fn(move |cx| self.poll_next(cx, limit, out)).boxed()
    }
}
