//! Settling on a broker: what follows from the outcomes is written, then the events are given up.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{BrokerError, group::Group, known::Pending, ledger::Writing, pause::Pause, share::Share};
use crate::{
    event::Envelope,
    transport::{
        Action, OnDeadLetter, PublishError, SettleError, Settlement,
        log::{
            hand::{Afterwards, ConsumerId},
            records::{Ack, Change, End, Keyed, Settle, Times},
            settle::{TypeNumbers, dead_letter, retry},
            standing::close,
        },
    },
};

fn settle_error(error: &BrokerError) -> SettleError {
    match *error {
        BrokerError::TooLarge { bytes, limit } => SettleError::TooLarge { bytes, limit },
        BrokerError::Closed => SettleError::Closed,
        _ => SettleError::Fenced(error.to_string()),
    }
}

impl Group {
    /// The keyed state of a member, where settling has put it: in the partition of the key's events.
    pub(super) async fn value(&self, member: usize, partition: u16, key: &str) -> Result<Option<Bytes>, BrokerError> {
        let Some(share) = self.shares.get(usize::from(partition)) else { return Ok(None) };
        share.ledgers[member].value(&*self.inner.broker, key).await
    }

    /// An event that is to be tried again, or is a dead letter that holds its key, does so from now on, though that is not
    /// written yet: whoever gives it back does not expect a later one of its key.
    pub(super) fn hold(&self, consumer: ConsumerId, batch: &[Settlement]) {
        for settlement in batch {
            let holds = match settlement.action {
                Action::Retry(_) => true,
                Action::DeadLetter => {
                    let member = self.spec.members.get(usize::from(settlement.member));
                    member.is_some_and(|member| member.on_dead_letter == OnDeadLetter::Hold)
                }
                Action::Ack | Action::Skip | Action::Expire | Action::Release => false,
            };
            let share = self.shares.get(usize::from(settlement.position.partition())).filter(|_| holds);
            let Some(share) = share else { continue };
            let offset = settlement.position.offset();
            let hand = &mut share.serving.lock().hand;
            let event = hand.in_flight.get(&offset).filter(|event| event.awaits(consumer, settlement));
            if let Some(key) = event.map(|event| event.envelope.key_hash()) {
                hand.park(key, offset);
            }
        }
    }

    /// What follows from the outcomes is written, then the events are given up. While the broker cannot be reached, this
    /// waits: nobody else can tell what became of them.
    pub(super) async fn settle(&self, consumer: ConsumerId, batch: &[Settlement]) -> Result<(), SettleError> {
        let settling = self.shares.iter().filter_map(|share| {
            let of_share: Vec<&Settlement> =
                batch.iter().filter(|settlement| settlement.position.partition() == share.partition).collect();
            (!of_share.is_empty()).then(|| self.settle_share(share, consumer, of_share))
        });
        let settled = join_all(settling).await;
        self.hand_over().await;
        self.stirred.notify_waiters();
        self.inner.progress.notify_waiters();
        let lost: Result<Vec<bool>, BrokerError> = settled.into_iter().collect();
        if lost.map_err(|error| settle_error(&error))?.contains(&true) { Err(SettleError::LeaseLost) } else { Ok(()) }
    }

