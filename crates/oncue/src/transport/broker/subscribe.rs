//! Attaching to a subscription, making it if it is new.

use std::sync::Arc;

use super::{
    BrokerError, Inner, SOURCES,
    group::Group,
    known::Pending,
    ledger::{Ledger, Writing},
};
use crate::transport::{
    MemberSpec, PublishError, Published, SourceMark, Start, SubscribeError, Subscribed, SubscriptionSpec,
    log::records::{Change, Source, Subscription},
};

/// Events that are read at once to be counted.
const COUNTED_EVENTS: usize = 4096;

impl Inner {
    pub(super) async fn subscribe(self: Arc<Self>, spec: SubscriptionSpec) -> Result<Subscribed, SubscribeError> {
        if self.is_closed() {
            return Err(PublishError::Closed.into());
        }
        let partitions = self.partitions(&spec.topic).await?;
        self.broker.follow(&spec.topic).await.map_err(PublishError::from)?;
        loop {
            if let Some(group) = self.served_as(&spec)? {
                // Another instance serves it: they share. If that one goes at this moment, this one serves it anew.
                let Some(consumer) = group.join() else { continue };
                return Ok(Subscribed { consumer: Box::new(consumer), created: vec![None; spec.members.len()] });
            }
            let mut created = Vec::with_capacity(spec.members.len());
            for member in &spec.members {
                let made = self.subscribe_member(&spec.topic, member, partitions).await?;
                created.push(made);
            }
            let group = Arc::new(Group::new(Arc::clone(&self), spec.clone(), partitions));
            let Some(consumer) = self.serve(&group) else { continue };
            self.attend();
            if let Err(error) = self.divide().await {
                tracing::warn!(%error, url = self.broker.url(), "partitions are not divided yet: it is tried again");
            }
            return Ok(Subscribed { consumer: Box::new(consumer), created });
        }
    }

    /// Who serves these handlers here already, as one and with the same options.
    fn served_as(&self, spec: &SubscriptionSpec) -> Result<Option<Arc<Group>>, SubscribeError> {
        let served = self.served.lock();
        let known = |member: &MemberSpec| Some((member.id.clone(), served.get(&member.id)?.upgrade()?));
        match spec.members.iter().find_map(known) {
            Some((_, group)) if group.spec == *spec => Ok(Some(group)),
            Some((id, _)) => Err(SubscribeError::Busy(id)),
            None => Ok(None),
        }
    }

    /// Serves its members by this group, unless somebody here came first.
    fn serve(&self, group: &Arc<Group>) -> Option<super::consumer::BrokerConsumer> {
        let mut served = self.served.lock();
        let is_taken = |member: &MemberSpec| served.get(&member.id).is_some_and(|known| known.strong_count() > 0);
        if group.spec.members.iter().any(is_taken) {
            return None;
        }
        for member in &group.spec.members {
            served.insert(member.id.clone(), Arc::downgrade(group));
        }
        drop(served);
        group.join()
    }

    /// Gives how many earlier events will be delivered, if it is new.
    async fn subscribe_member(
        self: &Arc<Self>,
        topic: &str,
        member: &MemberSpec,
        partitions: u16,
    ) -> Result<Option<u64>, SubscribeError> {
        let mut created = None;
        for partition in 0..partitions {
            let ledger = self.ledger(&member.id, partition);
            let writing = ledger.write().await;
            loop {
                ledger.catch_up(&*self.broker, &writing).await.map_err(PublishError::from)?;
                let known =
                    ledger.known().state.subscriptions.first().map(|state| (state.about.clone(), state.removed));
                let wanted = Subscription { topic_name: Some(topic.to_owned()), ..Subscription::of(member, EVENTS) };
                let (about, earlier) = match known {
                    Some((known, false)) if known.topic_name.as_deref() != Some(topic) => {
                        let existing = known.topic_name.unwrap_or_default();
                        let (id, wanted) = (member.id.clone(), topic.to_owned());
                        return Err(SubscribeError::OtherTopic { id, existing, wanted });
                    }
                    Some((known, false)) => {
                        let about = Subscription { from: known.from, ..wanted };
                        if about == known {
                            break;
                        }
                        (about, None)
                    }
                    Some((_, true)) | None => {
                        let (from, earlier) = self.start(topic, partition, member.start).await?;
                        (Subscription { from, ..wanted }, Some(earlier))
                    }
                };
                let mut pending = Pending::new([Change::Subscription(about)]);
                match ledger.append(&*self.broker, &mut pending, &writing).await {
                    Ok(()) => {
                        created = earlier.map(|earlier| created.unwrap_or(0) + earlier).or(created);
                        break;
                    }
                    Err(BrokerError::Moved) => {}
                    Err(error) => return Err(PublishError::from(error).into()),
                }
            }
        }
        Ok(created)
    }

