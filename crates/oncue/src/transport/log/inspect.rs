//! What the log knows, for people, reports and receipts.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use oncue_log::{Lsn, Record, TopicId};
use tokio::sync::oneshot;

use super::{
    Inner, Shared,
    consumer::Core,
    keyed::Stored,
    offsets::Stride,
    records::{Change, Dead, End, Redrive, SubscriptionNumber},
    state::{DeadEntry, SubscriptionState, Types},
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    filter::{Estimate, Features, FeedbackCounts, Learner, Verdict},
    policy::{Attempts, Ranker, RouteAsked, Router},
    transport::{
        Backlog, DeadLetter, EventHandling, EventRef, Inspect, InspectError, Position, RecordedAttempt, RouteChoice,
        Settled, SourceState, Start, StorageInfo, SubscriptionInfo, TopicInfo,
    },
};

/// Events that are read at once to find the first one since a time.
const READ_SINCE: usize = 256;

pub(super) fn storage(error: impl std::fmt::Display) -> InspectError {
    InspectError::Storage(error.to_string())
}

impl Inner {
    /// Lets every subscription take notice of what its feed has passed by.
    pub(super) fn catch_up(&self) {
        if self.feeds.lock().is_empty() {
            return;
        }
        let cores: Vec<Arc<Core>> = self.shared.lock().attached.values().filter_map(Weak::upgrade).collect();
        cores.iter().for_each(|core| core.catch_up());
    }

    pub(super) fn unknown(id: &str) -> InspectError {
        InspectError::UnknownSubscription(id.to_owned())
    }

    fn info(&self, state: &SubscriptionState, types: &Types, attached: bool) -> SubscriptionInfo {
        let (_, next) = self.offsets(TopicId(state.about.topic));
        let by_type = state.by_type.iter().map(|(number, stats)| match types.name(*number) {
            "" => ("(other)".to_owned(), stats.clone()),
            name => (name.to_owned(), stats.clone()),
        });
        SubscriptionInfo {
            id: state.about.id.clone(),
            topic: self.topics.name(state.about.topic).unwrap_or_default(),
            types: state.about.types.clone(),
            filter: state.about.filter.clone(),
            emits: state.about.emits.clone(),
            after: state.about.after.clone(),
            attached,
            lag: state.unsettled_below(next, Stride::ALL),
            retrying: state.failing.len() as u64,
            dead: state.dead.len() as u64,
            holding: state.dead.values().filter(|dead| dead.hold).count() as u64,
            parked_keys: 0,
            full: false,
            oldest: None,
            missed: state.missed.events(),
            in_flight: 0,
            stats: state.stats(),
            by_type: by_type.collect(),
        }
    }

    fn dead_letter(&self, entry: DeadEntry) -> Result<DeadLetter, InspectError> {
        let dead = self.dead_record(entry.lsn)?;
        Ok(DeadLetter {
            position: Position::new(dead.about.partition, dead.about.offset, 0),
            envelope: dead.envelope,
            holds: dead.about.hold,
            history: dead.about.history,
        })
    }

    /// A record that the state points to. It may have been written this moment: that takes no longer than a write.
    fn record(&self, lsn: Lsn) -> Result<oncue_log::Record, InspectError> {
        self.log.wait_durable(lsn + 1).map_err(|fenced| storage(fenced.reason))?;
        self.log.record(lsn).map_err(storage)
    }

    pub(super) fn dead_record(&self, lsn: Lsn) -> Result<Dead, InspectError> {
        let record = self.record(lsn)?;
        match Change::decode(record.kind, &record.data) {
            Ok(Some(Change::DeadLetter(dead))) => Ok(dead),
            Ok(_) => Err(InspectError::Storage(format!("record {lsn} is no dead letter"))),
            Err(error) => Err(storage(error)),
        }
    }

    pub(super) fn redriven(&self, lsn: Lsn) -> Result<Redrive, InspectError> {
        let record = self.record(lsn)?;
        match Change::decode(record.kind, &record.data) {
            Ok(Some(Change::Redrive(redrive))) => Ok(redrive),
            Ok(_) => Err(InspectError::Storage(format!("record {lsn} is no redriven event"))),
            Err(error) => Err(storage(error)),
        }
    }

    /// The first event from an offset on.
    pub(super) fn first_event(&self, topic: TopicId, offset: u64) -> Result<Option<Envelope>, InspectError> {
        let record = self.first_record(topic, offset)?;
        record.map(|record| Envelope::from_stored(&record.data)).transpose().map_err(storage)
    }

