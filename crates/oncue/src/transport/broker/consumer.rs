//! A subscription that is served here: its shares, and the instances that are given their events.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{FutureExt as _, join_all, select};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    BrokerError, Inner,
    ledger::Writing,
    share::{Lease, Serving, Share, Wanted},
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{
        Action, BoxFuture, ConsumeError, Consumer, Delivered, Limit, SettleError, Settlement, StateChange,
        SubscriptionSpec,
        log::{
            giving::Giving,
            hand::{Afterwards, ConsumerId},
            keyed::Stored,
            records::{Ack, Change, End, Keyed, Settle, Times},
            settle::{TypeNumbers, dead_letter, retry},
            standing::close,
        },
    },
};

/// How long a lease is good for. Who holds it keeps it up at a third of that.
const LEASE: Duration = Duration::from_secs(3);
/// Events that are read at once.
const READ_EVENTS: usize = 512;
/// How long a broker that failed is left alone.
const RETRY: Duration = Duration::from_millis(100);

/// A subscription that this process serves.
pub(super) struct Group {
    pub(super) inner: Arc<Inner>,
    pub(super) spec: SubscriptionSpec,
    pub(super) shares: Vec<Share>,
    /// Something can be handed out that could not before.
    pub(super) stirred: Notify,
    instances: Mutex<Instances>,
}

#[derive(Default)]
struct Instances {
    ids: Vec<ConsumerId>,
    last: ConsumerId,
    gone: bool,
}

/// One of those that share the subscription. What it was given is left to the others when it goes, and that is when also
/// its last settling is through.
struct Instance {
    group: Arc<Group>,
    id: ConsumerId,
}

impl Group {
    pub(super) fn new(inner: Arc<Inner>, spec: SubscriptionSpec, partitions: u16) -> Self {
        let share = |partition| Share {
            partition,
            ledgers: spec.members.iter().map(|member| inner.ledger(&member.id, partition)).collect(),
            serving: Mutex::new(Serving::new(&spec)),
        };
        let shares = (0..partitions).map(share).collect();
        Self { inner, spec, shares, stirred: Notify::new(), instances: Mutex::default() }
    }

    /// Another instance; nothing if the last one has gone.
    pub(super) fn join(self: &Arc<Self>) -> Option<BrokerConsumer> {
        let id = {
            let mut instances = self.instances.lock();
            if instances.gone {
                return None;
            }
            instances.last += 1;
            let id = instances.last;
            instances.ids.push(id);
            self.shares.iter().for_each(|share| share.serving.lock().hand.enter(id));
            id
        };
        Some(BrokerConsumer { instance: Arc::new(Instance { group: Arc::clone(self), id }) })
    }

    /// Keeps its leases up as long as it is there.
    pub(super) fn keep_up(self: &Arc<Self>) {
        let (weak, clock) = (Arc::downgrade(self), self.inner.clock.clone());
        self.inner.broker.runtime().spawn(async move {
            loop {
                clock.sleep(LEASE / 3).await;
                let Some(group) = weak.upgrade() else { return };
                let renewing = group.shares.iter().map(|share| group.renew(share));
                join_all(renewing).await;
            }
        });
    }

    async fn renew(&self, share: &Share) {
        if share.serving.lock().lease != Lease::Held {
            return;
        }
        for (member, ledger) in share.ledgers.iter().enumerate() {
            let writing = ledger.write().await;
            let until = self.inner.clock.now().after(LEASE);
            loop {
                let held = (self.inner.holder.as_str(), until);
                match ledger.lease(&*self.inner.broker, held, &writing).await {
                    Ok(()) => break,
                    Err(BrokerError::Moved) => match self.moved(share, member, &writing).await {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => return self.unreachable(&error),
                    },
                    Err(error) => return self.unreachable(&error),
                }
            }
        }
    }

    fn unreachable(&self, error: &BrokerError) {
        tracing::warn!(%error, url = self.inner.broker.url(), "a lease was not kept up");
    }

