//! Reading a topic of the log as it grows.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::FutureExt as _;
use oncue_log::{Cursor, Record};

use super::Inner;
use crate::{
    event::Envelope,
    transport::{BoxFuture, ConsumeError, Position, SubscribeError, Tail},
};

struct LogTail {
    inner: Arc<Inner>,
    cursor: Cursor,
    records: Vec<Record>,
}

pub(super) async fn tail(inner: Arc<Inner>, topic: String) -> Result<Box<dyn Tail>, SubscribeError> {
    let topic = inner.topic(&topic).await?;
    let (_, next) = inner.offsets(topic.id);
    let cursor = inner.log.cursor(topic.id, next);
    Ok(Box::new(LogTail { inner, cursor, records: Vec::new() }))
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
            let read = self.inner.log.read(&mut self.cursor, limit, usize::MAX, &mut self.records);
            read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
            for record in self.records.drain(..) {
                let envelope = Envelope::from_stored(&record.data);
                let envelope = envelope.map_err(|error| ConsumeError::Storage(error.to_string()))?.detached();
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
