//! What a subscription has handed out, and what waits.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    task::{Context, Waker},
};

use oncue_log::Lsn;

use super::{records::SubscriptionNumber, schedule::Schedule};
use crate::{
    clock::Timestamp,
    event::{Envelope, MAX_PRIORITY},
    number_map::NumberMap,
    transport::{Members, Order, Ordered, Settlement, SubscriptionSpec, settle::copy_of},
};

/// Most keys that may wait for a retry, and most events that may wait behind them: past that, nothing new is handed out
/// until some of them are through.
const MAX_PARKED_KEYS: usize = 100_000;
const MAX_WAITING: usize = 1_000_000;
/// Most events of one key that are handed out at once: a hot key leaves room for the others.
const MAX_PER_KEY: usize = 32;

/// Which of the instances that share a subscription.
pub(in crate::transport) type ConsumerId = u64;

/// See `Envelope::key_hash`.
pub(in crate::transport) type KeyHash = u64;

/// What a key waits for while events of it are out under another lease: no event, behind all that are.
const OUT: u64 = u64::MAX;

/// Where an event that waits stands: its offset, and its rank among those that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::transport) struct Place {
    /// Of priorities the highest is 0, where it comes before the order within the key; else 0.
    before: u8,
    pub(in crate::transport) offset: u64,
    /// Of priorities the highest is 0; else 0.
    class: u8,
}

impl Place {
    /// Of an event in a subscription without priorities.
    pub(in crate::transport) fn unranked(offset: u64) -> Self {
        Self { before: 0, offset, class: 0 }
    }
}

/// What happens once a settle batch is durable.
#[derive(Default)]
pub(in crate::transport) struct Afterwards {
    pub(in crate::transport) end: Lsn,
    /// Events that every member is through with: their keys go on.
    pub(in crate::transport) through: Vec<(Option<KeyHash>, u64)>,
    /// Dead letters that were discarded: what they held goes on.
    pub(in crate::transport) discarded: Vec<(Option<KeyHash>, u64)>,
    /// Events to be handed out again, with their keys.
    pub(in crate::transport) retries: Vec<(Option<KeyHash>, Timestamp, Place)>,
    /// Whose outcome is known then.
    pub(in crate::transport) outcomes: Vec<(SubscriptionNumber, u64)>,
}

/// Which of the events that are ready is next: the class of its [`Place`], and its place in the subscription's order.
pub(in crate::transport) type Rank = (u8, u64);

/// Where a subscription's events come from, as far as what waits depends on it.
pub(in crate::transport) trait Reading {
    /// Everything below was considered.
    fn read_to(&self) -> u64;

    /// Whether events that are not due yet are being looked for.
    fn is_searching(&self) -> bool;
}

/// What is handed out, and what waits. Locked before `Inner::shared`, never after.
pub(in crate::transport) struct Hand<R> {
    /// Where its events come from.
    pub(in crate::transport) reading: R,
    /// Events that are handled again and were not read yet: they are in their turn, behind what holds their key.
    pub(in crate::transport) again_unread: BTreeSet<u64>,
    pub(in crate::transport) in_flight: NumberMap<InFlight>,
    /// Events to be handed out now.
    ready: BTreeSet<Rank>,
    /// Events to be handed out again at a time.
    pub(in crate::transport) due: BTreeSet<(Timestamp, Place)>,
    /// Events whose own time is yet to come.
    pub(in crate::transport) schedule: Schedule,
    /// Settle batches that are being written.
    pub(in crate::transport) settling: VecDeque<Afterwards>,
    order: Order,
    ordered: Ordered,
    /// Priorities that were learned, of events that wait or are under way: what an event was given it keeps.
    learned: NumberMap<u8>,
    /// Keys in flight or waiting.
    keys: NumberMap<Key>,
    parked_keys: usize,
    waiting: usize,
    /// Keys that go on once no new event is being read: what waits in them comes before what is read.
    going_on: Vec<KeyHash>,
    /// The instances that share the subscription, each with its waker if it waits.
    consumers: Vec<(ConsumerId, Option<Waker>)>,
    next_consumer: ConsumerId,
}