    /// Its record.
    pub(super) fn first_record(&self, topic: TopicId, offset: u64) -> Result<Option<Record>, InspectError> {
        let mut cursor = self.log.cursor(topic, offset);
        let mut records = Vec::with_capacity(1);
        self.read_kept(&mut cursor, (1, usize::MAX), &mut records).map_err(storage)?;
        Ok(records.pop())
    }

    /// The offset where a subscription of a topic begins.
    pub(super) fn offset_of(&self, topic: TopicId, start: Start) -> Result<u64, InspectError> {
        let (first, next) = self.offsets(topic);
        Ok(match start {
            Start::Earliest => first,
            Start::Latest => next,
            Start::At(position) => position.offset().clamp(first, next),
            Start::Since(time) => self.first_since(topic, time)?,
        })
    }

    /// The offset of the first event that was published at a time or later; the next one's if there is none. Also where the
    /// clock was stepped back, and events do not come in the order of time.
    fn first_since(&self, topic: TopicId, time: Timestamp) -> Result<u64, InspectError> {
        // The log finds the frame, the events tell the rest.
        let from = self.log.offset_since(topic, time.as_micros()).map_err(storage)?;
        let mut cursor = self.log.cursor(topic, from);
        let mut records = Vec::new();
        while self.log.read(&mut cursor, READ_SINCE, usize::MAX, &mut records).map_err(storage)? > 0 {
            for record in records.drain(..) {
                if Envelope::from_stored(&record.data).map_err(storage)?.published() >= time {
                    return Ok(record.offset);
                }
            }
        }
        Ok(cursor.offset())
    }

    pub(super) fn topic_of(&self, number: SubscriptionNumber) -> TopicId {
        TopicId(self.shared.lock().state.subscriptions[number as usize].about.topic)
    }

    /// A value, from memory or from its record.
    pub(super) fn value(&self, stored: Stored) -> Result<Option<Bytes>, InspectError> {
        let lsn = match stored {
            Stored::InMemory(value) => return Ok(Some(value)),
            Stored::InLog(lsn) => lsn,
        };
        let record = self.record(lsn)?;
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
    fn learned(&self, subscription: &str) -> Option<Learner> {
        self.catch_up();
        self.shared.lock().state.find(subscription).and_then(|state| state.learner.as_deref().cloned())
    }

    fn feedback(&self, subscription: &str) -> Option<FeedbackCounts> {
        self.catch_up();
        let shared = self.shared.lock();
        let state = shared.state.find(subscription)?;
        state.about.feedback()?;
        Some(state.awaiting.as_ref().map(|awaiting| awaiting.counts()).unwrap_or_default())
    }

    fn ranker(&self, subscription: &str) -> Option<Ranker> {
        self.catch_up();
        self.shared.lock().state.find(subscription).and_then(|state| state.ranker.as_deref().cloned())
    }

    fn router(&self, subscription: &str) -> Option<Router> {
        self.catch_up();
        self.shared.lock().state.find(subscription).and_then(|state| state.router.as_deref().cloned())
    }

    fn route(&self, subscription: &str, asked: &RouteAsked<'_>) -> Option<RouteChoice> {
        self.shared.lock().state.find(subscription)?.route(asked)
    }

    fn estimate(&self, subscription: &str, position: Position, features: &Features) -> Option<Estimate> {
        let shared = self.shared.lock();
        let state = shared.state.find(subscription)?;
        let learner = state.learner.as_deref().filter(|_| !state.redriven.contains_key(&position.offset()))?;
        let proven = learner.progress().verdict() == Verdict::Better;
        Some(Estimate { probability: learner.estimate(features), proven })
    }

    fn backlog(&self, subscription: &str, position: Position) -> Option<Backlog> {
        let shared = self.shared.lock();
        let state = shared.state.find(subscription)?;
        let (_, end) = self.offsets(TopicId(state.about.topic));
        Some(Backlog { end, redriven: state.redriven.contains_key(&position.offset()) })
    }

    fn attempts(&self, subscription: &str) -> Option<Attempts> {
        self.catch_up();
        self.shared.lock().state.find(subscription).map(|state| state.attempts.clone())
    }

    fn recorded(&self, subscription: &str) -> Result<Vec<RecordedAttempt>, InspectError> {
        self.recorded(subscription)
    }

    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        self.catch_up();
        let (mut infos, waiting) = {
            let shared = self.shared.lock();
            let types = shared.state.types();
            let attached = |state: &SubscriptionState| shared.attached.contains_key(&state.about.number);
            let infos: Vec<_> = shared.state.known().map(|state| self.info(state, types, attached(state))).collect();
            let waiting: Vec<_> = shared
                .state
                .known()
                .map(|state| {
                    let number = state.about.number;
                    (number, TopicId(state.about.topic), shared.attached.get(&number).and_then(Weak::upgrade))
                })
                .collect();
            (infos, waiting)
        };
        // Without the lock: what is handed out is locked before, and the oldest events are read from the log.
        for (info, (number, topic, core)) in infos.iter_mut().zip(waiting) {
            if let Some(core) = &core {
                let hand = core.hand.lock();
                (info.in_flight, info.parked_keys) = (hand.in_flight.len() as u64, hand.parked_keys() as u64);
                info.full = hand.is_full();
            }
            if info.lag > 0 {
                info.oldest = self.waits_since(number, topic, core.as_deref()).unwrap_or_default();
            }
        }
        infos
    }

