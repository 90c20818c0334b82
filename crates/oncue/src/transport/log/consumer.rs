//! Handing out events of the log to one subscription.
//!
//! New events are read in order. What waits (behind a retry, for it, or for its time) is remembered as an offset and read
//! again: the event itself stays on disk. Nothing here is written: after a crash the same is found by reading from the
//! lowest unsettled event on.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use oncue_log::{Cursor, ReadError, Record};
use parking_lot::Mutex;

use super::{
    Inner, Shared,
    feed::FedEvent,
    hand::{ConsumerId, Hand, InFlight},
    records::{Redrive, SubscriptionNumber},
    schedule::Schedule,
    topics::Topic,
};
use crate::{
    clock::{Sleep, Timestamp},
    event::Envelope,
    transport::{
        BoxFuture, ConsumeError, Consumer, Delivered, Limit, Members, Position, SettleError, Settlement,
        SubscriptionSpec, settle::copy_of,
    },
};

/// Records read from the log at once.
const READ_RECORDS: usize = 512;
/// Most bytes of them, where nobody has said how many there is room for.
const READ_BYTES: usize = 4 << 20;

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
    pub(super) hand: Mutex<Hand>,
}

/// When it is asked where an event stands.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Before it is handed out: what is expired or early by now is not.
    Now(Timestamp),
    /// When it was settled: its own time had come when it was handed out, and a member that is to try again waits for that,
    /// be its time come or not.
    Settled,
}

/// Where an event stands with the members of a subscription.
pub(super) struct Standing {
    pub(super) due: Members,
    done: Members,
    dead: Members,
    attempts: Vec<(u8, u32)>,
    /// The earliest time that is not there yet at which it is to be handed out: a retry, or its own.
    pub(super) retry_at: Option<Timestamp>,
    /// A dead letter holds the key.
    pub(super) held: bool,
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
        let mut hand = Hand::new(inner.log.cursor(topic.id, low), &spec, schedule);
        // Where they stand with their key is found when they are read.
        for (offset, lsn) in redriven {
            // Their rank is in them; one that cannot be read says so when it is handed out.
            let ranked = hand.is_ranked().then(|| inner.redriven(lsn).ok()).flatten();
            let envelope = ranked.map_or_else(Envelope::blank, |again| again.envelope);
            hand.make_ready(hand.place(offset, &envelope));
        }
        Self { inner, topic, spec, numbers, hand: Mutex::new(hand) }
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
        }
    }
}

