//! One partition of a subscription, as who holds its lease serves it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    known::Known,
    ledger::{Foreign, Ledger},
    stale::Stale,
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{
        Action, Limit, Order, Settlement, SubscriptionSpec,
        log::{
            feed::FedEvent,
            giving::Giving,
            hand::{ConsumerId, Hand, Place, Reading},
            records::Change,
            schedule::Schedule,
            standing::{MemberStates, consider},
            state::SubscriptionState,
        },
    },
};

/// Events that were read and are kept, to be handed out when what they wait for is over: the first ones, and up to as much
/// more until it is looked which of them are through.
const KEPT_EVENTS: usize = 4096;
const KEPT_BYTES: usize = 16 << 20;
/// More are read once no more than so many are left that were not looked at.
const READ_AHEAD: usize = 512;
/// Events that waited and are read again at once.
const AGAIN_EVENTS: usize = 256;
/// With so many under way, no more is read than is kept: what was read beyond that is read once more when its turn comes.
const BUSY_EVENTS: usize = 128;

/// A partition of a subscription.
pub(super) struct Share {
    pub(super) partition: u16,
    /// Whether this process is to serve it, as its partitions are divided.
    pub(super) is_ours: AtomicBool,
    /// Of each member.
    pub(super) ledgers: Vec<Arc<Ledger>>,
    pub(super) serving: Mutex<Serving>,
}

/// Whether the partition is ours to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// It may be tried at this time.
    Free(Timestamp),
    /// It is being tried, or given up to another process.
    Trying,
    Held,
    /// Held until what was handed out is settled; no more of it is handed out.
    Leaving,
    /// Given up, and not to be taken again.
    Released,
}

impl Lease {
    pub(super) fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Leaving)
    }
}

/// What is handed out, what waits, and what was read.
pub(super) struct Serving {
    pub(super) lease: Lease,
    /// How long a lease that is held is good for, by this process's clock.
    pub(super) until: Timestamp,
    /// Which lease it is: what was asked for under another one is of no use.
    pub(super) term: u64,
    pub(super) hand: Hand<ReadTo>,
    /// New events that were read and not looked at.
    pub(super) inbox: VecDeque<(u64, Envelope)>,
    /// Where new events are read next.
    pub(super) fetched_to: u64,
    /// Something is being read.
    pub(super) fetching: bool,
    kept: Kept,
    again: BTreeMap<u64, Envelope>,
    stale: Stale,
}

/// Everything below was considered.
pub(super) struct ReadTo(pub(super) u64);

impl Reading for ReadTo {
    fn read_to(&self) -> u64 {
        self.0
    }

    fn is_searching(&self) -> bool {
        false
    }
}

/// What is to be read before more can be handed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// New events.
    New { from: u64 },
    /// Events that waited, ascending.
    Again(Vec<u64>),
}

/// The members' states, locked.
pub(super) struct States<'a>(pub(super) Vec<MutexGuard<'a, Known>>);

impl MemberStates for States<'_> {
    fn state(&self, member: usize) -> &SubscriptionState {
        &self.0[member].state.subscriptions[0]
    }

    fn state_mut(&mut self, member: usize) -> &mut SubscriptionState {
        &mut self.0[member].state.subscriptions[0]
    }

    /// Whoever waits looks at each progress.
    fn tell(&mut self, _: usize, _: u64) {}
}

fn hand(spec: &SubscriptionSpec, from: u64) -> Hand<ReadTo> {
    Hand::new(ReadTo(from), spec, Schedule::new(usize::MAX))
}

impl Serving {
    pub(super) fn new(spec: &SubscriptionSpec) -> Self {
        Self {
            lease: Lease::Free(Timestamp::default()),
            until: Timestamp::default(),
            term: 0,
            hand: hand(spec, 0),
            inbox: VecDeque::new(),
            fetched_to: 0,
            fetching: false,
            kept: Kept::default(),
            again: BTreeMap::new(),
            stale: Stale::default(),
        }
    }