    /// Whether some of it is another process's by now, or what comes behind it.
    async fn settle_share(
        &self,
        share: &Share,
        consumer: ConsumerId,
        mut batch: Vec<&Settlement>,
    ) -> Result<bool, BrokerError> {
        if self.inner.is_closed() {
            return Err(BrokerError::Closed);
        }
        let lost = share.serving.lock().take_back(consumer, &mut batch);
        self.inner.fenced.fetch_add(lost, Ordering::Relaxed);
        if batch.is_empty() {
            return Ok(lost > 0);
        }
        // Whoever appends next must know what these follow from.
        let writing = join_all(share.ledgers.iter().map(|ledger| ledger.write())).await;
        let mut pause = Pause::default();
        while let Err(error) = self.emit(share, consumer, &batch).await {
            self.wait_for_broker(error, &mut pause).await?;
        }
        let is_lost = lost > 0 || self.is_lost(share, consumer, &batch);
        let members = 0..share.ledgers.len();
        let pending: Vec<_> =
            members.map(|member| Pending::new(self.changes(share, consumer, member, &batch))).collect();
        for (member, mut pending) in pending.into_iter().enumerate() {
            if !self.write(share, member, &mut pending, &writing[member]).await? {
                self.inner.fenced.fetch_add(batch.len() as u64, Ordering::Relaxed);
                share.serving.lock().take_back(consumer, &mut batch);
                tracing::debug!(partition = share.partition, "outcomes came after their lease was lost");
                return Ok(true);
            }
        }
        let (term, is_lost) = {
            let mut serving = share.serving.lock();
            // It may have been lost since: that is told, and has come back, whatever is known already.
            let lost_since = serving.take_back(consumer, &mut batch) > 0;
            let is_lost = is_lost || lost_since;
            let mut states = share.states();
            let mut afterwards = Afterwards::default();
            for settlement in batch {
                close(&self.spec, &mut serving.hand, &mut states, (consumer, settlement), &mut afterwards);
            }
            serving.hand.go_on(&afterwards);
            if serving.until > self.inner.clock.now() {
                return Ok(is_lost);
            }
            (serving.term, is_lost)
        };
        drop(writing);
        Ok(is_lost || !self.is_kept_up(share, term).await)
    }

    /// Whether the lease is held still. While it is over by this process's clock, another one may have it: that is waited
    /// for, as what comes next of a key begins once this is told.
    async fn is_kept_up(&self, share: &Share, term: u64) -> bool {
        loop {
            let stirred = self.stirred.notified();
            let mut stirred = std::pin::pin!(stirred);
            stirred.as_mut().enable();
            {
                let serving = share.serving.lock();
                if serving.term != term || !serving.lease.is_held() {
                    return false;
                }
                if serving.until > self.inner.clock.now() {
                    return true;
                }
            }
            stirred.await;
        }
    }

    /// Whether something was handed out under a lease that is gone. What is settled twice was not.
    fn is_lost(&self, share: &Share, consumer: ConsumerId, batch: &[&Settlement]) -> bool {
        let serving = share.serving.lock();
        batch.iter().filter(|settlement| settlement.action != Action::Release).any(|settlement| {
            let offset = settlement.position.offset();
            let is_ours = serving.hand.in_flight.get(&offset).is_some_and(|event| event.awaits(consumer, settlement));
            let is_settled = || {
                let known = share.ledgers[usize::from(settlement.member)].known();
                let state = &known.state.subscriptions[0];
                state.settled.contains(offset) || state.dead.contains_key(&offset)
            };
            !(is_ours || serving.lease.is_held() && is_settled())
        })
    }

    /// Writes what is to be written of one member; whether the lease is still ours.
    async fn write(
        &self,
        share: &Share,
        member: usize,
        pending: &mut Pending,
        writing: &Writing<'_>,
    ) -> Result<bool, BrokerError> {
        let mut pause = Pause::default();
        loop {
            let written = match share.ledgers[member].append(&*self.inner.broker, pending, writing).await {
                Err(BrokerError::Moved) => match self.moved(share, member, pending, writing).await {
                    Ok(true) => continue,
                    written => written,
                },
                written => written.map(|()| true),
            };
            match written {
                Err(error) => self.wait_for_broker(error, &mut pause).await?,
                written => return written,
            }
        }
    }

    /// Waits a while before a broker that failed is asked again; what it refuses for good is an error.
    async fn wait_for_broker(&self, error: BrokerError, pause: &mut Pause) -> Result<(), BrokerError> {
        if !matches!(error, BrokerError::Failed(_)) || self.inner.is_closed() {
            return Err(error);
        }
        tracing::warn!(%error, url = self.inner.broker.url(), "outcomes cannot be written: they are tried again");
        pause.sleep(&self.inner.clock).await;
        if self.inner.is_closed() { Err(BrokerError::Closed) } else { Ok(()) }
    }

