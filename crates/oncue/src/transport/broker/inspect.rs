//! What is known of a broker's topics and subscriptions, for people, reports and receipts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::select;

use super::{BrokerError, Inner, SOURCES, known::Known, ledger::Ledger, members::MEMBERS};
use crate::{
    clock::Timestamp,
    event::Envelope,
    metrics::HandlerStats,
    transport::{
        DeadLetter, EventHandling, EventRef, Inspect, InspectError, Position, Retention, RetentionFrom, Settled,
        SourceState, Stage, StorageInfo, SubscriptionInfo, TopicInfo,
        log::{
            offsets::Stride,
            records::{Change, Dead, End},
        },
    },
};

/// Events that are read at once to find one.
const READ_EVENTS: usize = 512;

impl Inner {
    /// The ledgers of a subscription, read to their ends where nobody here serves them.
    async fn ledgers_of(self: &Arc<Self>, subscription: &str) -> Result<Vec<Arc<Ledger>>, BrokerError> {
        let first = self.ledger(subscription, 0);
        self.catch_up(&first).await?;
        let topic = first.known().subscription().and_then(|state| state.about.topic_name.clone());
        let Some(topic) = topic else { return Ok(Vec::new()) };
        let partitions = self.partitions(&topic).await.map_err(|error| BrokerError::Failed(error.to_string()))?;
        let mut ledgers = vec![first];
        for partition in 1..partitions {
            let ledger = self.ledger(subscription, partition);
            self.catch_up(&ledger).await?;
            ledgers.push(ledger);
        }
        Ok(ledgers)
    }

    /// Reads a ledger to its end, unless it is ours: then nothing is written to it that is not known.
    async fn catch_up(&self, ledger: &Ledger) -> Result<(), BrokerError> {
        let is_ours = self.group(&ledger.name.subscription).is_some_and(|group| {
            let share = group.shares.get(usize::from(ledger.name.partition));
            share.is_some_and(|share| share.serving.lock().lease.is_held())
        });
        if is_ours {
            return Ok(());
        }
        let writing = ledger.write().await;
        ledger.catch_up(&*self.broker, &writing).await.map(drop)
    }

    async fn subscriptions(self: Arc<Self>) -> Result<Vec<SubscriptionInfo>, BrokerError> {
        let mut ids: Vec<String> = self.broker.ledgers().await?.into_iter().map(|name| name.subscription).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut infos = Vec::new();
        for id in ids.iter().filter(|id| ![SOURCES, MEMBERS].contains(&id.as_str())) {
            if let Some(info) = self.info(id).await? {
                infos.push(info);
            }
        }
        Ok(infos)
    }

    /// The offsets that events of a partition may have.
    fn stride(&self, topic: &str, partition: u16) -> Stride {
        match self.broker.turns(topic) {
            1 => Stride::ALL,
            step => Stride { first: partition, step },
        }
    }

    async fn info(self: &Arc<Self>, id: &str) -> Result<Option<SubscriptionInfo>, BrokerError> {
        let group = self.group(id);
        let mut info: Option<SubscriptionInfo> = None;
        let mut by_type: BTreeMap<String, HandlerStats> = BTreeMap::new();
        for ledger in self.ledgers_of(id).await? {
            let partition = ledger.name.partition;
            let topic = ledger.known().subscription().and_then(|state| state.about.topic_name.clone());
            let Some(topic) = topic else { continue };
            self.broker.follow(&topic).await?;
            let (next, stride) = (self.broker.heard(&topic, partition), self.stride(&topic, partition));
            let oldest = self.oldest(&ledger, &topic).await?.map(|(_, envelope)| since(&envelope));
            let mut held = (0, 0, false);
            if let Some(share) = group.as_ref().and_then(|group| group.shares.get(usize::from(partition))) {
                let hand = &share.serving.lock().hand;
                held = (hand.in_flight.len() as u64, hand.parked_keys() as u64, hand.is_full());
            }
            let known = ledger.known();
            let Some(state) = known.subscription() else { continue };
            let about = &state.about;
            let total = info.get_or_insert_with(|| SubscriptionInfo {
                id: about.id.clone(),
                topic,
                types: about.types.clone(),
                filter: about.filter.clone(),
                emits: about.emits.clone(),
                after: about.after.clone(),
                attached: group.is_some(),
                lag: 0,
                retrying: 0,
                dead: 0,
                holding: 0,
                parked_keys: 0,
                full: false,
                oldest: None,
                // What a broker drops by itself looks as what is another partition's.
                missed: 0,
                in_flight: 0,
                stats: HandlerStats::default(),
                by_type: Vec::new(),
            });
            total.lag += state.unsettled_below(next, stride);
            total.retrying += state.failing.len() as u64;
            total.dead += state.dead.len() as u64;
            total.holding += state.dead.values().filter(|dead| dead.hold).count() as u64;
            total.in_flight += held.0;
            total.parked_keys += held.1;
            total.full |= held.2;
            total.oldest = total.oldest.into_iter().chain(oldest).min();
            let stats = state.stats();
            total.stats.merge(&stats);
            for (number, stats) in &state.by_type {
                let name = match known.state.types().name(*number) {
                    "" => "(other)",
                    name => name,
                };
                by_type.entry(name.to_owned()).or_default().merge(stats);
            }
        }
        if let Some(info) = &mut info {
            info.by_type = by_type.into_iter().collect();
        }
        Ok(info)
    }

