//! A subscription that is served here: its shares, and what is handed out of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{
    BrokerError, Inner,
    consumer::BrokerConsumer,
    pause::Pause,
    share::{Lease, Serving, Share, Wanted},
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{
        Order, Position, SubscriptionSpec,
        log::{giving::Giving, hand::ConsumerId},
    },
};

/// Events that are read at once.
const READ_EVENTS: usize = 512;

/// A subscription that this process serves.
pub(super) struct Group {
    pub(super) inner: Arc<Inner>,
    pub(super) spec: SubscriptionSpec,
    pub(super) shares: Vec<Share>,
    /// Something can be handed out that could not before.
    pub(super) stirred: Notify,
    pub(super) instances: Mutex<Instances>,
}

#[derive(Default)]
pub(super) struct Instances {
    pub(super) ids: Vec<ConsumerId>,
    last: ConsumerId,
    pub(super) gone: bool,
}

/// What is found out in one turn of handing out.
#[derive(Default)]
struct Turn {
    /// When something is due that is not now.
    due: Option<Timestamp>,
    /// Something is being asked for that may be to be handed out first.
    waits: bool,
}

impl Turn {
    fn due(&mut self, at: Option<Timestamp>) {
        self.due = self.due.into_iter().chain(at).min();
    }
}

impl Group {
    pub(super) fn new(inner: Arc<Inner>, spec: SubscriptionSpec, partitions: u16) -> Self {
        let share = |partition| Share {
            partition,
            is_ours: AtomicBool::new(false),
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
        Some(BrokerConsumer::new(Arc::clone(self), id))
    }

    /// Hands out what there is, has read what is not, and tells when something is due.
    pub(super) fn hand_out(self: &Arc<Self>, giving: &mut Giving<'_>) -> Option<Timestamp> {
        let mut turn = Turn::default();
        if self.spec.order != Order::Fifo {
            self.hand_out_ranked(giving, &mut turn);
            return turn.due;
        }
        let first = usize::try_from(giving.now.as_micros().unsigned_abs()).unwrap_or_default();
        for nth in 0..self.shares.len() {
            // Each has its turn to be the first.
            let index = (first + nth) % self.shares.len();
            let share = &self.shares[index];
            let mut serving = share.serving.lock();
            if self.is_served(index, &mut serving, giving.now, &mut turn) {
                let wanted = self.read_recent(share, &mut serving, |serving, heard| {
                    serving.hand_out(share, &self.spec, giving, heard)
                });
                self.want(index, &mut serving, wanted);
                turn.due(serving.hand.next_due());
            }
        }
        turn.due
    }

    /// The same, where it is not first in, first out: what is first is known when all shares are read, and is compared
    /// among them by their offsets, or when it was published.
    fn hand_out_ranked(self: &Arc<Self>, giving: &mut Giving<'_>, turn: &mut Turn) {
        let mut served = Vec::new();
        for (index, share) in self.shares.iter().enumerate() {
            let mut serving = share.serving.lock();
            if self.is_served(index, &mut serving, giving.now, turn) {
                let wanted = self
                    .read_recent(share, &mut serving, |serving, heard| serving.rank(share, &self.spec, giving, heard));
                turn.waits |= wanted.is_some();
                self.want(index, &mut serving, wanted);
                turn.due(serving.hand.next_due());
                served.push((index, serving));
            }
        }
        let is_in_one_order = self.inner.broker.turns(&self.spec.topic) == 1;
        while giving.has_room() && !turn.waits {
            let ready = served.iter_mut().filter_map(|(index, serving)| {
                Some((serving.first_ready(&self.shares[*index], self.spec.order, is_in_one_order)?, *index, serving))
            });
            let Some((_, index, serving)) = ready.min_by_key(|(first, index, _)| (*first, *index)) else { return };
            let wanted = serving.hand_out_first(&self.shares[index], &self.spec, giving);
            turn.waits = wanted.is_some();
            self.want(index, serving, wanted);
        }
    }

    /// Whether a share is served here; where it may be, that is tried.
    fn is_served(
        self: &Arc<Self>,
        index: usize,
        serving: &mut MutexGuard<'_, Serving>,
        now: Timestamp,
        turn: &mut Turn,
    ) -> bool {
        match serving.lease {
            // Past its end it may be another process's: what is handed out then waits until it is kept up again.
            Lease::Held => return serving.until > now,
            Lease::Leaving | Lease::Released => {}
            Lease::Free(_) if !self.shares[index].is_ours.load(Ordering::Acquire) => {}
            Lease::Trying => turn.waits = true,
            Lease::Free(at) if at > now => turn.due(Some(at)),
            Lease::Free(_) => {
                serving.lease = Lease::Trying;
                turn.waits = true;
                self.inner.broker.runtime().spawn(Arc::clone(self).acquire(index));
            }
        }
        false
    }

    /// Does what can be done with a share, as long as what it wants then is at hand; `heard`: its partition reaches so far.
    fn read_recent(
        &self,
        share: &Share,
        serving: &mut Serving,
        mut go_on: impl FnMut(&mut Serving, u64) -> Option<Wanted>,
    ) -> Option<Wanted> {
        let (broker, topic) = (&self.inner.broker, &self.spec.topic);
        loop {
            let wanted = go_on(serving, broker.heard(topic, share.partition))?;
            let recent = match wanted {
                Wanted::New { from } if !serving.fetching => broker.recent(topic, share.partition, from, READ_EVENTS),
                _ => None,
            };
            let Some(recent) = recent else { return Some(wanted) };
            if recent.is_empty() {
                return None;
            }
            serving.read(&wanted, by_offset(recent), &share.states());
        }
    }

    /// Has read what a share wants, unless something is being read already.
    fn want(self: &Arc<Self>, index: usize, serving: &mut MutexGuard<'_, Serving>, wanted: Option<Wanted>) {
        if let Some(wanted) = wanted.filter(|_| !serving.fetching) {
            serving.fetching = true;
            let term = serving.term;
            self.inner.broker.runtime().spawn(Arc::clone(self).fetch(index, wanted, term));
        }
    }

    async fn fetch(self: Arc<Self>, index: usize, wanted: Wanted, term: u64) {
        let share = &self.shares[index];
        let mut pause = Pause::default();
        let events = loop {
            let read = match &wanted {
                Wanted::New { from } => self.read(share.partition, *from, READ_EVENTS).await,
                Wanted::Again(offsets) => self.read_again(share.partition, offsets).await,
            };
            match read {
                Ok(events) => break events,
                Err(error) => {
                    tracing::warn!(%error, topic = self.spec.topic, "events cannot be read: it is tried again");
                    pause.sleep(&self.inner.clock).await;
                }
            }
            if self.inner.is_closed() || share.serving.lock().term != term {
                return;
            }
        };
        {
            let mut serving = share.serving.lock();
            if serving.term != term {
                return;
            }
            serving.fetching = false;
            let states = share.states();
            serving.read(&wanted, events, &states);
        }
        self.stirred.notify_waiters();
    }

    async fn read(&self, partition: u16, from: u64, limit: usize) -> Result<Vec<(u64, Envelope)>, BrokerError> {
        self.inner.broker.events(&self.spec.topic, Some(partition), from, limit).await.map(by_offset)
    }

    /// Those that waited behind one another are near each other, and what stands between them mostly waits, too: it comes along.
    async fn read_again(&self, partition: u16, offsets: &[u64]) -> Result<Vec<(u64, Envelope)>, BrokerError> {
        let mut found: Vec<(u64, Envelope)> = Vec::new();
        for offset in offsets {
            if found.last().is_some_and(|(last, _)| last >= offset) {
                continue;
            }
            found.extend(self.read(partition, *offset, READ_EVENTS).await?);
        }
        Ok(found)
    }
}

/// Events of one partition.
fn by_offset(events: Vec<(Position, Envelope)>) -> Vec<(u64, Envelope)> {
    events.into_iter().map(|(position, envelope)| (position.offset(), envelope)).collect()
}