    /// What handlers emitted is published before they acknowledge: a crash in between repeats it under the same id.
    async fn emit(&self, share: &Share, consumer: ConsumerId, batch: &[&Settlement]) -> Result<(), BrokerError> {
        let mut emits: Vec<(String, Vec<Envelope>)> = Vec::new();
        {
            let serving = share.serving.lock();
            for settlement in batch {
                let event = serving.hand.in_flight.get(&settlement.position.offset());
                let counts = event.is_some_and(|event| event.awaits(consumer, settlement));
                let written = settlement.written.iter().filter(|_| counts && settlement.action == Action::Ack);
                for (topic, event) in written.flat_map(|written| &written.emits) {
                    match emits.iter_mut().find(|(known, _)| known == topic) {
                        Some((_, events)) => events.push(event.clone()),
                        None => emits.push((topic.clone(), vec![event.clone()])),
                    }
                }
            }
        }
        for (topic, events) in emits {
            self.inner.publish(&topic, &events).await.map_err(|error| match error {
                PublishError::Unreachable(reason) | PublishError::Fenced(reason) => BrokerError::Failed(reason),
                PublishError::Closed => BrokerError::Closed,
                PublishError::TooLarge { bytes, limit } => BrokerError::TooLarge { bytes, limit },
                refused => BrokerError::Refused(refused.to_string()),
            })?;
        }
        Ok(())
    }

    /// What is to be written of one member.
    fn changes(&self, share: &Share, consumer: ConsumerId, member: usize, batch: &[&Settlement]) -> Vec<Change> {
        let serving = share.serving.lock();
        let known = share.ledgers[member].known();
        let (mut types, mut entries, mut changes) = (TypeNumbers::default(), Vec::new(), Vec::new());
        for settlement in batch.iter().filter(|settlement| usize::from(settlement.member) == member) {
            let offset = settlement.position.offset();
            let event = serving.hand.in_flight.get(&offset).filter(|event| event.awaits(consumer, settlement));
            let Some(event) = event else { continue };
            let envelope = event.envelope_of(member);
            let attempt = settlement.attempt;
            let times = Times {
                generated: envelope.time(),
                published: envelope.published(),
                read: attempt.read,
                ended: attempt.ended,
            };
            if settlement.action == Action::Release {
                continue;
            }
            let event_type = types.number(known.state.types(), envelope.event_type());
            let mut ack = |end, attempts| entries.push(Ack { offset, event_type, end, attempts, times });
            match settlement.action {
                Action::Release => {}
                Action::Ack => {
                    ack(End::Acked, attempt.number);
                    let state = settlement.written.as_ref().and_then(|written| written.state.clone());
                    if let (Some(change), Some(key)) = (state, envelope.key()) {
                        changes.push(Change::Keyed(Keyed { subscription: 0, key: key.to_owned(), change }));
                    }
                }
                Action::Skip => ack(End::Skipped, 0),
                Action::Expire => ack(End::Expired, 0),
                Action::Retry(due) => {
                    let failing = known.state.subscriptions[0].failing.get(&offset);
                    let previous = failing.map(|failing| failing.lsn);
                    changes.push(retry(0, settlement, (due, previous), (event_type, times)));
                }
                Action::DeadLetter => {
                    let history = known.histories.get(&offset).cloned().unwrap_or_default();
                    let rule = self.spec.members[member].on_dead_letter;
                    changes.push(dead_letter((0, rule), event, settlement, (event_type, times), history));
                }
            }
        }
        if !entries.is_empty() {
            changes.push(Change::Settle(Settle { subscription: 0, entries }));
        }
        // A number is given before it is used.
        changes.splice(0..0, types.new.into_iter().map(Change::EventType));
        changes
    }
}