    /// Begins to serve under a lease, from what the ledgers say.
    pub(super) fn begin(
        &mut self,
        until: Timestamp,
        spec: &SubscriptionSpec,
        states: &States<'_>,
        instances: &[ConsumerId],
    ) {
        let members = 0..spec.members.len();
        let low = members.clone().map(|member| states.state(member).settled.low()).min().unwrap_or(0);
        let mut begun =
            Self { lease: Lease::Held, until, term: self.term + 1, hand: hand(spec, low), ..Self::new(spec) };
        begun.stale = std::mem::take(&mut self.stale);
        instances.iter().for_each(|instance| begun.hand.enter(*instance));
        begun.stale.hold(&mut begun.hand);
        begun.fetched_to = low;
        for member in members {
            for (offset, copy) in &states.0[member].copies {
                if begun.hand.is_ranked() {
                    let place = begun.hand.place(*offset, &copy.envelope);
                    begun.hand.make_ready(place);
                } else if *offset < low {
                    begun.hand.make_ready(Place::unranked(*offset));
                } else {
                    begun.hand.again_unread.insert(*offset);
                }
            }
        }
        *self = begun;
    }

    /// The lease is gone: what was handed out is not ours any more.
    pub(super) fn end(&mut self, spec: &SubscriptionSpec, lease: Lease) {
        let mut stale = std::mem::take(&mut self.stale);
        stale.add(self.hand.in_flight.iter());
        *self = Self { lease, term: self.term + 1, stale, ..Self::new(spec) };
    }

    /// Takes out of a batch what was handed out under a lease that was lost; how much of it was handled.
    pub(super) fn take_back(&mut self, consumer: ConsumerId, batch: &mut Vec<&Settlement>) -> u64 {
        let mut handled = 0;
        batch.retain(|settlement| {
            let is_stale = self.stale.come_back(&mut self.hand, consumer, settlement);
            handled += u64::from(is_stale && settlement.action != Action::Release);
            !is_stale
        });
        handled
    }

    /// An instance goes, and leaves what it was given to the others.
    pub(super) fn leave(&mut self, consumer: ConsumerId) {
        self.hand.leave(consumer);
        self.stale.leave(&mut self.hand, consumer);
    }

    /// Takes notice of what others wrote to a member's ledger.
    pub(super) fn notice(&mut self, spec: &SubscriptionSpec, states: &States<'_>, foreign: &Foreign) {
        for change in foreign {
            let (offset, key) = match change {
                Change::Redrive(redrive) => (redrive.about.offset, redrive.envelope.key_hash()),
                Change::Discard(discard) => {
                    let key = states.0.iter().find_map(|known| known.dead_keys.get(&discard.offset).copied());
                    (discard.offset, key.flatten())
                }
                _ => continue,
            };
            let envelope = match change {
                Change::Redrive(redrive) => redrive.envelope.clone(),
                _ => Envelope::blank(),
            };
            let waited_for = (0..spec.members.len()).any(|member| !states.state(member).settled.contains(offset));
            if matches!(change, Change::Redrive(_)) || waited_for {
                let place = self.hand.place(offset, &envelope);
                self.hand.retry_at(key, Timestamp::default(), place);
            } else {
                self.hand.unpark(key, offset);
            }
        }
    }

    /// Hands out what can be handed out now, and tells what is to be read for more; `heard`: the topic reaches so far.
    pub(super) fn hand_out(
        &mut self,
        share: &Share,
        spec: &SubscriptionSpec,
        giving: &mut Giving<'_>,
        heard: u64,
    ) -> Option<Wanted> {
        let mut states = share.states();
        self.hand.take_due(giving.now);
        if let Some(wanted) = self.hand_out_ready(share, spec, &mut states, giving) {
            return Some(wanted);
        }
        self.look_at_new(share, spec, &mut states, giving);
        // The next ones are on their way while these are handled.
        let has_place = self.inbox.len() <= READ_AHEAD && !self.hand.is_full() && !self.has_enough();
        let wants_new = has_place && heard > self.fetched_to;
        wants_new.then_some(Wanted::New { from: self.fetched_to })
    }

    /// Whether it is busy, many events wait, and nothing more could be kept of what comes next. Where few wait, what comes next
    /// mostly need not.
    fn has_enough(&self) -> bool {
        let (under_way, waiting) = (self.hand.in_flight.len(), self.hand.waiting());
        let kept = under_way + waiting + self.inbox.len();
        under_way >= BUSY_EVENTS && waiting > READ_AHEAD && !self.kept.has_place_for(kept + READ_AHEAD)
    }