    fn unsettled(&self) -> u64 {
        self.catch_up();
        let (end, served) = {
            let shared = self.shared.lock();
            if self.log.durable() < shared.events_end {
                // Something is being written: events that were emitted are not counted yet.
                return 1;
            }
            let next: HashMap<u32, u64> =
                self.log.topics().into_iter().map(|topic| (topic.id.0, topic.next_offset)).collect();
            let served = shared.state.known().filter_map(|state| {
                let core = shared.attached.get(&state.about.number)?.upgrade();
                let next = next.get(&state.about.topic).copied().unwrap_or(0);
                Some((state.unsettled_below(next, Stride::ALL), next, core))
            });
            (shared.events_end, served.collect::<Vec<_>>())
        };
        // Without the lock: what is handed out is locked before.
        let left =
            |(unsettled, next, core): (u64, u64, Option<Arc<Core>>)| match core.as_ref().map(|core| core.hand.lock()) {
                Some(hand) if unsettled > 0 && hand.only_holds(next) => 0,
                // Settled, and not durable yet: what looks on from outside does not see it, and a crash would undo it.
                Some(hand) if unsettled == 0 && !hand.settling.is_empty() => 1,
                _ => unsettled,
            };
        let unsettled = served.into_iter().map(left).sum();
        // What was settled meanwhile may have emitted something.
        if unsettled == 0 && self.shared.lock().events_end != end { 1 } else { unsettled }
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
            state.keyed.iter().map(|(key, stored)| (key.to_owned(), stored)).collect()
        };
        let value = |(key, stored)| Ok(self.value(stored)?.map(|value| (key, value)));
        stored.into_iter().filter_map(|stored| value(stored).transpose()).collect()
    }

    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError> {
        let topic = self.topics.get(topic).ok_or_else(|| InspectError::UnknownTopic(topic.to_owned()))?;
        let (first, _) = self.offsets(topic.id);
        let mut cursor = self.log.cursor(topic.id, from.max(first));
        let mut records = Vec::new();
        self.read_kept(&mut cursor, (limit, usize::MAX), &mut records).map_err(storage)?;
        let event = |record: oncue_log::Record| {
            let envelope = Envelope::from_stored(&record.data).map_err(storage)?;
            Ok((Position::new(record.partition, record.offset, 0), envelope))
        };
        records.into_iter().map(event).collect()
    }

    fn source(&self, id: &str) -> SourceState {
        self.shared.lock().state.source(id)
    }

    fn remembered(&self, subscription: &str) -> Option<Bytes> {
        self.shared.lock().state.find(subscription)?.remembered.clone()
    }

    fn storage(&self) -> StorageInfo {
        StorageInfo {
            bytes: self.stored_bytes(),
            // A file system that does not answer is one that does not know.
            free: self.log.free_bytes().unwrap_or_default(),
            limit: self.url.max_bytes,
            fenced: self.log.fenced(),
            closed: self.log.is_closed(),
        }
    }

    fn given_up(&self) -> u64 {
        self.shared.lock().state.known().map(|state| state.dead_ever()).sum()
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let info = |info: oncue_log::TopicInfo| {
            let partitions = self.topics.get(&info.name).map_or(1, |topic| topic.partitions);
            let (first_offset, next_offset) = (info.first_offset, info.next_offset);
            let (retention, retention_from) = self.topics.retention(info.id);
            TopicInfo { name: info.name, partitions, first_offset, next_offset, retention, retention_from }
        };
        self.log.topics().into_iter().map(info).collect()
    }

    fn oldest_unsettled(&self, subscription: &str) -> Result<Option<(Position, Envelope)>, InspectError> {
        self.oldest_unsettled(subscription)
    }

    fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        self.handling(topic, position)
    }

    fn settled(&self, event: &EventRef, subscription: &str) -> Result<Option<Settled>, InspectError> {
        self.catch_up();
        let ended = self.ended(&self.shared.lock(), event, subscription)?.1;
        ended.map(|ended| self.told(ended)).transpose()
    }
}