    /// A ledger goes on otherwise than was thought: whether its lease is still ours.
    async fn moved(&self, share: &Share, member: usize, writing: &Writing<'_>) -> Result<bool, BrokerError> {
        let ledger = &share.ledgers[member];
        let foreign = ledger.catch_up(&*self.inner.broker, writing).await?;
        let held = ledger.known().is_held_by(&self.inner.holder);
        let mut serving = share.serving.lock();
        if held {
            let states = share.states();
            serving.notice(&self.spec, &states, &foreign);
        } else if serving.lease != Lease::Released {
            let until = ledger.known().held_until(&self.inner.holder, self.inner.clock.now());
            serving.end(&self.spec, Lease::Free(until.unwrap_or_default()));
        }
        drop(serving);
        self.stirred.notify_waiters();
        Ok(held)
    }

    /// Tries to get a share's lease, and begins to serve it.
    async fn acquire(self: Arc<Self>, index: usize) {
        let share = &self.shares[index];
        let lease = match self.take_lease(share).await {
            Ok(None) => Lease::Held,
            Ok(Some(until)) => Lease::Free(until),
            Err(error) => {
                self.unreachable(&error);
                Lease::Free(self.inner.clock.now().after(RETRY))
            }
        };
        {
            let instances = self.instances.lock();
            let mut serving = share.serving.lock();
            if serving.lease == Lease::Trying {
                serving.lease = lease;
                if lease == Lease::Held {
                    serving.begin(&self.spec, &share.states(), &instances.ids);
                }
            }
        }
        self.stirred.notify_waiters();
    }

    /// Nothing if the lease is ours now; else when it may be tried again.
    async fn take_lease(&self, share: &Share) -> Result<Option<Timestamp>, BrokerError> {
        let (broker, holder) = (&*self.inner.broker, self.inner.holder.as_str());
        for ledger in &share.ledgers {
            let writing = ledger.write().await;
            loop {
                ledger.catch_up(broker, &writing).await?;
                let now = self.inner.clock.now();
                if let Some(until) = ledger.known().held_until(holder, now) {
                    return Ok(Some(until));
                }
                match ledger.lease(broker, (holder, now.after(LEASE)), &writing).await {
                    Err(BrokerError::Moved) => {}
                    leased => break leased?,
                }
            }
        }
        Ok(None)
    }

    /// Gives up all leases, so that others need not wait for their ends.
    pub(super) async fn release(&self) {
        for share in &self.shares {
            let was = {
                let mut serving = share.serving.lock();
                let was = serving.lease;
                serving.end(&self.spec, Lease::Released);
                was
            };
            if was != Lease::Held {
                continue;
            }
            for ledger in &share.ledgers {
                let writing = ledger.write().await;
                if ledger.known().is_held_by(&self.inner.holder) {
                    // One that moved is another's already; one that fails ends by itself.
                    let _ = ledger.release(&*self.inner.broker, &self.inner.holder, &writing).await;
                }
            }
        }
    }

    /// Hands out what there is, has read what is not, and tells when something is due.
    fn hand_out(self: &Arc<Self>, giving: &mut Giving<'_>) -> Option<Timestamp> {
        let mut due = None;
        let first = usize::try_from(giving.now.as_micros().unsigned_abs()).unwrap_or_default();
        for nth in 0..self.shares.len() {
            // Each has its turn to be the first.
            let index = (first + nth) % self.shares.len();
            let share = &self.shares[index];
            let mut serving = share.serving.lock();
            match serving.lease {
                Lease::Trying | Lease::Released => continue,
                Lease::Free(at) if at > giving.now => {
                    due = Some(due.map_or(at, |known: Timestamp| known.min(at)));
                    continue;
                }
                Lease::Free(_) => {
                    serving.lease = Lease::Trying;
                    self.inner.broker.runtime().spawn(Arc::clone(self).acquire(index));
                    continue;
                }
                Lease::Held => {}
            }
            let heard = self.inner.broker.heard(&self.spec.topic, share.partition);
            let wanted = serving.hand_out(share, &self.spec, giving, heard);
            if let Some(wanted) = wanted.filter(|_| !serving.fetching) {
                serving.fetching = true;
                let term = serving.term;
                self.inner.broker.runtime().spawn(Arc::clone(self).fetch(index, wanted, term));
            }
            due = due.into_iter().chain(serving.hand.next_due()).min();
        }
        due
    }