    /// Ranks what is new, and tells what is to be read before it is known what comes first.
    pub(super) fn rank(
        &mut self,
        share: &Share,
        spec: &SubscriptionSpec,
        giving: &mut Giving<'_>,
        heard: u64,
    ) -> Option<Wanted> {
        let mut states = share.states();
        self.hand.take_due(giving.now);
        let room = std::mem::replace(&mut giving.room, Limit { events: usize::MAX, bytes: usize::MAX });
        self.look_at_new(share, spec, &mut states, giving);
        giving.room = room;
        (heard > self.fetched_to && !self.hand.is_full()).then_some(Wanted::New { from: self.fetched_to })
    }

    /// What is handed out next, to be compared with that of other partitions: its class, and where it stands in that. Nothing
    /// comes before what has to be read to know it.
    pub(super) fn first_ready(&self, share: &Share, order: Order, is_in_one_order: bool) -> Option<(u8, Option<i128>)> {
        let rank = self.hand.first_ready()?;
        if is_in_one_order {
            return Some((rank.0, Some(rank.1.into())));
        }
        let event = self.event(share, &share.states(), self.hand.offset(rank));
        let published = event.map(|event| i128::from(event.envelope.published().as_micros()));
        Some((rank.0, published.map(|micros| if order == Order::Lifo { -micros } else { micros })))
    }

    /// Hands out what comes first, or tells what is to be read for that.
    pub(super) fn hand_out_first(
        &mut self,
        share: &Share,
        spec: &SubscriptionSpec,
        giving: &mut Giving<'_>,
    ) -> Option<Wanted> {
        let mut states = share.states();
        let room = giving.room;
        giving.room.events = 1;
        let wanted = self.hand_out_ready(share, spec, &mut states, giving);
        giving.room.events = room.events - (1 - giving.room.events);
        wanted
    }

    /// Hands out new events, or lets them wait, or passes them by.
    fn look_at_new(
        &mut self,
        share: &Share,
        spec: &SubscriptionSpec,
        states: &mut States<'_>,
        giving: &mut Giving<'_>,
    ) {
        while giving.has_room()
            && !self.hand.is_full()
            && let Some((offset, envelope)) = self.inbox.pop_front()
        {
            for member in 0..spec.members.len() {
                // Between two events of a partition may be others'.
                states.state_mut(member).settled.insert_range(self.hand.reading.0, offset);
            }
            self.hand.reading.0 = offset + 1;
            self.keep(offset, envelope.clone(), states);
            let event = FedEvent { offset, partition: share.partition, envelope, copies: Vec::new() };
            self.give(spec, states, giving, event, false);
        }
    }

    /// Keeps an event that may have to wait. Where there are too many, the last ones are read again when their turn comes.
    fn keep(&mut self, offset: u64, envelope: Envelope, states: &States<'_>) {
        self.kept.insert(offset, envelope);
        if self.kept.is_within(2) {
            return;
        }
        let is_through = |offset| states.0.iter().all(|known| known.state.subscriptions[0].settled.contains(offset));
        self.kept.forget(is_through);
        while !self.kept.is_within(1) {
            self.kept.pop_last();
        }
    }

    /// Hands out what waited and need not wait any more.
    fn hand_out_ready(
        &mut self,
        share: &Share,
        spec: &SubscriptionSpec,
        states: &mut States<'_>,
        giving: &mut Giving<'_>,
    ) -> Option<Wanted> {
        while giving.has_room()
            && let Some((rank, offset)) = self.hand.pop_ready()
        {
            if let Some(event) = self.event(share, states, offset) {
                self.again.remove(&offset);
                self.give(spec, states, giving, event, true);
                continue;
            }
            let mut missing = vec![(rank, offset)];
            while missing.len() < AGAIN_EVENTS
                && let Some(more) = self.hand.pop_ready()
            {
                missing.push(more);
            }
            let ranks: Vec<_> = missing.iter().map(|(rank, _)| *rank).collect();
            self.hand.put_back(&ranks);
            let mut offsets: Vec<u64> = missing.into_iter().map(|(_, offset)| offset).collect();
            offsets.retain(|offset| !self.kept.events.contains_key(offset) && !self.again.contains_key(offset));
            offsets.sort_unstable();
            return Some(Wanted::Again(offsets));
        }
        None
    }

