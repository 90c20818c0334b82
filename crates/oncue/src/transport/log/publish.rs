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
    clock::Timestamp,
    event::{Envelope, MAX_HOPS, is_topic_name},
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
    let mut published = Vec::with_capacity(batch.events.len());
    loop {
        match inner.append_events(&topic, &batch.events, batch.source.as_ref(), |one| published.push(one)) {
            Ok(end) => {
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

/// Publishes one event where an append is durable when it returns. What is to be waited for, or refused before it is
/// appended, is left to [`publish`].
pub(super) fn publish_now(
    inner: &Inner,
    topic: &str,
    event: &Envelope,
) -> Option<Result<(Arc<str>, Published), PublishError>> {
    if !inner.at_once || event.hops() > MAX_HOPS || inner.is_full() {
        return None;
    }
    let topic = inner.topics.get(topic)?;
    let (published, end) = match inner.append_one(&topic, event) {
        Ok(appended) => appended,
        Err(AppendError::Full) => return None,
        Err(failed) => return Some(Err(error(failed))),
    };
    if inner.log.durable() < end {
        return Some(Err(PublishError::Fenced(inner.log.fenced().unwrap_or_default())));
    }
    inner.progress.notify_waiters();
    Some(Ok((topic.name, published)))
}

/// How many plans' memory is kept.
const KEPT_PLANS: usize = 1024;

/// What becomes of one event of a batch.
pub(super) enum Plan {
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

/// Plans a batch; gives how many of its events are new.
fn plan(shared: &Shared, seed: u64, topic: &Topic, events: &[Envelope], plans: &mut Vec<Plan>) -> u64 {
    let mut in_batch: HashMap<IdHash, (u64, u16)> = HashMap::new();
    let mut fresh = 0;
    plans.clear();
    plans.extend(events.iter().map(|envelope| {
        let hash = envelope.id_supplied().then(|| Dedup::hash(seed, topic.id.0, envelope));
        if let Some((_, partition, offset)) = hash.and_then(|hash| shared.state.dedup.find(hash)) {
            return Plan::Known(Position::new(partition, offset, 0));
        }
        if let Some((nth, partition)) = hash.and_then(|hash| in_batch.get(&hash).copied()) {
            return Plan::Twin { nth, partition };
        }
        let partition = envelope.partition(topic.partitions);
        if let Some(hash) = hash {
            in_batch.insert(hash, (fresh, partition));
        }
        fresh += 1;
        Plan::Fresh { nth: fresh - 1, partition, hash }
    }));
    fresh
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

    /// Appends a batch as a whole; tells the positions, in order, and gives where what they wait for ends.
    fn append_events(
        &self,
        topic: &Topic,
        events: &[Envelope],
        source: Option<&SourceMark>,
        tell: impl FnMut(Published),
    ) -> Result<Lsn, AppendError> {
        let now = self.clock.now();
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let mut plans = std::mem::take(&mut shared.plans);
        let appended = self.append_planned(shared, topic, (events, &mut plans), source, now);
        if let Ok((first_offset, _)) = appended {
            plans.iter().map(|plan| plan.published(first_offset)).for_each(tell);
        }
        plans.shrink_to(KEPT_PLANS);
        shared.plans = plans;
        appended.map(|(_, end)| end)
    }

    /// As [`append_events`](Self::append_events), of one event.
    fn append_one(&self, topic: &Topic, event: &Envelope) -> Result<(Published, Lsn), AppendError> {
        let now = self.clock.now();
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let hash = event.id_supplied().then(|| {
            shared.state.dedup.forget(now);
            Dedup::hash(self.log.log_id(), topic.id.0, event)
        });
        if let Some((_, partition, offset)) = hash.and_then(|hash| shared.state.dedup.find(hash)) {
            return Ok((Published { position: Position::new(partition, offset, 0), duplicate: true }, shared.end));
        }
        let partition = event.partition(topic.partitions);
        let (fixed, text, data) = event.stored(now);
        let ticket = self.log.append_event(topic.id, partition, &[&fixed, text, data], now.as_micros())?;
        shared.end = shared.end.max(ticket.end);
        shared.events_end = ticket.end;
        shared.state.published(topic.id.0, ticket.offset, now, event);
        if let Some(hash) = hash {
            shared.state.dedup.insert(hash, (topic.id.0, partition, ticket.offset), now);
        }
        if shared.recent.is_followed(topic.id) {
            let place = (topic.id, partition, Some(ticket.offset));
            shared.recent.push(place, event.clone().published_at(now), ticket.end);
        }
        self.checkpoint_if_due(shared);
        Ok((Published { position: Position::new(partition, ticket.offset, 0), duplicate: false }, ticket.end))
    }

    /// Gives the offset of the first new event, and where all of them end.
    fn append_planned(
        &self,
        shared: &mut Shared,
        topic: &Topic,
        (events, plans): (&[Envelope], &mut Vec<Plan>),
        source: Option<&SourceMark>,
        now: Timestamp,
    ) -> Result<(u64, Lsn), AppendError> {
        shared.state.dedup.forget(now);
        let fresh = plan(shared, self.log.log_id(), topic, events, plans);
        shared.batch.clear();
        for (envelope, plan) in events.iter().zip(&*plans) {
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
            return Ok((0, shared.end));
        }
        let ticket = self.log.append(&shared.batch, now.as_micros())?;
        shared.end = shared.end.max(ticket.end);
        shared.events_end = ticket.end;
        let is_followed = shared.recent.is_followed(topic.id);
        for (envelope, plan) in events.iter().zip(&*plans) {
            let Plan::Fresh { nth, partition, hash } = *plan else { continue };
            let offset = ticket.offset + nth;
            shared.state.published(topic.id.0, offset, now, envelope);
            if let Some(hash) = hash {
                shared.state.dedup.insert(hash, (topic.id.0, partition, offset), now);
            }
            if is_followed {
                let place = (topic.id, partition, Some(offset));
                shared.recent.push(place, envelope.clone().published_at(now), ticket.end);
            }
        }
        if let Some(mark) = mark {
            shared.applied(&mark, ticket.end - 1);
        }
        self.checkpoint_if_due(shared);
        Ok((ticket.offset, ticket.end))
    }
}