#[derive(Default)]
struct Key {
    /// Events handed out and not settled.
    in_flight: usize,
    /// Events that waited, need not any more, and were not looked at since.
    released: usize,
    /// The event that is ready and next, where order within the key is strict and rank could turn it round.
    next: Option<u64>,
    /// The events that the key waits for: each will be tried again, or holds the key as a dead letter. Mostly one; one more
    /// for each delayed event that came to stand before it and failed in its turn. They go first, the lowest before all.
    heads: BTreeSet<u64>,
    /// Later events, by place only.
    waiting: BTreeSet<Place>,
    /// The first of these that is handed out only when nothing of the key is under way.
    alone: Option<u64>,
}

impl Key {
    /// Whether an event may be handed out now, without passing one of its key.
    fn lets_pass(&self, place: Place, at_once: usize, order: Order) -> bool {
        let offset = place.offset;
        if let Some(head) = self.heads.first() {
            return *head == offset && self.in_flight == 0;
        }
        if let Some(next) = self.next {
            // An older one may have become due since, and waits behind it.
            return next == offset && self.in_flight < at_once;
        }
        let oldest = order == Order::Lifo || self.waiting.first().is_none_or(|waiting| place < *waiting);
        self.in_flight < at_once && oldest
    }

    /// Takes those that wait and may be handed out beside what is under way.
    fn take_next(&mut self, at_once: usize, order: Order) -> Vec<Place> {
        let mut more = Vec::new();
        let under_way = self.in_flight + self.released;
        while under_way + more.len() < at_once {
            let next = if order == Order::Lifo { self.waiting.last() } else { self.waiting.first() };
            let Some(next) = next.copied() else { break };
            let alone = self.alone.is_some_and(|alone| alone <= next.offset);
            if alone && under_way + more.len() > 0 {
                break;
            }
            self.waiting.remove(&next);
            more.push(next);
            if alone {
                self.alone = None;
                break;
            }
        }
        more
    }

    /// Of those that wait, this one is handed out only when nothing of the key is under way.
    fn goes_alone(&mut self, offset: u64) {
        self.alone = Some(self.alone.map_or(offset, |known| known.min(offset)));
    }

    /// Takes the first of its heads from those that wait, if it does and nothing of the key is under way.
    fn take_head(&mut self) -> Option<Place> {
        let offset = *self.heads.first().filter(|_| self.in_flight == 0)?;
        let place = |class| Place { before: 0, offset, class };
        let head = self.waiting.range(place(0)..=place(u8::MAX)).next().copied()?;
        self.waiting.remove(&head);
        Some(head)
    }
}

/// An event that is being handled.
pub(in crate::transport) struct InFlight {
    pub(in crate::transport) envelope: Envelope,
    /// What single members were given instead.
    pub(in crate::transport) copies: Vec<(u8, Envelope)>,
    pub(in crate::transport) partition: u16,
    /// Members whose settlement is yet to come.
    pub(in crate::transport) open: Members,
    /// Who was given it.
    pub(in crate::transport) holder: ConsumerId,
}

impl InFlight {
    /// Whether a settlement counts: of whom the event was given to, for a member that has not settled it.
    pub(in crate::transport) fn awaits(&self, consumer: ConsumerId, settlement: &Settlement) -> bool {
        self.holder == consumer && self.open.contains(usize::from(settlement.member))
    }

    /// The event as a member was given it.
    pub(in crate::transport) fn envelope_of(&self, member: usize) -> &Envelope {
        copy_of(&self.copies, member).unwrap_or(&self.envelope)
    }
}

