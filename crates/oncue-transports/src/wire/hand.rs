//! What a client holds of a subscription, over the sessions that it had.
//!
//! While a session lasts, the node knows what was handed out to it. When it is over (its lease, or the node itself), a new
//! one is begun, and what was not settled is delivered again, here or elsewhere. What still runs here is not started a
//! second time beside itself: delivered again, it waits until that run has ended, whose outcome then counts. An outcome
//! that comes first waits for the delivery.
//!
//! An outcome does not count any more once one before it in its key did not: it was reached without what that left behind.

use std::collections::{HashMap, VecDeque};

use oncue::{
    event::murmur2,
    transport::{Action, Attempt, Delivered, Limit, Members, Position, SettleError, Settlement},
};
use tokio::sync::oneshot;

use super::message::Session;

/// Who waits for an outcome to be durable. Dropped, it counts as settled: the outcome came too late, and another's counts.
pub(super) type Told = oneshot::Sender<Result<(), SettleError>>;

/// An outcome whose session is over.
struct Late {
    settlement: Settlement,
    key: Option<u32>,
    told: Told,
    /// How often it was looked for.
    looked: u32,
}

/// What is sent to the node, and the key of its event.
pub(super) type Keyed = (Settlement, Option<u32>);

/// What becomes of an outcome.
pub(super) enum Fate {
    /// It is sent to the node.
    Now(Keyed),
    /// It waits until the event is delivered again.
    Late(oneshot::Receiver<Result<(), SettleError>>),
    /// The event has gone on without it.
    Dropped,
}

/// Members that an event was handed out to, and its key.
#[derive(Clone, Copy, Default)]
struct Out {
    members: Members,
    key: Option<u32>,
}

/// The same, of a session that is over.
#[derive(Clone, Copy, Default)]
struct Stale {
    out: Out,
    /// Its outcomes do not count.
    void: bool,
}

/// What was handed out and is not settled.
pub(super) struct Hand {
    pub(super) session: Session,
    /// Events that the node gave and nobody has taken, with the number of its answer.
    ready: VecDeque<(u64, Delivered)>,
    /// Taken in this session.
    out: HashMap<Position, Out>,
    /// Outcomes on their way to the node, in this session: the attempt and the key.
    sent: HashMap<(Position, u8), (u32, Option<u32>)>,
    /// Taken in sessions before, and still running, or with an outcome whose answer has not come.
    stale: HashMap<Position, Stale>,
    /// Delivered again while they still run, and what is behind them in their keys.
    held: Vec<(u64, Delivered)>,
    /// Keys that wait at the node, and the last answer that it gave before: what that has of them goes back.
    parked: Vec<(u32, u64)>,
    late: HashMap<(Position, u8), Late>,
}

impl Hand {
    pub(super) fn new(session: Session) -> Self {
        let (ready, held, parked) = (VecDeque::new(), Vec::new(), Vec::new());
        let (out, sent, stale, late) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Self { session, ready, out, sent, stale, held, parked, late }
    }

    /// How many events wait to be taken.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether outcomes wait for their events.
    pub(super) fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Takes in an answer of the node. Outcomes that were waiting for its events come back, and what is to be given back.
    pub(super) fn give(&mut self, answer: u64, events: Vec<Delivered>) -> (Vec<(Keyed, Told)>, Vec<Keyed>) {
        let (mut settled, mut back) = (Vec::new(), Vec::new());
        for mut event in events {
            for member in event.due.iter() {
                let Some(late) = self.late.remove(&(event.position, number(member))) else { continue };
                if counts(&late.settlement, &event) {
                    event.due.remove(member);
                    settled.push((self.send((late.settlement, late.key)), late.told));
                } else {
                    self.void(late.key);
                }
            }
            if event.due.is_empty() {
                continue;
            }
            let key = key_of(&event);
            let is_parked = |(parked, given): &(u32, u64)| Some(*parked) == key && answer <= *given;
            if self.parked.iter().any(is_parked) && !self.stale.contains_key(&event.position) {
                back.extend(give_back(&event));
                continue;
            }
            self.held.push((answer, event));
        }
        self.parked.retain(|(_, given)| *given > answer);
        self.free();
        (settled, back)
    }

    /// What waits for nothing here is ready: within a key, in order.
    fn free(&mut self) {
        let mut blocked = Vec::new();
        for (answer, event) in std::mem::take(&mut self.held) {
            let key = key_of(&event);
            let waits = self.stale.contains_key(&event.position) || (key.is_some() && blocked.contains(&key));
            if waits {
                blocked.push(key);
                self.held.push((answer, event));
            } else {
                self.ready.push_back((answer, event));
            }
        }
    }