    /// An event that waited, with the copies that members handle instead, if it is at hand.
    fn event(&self, share: &Share, states: &States<'_>, offset: u64) -> Option<FedEvent> {
        let (mut copies, mut others) = (Vec::new(), false);
        for (member, known) in (0..).zip(&states.0) {
            match known.copies.get(&offset) {
                Some(copy) => copies.push((member, copy.envelope.clone())),
                None => {
                    let state = &known.state.subscriptions[0];
                    others |= !state.settled.contains(offset) && !state.dead.contains_key(&offset);
                }
            }
        }
        let partition = share.partition;
        if !others && !copies.is_empty() {
            // The topic may have dropped the event itself.
            let envelope = copies.remove(0).1;
            return Some(FedEvent { offset, partition, envelope, copies });
        }
        let envelope = self.kept.events.get(&offset).or_else(|| self.again.get(&offset))?.clone();
        Some(FedEvent { offset, partition, envelope, copies })
    }

    fn give(
        &mut self,
        spec: &SubscriptionSpec,
        states: &mut States<'_>,
        giving: &mut Giving<'_>,
        event: FedEvent,
        again: bool,
    ) {
        if again {
            self.hand.look_at(event.envelope.key_hash());
        }
        if let Some(delivered) = consider(spec, &mut self.hand, states, event, giving.to, (giving.now, again)) {
            giving.give(delivered);
        }
    }

    /// What was asked for is there.
    pub(super) fn read(&mut self, wanted: &Wanted, events: Vec<(u64, Envelope)>, states: &States<'_>) {
        match wanted {
            Wanted::New { from } if *from == self.fetched_to => {
                self.fetched_to = events.last().map_or(self.fetched_to, |(offset, _)| offset + 1);
                self.inbox.extend(events);
            }
            Wanted::New { .. } => {}
            Wanted::Again(offsets) => {
                // What stands between them is mostly wanted next.
                for (offset, envelope) in events {
                    if offsets.binary_search(&offset).is_ok() {
                        self.again.insert(offset, envelope);
                    } else if offset < self.hand.reading.0 {
                        self.keep(offset, envelope, states);
                    }
                }
            }
        }
    }
}

impl Share {
    pub(super) fn states(&self) -> States<'_> {
        States(self.ledgers.iter().map(|ledger| ledger.known()).collect())
    }
}

