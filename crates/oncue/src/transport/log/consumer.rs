//! Handing out events of the log to one subscription.
//!
//! New events are read in order. What waits (behind a retry, or for it) is remembered as an offset and read again: the
//! event itself stays on disk. Nothing here is written: after a crash the same is found by reading from the lowest
//! unsettled event on.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use oncue_log::{Cursor, Record};
use parking_lot::Mutex;

use super::{Inner, Shared, records::SubscriptionNumber, topics::Topic};
use crate::{
    clock::{Sleep, Timestamp},
    event::Envelope,
    number_map::NumberMap,
    transport::{
        BoxFuture, ConsumeError, Consumer, Delivered, Limit, Members, Ordered, Position, SettleError, Settlement,
        SubscriptionSpec,
    },
};

/// Most keys that may wait for a retry, and most events that may wait behind them: past that, nothing new is handed out
/// until some of them are through.
const MAX_PARKED_KEYS: usize = 100_000;
const MAX_WAITING: usize = 1_000_000;
/// Most events of one key that are handed out at once: a hot key leaves room for the others.
const MAX_PER_KEY: usize = 32;
/// Schedules are wall time, and the wall clock may be stepped: it is looked at again at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Records read from the log at once.
const READ_RECORDS: usize = 512;

pub(crate) struct LogConsumer(Arc<Core>);

pub(super) struct Core {
    pub(super) inner: Arc<Inner>,
    pub(super) topic: Topic,
    pub(super) spec: SubscriptionSpec,
    /// The members' subscriptions.
    pub(super) numbers: Vec<SubscriptionNumber>,
    pub(super) hand: Mutex<Hand>,
}

/// What is handed out, and what waits. Locked before `Inner::shared`, never after.
pub(super) struct Hand {
    /// Where new events are read.
    cursor: Cursor,
    /// Where events that waited are read again.
    again: Option<Cursor>,
    records: Vec<Record>,
    pub(super) in_flight: NumberMap<InFlight>,
    /// Offsets to be handed out again now, in order.
    ready: BTreeSet<u64>,
    /// Offsets to be handed out again at a time.
    due: BTreeSet<(Timestamp, u64)>,
    ordered: Ordered,
    /// Keys in flight or waiting.
    keys: NumberMap<Key>,
    parked_keys: usize,
    waiting: usize,
    waker: Option<Waker>,
}

/// See `Envelope::key_hash`.
type KeyHash = u64;

#[derive(Default)]
struct Key {
    /// Events handed out and not settled.
    in_flight: usize,
    /// The event that the key waits for: it will be tried again, or holds the key as a dead letter.
    head: Option<u64>,
    /// Later events, by offset only.
    waiting: BTreeSet<u64>,
}

impl Key {
    /// Whether an event may be handed out now, without passing one of its key.
    fn lets_pass(&self, offset: u64) -> bool {
        match self.head {
            Some(head) => head == offset,
            None => self.in_flight < MAX_PER_KEY && self.waiting.first().is_none_or(|waiting| offset < *waiting),
        }
    }
}

/// An event that is being handled.
pub(super) struct InFlight {
    pub(super) envelope: Envelope,
    pub(super) partition: u16,
    /// Members whose settlement is yet to come.
    pub(super) open: Members,
}

/// Where an event stands with the members of a subscription.
pub(super) struct Standing {
    pub(super) due: Members,
    done: Members,
    dead: Members,
    attempts: Vec<(u8, u32)>,
    /// The earliest retry that is not due yet.
    pub(super) retry_at: Option<Timestamp>,
    /// A dead letter holds the key.
    pub(super) held: bool,
}

impl LogConsumer {
    pub(super) fn new(
        inner: Arc<Inner>,
        topic: Topic,
        spec: SubscriptionSpec,
        numbers: Vec<SubscriptionNumber>,
    ) -> Self {
        let low = {
            let shared = inner.shared.lock();
            let low = |number: &SubscriptionNumber| shared.state.subscriptions[*number as usize].settled.low();
            numbers.iter().map(low).min().unwrap_or(0)
        };
        let hand = Mutex::new(Hand {
            cursor: inner.log.cursor(topic.id, low),
            again: None,
            records: Vec::new(),
            in_flight: NumberMap::default(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            ordered: spec.ordered,
            keys: NumberMap::default(),
            parked_keys: 0,
            waiting: 0,
            waker: None,
        });
        Self(Arc::new(Core { inner, topic, spec, numbers, hand }))
    }
}

impl Drop for LogConsumer {
    fn drop(&mut self) {
        self.0.inner.detach(&self.0.numbers);
    }
}

impl Core {
    /// How an event stands with each member. Members that do not want its type are through with it here and now.
    pub(super) fn standing(&self, shared: &mut Shared, offset: u64, envelope: &Envelope, now: Timestamp) -> Standing {
        let mut standing = Standing {
            due: Members::NONE,
            done: Members::NONE,
            dead: Members::NONE,
            attempts: Vec::new(),
            retry_at: None,
            held: false,
        };
        for (member, (number, spec)) in self.numbers.iter().zip(&self.spec.members).enumerate() {
            let state = &mut shared.state.subscriptions[*number as usize];
            if let Some(dead) = state.dead.get(&offset) {
                standing.dead.insert(member);
                standing.held |= dead.hold;
            } else if state.settled.contains(offset) {
                standing.done.insert(member);
            } else if !spec.matches(envelope) {
                state.settled.insert(offset);
                standing.done.insert(member);
            } else if let Some(failing) = state.failing.get(&offset) {
                standing.attempts.push((u8::try_from(member).unwrap_or(u8::MAX), failing.attempts));
                if failing.due <= now {
                    standing.due.insert(member);
                } else {
                    let earlier = standing.retry_at.is_none_or(|at| failing.due < at);
                    standing.retry_at = if earlier { Some(failing.due) } else { standing.retry_at };
                }
            } else {
                standing.due.insert(member);
            }
        }
        standing
    }