    /// Reads what a share wants.
    async fn fetch(self: Arc<Self>, index: usize, wanted: Wanted, term: u64) {
        let share = &self.shares[index];
        let read = match &wanted {
            Wanted::New { from } => self.read(share.partition, *from, READ_EVENTS).await,
            Wanted::Again(offsets) => self.read_again(share.partition, offsets).await,
        };
        let events = match read {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, topic = self.spec.topic, "events cannot be read");
                self.inner.clock.sleep(RETRY).await;
                Vec::new()
            }
        };
        {
            let mut serving = share.serving.lock();
            if serving.term != term {
                return;
            }
            serving.fetching = false;
            serving.read(&wanted, events);
        }
        self.stirred.notify_waiters();
    }

    async fn read(&self, partition: u16, from: u64, limit: usize) -> Result<Vec<(u64, Envelope)>, BrokerError> {
        let events = self.inner.broker.events(&self.spec.topic, Some(partition), from, limit).await?;
        Ok(events.into_iter().map(|(position, envelope)| (position.offset(), envelope)).collect())
    }

    /// Those that waited behind one another are near each other.
    async fn read_again(&self, partition: u16, offsets: &[u64]) -> Result<Vec<(u64, Envelope)>, BrokerError> {
        let mut sorted = offsets.to_vec();
        sorted.sort_unstable();
        let mut found: Vec<(u64, Envelope)> = Vec::new();
        for offset in &sorted {
            if found.last().is_some_and(|(last, _)| last >= offset) {
                continue;
            }
            found.extend(self.read(partition, *offset, offsets.len()).await?);
        }
        found.retain(|(offset, _)| sorted.binary_search(offset).is_ok());
        Ok(found)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let group = &self.group;
        let mut instances = group.instances.lock();
        instances.ids.retain(|known| *known != self.id);
        for share in &group.shares {
            share.serving.lock().hand.leave(self.id);
        }
        if instances.ids.is_empty() {
            instances.gone = true;
            let mut served = group.inner.served.lock();
            served.retain(|_, known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(group)));
            drop(served);
            let releasing = Arc::clone(group);
            group.inner.broker.runtime().spawn(async move { releasing.release().await });
        }
        drop(instances);
        group.stirred.notify_waiters();
    }
}

/// One instance's end.
pub(super) struct BrokerConsumer {
    instance: Arc<Instance>,
}

impl Consumer for BrokerConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        let Instance { group, id } = &*self.instance;
        async move {
            let mut growth = group.inner.broker.growth();
            loop {
                // Before it is looked: what comes meanwhile wakes us at once.
                let stirred = group.stirred.notified();
                let mut stirred = std::pin::pin!(stirred);
                stirred.as_mut().enable();
                growth.borrow_and_update();
                let mut giving = Giving { to: *id, now: group.inner.clock.now(), room: limit, out };
                let due = group.hand_out(&mut giving);
                if !out.is_empty() {
                    group.inner.progress.notify_waiters();
                    return Ok(());
                }
                group.inner.progress.notify_waiters();
                let grown = std::pin::pin!(growth.changed());
                let woken = select(stirred, grown);
                // Whatever it was: it is looked again.
                match due {
                    None => {
                        woken.await;
                    }
                    Some(due) => {
                        select(woken, group.inner.clock.sleep_until(due)).await;
                    }
                }
            }
        }
        .boxed()
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        let instance = Arc::clone(&self.instance);
        let runtime = self.instance.group.inner.broker.runtime().clone();
        let settling = runtime.spawn(async move { instance.group.settle(instance.id, &batch).await });
        async move { settling.await.unwrap_or(Err(SettleError::Closed)) }.boxed()
    }

    fn state(&self, member: usize, key: &str) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let (group, key) = (Arc::clone(&self.instance.group), key.to_owned());
        async move { group.value(member, &key).await.map_err(|error| ConsumeError::Storage(error.to_string())) }.boxed()
    }
}

