//! Publishing to the log.

use std::{collections::HashMap, sync::Arc};

use oncue_log::{AppendError, Lsn};

use super::{
    Inner, Shared,
    dedup::{Dedup, IdHash},
    records::{Change, Source},
    topics::Topic,
};
use crate::{
    event::{Envelope, MAX_HOPS, is_topic_name, partition_of},
    transport::{Position, Publish, PublishError, Published, SourceMark},
};

pub(super) fn error(error: AppendError) -> PublishError {
    match error {
        AppendError::TooLarge { bytes, limit } => PublishError::TooLarge { bytes, limit },
        AppendError::Closed => PublishError::Closed,
        // Full is waited for, and the topic was made: neither arrives here in earnest.
        other => PublishError::Fenced(other.to_string()),
    }
}

pub(super) async fn publish(inner: &Arc<Inner>, batch: &Publish) -> Result<Vec<Published>, PublishError> {
    for (index, envelope) in batch.events.iter().enumerate() {
        if envelope.hops() > MAX_HOPS {
            let reason = format!("{} emissions in a row (MAX_HOPS is {MAX_HOPS}): a loop of handlers", envelope.hops());
            return Err(PublishError::Invalid { index, reason });
        }
    }
    if inner.is_full() {
        inner.make_room().await.map_err(PublishError::Fenced)?;
    }
    if inner.is_full() {
        return Err(PublishError::Full { limit: inner.url.max_bytes.unwrap_or_default() });
    }
    let topic = inner.topic(&batch.topic).await?;
    loop {
        match inner.append_events(&topic, &batch.events, batch.source.as_ref()) {
            Ok((published, end)) => {
                inner.durable(end).await.map_err(PublishError::Fenced)?;
                inner.progress.notify_waiters();
                return Ok(published);
            }
            // Back-pressure: the publisher waits, nothing is dropped.
            Err(AppendError::Full) => inner.space().await.map_err(PublishError::Fenced)?,
            Err(failed) => return Err(error(failed)),
        }
    }
}

/// What becomes of one event of a batch.
enum Plan {
    /// It is the `nth` new one.
    Fresh { nth: u64, partition: u16, hash: Option<IdHash> },
    /// Its id was published before.
    Known(Position),
    /// Its id stands earlier in the batch, as its `nth` new event.
    Twin { nth: u64, partition: u16 },
}

impl Plan {
    fn published(&self, first_offset: u64) -> Published {
        match *self {
            Self::Fresh { nth, partition, .. } => {
                Published { position: Position::new(partition, first_offset + nth, 0), duplicate: false }
            }
            Self::Twin { nth, partition } => {
                Published { position: Position::new(partition, first_offset + nth, 0), duplicate: true }
            }
            Self::Known(position) => Published { position, duplicate: true },
        }
    }
}

fn plan(shared: &Shared, seed: u64, topic: &Topic, events: &[Envelope]) -> (Vec<Plan>, u64) {
    let mut in_batch: HashMap<IdHash, (u64, u16)> = HashMap::new();
    let mut fresh = 0;
    let plan = events.iter().map(|envelope| {
        let hash = envelope.id_supplied().then(|| Dedup::hash(seed, topic.id.0, envelope));
        if let Some((_, partition, offset)) = hash.and_then(|hash| shared.state.dedup.find(hash)) {
            return Plan::Known(Position::new(partition, offset, 0));
        }
        if let Some((nth, partition)) = hash.and_then(|hash| in_batch.get(&hash).copied()) {
            return Plan::Twin { nth, partition };
        }
        let partition = partition_of(envelope.key(), topic.partitions);
        if let Some(hash) = hash {
            in_batch.insert(hash, (fresh, partition));
        }
        fresh += 1;
        Plan::Fresh { nth: fresh - 1, partition, hash }
    });
    (plan.collect(), fresh)
}

impl Inner {
    /// A topic by its name; made if it does not exist.
    pub(super) async fn topic(self: &Arc<Self>, name: &str) -> Result<Topic, PublishError> {
        if !is_topic_name(name) {
            return Err(PublishError::TopicName(name.to_owned()));
        }
        loop {
            match self.topics.get_or_create(&self.log, name, self.clock.now()) {
                Ok(topic) => return Ok(topic),
                Err(AppendError::Full) => self.space().await.map_err(PublishError::Fenced)?,
                Err(failed) => return Err(error(failed)),
            }
        }
    }

    /// Appends a batch as a whole; gives the positions, and where what they wait for ends.
    fn append_events(
        &self,
        topic: &Topic,
        events: &[Envelope],
        source: Option<&SourceMark>,
    ) -> Result<(Vec<Published>, Lsn), AppendError> {
        let now = self.clock.now();
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        shared.state.dedup.forget(now);
        let (plan, fresh) = plan(shared, self.log.log_id(), topic, events);
        shared.batch.clear();
        for (envelope, plan) in events.iter().zip(&plan) {
            if let Plan::Fresh { partition, .. } = plan {
                let (fixed, text, data) = envelope.stored(now);
                shared.batch.event(topic.id, *partition, &[&fixed, text, data]);
            }
        }
        let mark = source.map(|mark| {
            Change::Source(Source {
                id: mark.id.clone(),
                place: mark.place.clone(),
                accepted: fresh,
                duplicates: events.len() as u64 - fresh,
            })
        });
        if let Some(mark) = &mark {
            shared.scratch.clear();
            mark.encode(&mut shared.scratch);
            shared.batch.state(mark.kind(), &[shared.scratch.as_slice()]);
        }
        if shared.batch.is_empty() {
            // Nothing but duplicates: acknowledged once the first ones are durable.
            return Ok((plan.iter().map(|plan| plan.published(0)).collect(), shared.end));
        }
        let ticket = self.log.append(&shared.batch, now.as_micros())?;
        shared.end = shared.end.max(ticket.end);
        shared.events_end = ticket.end;
        for plan in &plan {
            if let Plan::Fresh { nth, partition, hash: Some(hash) } = plan {
                let place = (topic.id.0, *partition, ticket.offset + nth);
                shared.state.dedup.insert(*hash, place, now);
            }
        }
        if let Some(mark) = mark {
            shared.applied(&mark, ticket.end - 1);
        }
        self.checkpoint_if_due(shared);
        Ok((plan.iter().map(|plan| plan.published(ticket.offset)).collect(), ticket.end))
    }
}