    /// Hands out what can be handed out now; true if new events may be left in the log.
    fn hand_out(&self, hand: &mut Hand, limit: Limit, out: &mut Vec<Delivered>) -> Result<bool, ConsumeError> {
        let now = self.inner.clock.now();
        while let Some((due, offset)) = hand.due.first().copied().filter(|(due, _)| *due <= now) {
            hand.due.remove(&(due, offset));
            hand.ready.insert(offset);
        }
        // Read first, decide then: nobody waits for the disk behind the lock that deciding takes.
        let mut room = limit;
        let mut records = std::mem::take(&mut hand.records);
        while room.events > 0 && room.bytes > 0 && !hand.ready.is_empty() {
            records.clear();
            let mut bytes = 0;
            while records.len() < room.events.min(READ_RECORDS)
                && bytes < room.bytes
                && let Some(offset) = hand.ready.pop_first()
            {
                let record = self.read_again(hand, offset)?;
                bytes += record.data.len();
                records.push(record);
            }
            self.consider_all(hand, &records, now, &mut room, out)?;
        }
        let blocked = hand.parked_keys >= MAX_PARKED_KEYS || hand.waiting >= MAX_WAITING;
        records.clear();
        let mut read = Ok(0);
        if room.events > 0 && room.bytes > 0 && !blocked {
            let wanted = room.events.min(READ_RECORDS);
            read = self.inner.log.read(&mut hand.cursor, wanted, room.bytes, &mut records);
            self.consider_all(hand, &records, now, &mut room, out)?;
            self.inner.progress.notify_waiters();
        }
        let more = !records.is_empty();
        records.clear();
        hand.records = records;
        read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        Ok(more)
    }

