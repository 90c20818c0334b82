//! Where an event stands with the members of a subscription.

use std::collections::hash_map::Entry;

use super::{
    Shared,
    feed::FedEvent,
    hand::{Afterwards, ConsumerId, Hand, InFlight, Reading},
    records::{End, SubscriptionNumber},
    state::SubscriptionState,
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{Action, Delivered, Members, Position, Settlement, SubscriptionSpec, settle::copy_of},
};

/// What is known of the members of a subscription.
pub(in crate::transport) trait MemberStates {
    /// What is known of one.
    fn state(&self, member: usize) -> &SubscriptionState;

    /// The same, to be changed.
    fn state_mut(&mut self, member: usize) -> &mut SubscriptionState;

    /// A member is through with an event that it was not given: whoever waits for that is told.
    fn tell(&mut self, member: usize, offset: u64);
}

/// Members of a subscription of the log, by their numbers there.
pub(super) struct MembersOf<'a> {
    pub(super) shared: &'a mut Shared,
    pub(super) numbers: &'a [SubscriptionNumber],
}

impl MemberStates for MembersOf<'_> {
    fn state(&self, member: usize) -> &SubscriptionState {
        &self.shared.state.subscriptions[self.numbers[member] as usize]
    }

    fn state_mut(&mut self, member: usize) -> &mut SubscriptionState {
        &mut self.shared.state.subscriptions[self.numbers[member] as usize]
    }

    fn tell(&mut self, member: usize, offset: u64) {
        self.shared.tell((self.numbers[member], offset));
    }
}

/// When it is asked where an event stands.
#[derive(Clone, Copy)]
enum When {
    /// Before it is handed out: what is expired or early by now is not.
    Now(Timestamp),
    /// When it was settled: its own time had come when it was handed out, and a member that is to try again waits for that,
    /// be its time come or not.
    Settled,
}

/// Where an event stands with the members of a subscription.
struct Standing {
    due: Members,
    done: Members,
    dead: Members,
    /// Those of `dead` whose dead letter holds the key.
    held: Members,
    attempts: Vec<(u8, u32)>,
    failing: Vec<(u8, Timestamp)>,
    /// The earliest time that is not there yet at which it is to be handed out: a retry, or its own.
    retry_at: Option<Timestamp>,
}

/// How an event stands with each member. Members that do not want it are through with it here and now, and so are
/// those that it comes too late for. A dead letter that is handled again is handed out also when it is too late: that it
/// expires is to be written, as its copy is kept only as long as it waits, and after a crash it would wait again.
fn standing(
    spec: &SubscriptionSpec,
    states: &mut impl MemberStates,
    (offset, envelope, copies): (u64, &Envelope, &[(u8, Envelope)]),
    when: When,
) -> Standing {
    let mut standing = Standing {
        due: Members::NONE,
        done: Members::NONE,
        dead: Members::NONE,
        held: Members::NONE,
        attempts: Vec::new(),
        failing: Vec::new(),
        retry_at: None,
    };
    for (member, wants) in spec.members.iter().enumerate() {
        let state = states.state_mut(member);
        let again = state.redriven.contains_key(&offset);
        let envelope = copy_of(copies, member).unwrap_or(envelope);
        if let Some(dead) = state.dead.get(&offset) {
            standing.dead.insert(member);
            if dead.hold {
                standing.held.insert(member);
            }
        } else if !again && state.settled.contains(offset) {
            // One that skipped it has not handled it: one after it that begins anew skips it, too.
            let skipped = state.end_of(offset) == End::Skipped;
            if skipped { standing.dead.insert(member) } else { standing.done.insert(member) }
        } else if !again && !wants.matches(envelope) {
            state.pass_by(offset);
            standing.done.insert(member);
            states.tell(member, offset);
        } else if !again && when.is_too_late_for(envelope) {
            state.expire(offset);
            standing.done.insert(member);
            states.tell(member, offset);
        } else if let Some(failing) = state.failing.get(&offset) {
            let due = failing.due;
            let number = u8::try_from(member).unwrap_or(u8::MAX);
            standing.attempts.push((number, failing.attempts));
            let trouble = failing.trouble.filter(|trouble| !trouble.down);
            standing.failing.extend(trouble.map(|trouble| (number, trouble.since)));
            match turn(spec, states, member, offset) {
                Turn::Comes(before) => standing.wait(member, Some(due).max(before).filter(|due| when.is_before(*due))),
                Turn::Held => {}
            }
        } else {
            standing.wait(member, envelope.due().filter(|due| when.is_early_for(*due)));
        }
    }
    standing
}

/// When a member's turn comes, as far as those before it say.
enum Turn {
    /// Not before the time, if there is one, at which one of them tries again.
    Comes(Option<Timestamp>),
    /// When a dead letter that holds is resolved.
    Held,
}

/// A member that failed after others were through can find them before it again: one of them began anew.
fn turn(spec: &SubscriptionSpec, states: &impl MemberStates, member: usize, offset: u64) -> Turn {
    let (mut comes, mut seen, mut left) = (None, Members::NONE, vec![member]);
    while let Some(member) = left.pop() {
        for (before, other) in spec.members.iter().enumerate() {
            if seen.contains(before) || !spec.members[member].after.contains(&other.id) {
                continue;
            }
            seen.insert(before);
            left.push(before);
            let state = states.state(before);
            if state.dead.get(&offset).is_some_and(|dead| dead.hold) {
                return Turn::Held;
            }
            comes = comes.max(state.failing.get(&offset).map(|failing| failing.due));
        }
    }
    Turn::Comes(comes)
}

