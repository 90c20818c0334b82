//! Handing out events of the log to one subscription.
//!
//! New events are read in order. What waits (behind a retry, for it, or for its time) is remembered as an offset and read
//! again: the event itself stays on disk. Nothing here is written: after a crash the same is found by reading from the
//! lowest unsettled event on.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use parking_lot::Mutex;

use super::{
    Inner, Shared,
    feed::FedEvent,
    giving::Giving,
    hand::{ConsumerId, Hand, Place},
    reading::{LogHand, LogReading, READ_RECORDS},
    records::SubscriptionNumber,
    schedule::Schedule,
    standing::{MembersOf, consider},
    topics::Topic,
};
use crate::{
    clock::{Sleep, Timestamp},
    event::Envelope,
    transport::{BoxFuture, ConsumeError, Consumer, Delivered, Limit, SettleError, Settlement, SubscriptionSpec},
};

/// One of the instances that share a subscription.
pub(crate) struct LogConsumer {
    core: Arc<Core>,
    id: ConsumerId,
}

/// What the instances of a subscription share.
pub(super) struct Core {
    pub(super) inner: Arc<Inner>,
    pub(super) topic: Topic,
    pub(super) spec: SubscriptionSpec,
    /// The members' subscriptions.
    pub(super) numbers: Vec<SubscriptionNumber>,
    pub(super) hand: Mutex<LogHand>,
    /// Events below were dropped. Set before they are.
    pub(super) first_kept: AtomicU64,
}

impl Core {
    pub(super) fn new(
        inner: Arc<Inner>,
        topic: Topic,
        spec: SubscriptionSpec,
        numbers: Vec<SubscriptionNumber>,
    ) -> Self {
        let (low, redriven) = {
            let shared = inner.shared.lock();
            let states = numbers.iter().map(|number| &shared.state.subscriptions[*number as usize]);
            let low = states.clone().map(|state| state.settled.low()).min().unwrap_or(0);
            let again: Vec<_> = states.flat_map(|state| state.redriven.clone()).collect();
            (low, again)
        };
        let schedule = Schedule::new(inner.url.delayed_held);
        let mut hand = Hand::new(LogReading::new(inner.log.cursor(topic.id, low)), &spec, schedule);
        for (offset, lsn) in redriven {
            if hand.is_ranked() {
                // Their rank is in them; one that cannot be read says so when it is handed out.
                let envelope = inner.redriven(lsn).map_or_else(|_| Envelope::blank(), |again| again.envelope);
                hand.make_ready(hand.place(offset, &envelope));
            } else if offset < low {
                hand.make_ready(Place::unranked(offset));
            } else {
                hand.again_unread.insert(offset);
            }
        }
        let core = Self { inner, topic, spec, numbers, hand: Mutex::new(hand), first_kept: AtomicU64::new(0) };
        core.hold_keys(&mut core.hand.lock());
        core
    }

    /// Another instance; nothing if the last one has gone.
    pub(super) fn join(self: &Arc<Self>, first: bool) -> Option<LogConsumer> {
        let id = self.hand.lock().join(first)?;
        Some(LogConsumer { core: Arc::clone(self), id })
    }
}

impl Drop for LogConsumer {
    fn drop(&mut self) {
        let mut hand = self.core.hand.lock();
        if hand.leave(self.id) {
            self.core.inner.detach(&self.core);
            // Nobody goes on after what was being settled: whoever waits for that waits until it is durable.
            let settling = std::mem::take(&mut hand.settling);
            let mut shared = self.core.inner.shared.lock();
            settling.iter().flat_map(|settled| &settled.outcomes).for_each(|outcome| shared.tell(*outcome));
            drop(shared);
            // What it was not through with is not waited for any more.
            self.core.inner.progress.notify_waiters();
        }
    }
}

impl Core {
    /// Hands out what can be handed out now; true if new events may be left in the log.
    fn hand_out(&self, hand: &mut LogHand, giving: &mut Giving<'_>) -> Result<bool, ConsumeError> {
        self.forget_dropped(hand);
        hand.take_due(giving.now);
        let searches = self.look_for_delayed(hand, giving.now)?;
        let more = self.hand_out_due(hand, giving)?;
        Ok(more || searches)
    }