impl Core {
    /// How an event stands with each member. Members that do not want it are through with it here and now, and so are
    /// those that it comes too late for.
    pub(super) fn standing(
        &self,
        shared: &mut Shared,
        (offset, envelope, copies): (u64, &Envelope, &[(u8, Envelope)]),
        when: When,
    ) -> Standing {
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
            let again = state.redriven.contains_key(&offset);
            let envelope = copy_of(copies, member).unwrap_or(envelope);
            if let Some(dead) = state.dead.get(&offset) {
                standing.dead.insert(member);
                standing.held |= dead.hold;
            } else if !again && state.settled.contains(offset) {
                standing.done.insert(member);
            } else if !again && !spec.matches(envelope) {
                state.settled.insert(offset);
                standing.done.insert(member);
            } else if when.is_too_late_for(envelope) {
                state.expire(offset);
                standing.done.insert(member);
                shared.tell((*number, offset));
            } else if let Some(failing) = state.failing.get(&offset) {
                standing.attempts.push((u8::try_from(member).unwrap_or(u8::MAX), failing.attempts));
                standing.wait(member, Some(failing.due).filter(|due| when.is_before(*due)));
            } else {
                standing.wait(member, envelope.due().filter(|due| when.is_early_for(*due)));
            }
        }
        standing
    }

    /// Hands out what can be handed out now; true if new events may be left in the log.
    fn hand_out(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        limit: Limit,
        out: &mut Vec<Delivered>,
    ) -> Result<bool, ConsumeError> {
        let now = self.inner.clock.now();
        hand.take_due(now);
        let searches = self.look_for_delayed(hand, now)?;
        let more = self.hand_out_due(consumer, hand, limit, now, out)?;
        Ok(more || searches)
    }

    fn hand_out_due(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        limit: Limit,
        now: Timestamp,
        out: &mut Vec<Delivered>,
    ) -> Result<bool, ConsumeError> {
        let mut room = limit;
        if hand.is_ranked() {
            // What is next is known when all of it is.
            let more = self.read_new(consumer, hand, now, &mut Limit { events: usize::MAX, bytes: usize::MAX }, out)?;
            if more {
                return Ok(true);
            }
        }
        self.hand_out_ready(consumer, hand, now, &mut room, out)?;
        if hand.is_ranked() {
            return Ok(false);
        }
        self.read_new(consumer, hand, now, &mut room, out)
    }

    /// Looks on for delayed events that found no room in the schedule; true if it is to go on with that at once.
    fn look_for_delayed(&self, hand: &mut Hand, now: Timestamp) -> Result<bool, ConsumeError> {
        if hand.is_full() {
            return Ok(false);
        }
        if hand.search.is_none() {
            let Some(beyond) = hand.schedule.look_beyond() else { return Ok(false) };
            let low = {
                let shared = self.inner.shared.lock();
                let low = |number: &SubscriptionNumber| shared.state.subscriptions[*number as usize].settled.low();
                self.numbers.iter().map(low).min().unwrap_or(0)
            };
            hand.search = Some((self.inner.log.cursor(self.topic.id, beyond.from.max(low)), beyond));
        }
        let Some((cursor, beyond)) = &mut hand.search else { return Ok(false) };
        let (mut records, beyond) = (Vec::new(), *beyond);
        let read = self.inner.log.read(cursor, READ_RECORDS, READ_BYTES, &mut records);
        read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        let goes_on = !records.is_empty() && cursor.offset() < beyond.to;
        for record in records.iter().filter(|record| record.offset < beyond.to) {
            let FedEvent { offset, envelope, .. } = event_of(record)?;
            let Some(due) = envelope.due().filter(|due| *due >= beyond.due && !self.is_over(offset)) else { continue };
            let place = hand.place(offset, &envelope);
            if due > now { hand.schedule.add(due, place) } else { hand.make_ready(place) }
        }
        if !goes_on {
            hand.search = None;
        }
        Ok(goes_on)
    }

    /// Whether every member is through with the event itself.
    fn is_over(&self, offset: u64) -> bool {
        let shared = self.inner.shared.lock();
        self.numbers.iter().all(|number| shared.state.subscriptions[*number as usize].settled.contains(offset))
    }

    /// Hands out what waited and need not wait any more.
    fn hand_out_ready(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        now: Timestamp,
        room: &mut Limit,
        out: &mut Vec<Delivered>,
    ) -> Result<(), ConsumeError> {
        // Read first, decide then: nobody waits for the disk behind the lock that deciding takes.
        let (mut events, mut ranks) = (Vec::new(), Vec::new());
        while room.events > 0 && room.bytes > 0 && hand.has_ready() {
            ranks.clear();
            let mut bytes = 0;
            while events.len() < room.events.min(READ_RECORDS)
                && bytes < room.bytes
                && let Some((rank, offset)) = hand.pop_ready()
            {
                let event = self.read_again(hand, offset)?;
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
                if let Some(delivered) = self.consider(consumer, hand, &mut shared, event, now, true) {
                    room.take(&delivered);
                    out.push(delivered);
                }
            }
        }
        Ok(())
    }

    /// Reads new events, and hands them out unless they have to wait; true if some were read.
    fn read_new(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        now: Timestamp,
        room: &mut Limit,
        out: &mut Vec<Delivered>,
    ) -> Result<bool, ConsumeError> {
        if room.events == 0 || room.bytes == 0 || hand.is_full() {
            return Ok(false);
        }
        if hand.seat.is_some() {
            return self.eat(consumer, hand, now, room, out);
        }
        let mut records = std::mem::take(&mut hand.records);
        records.clear();
        let wanted = room.events.min(READ_RECORDS);
        let read = self.inner.log.read(&mut hand.cursor, wanted, room.bytes, &mut records);
        {
            let mut shared = self.inner.shared.lock();
            for record in &records {
                let event = event_of(record)?;
                if let Some(delivered) = self.consider(consumer, hand, &mut shared, event, now, false) {
                    room.take(&delivered);
                    out.push(delivered);
                }
            }
        }
        self.inner.progress.notify_waiters();
        let more = !records.is_empty();
        records.clear();
        hand.records = records;
        read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        if !more {
            // It keeps up: where the topic has many subscriptions, their common reader reads for it from now on.
            hand.seat = self.inner.seat(&self.topic, hand.cursor.offset(), &self.spec.members);
            hand.fed_to = hand.cursor.offset();
            return Ok(hand.seat.is_some());
        }
        Ok(more)
    }

    /// As [`read_new`](Self::read_new), where the topic's feed reads.
    fn eat(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        now: Timestamp,
        room: &mut Limit,
        out: &mut Vec<Delivered>,
    ) -> Result<bool, ConsumeError> {
        let Some(helping) = hand.seat.as_ref().map(|seat| seat.0.take(room.events.min(READ_RECORDS), room.bytes))
        else {
            return Ok(false);
        };
        let more = !helping.events.is_empty();
        let mut shared = self.inner.shared.lock();
        for event in helping.events {
            self.pass_by(hand, &mut shared, event.offset);
            hand.fed_to = event.offset + 1;
            if let Some(delivered) = self.consider(consumer, hand, &mut shared, event, now, false) {
                room.take(&delivered);
                out.push(delivered);
            }
        }
        self.pass_by(hand, &mut shared, helping.upto);
        drop(shared);
        if helping.left {
            hand.cursor = self.inner.log.cursor(self.topic.id, hand.fed_to);
            hand.seat = None;
        }
        self.inner.progress.notify_waiters();
        Ok(more || helping.left)
    }

    /// Passes by what the feed found to be of no interest.
    fn pass_by(&self, hand: &mut Hand, shared: &mut Shared, upto: u64) {
        if upto > hand.fed_to {
            for number in &self.numbers {
                shared.state.subscriptions[*number as usize].settled.insert_range(hand.fed_to, upto);
            }
            hand.fed_to = upto;
        }
    }

    /// Takes notice of what the feed has passed by: for those who ask how far the subscription is.
    pub(super) fn catch_up(&self) {
        let mut hand = self.hand.lock();
        let Some(upto) = hand.seat.as_ref().and_then(|seat| seat.0.passed_to()) else { return };
        let mut shared = self.inner.shared.lock();
        self.pass_by(&mut hand, &mut shared, upto);
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
        let more = self.hand_out(consumer, &mut hand, limit, out)?;
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
        let fed = hand.is_full() || hand.seat.as_ref().is_some_and(|seat| seat.0.wait(cx));
        let alone = hand.seat.is_none() || !hand.settling.is_empty();
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

    /// Reads one event that was passed by before. Events that waited behind one another are near each other: one cursor
    /// goes from the one to the next.
    fn read_again(&self, hand: &mut Hand, offset: u64) -> Result<FedEvent, ConsumeError> {
        let (mut copies, others) = self.read_copies(offset)?;
        if !others && !copies.is_empty() {
            // The topic may have dropped the event itself.
            let Redrive { about, envelope } = copies.remove(0).1;
            let copies = copies.into_iter().map(|(member, again)| (member, again.envelope)).collect();
            return Ok(FedEvent { offset, partition: about.partition, envelope, copies });
        }
        let copies = copies.into_iter().map(|(member, again)| (member, again.envelope)).collect();
        Ok(FedEvent { copies, ..event_of(&self.read_original(hand, offset)?)? })
    }

    fn read_original(&self, hand: &mut Hand, offset: u64) -> Result<Record, ConsumeError> {
        const NEAR: u64 = 256;
        let known = hand.again.take();
        let near = known.filter(|cursor| cursor.offset() <= offset && offset - cursor.offset() < NEAR);
        // What lies between may have been dropped since: then the event itself is looked for.
        let read = match near.map(|cursor| self.read_from(cursor, offset)) {
            Some(Ok(read)) => Ok(read),
            Some(Err(_)) | None => self.read_from(self.inner.log.cursor(self.topic.id, offset), offset),
        };
        let (cursor, record) = read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        hand.again = Some(cursor);
        record.filter(|record| record.offset == offset).ok_or_else(|| {
            ConsumeError::Storage(format!(
                "topic `{}`: event {offset} is gone although it is not settled",
                self.topic.name
            ))
        })
    }

    /// Reads on up to an event.
    fn read_from(&self, mut cursor: Cursor, offset: u64) -> Result<(Cursor, Option<Record>), ReadError> {
        let mut read = Vec::with_capacity(1);
        while cursor.offset() <= offset {
            read.clear();
            if self.inner.log.read(&mut cursor, 1, usize::MAX, &mut read)? == 0 {
                break;
            }
        }
        Ok((cursor, read.pop()))
    }

    /// The copies of an event that members handle again, edited perhaps; and whether other members are not through with the
    /// event itself.
    fn read_copies(&self, offset: u64) -> Result<(Vec<(u8, Redrive)>, bool), ConsumeError> {
        let (mut again, mut others) = (Vec::new(), false);
        {
            let shared = self.inner.shared.lock();
            for (member, number) in (0..).zip(&self.numbers) {
                let state = &shared.state.subscriptions[*number as usize];
                match state.redriven.get(&offset) {
                    Some(lsn) => again.push((member, *lsn)),
                    None => others |= !state.settled.contains(offset) && !state.dead.contains_key(&offset),
                }
            }
        }
        let read = |(member, lsn)| {
            let again = self.inner.redriven(lsn).map_err(|error| ConsumeError::Storage(error.to_string()))?;
            Ok((member, again))
        };
        Ok((again.into_iter().map(read).collect::<Result<_, _>>()?, others))
    }

    /// Whether a member handles the event again: then it is among those that wait, from the start on.
    fn is_redriven(&self, shared: &Shared, offset: u64) -> bool {
        self.numbers.iter().any(|number| shared.state.subscriptions[*number as usize].redriven.contains_key(&offset))
    }

    /// Hands one event out, or lets it wait, or passes it by. `again`: it waited before.
    fn consider(
        &self,
        consumer: ConsumerId,
        hand: &mut Hand,
        shared: &mut Shared,
        FedEvent { offset, partition, envelope, copies }: FedEvent,
        now: Timestamp,
        again: bool,
    ) -> Option<Delivered> {
        if hand.in_flight.contains_key(&offset) {
            return None;
        }
        if !again && self.is_redriven(shared, offset) {
            // It is ready already, and looked at when its copy is read; here it takes its place in its key.
            if hand.is_ranked() {
                hand.rank(envelope.key_hash(), hand.place(offset, &envelope));
            }
            return None;
        }
        let standing = self.standing(shared, (offset, &envelope, &copies), When::Now(now));
        let (key, place) = (envelope.key_hash(), hand.place(offset, &envelope));
        let scheduled = standing.retry_at.is_some() && standing.attempts.is_empty() && standing.dead.is_empty();
        if scheduled && standing.due.is_empty() {
            // Not an event of its key yet: it takes its place when its time comes.
            match standing.retry_at {
                // Its time is that of its copy, and not found in the topic.
                Some(at) if again && self.is_redriven(shared, offset) => drop(hand.due.insert((at, place))),
                Some(at) => hand.schedule.add(at, place),
                None => {}
            }
            return None;
        }
        let waits = standing.retry_at.is_some() || standing.held;
        if standing.due.is_empty() && !waits {
            hand.unpark(key, offset);
            return None;
        }
        if hand.is_ranked() && !again && !waits {
            hand.rank(key, place);
            return None;
        }
        if !hand.may_pass(key, place) {
            return None;
        }
        if waits {
            // Also while other members handle it: for one of them it is not over.
            hand.park(key, offset);
        }
        if standing.due.is_empty() {
            hand.due.extend(standing.retry_at.map(|at| (at, place)));
            return None;
        }
        let (open, holder) = (standing.due, consumer);
        let event = InFlight { envelope: envelope.clone(), copies: copies.clone(), partition, open, holder };
        hand.hand_out(offset, event);
        Some(Delivered {
            envelope,
            position: Position::new(partition, offset, 0),
            due: standing.due,
            done: standing.done,
            dead: standing.dead,
            attempts: standing.attempts,
            copies,
        })
    }
}