    /// A key waits at the node, which had given so many answers then: what is ready of it goes back.
    pub(super) fn park(&mut self, session: Session, keys: &[u32], given: u64) -> Vec<Keyed> {
        if self.session != session || keys.is_empty() {
            return Vec::new();
        }
        let mut back = Vec::new();
        self.ready.retain(|(answer, event)| {
            let goes = *answer <= given && key_of(event).is_some_and(|key| keys.contains(&key));
            if goes {
                back.extend(give_back(event));
            }
            !goes
        });
        self.parked.extend(keys.iter().map(|key| (*key, given)));
        back
    }

    /// Takes what is ready, within the limit.
    pub(super) fn take(&mut self, limit: Limit, out: &mut Vec<Delivered>) {
        let (mut events, mut bytes) = (0, 0);
        while let Some((_, event)) = self.ready.front() {
            bytes += event.envelope.encoded_bytes();
            if events == limit.events || (events > 0 && bytes > limit.bytes) {
                return;
            }
            events += 1;
            let handed = self.out.entry(event.position).or_default();
            *handed = Out { members: handed.members.union(event.due), key: key_of(event) };
            out.extend(self.ready.pop_front().map(|(_, event)| event));
        }
    }

    /// What becomes of an outcome. Whether something else may be handed out now: see [`ready`](Self::ready).
    pub(super) fn settle(&mut self, settlement: Settlement) -> Fate {
        let (position, member) = (settlement.position, usize::from(settlement.member));
        if let Some(handed) = self.out.get_mut(&position).filter(|handed| handed.members.contains(member)) {
            handed.members.remove(member);
            let key = handed.key;
            if handed.members.is_empty() {
                self.out.remove(&position);
            }
            return Fate::Now(self.send((settlement, key)));
        }
        let Some(stale) = self.stale.get_mut(&position) else { return Fate::Now((settlement, None)) };
        stale.out.members.remove(member);
        let Stale { out: Out { members, key }, void } = *stale;
        if members.is_empty() {
            self.stale.remove(&position);
        }
        let Some(at) = self.held.iter().position(|(_, event)| event.position == position) else {
            return if void { Fate::Dropped } else { Fate::Late(self.wait_for((settlement, key))) };
        };
        let event = &mut self.held[at].1;
        let counts = !void && event.due.contains(member) && counts(&settlement, event);
        if counts {
            event.due.remove(member);
        }
        if event.due.is_empty() {
            self.held.remove(at);
        }
        self.free();
        if counts {
            return Fate::Now(self.send((settlement, key)));
        }
        self.void(key);
        Fate::Dropped
    }

    /// An outcome goes to the node: its event is not begun anew before the answer.
    fn send(&mut self, (settlement, key): Keyed) -> Keyed {
        let place = (settlement.position, settlement.member);
        self.sent.insert(place, (settlement.attempt.number, key));
        (settlement, key)
    }

    /// The node has taken in outcomes that were sent in a session, or never will: what waits for their answers goes on.
    pub(super) fn answered(&mut self, session: Session, batch: &[Keyed]) {
        for (settlement, _) in batch {
            let (position, member) = (settlement.position, settlement.member);
            if self.session == session {
                let is_last = |sent: &(u32, _)| sent.0 == settlement.attempt.number;
                if self.sent.get(&(position, member)).is_some_and(is_last) {
                    self.sent.remove(&(position, member));
                }
            } else if let Some(stale) = self.stale.get_mut(&position) {
                stale.out.members.remove(usize::from(member));
                if stale.out.members.is_empty() {
                    self.stale.remove(&position);
                }
            }
        }
        self.free();
    }

    /// What becomes of an outcome that was sent in a session which the node knows no more.
    pub(super) fn resettle(&mut self, session: Session, (settlement, key): Keyed) -> Fate {
        if self.session == session {
            self.sent.remove(&(settlement.position, settlement.member));
        } else {
            let member = usize::from(settlement.member);
            if self.stale.get(&settlement.position).is_some_and(|stale| stale.out.members.contains(member)) {
                return self.settle(settlement);
            }
        }
        Fate::Late(self.wait_for((settlement, key)))
    }

    /// What still runs of a key counts no more.
    fn void(&mut self, key: Option<u32>) {
        let of_key = |out: &Out| key.is_some() && out.key == key;
        for stale in self.stale.values_mut().filter(|stale| of_key(&stale.out)) {
            stale.void = true;
        }
        self.late.retain(|_, late| key.is_none() || late.key != key);
    }

    /// Lets an outcome wait until its event is delivered again.
    fn wait_for(&mut self, (settlement, key): Keyed) -> oneshot::Receiver<Result<(), SettleError>> {
        let (told, telling) = oneshot::channel();
        let place = (settlement.position, settlement.member);
        self.late.insert(place, Late { settlement, key, told, looked: 0 });
        telling
    }