    fn consider_all(
        &self,
        hand: &mut Hand,
        records: &[Record],
        now: Timestamp,
        room: &mut Limit,
        out: &mut Vec<Delivered>,
    ) -> Result<(), ConsumeError> {
        let mut shared = self.inner.shared.lock();
        for record in records {
            if let Some(delivered) = self.consider(hand, &mut shared, record, now)? {
                room.events -= 1;
                room.bytes = room.bytes.saturating_sub(delivered.envelope.encoded_bytes());
                out.push(delivered);
            }
        }
        Ok(())
    }

    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Option<(Timestamp, Sleep)>,
        limit: Limit,
        out: &mut Vec<Delivered>,
    ) -> Poll<Result<(), ConsumeError>> {
        // Taken before reading: what becomes durable meanwhile wakes us at once.
        let durable = self.inner.log.durable();
        let mut hand = self.hand.lock();
        let more = self.hand_out(&mut hand, limit, out)?;
        if !out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if more {
            // All of it was passed by: let others run, then read on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        hand.waker = Some(cx.waker().clone());
        let due = hand.due.first().map(|(due, _)| *due);
        drop(hand);
        if let Some(due) = due {
            if timer.as_ref().is_none_or(|(known, _)| *known != due) {
                let wait = due.since(self.inner.clock.now()).min(LONGEST_SLEEP);
                *timer = Some((due, self.inner.clock.sleep(wait)));
            }
            if timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready()) {
                *timer = None;
                cx.waker().wake_by_ref();
            }
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

    /// Reads one event that was passed by before. Events that waited behind one another are near each other: one cursor
    /// goes from the one to the next.
    fn read_again(&self, hand: &mut Hand, offset: u64) -> Result<Record, ConsumeError> {
        const NEAR: u64 = 256;
        let known = hand.again.take();
        let near = known.filter(|cursor| cursor.offset() <= offset && offset - cursor.offset() < NEAR);
        let mut cursor = near.unwrap_or_else(|| self.inner.log.cursor(self.topic.id, offset));
        let mut read = Vec::with_capacity(1);
        while cursor.offset() <= offset {
            read.clear();
            let records = self.inner.log.read(&mut cursor, 1, usize::MAX, &mut read);
            if records.map_err(|error| ConsumeError::Storage(error.to_string()))? == 0 {
                break;
            }
        }
        hand.again = Some(cursor);
        read.pop().filter(|record| record.offset == offset).ok_or_else(|| {
            ConsumeError::Storage(format!(
                "topic `{}`: event {offset} is gone although it is not settled",
                self.topic.name
            ))
        })
    }

    /// Hands one event out, or lets it wait, or passes it by.
    fn consider(
        &self,
        hand: &mut Hand,
        shared: &mut Shared,
        record: &Record,
        now: Timestamp,
    ) -> Result<Option<Delivered>, ConsumeError> {
        let offset = record.offset;
        if hand.in_flight.contains_key(&offset) {
            return Ok(None);
        }
        let envelope = Envelope::from_stored(&record.data).map_err(|error| ConsumeError::Storage(error.to_string()))?;
        let standing = self.standing(shared, offset, &envelope, now);
        let key = envelope.key_hash();
        let waits = standing.retry_at.is_some() || standing.held;
        if standing.due.is_empty() && !waits {
            hand.unpark(key, offset);
            return Ok(None);
        }
        if let Some(key) = key {
            let state = hand.keys.entry(key).or_default();
            if !state.lets_pass(offset) {
                hand.waiting += usize::from(state.waiting.insert(offset));
                return Ok(None);
            }
        }
        if waits {
            // Also while other members handle it: for one of them it is not over.
            hand.park(key, offset);
        }
        if standing.due.is_empty() {
            hand.due.extend(standing.retry_at.map(|at| (at, offset)));
            return Ok(None);
        }
        if let Some(state) = key.and_then(|key| hand.keys.get_mut(&key)) {
            state.in_flight += 1;
        }
        let envelope = envelope.detached();
        let partition = record.partition;
        hand.in_flight.insert(offset, InFlight { envelope: envelope.clone(), partition, open: standing.due });
        Ok(Some(Delivered {
            envelope,
            position: Position::new(partition, offset, 0),
            due: standing.due,
            done: standing.done,
            dead: standing.dead,
            attempts: standing.attempts,
        }))
    }
}

impl Hand {
    /// Later events of the key wait for the one at `offset`, where order is strict.
    pub(super) fn park(&mut self, key: Option<KeyHash>, offset: u64) {
        let Some(key) = key.filter(|_| self.ordered == Ordered::Strict) else { return };
        let state = self.keys.entry(key).or_default();
        if state.head.is_none() {
            state.head = Some(offset);
            self.parked_keys += 1;
        }
    }

    /// The event at `offset` is through: if its key waited for it, the key goes on.
    pub(super) fn unpark(&mut self, key: Option<KeyHash>, offset: u64) {
        let Some(key) = key else { return };
        if let Some(state) = self.keys.get_mut(&key)
            && state.head == Some(offset)
        {
            state.head = None;
            self.parked_keys -= 1;
        }
        self.let_go_on(key);
    }

    /// An event of the key is no longer in flight.
    pub(super) fn landed(&mut self, key: Option<KeyHash>) {
        if let Some(state) = key.and_then(|key| self.keys.get_mut(&key)) {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
    }

    /// Makes ready what waits in a key and need not wait any more; forgets a key with nothing left.
    fn let_go_on(&mut self, key: KeyHash) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        if state.head.is_some() {
            return;
        }
        if state.in_flight == 0 && state.waiting.is_empty() {
            self.keys.remove(&key);
            return;
        }
        // In halves: one wake for many events.
        if state.waiting.is_empty() || state.in_flight > MAX_PER_KEY / 2 {
            return;
        }
        for _ in state.in_flight..MAX_PER_KEY {
            let Some(offset) = state.waiting.pop_first() else { break };
            self.waiting -= 1;
            self.ready.insert(offset);
        }
        self.wake();
    }

    /// The event at `offset` was given back unhandled.
    pub(super) fn give_back(&mut self, key: Option<KeyHash>, offset: u64) {
        match key.and_then(|key| self.keys.get_mut(&key)) {
            Some(state) if state.head.is_some_and(|head| head != offset) => {
                self.waiting += usize::from(state.waiting.insert(offset));
            }
            _ => {
                self.ready.insert(offset);
            }
        }
        self.wake();
    }

    /// The event at `offset` is to be handed out again at a time.
    pub(super) fn retry_at(&mut self, at: Timestamp, offset: u64) {
        self.due.insert((at, offset));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Consumer for LogConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        let core = &self.0;
        let mut timer = None;
        poll_fn(move |cx| core.poll_next(cx, &mut timer, limit, out)).boxed()
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        super::settle::settle(&self.0, batch)
    }

    fn state(&self, member: usize, key: &str) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let core = Arc::clone(&self.0);
        let stored = core.inner.shared.lock().state.subscriptions[core.numbers[member] as usize].keyed.get(key);
        async move {
            let Some(stored) = stored else { return Ok(None) };
            core.inner.value(stored).map_err(|error| ConsumeError::Storage(error.to_string()))
        }
        .boxed()
    }
}