    /// The offset where a new subscription begins in a partition, and how many events there are from there on.
    pub(super) async fn start(&self, topic: &str, partition: u16, start: Start) -> Result<(u64, u64), PublishError> {
        let (broker, mut events) = (&*self.broker, 0);
        let from = match start {
            Start::Latest => return Ok((broker.end(topic, partition).await?, 0)),
            Start::Earliest => {
                let extent = broker.extent(topic, partition).await?;
                return Ok((extent.first, extent.events));
            }
            Start::At(position) => {
                let extent = broker.extent(topic, partition).await?;
                position.offset().clamp(extent.first, extent.next)
            }
            Start::Since(time) => match broker.since(topic, partition, time).await? {
                Some(from) => from,
                None => return Ok((broker.end(topic, partition).await?, 0)),
            },
        };
        let mut next = from;
        loop {
            let counted = broker.events(topic, Some(partition), next, COUNTED_EVENTS).await?;
            events += counted.len() as u64;
            match counted.last() {
                Some((last, _)) if counted.len() == COUNTED_EVENTS => next = last.offset() + 1,
                _ => return Ok((from, events)),
            }
        }
    }

    /// Writes how far a source has come.
    pub(super) async fn mark(self: &Arc<Self>, mark: &SourceMark, published: &[Published]) -> Result<(), PublishError> {
        let ledger = self.ledger(SOURCES, 0);
        let duplicates = published.iter().filter(|one| one.duplicate).count() as u64;
        let accepted = published.len() as u64 - duplicates;
        let change = Change::Source(Source { id: mark.id.clone(), place: mark.place.clone(), accepted, duplicates });
        self.append(&ledger, vec![change]).await.map_err(PublishError::from)
    }

    /// Appends changes that hold whatever else was written meanwhile.
    pub(super) async fn append(&self, ledger: &Ledger, changes: Vec<Change>) -> Result<(), BrokerError> {
        let (writing, mut pending) = (ledger.write().await, Pending::new(changes));
        loop {
            ledger.catch_up_with(&*self.broker, &mut pending, &writing).await?;
            match ledger.append(&*self.broker, &mut pending, &writing).await {
                Err(BrokerError::Moved) => {}
                Ok(()) => return self.keep_short(ledger, &writing).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a checkpoint where one is due, and nobody holds the ledger who would.
    async fn keep_short(&self, ledger: &Ledger, writing: &Writing<'_>) -> Result<(), BrokerError> {
        let is_due = {
            let known = ledger.known();
            known.is_checkpoint_due() && known.held_until("", self.clock.now()).is_none()
        };
        if is_due { self.shorten(ledger, writing).await } else { Ok(()) }
    }

    /// Writes a checkpoint, unless somebody else writes at this moment: then the next one who does will.
    pub(super) async fn shorten(&self, ledger: &Ledger, writing: &Writing<'_>) -> Result<(), BrokerError> {
        match ledger.checkpoint(&*self.broker, writing).await {
            Err(BrokerError::Moved) => Ok(()),
            written => written,
        }
    }
}

/// Topics have names on a broker, and no numbers.
const EVENTS: oncue_log::TopicId = oncue_log::TopicId(0);
