//! What the log knows, for people, reports and receipts.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use oncue_log::Lsn;
use tokio::sync::oneshot;

use super::{
    Inner,
    keyed::Stored,
    records::{Change, Dead},
    state::{DeadEntry, SubscriptionState},
};
use crate::{
    event::{Envelope, takes},
    transport::{
        DeadLetter, EventHandling, EventRef, Inspect, InspectError, Position, Settled, SourceState, SubscriptionInfo,
        TopicInfo,
    },
};

pub(super) fn storage(error: impl std::fmt::Display) -> InspectError {
    InspectError::Storage(error.to_string())
}

impl Inner {
    pub(super) fn unknown(id: &str) -> InspectError {
        InspectError::UnknownSubscription(id.to_owned())
    }

    fn info(&self, state: &SubscriptionState, attached: bool) -> SubscriptionInfo {
        let (_, next) = self.offsets(oncue_log::TopicId(state.about.topic));
        SubscriptionInfo {
            id: state.about.id.clone(),
            topic: self.topics.name(state.about.topic).unwrap_or_default(),
            types: state.about.types.clone(),
            attached,
            lag: state.settled.missing_below(next),
            retrying: state.failing.len() as u64,
            dead: state.dead.len() as u64,
            stats: state.stats.clone(),
        }
    }

    fn dead_letter(&self, entry: DeadEntry) -> Result<DeadLetter, InspectError> {
        let dead = self.dead_record(entry.lsn)?;
        Ok(DeadLetter {
            position: Position::new(dead.about.partition, dead.about.offset, 0),
            envelope: dead.envelope,
            history: dead.about.history,
        })
    }

    pub(super) fn dead_record(&self, lsn: Lsn) -> Result<Dead, InspectError> {
        let record = self.log.record(lsn).map_err(storage)?;
        match Change::decode(record.kind, &record.data) {
            Ok(Some(Change::DeadLetter(dead))) => Ok(dead),
            Ok(_) => Err(InspectError::Storage(format!("record {lsn} is no dead letter"))),
            Err(error) => Err(storage(error)),
        }
    }

    /// A value, from memory or from its record.
    pub(super) fn value(&self, stored: Stored) -> Result<Option<Bytes>, InspectError> {
        let lsn = match stored {
            Stored::InMemory(value) => return Ok(Some(value)),
            Stored::InLog(lsn) => lsn,
        };
        let record = self.log.record(lsn).map_err(storage)?;
        match Change::decode(record.kind, &record.data) {
            Ok(Some(Change::Keyed(keyed))) => Ok(match keyed.change {
                crate::transport::StateChange::Set(value) => Some(value),
                crate::transport::StateChange::Clear => None,
            }),
            Ok(_) => Err(InspectError::Storage(format!("record {lsn} is no keyed state"))),
            Err(error) => Err(storage(error)),
        }
    }
}

impl Inspect for Inner {
    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let shared = self.shared.lock();
        let attached = |state: &SubscriptionState| shared.attached.contains_key(&state.about.number);
        shared.state.subscriptions.iter().map(|state| self.info(state, attached(state))).collect()
    }

    fn unsettled(&self) -> u64 {
        let shared = self.shared.lock();
        if self.log.durable() < shared.end {
            // Something is being written: events that were emitted are not counted yet.
            return 1;
        }
        let next: HashMap<u32, u64> =
            self.log.topics().into_iter().map(|topic| (topic.id.0, topic.next_offset)).collect();
        let served =
            shared.state.subscriptions.iter().filter(|state| shared.attached.contains_key(&state.about.number));
        served.map(|state| state.settled.missing_below(next.get(&state.about.topic).copied().unwrap_or(0))).sum()
    }

    fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>, InspectError> {
        let entries: Vec<DeadEntry> = {
            let shared = self.shared.lock();
            let state = shared.state.find(subscription).ok_or_else(|| Self::unknown(subscription))?;
            state.dead.values().copied().collect()
        };
        entries.into_iter().map(|entry| self.dead_letter(entry)).collect()
    }

    fn states(&self, subscription: &str) -> Result<Vec<(String, Bytes)>, InspectError> {
        let stored: Vec<(String, Stored)> = {
            let shared = self.shared.lock();
            let state = shared.state.find(subscription).ok_or_else(|| Self::unknown(subscription))?;
            state.keyed.iter().map(|(key, stored, _)| (key.to_owned(), stored)).collect()
        };
        let value = |(key, stored)| Ok(self.value(stored)?.map(|value| (key, value)));
        stored.into_iter().filter_map(|stored| value(stored).transpose()).collect()
    }

    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError> {
        let topic = self.topics.get(topic).ok_or_else(|| InspectError::UnknownTopic(topic.to_owned()))?;
        let mut cursor = self.log.cursor(topic.id, from);
        let mut records = Vec::new();
        self.log.read(&mut cursor, limit, usize::MAX, &mut records).map_err(storage)?;
        let event = |record: oncue_log::Record| {
            let envelope = Envelope::from_stored(&record.data).map_err(storage)?;
            Ok((Position::new(record.partition, record.offset, 0), envelope))
        };
        records.into_iter().map(event).collect()
    }

    fn source(&self, id: &str) -> SourceState {
        self.shared.lock().state.source(id)
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let info = |info: oncue_log::TopicInfo| {
            let partitions = self.topics.get(&info.name).map_or(1, |topic| topic.partitions);
            let (first_offset, next_offset) = (info.first_offset, info.next_offset);
            TopicInfo { name: info.name, partitions, first_offset, next_offset }
        };
        self.log.topics().into_iter().map(info).collect()
    }

    fn oldest_unsettled(&self, subscription: &str) -> Result<Option<(Position, Envelope)>, InspectError> {
        self.oldest_unsettled(subscription)
    }

    fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        self.handling(topic, position)
    }
}

/// Completes when a subscription is through with an event.
pub(super) async fn outcome(inner: Arc<Inner>, event: EventRef, subscription: String) -> Result<Settled, InspectError> {
    loop {
        let settled = {
            let mut shared = inner.shared.lock();
            let shared = &mut *shared;
            let state = shared.state.find(&subscription).ok_or_else(|| Inner::unknown(&subscription))?;
            let about = &state.about;
            if !takes(&about.types, event.envelope.event_type())
                || inner.topics.name(about.topic).as_deref() != Some(&*event.topic)
            {
                let (event_type, topic) = (event.envelope.event_type().to_owned(), event.topic.to_string());
                return Err(InspectError::NotTaken { subscription, event_type, topic });
            }
            let position = event.position;
            if let Some(dead) = state.dead.get(&position.offset()) {
                Ok((Some(*dead), shared.end))
            } else if state.settled.contains(position.offset()) {
                Ok((None, shared.end))
            } else {
                let (told, told_later) = oneshot::channel();
                let waiting = shared.waiting.entry((state.about.number, position.offset())).or_default();
                // Receipts that gave up waiting leave no trace.
                waiting.retain(|known| !known.is_closed());
                waiting.push(told);
                Err(told_later)
            }
        };
        match settled {
            // Whoever tells us drops the sender when the transport goes.
            Err(told) => told.await.map_err(|_| InspectError::Closed)?,
            Ok((dead, end)) => {
                inner.durable(end).await.map_err(InspectError::Storage)?;
                let Some(dead) = dead else { return Ok(Settled::Acked) };
                let letter = inner.dead_letter(dead)?;
                let error = letter.history.last().map_or_else(String::new, |attempt| attempt.error.clone());
                return Ok(Settled::DeadLettered { error });
            }
        }
    }
}