    /// The oldest event of a partition that is taken and not settled.
    async fn oldest(&self, ledger: &Ledger, topic: &str) -> Result<Option<(Position, Envelope)>, BrokerError> {
        let mut from = ledger.known().subscription().map_or(0, |state| state.settled.low());
        loop {
            if self.broker.heard(topic, ledger.name.partition) <= from {
                return Ok(None);
            }
            let events = self.broker.events(topic, Some(ledger.name.partition), from, READ_EVENTS).await?;
            let Some((last, _)) = events.last() else { return Ok(None) };
            from = last.offset() + 1;
            let known = ledger.known();
            let Some(state) = known.subscription() else { return Ok(None) };
            let waits = |offset: u64| {
                !(state.settled.contains(offset)
                    || state.dead.contains_key(&offset)
                    || state.redriven.contains_key(&offset))
            };
            let found =
                events.into_iter().find(|(position, envelope)| waits(position.offset()) && state.about.wants(envelope));
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// A dead letter, unless it was resolved at this moment.
    async fn dead(&self, ledger: &Ledger, offset: u64) -> Result<Option<Dead>, BrokerError> {
        let pointer = |known: &Known| known.subscription()?.dead.get(&offset).map(|dead| dead.lsn);
        Ok(match ledger.pointed(&*self.broker, pointer).await? {
            Some(Change::DeadLetter(dead)) => Some(dead),
            _ => None,
        })
    }

    async fn dead_letters(self: Arc<Self>, subscription: String) -> Result<Option<Vec<DeadLetter>>, BrokerError> {
        let ledgers = self.ledgers_of(&subscription).await?;
        if ledgers.is_empty() {
            return Ok(None);
        }
        let mut letters = Vec::new();
        for ledger in ledgers {
            let offsets: Vec<u64> =
                ledger.known().subscription().map(|state| state.dead.keys().copied().collect()).unwrap_or_default();
            for offset in offsets {
                let Some(Dead { about, envelope }) = self.dead(&ledger, offset).await? else { continue };
                let position = Position::new(about.partition, about.offset, 0);
                letters.push(DeadLetter { position, envelope, holds: about.hold, history: about.history });
            }
        }
        // Oldest first, as far as partitions can be compared.
        letters.sort_by_key(|letter| (letter.history.last().map(|last| last.ended), letter.position.offset()));
        Ok(Some(letters))
    }

    async fn states(self: Arc<Self>, subscription: String) -> Result<Option<Vec<(String, Bytes)>>, BrokerError> {
        let ledgers = self.ledgers_of(&subscription).await?;
        if ledgers.is_empty() {
            return Ok(None);
        }
        let mut states = Vec::new();
        for ledger in ledgers {
            let keys: Vec<String> = {
                let known = ledger.known();
                let keyed = known.subscription().into_iter().flat_map(|state| state.keyed.iter());
                keyed.map(|(key, ..)| key.to_owned()).collect()
            };
            for key in keys {
                states.extend(ledger.value(&*self.broker, &key).await?.map(|value| (key, value)));
            }
        }
        Ok(Some(states))
    }

    /// How an event ended for a subscription, if it did.
    async fn settled(self: Arc<Self>, event: EventRef, subscription: String) -> Result<Ending, BrokerError> {
        let ledger = self.ledger(&subscription, event.position.partition());
        self.catch_up(&ledger).await?;
        {
            let known = ledger.known();
            let Some(state) = known.subscription() else { return Ok(Ending::UnknownSubscription) };
            let (about, offset) = (&state.about, event.position.offset());
            if about.topic_name.as_deref() != Some(&*event.topic)
                || offset < about.from
                || !about.wants(&event.envelope)
            {
                return Ok(Ending::NotTaken);
            }
            match state.dead.get(&offset) {
                Some(_) => {}
                None if state.settled.contains(offset) && !state.redriven.contains_key(&offset) => {
                    return Ok(Ending::Ended(match state.end_of(offset) {
                        End::Acked => Settled::Acked,
                        End::Skipped => Settled::Skipped,
                        End::Expired => Settled::Expired,
                    }));
                }
                None => return Ok(Ending::Open),
            }
        }
        let Some(dead) = self.dead(&ledger, event.position.offset()).await? else { return Ok(Ending::Open) };
        let history = dead.about.history;
        let error = history.last().map_or_else(String::new, |last| last.error.clone());
        Ok(Ending::Ended(Settled::DeadLettered { error }))
    }

    async fn handling(self: Arc<Self>, topic: String, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        let found = self.broker.events(&topic, Some(position.partition()), position.offset(), 1).await?.pop();
        let unknown = || InspectError::UnknownEvent { topic: topic.clone(), position };
        let (_, envelope) = found.filter(|(at, _)| *at == position).ok_or_else(unknown)?;
        let mut handlings = Vec::new();
        for info in Arc::clone(&self).subscriptions().await? {
            let event = EventRef { topic: topic.as_str().into(), position, envelope: envelope.clone() };
            let ending = Arc::clone(&self).settled(event, info.id.clone()).await?;
            let ledger = self.ledger(&info.id, position.partition());
            let (failing, failed) = {
                let known = ledger.known();
                let failing = known.subscription().and_then(|state| state.failing.get(&position.offset()).copied());
                (failing, known.histories.get(&position.offset()).cloned().unwrap_or_default())
            };
            let stage = match ending {
                Ending::NotTaken | Ending::UnknownSubscription | Ending::Ended(Settled::Missed) => continue,
                Ending::Open if failing.is_some() => Stage::Retrying,
                Ending::Open => Stage::Pending,
                Ending::Ended(Settled::Acked) => Stage::Settled,
                Ending::Ended(Settled::Skipped) => Stage::Skipped,
                Ending::Ended(Settled::Expired) => Stage::Expired,
                Ending::Ended(Settled::DeadLettered { .. }) => Stage::Dead,
            };
            handlings.push(EventHandling {
                subscription: info.id,
                stage,
                attempts: failing.map_or(0, |failing| failing.attempts),
                read: failed.last().map(|last| last.read),
                ended: failed.last().map(|last| last.ended),
                due: failing.map(|failing| failing.due),
                failed,
            });
        }
        Ok(handlings)
    }
}

/// Since when an event waits to be handled.
fn since(event: &Envelope) -> Timestamp {
    event.due().map_or(event.published(), |due| due.max(event.published()))
}

/// What became of an event.
enum Ending {
    UnknownSubscription,
    NotTaken,
    Open,
    Ended(Settled),
}

impl Ending {
    fn told(self, event: &EventRef, subscription: &str) -> Result<Option<Settled>, InspectError> {
        let subscription = subscription.to_owned();
        match self {
            Self::Ended(settled) => Ok(Some(settled)),
            Self::Open => Ok(None),
            Self::UnknownSubscription => Err(InspectError::UnknownSubscription(subscription)),
            Self::NotTaken => {
                let (event_type, topic) = (event.envelope.event_type().to_owned(), event.topic.to_string());
                Err(InspectError::NotTaken { subscription, event_type, topic })
            }
        }
    }
}

/// Completes when a subscription is through with an event.
pub(super) async fn outcome(inner: Arc<Inner>, event: EventRef, subscription: String) -> Result<Settled, InspectError> {
    let mut growth = inner.broker.growth();
    loop {
        let progress = inner.progress.notified();
        let mut progress = std::pin::pin!(progress);
        progress.as_mut().enable();
        growth.borrow_and_update();
        let ending = Arc::clone(&inner).settled(event.clone(), subscription.clone()).await?;
        if let Some(settled) = ending.told(&event, &subscription)? {
            return Ok(settled);
        }
        select(progress, std::pin::pin!(growth.changed())).await;
    }
}

fn unknown(subscription: &str) -> InspectError {
    InspectError::UnknownSubscription(subscription.to_owned())
}

impl Inspect for Arc<Inner> {
    fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        self.wait(Inner::subscriptions(Arc::clone(self))).unwrap_or_default()
    }

    fn unsettled(&self) -> u64 {
        let mut unsettled = 0;
        for group in self.groups() {
            for share in &group.shares {
                let next = self.broker.heard(&group.spec.topic, share.partition);
                let serving = share.serving.lock();
                if serving.lease.is_held() && serving.hand.only_holds(next) {
                    continue;
                }
                let stride = self.stride(&group.spec.topic, share.partition);
                let known = share.ledgers.iter().map(|ledger| ledger.known());
                let of_member =
                    known.map(|known| known.subscription().map_or(0, |state| state.unsettled_below(next, stride)));
                unsettled += of_member.sum::<u64>();
            }
        }
        unsettled
    }

    fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>, InspectError> {
        let letters = self.wait(Inner::dead_letters(Arc::clone(self), subscription.to_owned()))?;
        letters.ok_or_else(|| unknown(subscription))
    }

    fn states(&self, subscription: &str) -> Result<Vec<(String, Bytes)>, InspectError> {
        let states = self.wait(Inner::states(Arc::clone(self), subscription.to_owned()))?;
        states.ok_or_else(|| unknown(subscription))
    }

    fn browse(&self, topic: &str, from: u64, limit: usize) -> Result<Vec<(Position, Envelope)>, InspectError> {
        let (inner, name) = (Arc::clone(self), topic.to_owned());
        let found = self.wait(async move {
            if !inner.broker.topics().await?.iter().any(|(known, _)| *known == name) {
                return Ok(None);
            }
            inner.broker.events(&name, None, from, limit).await.map(Some)
        })?;
        found.ok_or_else(|| InspectError::UnknownTopic(topic.to_owned()))
    }

    fn settled(&self, event: &EventRef, subscription: &str) -> Result<Option<Settled>, InspectError> {
        self.wait(Inner::settled(Arc::clone(self), event.clone(), subscription.to_owned()))?.told(event, subscription)
    }

    fn source(&self, id: &str) -> SourceState {
        let (inner, id) = (Arc::clone(self), id.to_owned());
        let state = self.wait(async move {
            let ledger = inner.ledger(SOURCES, 0);
            inner.catch_up(&ledger).await?;
            let state = ledger.known().state.source(&id);
            Ok(state)
        });
        state.unwrap_or_default()
    }

    fn remembered(&self, subscription: &str) -> Option<Bytes> {
        let (inner, subscription) = (Arc::clone(self), subscription.to_owned());
        let remembered = self.wait(async move {
            let ledger = inner.ledger(&subscription, 0);
            inner.catch_up(&ledger).await?;
            let remembered = ledger.known().subscription().and_then(|state| state.remembered.clone());
            Ok(remembered)
        });
        remembered.unwrap_or_default()
    }

    fn topics(&self) -> Vec<TopicInfo> {
        let inner = Arc::clone(self);
        let topics = self.wait(async move {
            let mut infos = Vec::new();
            for (name, partitions) in inner.broker.topics().await? {
                let (retention, retention_from) = (Retention::forever(), RetentionFrom::Broker);
                let (first_offset, next_offset) = (u64::MAX, 0);
                let mut info = TopicInfo { name, partitions, first_offset, next_offset, retention, retention_from };
                for partition in 0..partitions {
                    let extent = inner.broker.extent(&info.name, partition).await?;
                    info.first_offset = info.first_offset.min(extent.first);
                    info.next_offset = info.next_offset.max(extent.next);
                }
                info.first_offset = info.first_offset.min(info.next_offset);
                infos.push(info);
            }
            Ok(infos)
        });
        topics.unwrap_or_default()
    }

    fn oldest_unsettled(&self, subscription: &str) -> Result<Option<(Position, Envelope)>, InspectError> {
        let (inner, id) = (Arc::clone(self), subscription.to_owned());
        let oldest = self.wait(async move {
            let ledgers = inner.ledgers_of(&id).await?;
            if ledgers.is_empty() {
                return Ok(None);
            }
            let mut oldest: Option<(Position, Envelope)> = None;
            for ledger in ledgers {
                let topic = ledger.known().subscription().and_then(|state| state.about.topic_name.clone());
                let found = inner.oldest(&ledger, &topic.unwrap_or_default()).await?;
                oldest = oldest.into_iter().chain(found).min_by_key(|(_, envelope)| envelope.published());
            }
            Ok(Some(oldest))
        })?;
        oldest.ok_or_else(|| unknown(subscription))
    }

    fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        let handling = Inner::handling(Arc::clone(self), topic.to_owned(), position);
        self.wait(async move { Ok(handling.await) })?
    }

    fn storage(&self) -> StorageInfo {
        let closed = self.closed.load(std::sync::atomic::Ordering::Acquire);
        StorageInfo { closed, ..StorageInfo::default() }
    }

    fn given_up(&self) -> u64 {
        let ledgers = self.ledgers.lock();
        ledgers.values().map(|ledger| ledger.known().subscription().map_or(0, |state| state.dead_ever())).sum()
    }
}