/// How an event ended for a subscription, as the state tells.
#[derive(Clone, Copy)]
enum Ended {
    Passed(End),
    Missed,
    Dead(DeadEntry),
}

impl Inner {
    /// How an event ended for a subscription, if it did, and the subscription's number.
    fn ended(
        &self,
        shared: &Shared,
        event: &EventRef,
        subscription: &str,
    ) -> Result<(SubscriptionNumber, Option<Ended>), InspectError> {
        let state = shared.state.find(subscription).ok_or_else(|| Self::unknown(subscription))?;
        let (about, offset) = (&state.about, event.position.offset());
        let is_its = self.topics.name(about.topic).as_deref() == Some(&*event.topic) && offset >= about.from;
        if !is_its || !about.wants(&event.envelope) {
            let (event_type, topic) = (event.envelope.event_type().to_owned(), event.topic.to_string());
            return Err(InspectError::NotTaken { subscription: subscription.to_owned(), event_type, topic });
        }
        let ended = if let Some(dead) = state.dead.get(&offset) {
            Some(Ended::Dead(*dead))
        } else if state.missed.contains(offset) {
            Some(Ended::Missed)
        } else {
            let is_through = state.settled.contains(offset) && !state.redriven.contains_key(&offset);
            is_through.then(|| Ended::Passed(state.end_of(offset)))
        };
        Ok((about.number, ended))
    }

    /// The same with the reason, which the log is asked for.
    fn told(&self, ended: Ended) -> Result<Settled, InspectError> {
        Ok(match ended {
            Ended::Passed(End::Acked) => Settled::Acked,
            Ended::Passed(End::Skipped) => Settled::Skipped,
            Ended::Passed(End::Expired) => Settled::Expired,
            Ended::Missed => Settled::Missed,
            Ended::Dead(entry) => {
                let history = self.dead_letter(entry)?.history;
                Settled::DeadLettered { error: history.last().map_or_else(String::new, |last| last.error.clone()) }
            }
        })
    }
}

/// Completes at the next progress after this call, and when what is being written is durable: whoever wrote it may have
/// gone, and tell nobody.
pub(super) fn progress(inner: &Arc<Inner>) -> impl Future<Output = ()> + Send {
    let told = inner.progress.notified();
    // As it is now: whoever is told later must not take what became durable meanwhile for what was so before.
    let end = inner.shared.lock().events_end;
    let is_durable = inner.log.durable() >= end;
    async move {
        if is_durable {
            return told.await;
        }
        // Of a log that is fenced nothing becomes durable any more.
        if let Either::Right((Err(_), told)) = select(std::pin::pin!(told), inner.durable(end)).await {
            told.await;
        }
    }
}

/// Completes when a subscription is through with an event.
pub(super) async fn outcome(inner: Arc<Inner>, event: EventRef, subscription: String) -> Result<Settled, InspectError> {
    loop {
        let known = {
            let mut shared = inner.shared.lock();
            let (number, ended) = inner.ended(&shared, &event, &subscription)?;
            ended.map(|ended| (ended, shared.end)).ok_or_else(|| {
                let (told, told_later) = oneshot::channel();
                let waiting = shared.waiting.entry((number, event.position.offset())).or_default();
                // Receipts that gave up waiting leave no trace.
                waiting.retain(|known| !known.is_closed());
                waiting.push(told);
                told_later
            })
        };
        match known {
            // Whoever tells us drops the sender when the transport goes.
            Err(told) => told.await.map_err(|_| InspectError::Closed)?,
            Ok((ended, end)) => {
                inner.durable(end).await.map_err(InspectError::Storage)?;
                return inner.told(ended);
            }
        }
    }
}