fn settle_error(error: &BrokerError) -> SettleError {
    match *error {
        BrokerError::TooLarge { bytes, limit } => SettleError::TooLarge { bytes, limit },
        BrokerError::Closed => SettleError::Closed,
        _ => SettleError::Fenced(error.to_string()),
    }
}

impl Group {
    async fn value(&self, member: usize, key: &str) -> Result<Option<Bytes>, BrokerError> {
        let partition = crate::event::partition_of(Some(key), u16::try_from(self.shares.len()).unwrap_or(u16::MAX));
        let ledger = &self.shares[usize::from(partition)].ledgers[member];
        let stored = ledger.known().subscription().and_then(|state| state.keyed.get(key));
        match stored {
            None => Ok(None),
            Some(stored) => ledger.value(&*self.inner.broker, stored).await,
        }
    }

    /// What follows from the outcomes is written, then the events are given up.
    async fn settle(&self, consumer: ConsumerId, batch: &[Settlement]) -> Result<(), SettleError> {
        let settling = self.shares.iter().filter_map(|share| {
            let of_share: Vec<&Settlement> =
                batch.iter().filter(|settlement| settlement.position.partition() == share.partition).collect();
            (!of_share.is_empty()).then(|| self.settle_share(share, consumer, of_share))
        });
        let settled = join_all(settling).await;
        self.stirred.notify_waiters();
        self.inner.progress.notify_waiters();
        settled.into_iter().collect::<Result<(), BrokerError>>().map_err(|error| settle_error(&error))
    }

    async fn settle_share(
        &self,
        share: &Share,
        consumer: ConsumerId,
        batch: Vec<&Settlement>,
    ) -> Result<(), BrokerError> {
        // Whoever appends next must know what these follow from.
        let writing = join_all(share.ledgers.iter().map(|ledger| ledger.write())).await;
        self.emit(share, consumer, &batch).await?;
        for (member, writing) in writing.iter().enumerate() {
            let mut changes = Some(self.changes(share, consumer, member, &batch));
            while let Some(appending) = changes.take().filter(|changes| !changes.is_empty()) {
                match share.ledgers[member].append(&*self.inner.broker, &appending, writing).await {
                    Ok(()) => {}
                    Err(BrokerError::Moved) if self.moved(share, member, writing).await? => {
                        changes = Some(self.changes(share, consumer, member, &batch));
                    }
                    Err(BrokerError::Moved) => {
                        self.inner.fenced.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        tracing::debug!(partition = share.partition, "outcomes came after their lease was lost");
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let mut serving = share.serving.lock();
        let mut states = share.states();
        let mut afterwards = Afterwards::default();
        for settlement in batch {
            close(&self.spec, &mut serving.hand, &mut states, (consumer, settlement), &mut afterwards);
        }
        serving.hand.go_on(&afterwards);
        Ok(())
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
            let published = self.inner.publish(&topic, &events).await;
            published.map_err(|error| BrokerError::Failed(error.to_string()))?;
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

impl super::ledger::Ledger {
    /// A keyed value, from memory or from its record.
    pub(super) async fn value(&self, broker: &dyn super::Broker, stored: Stored) -> Result<Option<Bytes>, BrokerError> {
        match stored {
            Stored::InMemory(value) => Ok(Some(value)),
            Stored::InLog(lsn) => match self.change(broker, lsn).await? {
                Change::Keyed(Keyed { change: StateChange::Set(value), .. }) => Ok(Some(value)),
                _ => Ok(None),
            },
        }
    }
}