/// Whether a member handles the event again: then it is among those that wait, from the start on.
fn is_redriven(spec: &SubscriptionSpec, states: &impl MemberStates, offset: u64) -> bool {
    (0..spec.members.len()).any(|member| states.state(member).redriven.contains_key(&offset))
}

/// What is learned of an event's priority when it is first looked at, it keeps.
fn give_priority<R: Reading>(hand: &mut Hand<R>, states: &impl MemberStates, offset: u64, envelope: &Envelope) {
    if hand.lacks_priority(offset)
        && let Some(priority) = states.state(0).learned_priority(envelope)
    {
        hand.set_priority(offset, priority);
    }
}

/// Hands one event out, or lets it wait, or passes it by. `again`: it waited before.
pub(in crate::transport) fn consider<R: Reading>(
    spec: &SubscriptionSpec,
    hand: &mut Hand<R>,
    states: &mut impl MemberStates,
    FedEvent { offset, partition, envelope, copies }: FedEvent,
    holder: ConsumerId,
    (now, again): (Timestamp, bool),
) -> Option<Delivered> {
    if hand.in_flight.contains_key(&offset) {
        return None;
    }
    give_priority(hand, states, offset, &envelope);
    if !again && is_redriven(spec, states, offset) {
        // It is looked at when its copy is read; here it takes its place in its key.
        let (key, place) = (envelope.key_hash(), hand.place(offset, &envelope));
        if hand.is_settling(offset) {
            hand.park(key, offset);
        } else if hand.is_ranked() {
            hand.rank(key, place);
        } else {
            hand.again_unread.remove(&offset);
            if hand.may_pass(key, place, true) {
                hand.park(key, offset);
                hand.make_ready(place);
            }
        }
        return None;
    }
    let standing = standing(spec, states, (offset, &envelope, &copies), When::Now(now));
    let (key, place) = (envelope.key_hash(), hand.place(offset, &envelope));
    if !standing.done.is_empty() && hand.is_settling(offset) {
        // A dead letter that is being resolved, and was not read before: its key waits until that is durable.
        hand.park(key, offset);
        return None;
    }
    let scheduled = standing.retry_at.is_some() && standing.attempts.is_empty() && standing.dead.is_empty();
    if scheduled && standing.due.is_empty() {
        // Not an event of its key yet: it takes its place when its time comes.
        match standing.retry_at {
            // Its time is that of its copy, and not found in the topic.
            Some(at) if again && is_redriven(spec, states, offset) => drop(hand.due.insert((at, place))),
            Some(at) => hand.schedule.add(at, place),
            None => {}
        }
        if again {
            // Nothing of its key waits for it meanwhile.
            hand.let_go_on(key);
        }
        return None;
    }
    let waits = standing.retry_at.is_some() || !standing.held.is_empty();
    if standing.due.is_empty() && !waits {
        hand.is_over(key, offset, again);
        return None;
    }
    if hand.is_ranked() && !again && !waits {
        hand.rank(key, place);
        return None;
    }
    // One that was tried or given up before is not to hold its key while those under way may come to wait: they stand
    // before it.
    if !hand.may_pass(key, place, waits || !standing.attempts.is_empty()) {
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
    let open = standing.due;
    let event = InFlight { envelope: envelope.clone(), copies: copies.clone(), partition, open, holder };
    hand.hand_out(offset, event);
    Some(Delivered {
        envelope,
        position: Position::new(partition, offset, 0),
        due: standing.due,
        done: standing.done,
        dead: standing.dead,
        held: standing.held,
        attempts: standing.attempts,
        copies,
        failing: standing.failing,
    })
}

/// Notes one settlement; the event's last one decides what becomes of it and of its key. Whether the member is through
/// with the event now.
pub(in crate::transport) fn close<R: Reading>(
    spec: &SubscriptionSpec,
    hand: &mut Hand<R>,
    states: &mut impl MemberStates,
    (consumer, settlement): (ConsumerId, &Settlement),
    afterwards: &mut Afterwards,
) -> bool {
    let offset = settlement.position.offset();
    let member = usize::from(settlement.member);
    let mut event = match hand.in_flight.entry(offset) {
        Entry::Occupied(event) if event.get().awaits(consumer, settlement) => event,
        _ => {
            if settlement.action != Action::Release {
                tracing::debug!(position = %settlement.position, "a late or repeated settlement is ignored");
            }
            return false;
        }
    };
    let over = matches!(settlement.action, Action::Ack | Action::Skip | Action::Expire | Action::DeadLetter);
    event.get_mut().open.remove(member);
    if !event.get().open.is_empty() {
        return over;
    }
    let event = event.remove();
    let (key, place) = (event.envelope.key_hash(), hand.place(offset, &event.envelope));
    if spec.members.len() == 1 && matches!(settlement.action, Action::Ack | Action::Skip | Action::Expire) {
        // The common case: the only handler is through with it.
        afterwards.through.push((key, offset));
        return over;
    }
    let standing = standing(spec, states, (offset, &event.envelope, &event.copies), When::Settled);
    if standing.retry_at.is_some() || !standing.held.is_empty() || !standing.due.is_empty() {
        hand.landed(key);
    }
    match standing.retry_at {
        Some(at) => {
            hand.park(key, offset);
            afterwards.retries.push((key, at, place));
        }
        None if !standing.held.is_empty() => {
            hand.park(key, offset);
            // Another that holds the key, and comes first, may have waited for this one.
            hand.let_go_on(key);
        }
        None if standing.due.is_empty() => {
            afterwards.through.push((key, offset));
        }
        None => hand.give_back(key, place),
    }
    over
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