    /// Begins a new session, if this one is still the one.
    pub(super) fn renew(&mut self, over: Session, session: Session) -> bool {
        if self.session != over {
            return false;
        }
        for (position, out) in self.out.drain() {
            let stale = self.stale.entry(position).or_default();
            stale.out = Out { members: stale.out.members.union(out.members), key: out.key };
        }
        for ((position, member), (_, key)) in self.sent.drain() {
            let stale = self.stale.entry(position).or_default();
            stale.out.members.insert(usize::from(member));
            stale.out.key = key;
        }
        self.held.clear();
        self.ready.clear();
        self.parked.clear();
        self.session = session;
        true
    }

    /// The outcomes that wait, counted as looked for once more; those that were looked for so often are given up.
    pub(super) fn look_for(&mut self, most: u32) -> Vec<(Position, u8)> {
        let mut given_up = Vec::new();
        self.late.retain(|_, late| {
            late.looked += 1;
            let keep = late.looked <= most;
            if !keep {
                given_up.push(late.key);
            }
            keep
        });
        if !given_up.is_empty() {
            tracing::warn!(outcomes = given_up.len(), "dropped: their events went elsewhere, and count there");
        }
        given_up.into_iter().for_each(|key| self.void(key));
        self.late.keys().copied().collect()
    }

    /// No outcome waits any more.
    pub(super) fn forget_late(&mut self) {
        self.late.clear();
    }

    /// The node has got an outcome already.
    pub(super) fn is_settled(&mut self, position: Position, member: u8) {
        self.late.remove(&(position, member));
    }
}

/// An event that goes back unhandled, for each member that it was given to.
fn give_back(event: &Delivered) -> Vec<Keyed> {
    let time = event.envelope.published();
    let back = |member: usize| Settlement {
        position: event.position,
        member: number(member),
        action: Action::Release,
        attempt: Attempt { number: 0, class: None, read: time, ended: time },
        error: None,
        written: None,
    };
    event.due.iter().map(|member| (back(member), key_of(event))).collect()
}

/// Whether an outcome is that of the attempt that a delivery asks for.
fn counts(settlement: &Settlement, event: &Delivered) -> bool {
    let attempt = settlement.attempt.number;
    attempt == 0 || attempt == event.attempts_of(usize::from(settlement.member)) + 1
}

/// The key, shortened: two that look the same only make more outcomes not count.
fn key_of(event: &Delivered) -> Option<u32> {
    event.envelope.key().map(|key| murmur2(key.as_bytes()))
}