    fn hand_out_due(&self, hand: &mut LogHand, giving: &mut Giving<'_>) -> Result<bool, ConsumeError> {
        if hand.is_ranked() {
            // What is next is known when all of it is.
            let room = std::mem::replace(&mut giving.room, Limit { events: usize::MAX, bytes: usize::MAX });
            let more = self.read_new(hand, giving)?;
            giving.room = room;
            if more {
                return Ok(true);
            }
        }
        self.hand_out_ready(hand, giving)?;
        if hand.is_ranked() {
            return Ok(false);
        }
        self.read_new(hand, giving)
    }

    /// Hands out what waited and need not wait any more.
    fn hand_out_ready(&self, hand: &mut LogHand, giving: &mut Giving<'_>) -> Result<(), ConsumeError> {
        // Read first, decide then: nobody waits for the disk behind the lock that deciding takes.
        let (mut events, mut ranks) = (Vec::new(), Vec::new());
        while giving.has_room() && hand.has_ready() {
            ranks.clear();
            let mut bytes = 0;
            while events.len() < giving.room.events.min(READ_RECORDS)
                && bytes < giving.room.bytes
                && let Some((rank, offset)) = hand.pop_ready()
            {
                // It may have been dropped at this moment; what waits behind it is seen to at the next turn.
                let Some(event) = self.read_again(hand, offset)? else { continue };
                bytes += event.envelope.encoded_bytes();
                events.push(event);
                ranks.push(rank);
            }
            let mut shared = self.inner.shared.lock();
            for (index, event) in events.drain(..).enumerate() {
                if hand.is_overtaken(ranks[index]) {
                    // One before it went on meanwhile: it comes first.
                    hand.put_back(&ranks[index..]);
                    break;
                }
                self.give(hand, &mut shared, giving, event, true);
            }
        }
        Ok(())
    }

    fn poll_next(
        &self,
        consumer: ConsumerId,
        cx: &mut Context<'_>,
        timer: &mut Option<(Timestamp, Sleep)>,
        limit: Limit,
        out: &mut Vec<Delivered>,
    ) -> Poll<Result<(), ConsumeError>> {
        // Taken before reading: what becomes durable meanwhile wakes us at once.
        let durable = self.inner.log.durable();
        let mut hand = self.hand.lock();
        self.go_on(&mut hand);
        let mut giving = Giving { to: consumer, now: self.inner.clock.now(), room: limit, out };
        let more = self.hand_out(&mut hand, &mut giving)?;
        if !out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if more {
            // All of it was passed by: let others run, then read on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        hand.wait(consumer, cx);
        // Where so much waits that nothing new may come, nobody is to be woken for it.
        let fed = hand.is_full() || hand.reading.seat.as_ref().is_some_and(|seat| seat.0.wait(cx));
        let alone = hand.reading.seat.is_none() || !hand.settling.is_empty();
        if !(fed || alone) {
            // Something came meanwhile.
            cx.waker().wake_by_ref();
        }
        let due = hand.next_due();
        drop(hand);
        if let Some(due) = due {
            if timer.as_ref().is_none_or(|(known, _)| *known != due) {
                *timer = Some((due, self.inner.clock.sleep_until(due)));
            }
            if timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready()) {
                *timer = None;
                cx.waker().wake_by_ref();
            }
        }
        if !alone {
            return Poll::Pending;
        }
        match self.inner.log.poll_durable(durable + 1, cx.waker()) {
            Poll::Ready(Ok(())) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Err(fenced)) => Poll::Ready(Err(ConsumeError::Storage(fenced.reason))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Gives one event, if it may be handed out. `again`: it waited before.
    pub(super) fn give(
        &self,
        hand: &mut LogHand,
        shared: &mut Shared,
        giving: &mut Giving<'_>,
        event: FedEvent,
        again: bool,
    ) {
        if again {
            hand.look_at(event.envelope.key_hash());
        }
        let mut states = MembersOf { shared, numbers: &self.numbers };
        if let Some(delivered) = consider(&self.spec, hand, &mut states, event, giving.to, (giving.now, again)) {
            giving.give(delivered);
        }
    }
}

impl Consumer for LogConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        let (core, id) = (&self.core, self.id);
        let mut timer = None;
        poll_fn(move |cx| core.poll_next(id, cx, &mut timer, limit, out)).boxed()
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        super::settle::settle(&self.core, self.id, batch)
    }

    fn state(
        &self,
        member: usize,
        _partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let core = Arc::clone(&self.core);
        let stored = core.inner.shared.lock().state.subscriptions[core.numbers[member] as usize].keyed.get(key);
        async move {
            let Some(stored) = stored else { return Ok(None) };
            core.inner.value(stored).map_err(|error| ConsumeError::Storage(error.to_string()))
        }
        .boxed()
    }
}