impl<R: Reading> Hand<R> {
    pub(in crate::transport) fn new(reading: R, spec: &SubscriptionSpec, schedule: Schedule) -> Self {
        Self {
            reading,
            again_unread: BTreeSet::new(),
            in_flight: NumberMap::default(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            schedule,
            settling: VecDeque::new(),
            order: spec.order,
            learned: NumberMap::default(),
            ordered: spec.ordered,
            keys: NumberMap::default(),
            parked_keys: 0,
            waiting: 0,
            going_on: Vec::new(),
            consumers: Vec::new(),
            next_consumer: 0,
        }
    }

    /// Another instance shares the subscription; nothing if the last one has gone.
    pub(in crate::transport) fn join(&mut self, first: bool) -> Option<ConsumerId> {
        if self.consumers.is_empty() && !first {
            return None;
        }
        self.next_consumer += 1;
        self.consumers.push((self.next_consumer, None));
        Some(self.next_consumer)
    }

    /// An instance that is known elsewhere shares the subscription.
    pub(in crate::transport) fn enter(&mut self, consumer: ConsumerId) {
        self.consumers.push((consumer, None));
    }

    /// An instance goes, and leaves what it was given to the others; whether it was the last.
    pub(in crate::transport) fn leave(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.retain(|(known, _)| *known != consumer);
        let left: Vec<u64> =
            self.in_flight.iter().filter(|(_, event)| event.holder == consumer).map(|(offset, _)| *offset).collect();
        for offset in left {
            if let Some(event) = self.in_flight.remove(&offset) {
                let (key, place) = (event.envelope.key_hash(), self.place(offset, &event.envelope));
                self.landed(key);
                self.give_back(key, place);
            }
        }
        if !self.settling.is_empty() {
            // Nobody but the others looks after what it was settling.
            self.wake();
        }
        self.consumers.is_empty()
    }

    /// Whether events are handed out in another order than they came.
    pub(in crate::transport) fn is_ranked(&self) -> bool {
        self.order != Order::Fifo
    }

    /// Events of one key that may be handed out at once. Instances keep the order within a key each for itself, and a
    /// rank is kept by what is not handed out yet: then it is one.
    fn per_key(&self) -> usize {
        if self.consumers.len() > 1 || self.is_ranked() { 1 } else { MAX_PER_KEY }
    }

    /// Whether all that is left below `next` waits behind dead letters that hold their keys.
    pub(in crate::transport) fn only_holds(&self, next: u64) -> bool {
        let rests = self.in_flight.is_empty()
            && self.settling.is_empty()
            && self.ready.is_empty()
            && self.due.is_empty()
            && self.schedule.is_empty()
            && !self.reading.is_searching();
        rests && self.reading.read_to() >= next
    }

    /// Whether so much waits that nothing new may be read.
    pub(in crate::transport) fn is_full(&self) -> bool {
        self.parked_keys >= MAX_PARKED_KEYS || self.waiting() >= MAX_WAITING
    }

    /// Events that wait: for their keys, for a time, or to be handed out next.
    pub(in crate::transport) fn waiting(&self) -> usize {
        self.waiting + self.ready.len() + self.due.len()
    }

    /// Keys whose later events wait for one of theirs.
    pub(in crate::transport) fn parked_keys(&self) -> usize {
        self.parked_keys
    }

    /// The oldest event of those that `counts` lets count which could be handled now: it is handed out, ready, or not
    /// read yet (`next` is the topic's end). What waits for a retry is known elsewhere, and what waits behind another
    /// event of its key is younger than that one.
    pub(in crate::transport) fn oldest(&self, now: Timestamp, next: u64, counts: impl Fn(&u64) -> bool) -> Option<u64> {
        let handed_out = self.in_flight.keys().copied().filter(&counts).min();
        let of_class = |class: u8| {
            let mut ready = self.ready.range((class, 0)..=(class, u64::MAX)).map(|(_, rank)| *rank);
            match self.order {
                Order::Lifo => ready.rev().map(|rank| !rank).find(&counts),
                Order::Fifo | Order::Priority => ready.find(&counts),
            }
        };
        let ready = (0..=MAX_PRIORITY).filter_map(of_class).min();
        let due = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, place)| place.offset);
        let due = due.chain(self.schedule.due_by(now)).filter(&counts).min();
        let unread = Some(self.reading.read_to()).filter(|offset| *offset < next);
        [handed_out, ready, due, unread].into_iter().flatten().min()
    }

    /// The priority of an event: what was learned, else what it says itself.
    pub(in crate::transport) fn priority(&self, offset: u64, envelope: &Envelope) -> u8 {
        self.learned.get(&offset).copied().unwrap_or_else(|| envelope.priority())
    }

    /// Whether an event has still to be given a priority.
    pub(in crate::transport) fn lacks_priority(&self, offset: u64) -> bool {
        self.order == Order::Priority && !self.learned.contains_key(&offset)
    }

    /// An event gets the priority that was learned for it.
    pub(in crate::transport) fn set_priority(&mut self, offset: u64, priority: u8) {
        self.learned.insert(offset, priority.min(MAX_PRIORITY));
    }

    /// Where an event stands, of those that wait.
    pub(in crate::transport) fn place(&self, offset: u64, envelope: &Envelope) -> Place {
        let class = if self.order == Order::Priority { MAX_PRIORITY - self.priority(offset, envelope) } else { 0 };
        let before = if self.ordered == Ordered::Relaxed { class } else { 0 };
        Place { before, offset, class }
    }

    /// An event is to be handed out now.
    pub(in crate::transport) fn make_ready(&mut self, place: Place) {
        let rank = if self.order == Order::Lifo { !place.offset } else { place.offset };
        self.ready.insert((place.class, rank));
    }

    /// The next event that is to be handed out again: its rank, and its offset.
    pub(in crate::transport) fn pop_ready(&mut self) -> Option<(Rank, u64)> {
        let rank = self.ready.pop_first()?;
        Some((rank, self.offset(rank)))
    }

    /// The offset of an event that has a rank.
    pub(in crate::transport) fn offset(&self, (_, number): Rank) -> u64 {
        if self.order == Order::Lifo { !number } else { number }
    }

    /// The rank of what is to be handed out first.
    pub(in crate::transport) fn first_ready(&self) -> Option<Rank> {
        self.ready.first().copied()
    }

    /// Whether something is ready that is to be handed out before what was taken from there with this rank.
    pub(in crate::transport) fn is_overtaken(&self, rank: Rank) -> bool {
        self.ready.first().is_some_and(|first| *first < rank)
    }

    /// What was taken to be handed out is not.
    pub(in crate::transport) fn put_back(&mut self, ranks: &[Rank]) {
        self.ready.extend(ranks);
    }

    pub(in crate::transport) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// An event that is looked at is over already. If it is read now (not `again`), what waited for it goes on later: those
    /// that are read behind it are not to pass that.
    pub(in crate::transport) fn is_over(&mut self, key: Option<KeyHash>, offset: u64, again: bool) {
        if !self.learned.is_empty() {
            self.learned.remove(&offset);
        }
        if again {
            return self.unpark(key, offset);
        }
        if let Some(key) = key
            && let Some(state) = self.keys.get_mut(&key)
        {
            let held = state.heads.remove(&offset);
            self.parked_keys -= usize::from(held && state.heads.is_empty());
            if held || !state.waiting.is_empty() {
                self.going_on.push(key);
            }
        }
    }

    /// Takes over what has become due; and if nothing new is read any more, what was to be found among that.
    pub(in crate::transport) fn take_due(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.going_on) {
            self.let_go_on(Some(key));
        }
        while let Some((due, place)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, place));
            self.make_ready(place);
        }
        while let Some(place) = self.schedule.pop_due(now) {
            self.make_ready(place);
        }
        if self.is_full() {
            let unread = std::mem::take(&mut self.again_unread);
            unread.into_iter().for_each(|offset| self.make_ready(Place::unranked(offset)));
        }
    }

    /// When something is to be handed out that is not to be now.
    pub(in crate::transport) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due).into_iter().chain(self.schedule.next()).min()
    }

    /// An event that was ready is looked at.
    pub(in crate::transport) fn look_at(&mut self, key: Option<KeyHash>) {
        if let Some(state) = key.and_then(|key| self.keys.get_mut(&key)) {
            state.released = state.released.saturating_sub(1);
        }
    }

    /// Whether an event may be handed out; if not, it waits for its key. `alone`: where order is strict, only when nothing
    /// of its key is under way.
    pub(in crate::transport) fn may_pass(&mut self, key: Option<KeyHash>, place: Place, alone: bool) -> bool {
        let (alone, order) = (alone && self.ordered == Ordered::Strict, self.order);
        let at_once = if alone { 1 } else { self.per_key() };
        let Some(key) = key else { return true };
        let state = self.keys.entry(key).or_default();
        if state.lets_pass(place, at_once, order) {
            return true;
        }
        self.waiting += usize::from(state.waiting.insert(place));
        if alone {
            state.goes_alone(place.offset);
        }
        if state.in_flight == 0 {
            // An older one waits, and nothing of the key is under way that would let it go on.
            self.let_go_on(Some(key));
        }
        false
    }

    /// A new event takes its place among those that are ready, or waits for its key.
    pub(in crate::transport) fn rank(&mut self, key: Option<KeyHash>, place: Place) {
        if self.may_pass(key, place, false) {
            self.reserve(key, place);
            self.make_ready(place);
        }
    }

    /// With strict order, the key's later events are not ready while this one is: their rank could be higher.
    fn reserve(&mut self, key: Option<KeyHash>, place: Place) {
        if self.ordered == Ordered::Strict
            && self.is_ranked()
            && let Some(state) = key.and_then(|key| self.keys.get_mut(&key))
        {
            state.next = Some(place.offset);
        }
    }

    /// An event is handed out.
    pub(in crate::transport) fn hand_out(&mut self, offset: u64, event: InFlight) {
        if let Some(state) = event.envelope.key_hash().and_then(|key| self.keys.get_mut(&key)) {
            state.in_flight += 1;
            state.next = None;
        }
        self.in_flight.insert(offset, event);
    }

    /// Later events of the key wait for the one at `offset`, where order is strict.
    pub(in crate::transport) fn park(&mut self, key: Option<KeyHash>, offset: u64) {
        let Some(key) = key.filter(|_| self.ordered == Ordered::Strict) else { return };
        let state = self.keys.entry(key).or_default();
        self.parked_keys += usize::from(state.heads.is_empty());
        state.heads.insert(offset);
    }

    /// The event at `offset` is through: if its key waited for it, the key goes on.
    pub(in crate::transport) fn unpark(&mut self, key: Option<KeyHash>, offset: u64) {
        if let Some(state) = key.and_then(|key| self.keys.get_mut(&key)) {
            if state.heads.remove(&offset) && state.heads.is_empty() {
                self.parked_keys -= 1;
            }
            // It was ready, and came too late.
            state.next = state.next.filter(|next| *next != offset);
        }
        self.let_go_on(key);
    }

    /// An event that was handed out under another lease is still at who was given it: its key waits until it has come back.
    pub(in crate::transport) fn is_out(&mut self, key: KeyHash) {
        self.keys.entry(key).or_default().in_flight += 1;
        self.park(Some(key), OUT);
    }

    /// It has; `last`: and so have all others of its key.
    pub(in crate::transport) fn has_come_back(&mut self, key: KeyHash, last: bool) {
        self.landed(Some(key));
        if last {
            self.unpark(Some(key), OUT);
        }
    }

    /// An event of the key is no longer in flight.
    pub(in crate::transport) fn landed(&mut self, key: Option<KeyHash>) {
        if let Some(state) = key.and_then(|key| self.keys.get_mut(&key)) {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
    }

    /// Makes ready what waits in a key and need not wait any more; forgets a key with nothing left.
    pub(in crate::transport) fn let_go_on(&mut self, key: Option<KeyHash>) {
        let Some(key) = key else { return };
        let at_once = self.per_key();
        let Some(state) = self.keys.get_mut(&key) else { return };
        if !state.heads.is_empty() {
            if let Some(head) = state.take_head() {
                self.waiting -= 1;
                self.make_ready(head);
                self.wake();
            }
            return;
        }
        if state.next.is_some() {
            return;
        }
        if state.in_flight == 0 && state.waiting.is_empty() {
            self.keys.remove(&key);
            return;
        }
        if self.ready.is_empty() {
            state.released = 0;
        }
        // In halves: one wake for many events.
        if state.waiting.is_empty() || state.in_flight + state.released > at_once / 2 {
            return;
        }
        let more = state.take_next(at_once, self.order);
        state.released += more.len();
        self.waiting -= more.len();
        for place in more {
            self.reserve(Some(key), place);
            self.make_ready(place);
        }
        self.wake();
    }

    /// Forgets what waits below `first`, but for what is under way and those that `copies` are kept of: their events are gone.
    pub(super) fn forget_below(&mut self, first: u64, copies: &HashSet<u64>) {
        let Self { in_flight, ready, due, schedule, keys, parked_keys, waiting, order, learned, .. } = self;
        let is_gone = |offset: u64| offset < first && !copies.contains(&offset) && !in_flight.contains_key(&offset);
        learned.retain(|offset, _| !is_gone(*offset));
        let newest_first = *order == Order::Lifo;
        ready.retain(|(_, rank)| !is_gone(if newest_first { !*rank } else { *rank }));
        due.retain(|(_, place)| !is_gone(place.offset));
        schedule.forget(first, is_gone);
        for key in keys.values_mut() {
            let before = key.waiting.len();
            key.waiting.retain(|place| !is_gone(place.offset));
            *waiting -= before - key.waiting.len();
            // Which of them were ready is not known by key; too few is safe.
            key.released = 0;
            key.next = key.next.filter(|next| !is_gone(*next));
            key.alone = key.alone.filter(|alone| !is_gone(*alone));
            let parked = !key.heads.is_empty();
            key.heads.retain(|head| !is_gone(*head));
            *parked_keys -= usize::from(parked && key.heads.is_empty());
        }
        for key in keys.keys().copied().collect::<Vec<_>>() {
            self.let_go_on(Some(key));
        }
        self.wake();
    }

    /// An event was given back unhandled.
    pub(in crate::transport) fn give_back(&mut self, key: Option<KeyHash>, place: Place) {
        let in_order = self.ordered == Ordered::Strict && !self.is_ranked();
        match key.and_then(|key| self.keys.get_mut(&key)) {
            Some(state) if state.heads.first().is_some_and(|head| *head != place.offset) => {
                self.waiting += usize::from(state.waiting.insert(place));
                // It may have been the last one that a head waited for.
                self.let_go_on(key);
            }
            // Later ones of its key are out, or wait: what comes after these may not pass it, nor may it be out beside them.
            Some(state) if in_order && (state.in_flight > 0 || !state.waiting.is_empty()) => {
                self.waiting += usize::from(state.waiting.insert(place));
                state.goes_alone(place.offset);
                self.let_go_on(key);
            }
            _ => {
                self.reserve(key, place);
                self.make_ready(place);
            }
        }
        self.wake();
    }

    /// An event is to be handed out again at a time. Where order is not strict, its key goes on meanwhile.
    pub(in crate::transport) fn retry_at(&mut self, key: Option<KeyHash>, at: Timestamp, place: Place) {
        self.due.insert((at, place));
        self.let_go_on(key);
        self.wake();
    }

    /// What was settled is durable: events go on, or their keys do.
    pub(in crate::transport) fn go_on(&mut self, settled: &Afterwards) {
        if !self.learned.is_empty() {
            for (_, offset) in settled.through.iter().chain(&settled.discarded) {
                self.learned.remove(offset);
            }
        }
        for (key, offset) in &settled.through {
            self.landed(*key);
            self.unpark(*key, *offset);
        }
        for (key, offset) in &settled.discarded {
            self.unpark(*key, *offset);
        }
        for (key, at, place) in &settled.retries {
            self.retry_at(*key, *at, *place);
        }
    }

    /// Whether what was said of the event is not durable yet: then it goes on, or its key does.
    pub(in crate::transport) fn is_settling(&self, offset: u64) -> bool {
        let is_of = |settled: &Afterwards| {
            settled.discarded.iter().any(|(_, known)| *known == offset)
                || settled.retries.iter().any(|(.., place)| place.offset == offset)
        };
        self.settling.iter().any(is_of)
    }

    /// Who is to be woken when there is something to hand out.
    pub(in crate::transport) fn wait(&mut self, consumer: ConsumerId, cx: &Context<'_>) {
        if let Some((_, waker)) = self.consumers.iter_mut().find(|(known, _)| *known == consumer) {
            *waker = Some(cx.waker().clone());
        }
    }

    pub(in crate::transport) fn wake(&mut self) {
        for waker in self.consumers.iter_mut().filter_map(|(_, waker)| waker.take()) {
            waker.wake();
        }
    }
}