fn number(member: usize) -> u8 {
    u8::try_from(member).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use oncue::{Clock, Envelope};

    use super::*;

    fn event(offset: u64, attempts: u32) -> Delivered {
        Delivered {
            envelope: Envelope::builder("tested").key("k").data(vec![0; 10]).build().unwrap(),
            position: Position::new(0, offset, 0),
            due: Members::first(1),
            done: Members::NONE,
            dead: Members::NONE,
            held: Members::NONE,
            attempts: (attempts > 0).then_some((0, attempts)).into_iter().collect(),
            copies: Vec::new(),
            failing: Vec::new(),
        }
    }

    fn outcome(offset: u64, attempt: u32) -> Settlement {
        let now = Clock::system().now();
        Settlement {
            position: Position::new(0, offset, 0),
            member: 0,
            action: Action::Ack,
            attempt: Attempt { number: attempt, class: None, read: now, ended: now },
            error: None,
            written: None,
        }
    }

    /// A hand out of which the event at offset 1 was taken, and whose session is over.
    fn renewed() -> Hand {
        let mut hand = Hand::new(1);
        assert!(hand.give(1, vec![event(1, 0)]).0.is_empty());
        assert_eq!(taken(&mut hand), [1]);
        assert!(hand.renew(1, 2) && !hand.renew(1, 3));
        hand
    }

    fn taken(hand: &mut Hand) -> Vec<u64> {
        let mut out = Vec::new();
        hand.take(Limit { events: 10, bytes: 1_000 }, &mut out);
        out.iter().map(|event| event.position.offset()).collect()
    }

    #[test]
    fn what_runs_is_not_begun_again_beside_itself_and_its_outcome_counts() {
        let mut hand = renewed();
        assert!(hand.give(1, vec![event(1, 0), event(2, 0)]).0.is_empty());
        assert_eq!(taken(&mut hand), [0; 0], "not even what is behind it");
        assert!(matches!(hand.settle(outcome(1, 1)), Fate::Now(_)));
        assert_eq!(taken(&mut hand), [2]);
    }

    #[test]
    fn an_outcome_waits_until_its_event_is_delivered_again() {
        let mut hand = renewed();
        let Fate::Late(_waiting) = hand.settle(outcome(1, 1)) else { panic!("it has no session") };
        assert!(hand.has_late());
        let (settled, _) = hand.give(1, vec![event(1, 0)]);
        assert_eq!(settled.iter().map(|((settlement, _), _)| settlement.position.offset()).collect::<Vec<_>>(), [1]);
        assert!(!hand.has_late() && taken(&mut hand).is_empty());
    }

    #[test]
    fn what_has_an_outcome_on_its_way_is_not_begun_anew() {
        let mut hand = Hand::new(1);
        hand.give(1, vec![event(1, 0), event(2, 0)]);
        assert_eq!(taken(&mut hand), [1, 2]);
        let Fate::Now(first) = hand.settle(outcome(1, 1)) else { panic!("it has its session") };
        let Fate::Now(second) = hand.settle(outcome(2, 1)) else { panic!("it has its session") };
        hand.renew(1, 2);
        hand.give(1, vec![event(1, 0), event(2, 0), event(3, 0)]);
        assert_eq!(taken(&mut hand), [0; 0]);
        // The node got neither.
        assert!(matches!(hand.resettle(1, first), Fate::Now(_)));
        assert_eq!(taken(&mut hand), [0; 0], "nor what is behind it");
        assert!(matches!(hand.resettle(1, second), Fate::Now(_)));
        assert_eq!(taken(&mut hand), [3]);
    }

    #[test]
    fn what_the_node_gives_again_after_it_took_in_an_outcome_is_begun_anew() {
        let mut hand = Hand::new(1);
        hand.give(1, vec![event(1, 0)]);
        assert_eq!(taken(&mut hand), [1]);
        let Fate::Now(first) = hand.settle(outcome(1, 1)) else { panic!("it has its session") };
        // The next attempt may come before the answer, in one session.
        hand.give(2, vec![event(1, 1)]);
        assert_eq!(taken(&mut hand), [1]);
        let Fate::Now(second) = hand.settle(outcome(1, 2)) else { panic!("it has its session") };
        hand.answered(1, &[first]);
        hand.renew(1, 2);
        hand.give(1, vec![event(1, 2)]);
        assert_eq!(taken(&mut hand), [0; 0], "the second outcome is still on its way");
        hand.answered(1, &[second]);
        assert_eq!(taken(&mut hand), [1]);
    }

    #[test]
    fn an_outcome_that_the_node_has_got_is_not_that_of_the_next_attempt() {
        let mut hand = renewed();
        let Fate::Late(mut waiting) = hand.settle(outcome(1, 1)) else { panic!("it has no session") };
        assert!(hand.give(1, vec![event(1, 1)]).0.is_empty());
        assert_eq!(taken(&mut hand), [1]);
        assert!(waiting.try_recv().is_err(), "it counts as settled");
    }

    #[test]
    fn what_follows_an_outcome_that_did_not_count_does_not_count_either() {
        let mut hand = Hand::new(1);
        hand.give(1, vec![event(1, 0), event(2, 0)]);
        assert_eq!(taken(&mut hand), [1, 2]);
        hand.renew(1, 2);
        // Another one failed at the first meanwhile.
        hand.give(1, vec![event(1, 1), event(2, 0)]);
        assert!(matches!(hand.settle(outcome(1, 1)), Fate::Dropped));
        assert_eq!(taken(&mut hand), [1]);
        assert!(matches!(hand.settle(outcome(2, 1)), Fate::Dropped));
        assert_eq!(taken(&mut hand), [2]);
        assert!(matches!(hand.settle(outcome(1, 2)), Fate::Now(_)));
        assert!(matches!(hand.settle(outcome(2, 1)), Fate::Now(_)));
    }

    #[test]
    fn what_the_node_gave_before_a_key_had_to_wait_goes_back() {
        let mut hand = Hand::new(1);
        hand.give(1, vec![event(1, 0)]);
        assert_eq!(taken(&mut hand), [1]);
        hand.give(2, vec![event(2, 0)]);
        // Event 1 is to be tried again, and the node has given three answers.
        let key = key_of(&event(1, 0)).unwrap();
        let back = hand.park(1, &[key], 3);
        assert_eq!(back.iter().map(|(back, _)| back.position.offset()).collect::<Vec<_>>(), [2]);
        let (_, back) = hand.give(3, vec![event(3, 0)]);
        assert_eq!(back.iter().map(|(back, _)| back.position.offset()).collect::<Vec<_>>(), [3]);
        hand.give(4, vec![event(1, 1)]);
        assert_eq!(taken(&mut hand), [1]);
    }

    #[test]
    fn what_does_not_come_back_is_given_up_after_a_while() {
        let mut hand = renewed();
        let Fate::Late(_waiting) = hand.settle(outcome(1, 1)) else { panic!("it has no session") };
        assert_eq!(hand.look_for(2).len(), 1);
        assert_eq!(hand.look_for(2).len(), 1);
        assert_eq!(hand.look_for(2).len(), 0);
        assert!(!hand.has_late());
    }
}