/// A record's event, in memory of its own.
fn event_of(record: &Record) -> Result<FedEvent, ConsumeError> {
    let envelope = Envelope::from_stored(&record.data).map_err(|error| ConsumeError::Storage(error.to_string()))?;
    Ok(FedEvent { offset: record.offset, partition: record.partition, envelope, copies: Vec::new() })
}

impl When {
    fn is_too_late_for(self, envelope: &Envelope) -> bool {
        matches!(self, Self::Now(now) if envelope.expires().is_some_and(|expires| expires <= now))
    }

    fn is_before(self, retry: Timestamp) -> bool {
        match self {
            Self::Now(now) => retry > now,
            Self::Settled => true,
        }
    }

    fn is_early_for(self, due: Timestamp) -> bool {
        matches!(self, Self::Now(now) if due > now)
    }
}

impl Standing {
    /// A member is to handle the event, now or at a time.
    fn wait(&mut self, member: usize, until: Option<Timestamp>) {
        match until {
            None => self.due.insert(member),
            Some(at) => self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at))),
        }
    }
}

impl Limit {
    fn take(&mut self, delivered: &Delivered) {
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(delivered.envelope.encoded_bytes());
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

    fn state(&self, member: usize, key: &str) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let core = Arc::clone(&self.core);
        let stored = core.inner.shared.lock().state.subscriptions[core.numbers[member] as usize].keyed.get(key);
        async move {
            let Some(stored) = stored else { return Ok(None) };
            core.inner.value(stored).map_err(|error| ConsumeError::Storage(error.to_string()))
        }
        .boxed()
    }
}