/// Events by their offsets, and what they take.
#[derive(Default)]
struct Kept {
    events: BTreeMap<u64, Envelope>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, offset: u64, envelope: Envelope) {
        self.bytes += envelope.encoded_bytes();
        if let Some(before) = self.events.insert(offset, envelope) {
            self.bytes -= before.encoded_bytes();
        }
    }

    fn pop_last(&mut self) {
        self.bytes -= self.events.pop_last().map_or(0, |(_, last)| last.encoded_bytes());
    }

    fn forget(&mut self, is_through: impl Fn(u64) -> bool) {
        self.events.retain(|offset, _| !is_through(*offset));
        self.bytes = self.events.values().map(Envelope::encoded_bytes).sum();
    }

    /// Whether so many events would be kept, if they are as large as those that are.
    fn has_place_for(&self, events: usize) -> bool {
        let each = self.bytes / self.events.len().max(1);
        events <= KEPT_EVENTS && events * each <= KEPT_BYTES
    }

    /// Whether it is no more than so many times what is kept.
    fn is_within(&self, times: usize) -> bool {
        self.events.len() <= times * KEPT_EVENTS && self.bytes <= times * KEPT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        testing::MemoryBroker,
        transport::{
            Delivered, MemberSpec,
            broker::{LedgerName, known::Pending},
            log::{hand::Afterwards, records::Subscription},
        },
    };

    async fn share() -> Share {
        let broker = MemoryBroker::new(Clock::system()).unwrap().connect();
        let ledger = Ledger::new(LedgerName { subscription: "s".to_owned(), partition: 0 });
        let subscription = Change::Subscription(Subscription::of(&MemberSpec::default(), oncue_log::TopicId(0)));
        let writing = ledger.write().await;
        ledger.append(&*broker, &mut Pending::new([subscription]), &writing).await.unwrap();
        drop(writing);
        let serving = Mutex::new(Serving::new(&SubscriptionSpec::default()));
        Share { partition: 0, is_ours: AtomicBool::new(true), ledgers: vec![Arc::new(ledger)], serving }
    }

    #[tokio::test]
    async fn what_is_handed_out_next_is_kept_and_not_what_was_read_last() {
        let kept = KEPT_EVENTS as u64;
        let share = share().await;
        let (mut serving, mut states) = (share.serving.lock(), share.states());
        (0..3 * kept).for_each(|offset| serving.keep(offset, Envelope::blank(), &states));
        assert!(serving.kept.is_within(2));
        assert!((0..kept).all(|offset| serving.kept.events.contains_key(&offset)), "the first ones wait");
        states.state_mut(0).settled.insert_range(0, kept);
        (3 * kept..4 * kept + 1).for_each(|offset| serving.keep(offset, Envelope::blank(), &states));
        assert!(serving.kept.is_within(2));
        assert!((0..kept).all(|offset| !serving.kept.events.contains_key(&offset)), "they are through");
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_kept_while_it_is_busy() {
        let share = share().await;
        let mut serving = share.serving.lock();
        let spec = SubscriptionSpec { members: vec![MemberSpec::default()], ..SubscriptionSpec::default() };
        let event = |key: u64| Envelope::builder("e").key(key.to_string()).build().unwrap();
        let read = |serving: &mut Serving, from: u64| {
            serving.inbox.extend((from..from + 512).map(|offset| (offset, event(offset % 8))));
            serving.fetched_to = from + 512;
            let room = Limit { events: usize::MAX, bytes: usize::MAX };
            let mut giving = Giving { to: 1, now: Timestamp::default(), room, out: &mut Vec::new() };
            serving.hand_out(&share, &spec, &mut giving, u64::MAX)
        };
        serving.hand.enter(1);
        let mut next = 0;
        while let Some(Wanted::New { from }) = read(&mut serving, next) {
            next = from;
            assert!(next < 2 * KEPT_EVENTS as u64, "eight keys are busy: what waits behind them is not read");
        }
        assert!(serving.hand.in_flight.len() >= BUSY_EVENTS && serving.kept.is_within(1));
        let under_way: Vec<u64> = serving.hand.in_flight.keys().copied().collect();
        under_way.iter().for_each(|offset| drop(serving.hand.in_flight.remove(offset)));
        assert_eq!(read(&mut serving, next), Some(Wanted::New { from: next + 512 }), "others may have something to do");
    }

    #[tokio::test]
    async fn no_more_of_a_key_goes_on_at_once_than_is_handed_out_at_once() {
        let share = share().await;
        let spec = SubscriptionSpec { members: vec![MemberSpec::default()], ..SubscriptionSpec::default() };
        let mut serving = share.serving.lock();
        serving.hand.enter(1);
        let event = Envelope::builder("e").key("hot").build().unwrap();
        serving.inbox.extend((0..200).map(|offset| (offset, event.clone())));
        let room = Limit { events: usize::MAX, bytes: usize::MAX };
        let mut handed_out = Vec::new();
        let mut giving = Giving { to: 1, now: Timestamp::default(), room, out: &mut handed_out };
        serving.hand_out(&share, &spec, &mut giving, 200);
        let at_once = handed_out.len();
        assert!(at_once > 1 && at_once < 100);
        let through = |delivered: &Delivered| (event.key_hash(), delivered.position.offset());
        let settled = Afterwards { through: handed_out.iter().map(through).collect(), ..Afterwards::default() };
        handed_out.iter().for_each(|delivered| drop(serving.hand.in_flight.remove(&delivered.position.offset())));
        // One after the other, and all before any is handed out.
        serving.hand.go_on(&settled);
        let ready = std::iter::from_fn(|| serving.hand.pop_ready()).count();
        assert_eq!(ready, at_once);
    }

    #[tokio::test]
    async fn large_events_that_wait_take_no_more_memory_than_small_ones() {
        let share = share().await;
        let (mut serving, states) = (share.serving.lock(), share.states());
        let large = Envelope::builder("large").data(vec![7; 1 << 20]).build().unwrap();
        for offset in 0..100 {
            serving.keep(offset, large.clone(), &states);
            assert!(serving.kept.is_within(2));
        }
        let kept = &serving.kept.events;
        assert!(kept.contains_key(&0) && !kept.contains_key(&50), "{} are kept", kept.len());
    }
}
