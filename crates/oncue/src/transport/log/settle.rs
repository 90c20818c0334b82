//! Settling deliveries of the log: one frame for all that follows from a batch of outcomes.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::FutureExt as _;
use oncue_log::{AppendError, Lsn, ReadError, TopicId};

use super::{
    Shared,
    consumer::Core,
    hand::{Afterwards, ConsumerId, InFlight},
    reading::LogHand,
    records::{
        Ack, Change, Dead, DeadAbout, End, EventType, Keyed, Lesson, OTHER_TYPES, Retry, Service, Settle,
        SubscriptionNumber, Times, Trial, TypeNumber, failed_attempt,
    },
    standing::{MembersOf, close},
    state::Types,
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    policy::ErrorClass,
    transport::{Action, BoxFuture, FailedAttempt, OnDeadLetter, SettleError, Settlement},
};

/// Attempts that a dead letter tells of: with errors of at most 1 KiB, escaped, they stay within 400 KiB.
const MAX_HISTORY: usize = 64;

pub(super) fn error(error: AppendError) -> SettleError {
    match error {
        AppendError::TooLarge { bytes, limit } => SettleError::TooLarge { bytes, limit },
        AppendError::Closed => SettleError::Closed,
        other => SettleError::Fenced(other.to_string()),
    }
}

/// The attempt to write happens here and now; only a full log, and durability, are waited for.
pub(super) fn settle(
    core: &Arc<Core>,
    consumer: ConsumerId,
    batch: Vec<Settlement>,
) -> BoxFuture<'static, Result<(), SettleError>> {
    let core = Arc::clone(core);
    let mut tried = core.try_settle(consumer, &batch);
    async move {
        let end = loop {
            match tried {
                Ok(end) => break end,
                Err(AppendError::Full) => core.inner.space().await.map_err(SettleError::Fenced)?,
                Err(failed) => return Err(error(failed)),
            }
            tried = core.try_settle(consumer, &batch);
        };
        core.inner.durable(end).await.map_err(SettleError::Fenced)?;
        core.go_on(&mut core.hand.lock());
        Ok(())
    }
    .boxed()
}

impl Core {
    /// Writes what follows from the outcomes; gives where that ends.
    fn try_settle(&self, consumer: ConsumerId, batch: &[Settlement]) -> Result<Lsn, AppendError> {
        let histories = self.histories(batch)?;
        let mut hand = self.hand.lock();
        let mut shared = self.inner.shared.lock();
        let shared = &mut *shared;
        shared.batch.clear();
        shared.emitted.clear();
        let mut changes = self.changes(&hand, shared, (consumer, batch), histories)?;
        for change in &changes {
            shared.scratch.clear();
            change.encode(&mut shared.scratch);
            shared.batch.state(change.kind(), &[shared.scratch.as_slice()]);
        }
        let mut afterwards = Afterwards { end: shared.end, ..Afterwards::default() };
        if !shared.batch.is_empty() {
            let ticket = self.inner.log.append(&shared.batch, self.inner.clock.now().as_micros())?;
            shared.end = shared.end.max(ticket.end);
            if !shared.emitted.is_empty() {
                shared.events_end = ticket.end;
                self.tell_emitted(shared);
                let offsets = std::iter::once(Some(ticket.offset)).chain(std::iter::repeat(None));
                for ((topic, partition, emitted), offset) in shared.emitted.drain(..).zip(offsets) {
                    shared.recent.push((topic, partition, offset), emitted, ticket.end);
                }
            }
            afterwards.end = ticket.end;
            // Emitted events stand first in the batch, changes last.
            let first = ticket.end - changes.len() as u64;
            for (lsn, change) in (first..).zip(changes.drain(..)) {
                shared.applied(&change, lsn);
            }
        }
        for settlement in batch {
            let mut states = MembersOf { shared, numbers: &self.numbers };
            let closed = close(&self.spec, &mut hand, &mut states, (consumer, settlement), &mut afterwards);
            if closed && !shared.waiting.is_empty() {
                let number = self.numbers[usize::from(settlement.member)];
                afterwards.outcomes.push((number, settlement.position.offset()));
            }
        }
        self.inner.checkpoint_if_due(shared);
        let end = afterwards.end;
        hand.settling.push_back(afterwards);
        Ok(end)
    }

    /// What is to be written. Emitted events go into the batch at once.
    fn changes(
        &self,
        hand: &LogHand,
        shared: &mut Shared,
        (consumer, batch): (ConsumerId, &[Settlement]),
        mut histories: HashMap<(u64, u8), Vec<FailedAttempt>>,
    ) -> Result<Vec<Change>, AppendError> {
        let mut acks: Vec<Vec<Ack>> = vec![Vec::new(); self.numbers.len()];
        let mut changes = Vec::new();
        let mut types = TypeNumbers::default();
        for settlement in batch {
            let (offset, member) = (settlement.position.offset(), usize::from(settlement.member));
            let event = hand.in_flight.get(&offset).filter(|event| event.awaits(consumer, settlement));
            let Some(event) = event else { continue };
            let envelope = event.envelope_of(member);
            let times = Times {
                generated: envelope.time(),
                published: envelope.published(),
                read: settlement.attempt.read,
                ended: settlement.attempt.ended,
            };
            if settlement.action == Action::Release {
                continue;
            }
            if matches!(settlement.action, Action::Retry(_)) && self.was_missed(shared, member, offset) {
                // It cannot be read again: it stays missed.
                continue;
            }
            let event_type = types.number(shared.state.types(), envelope.event_type());
            let mut ack = |end, attempts| acks[member].push(Ack { offset, event_type, end, attempts, times });
            match settlement.action {
                Action::Release => {}
                Action::Ack => {
                    ack(End::Acked, settlement.attempt.number);
                    let Some(written) = &settlement.written else { continue };
                    self.emit(shared, &written.emits)?;
                    if let (Some(change), Some(key)) = (&written.state, envelope.key()) {
                        let (subscription, key) = (self.numbers[member], key.to_owned());
                        changes.push(Change::Keyed(Keyed { subscription, key, change: change.clone() }));
                    }
                }
                Action::Skip => ack(End::Skipped, 0),
                Action::Expire => ack(End::Expired, 0),
                Action::Retry(due) => {
                    let known = shared.state.subscriptions[self.numbers[member] as usize].failing.get(&offset);
                    let previous = known.map(|known| known.lsn);
                    changes.push(retry(self.numbers[member], settlement, (due, previous), (event_type, times)));
                }
                Action::DeadLetter => {
                    let history = histories.remove(&(offset, settlement.member)).unwrap_or_default();
                    let (number, hold) = (self.numbers[member], self.spec.members[member].on_dead_letter);
                    changes.push(dead_letter((number, hold), event, settlement, (event_type, times), history));
                }
            }
        }
        if self.spec.members.iter().any(|member| member.learns.is_some()) {
            changes.extend(self.lessons(hand, shared, (consumer, batch)));
        }
        if self.spec.members.iter().any(|member| member.ranks.is_some()) {
            changes.extend(self.services(hand, (consumer, batch)));
        }
        if self.spec.members.iter().any(|member| member.routes.is_some()) {
            changes.extend(self.trials(hand, shared, (consumer, batch)));
        }
        let settled = acks.into_iter().zip(&self.numbers).filter(|(entries, _)| !entries.is_empty());
        // First: who counts failures is to know by then what worked meanwhile.
        let settled = settled.map(|(entries, number)| Change::Settle(Settle { subscription: *number, entries }));
        changes.splice(0..0, settled);
        if !types.new.is_empty() {
            // A number is given before it is used.
            changes.splice(0..0, types.new.into_iter().map(Change::EventType));
        }
        Ok(changes)
    }

    /// What is learned from the ends of a batch.
    fn lessons(&self, hand: &LogHand, shared: &Shared, settled: (ConsumerId, &[Settlement])) -> Vec<Change> {
        let lesson = |settlement: &Settlement, event: &Envelope, member: usize| {
            let learns = self.spec.members[member].learns.as_ref()?;
            let from = shared.state.subscriptions[self.numbers[member] as usize].about.learns_from;
            if from.is_some_and(|from| settlement.position.offset() < from) {
                return None;
            }
            Lesson::of(self.numbers[member], learns, event, settlement).map(Change::Lesson)
        };
        taught(hand, settled, lesson)
    }

    /// What is learned of how long the events of a batch took.
    fn services(&self, hand: &LogHand, settled: (ConsumerId, &[Settlement])) -> Vec<Change> {
        let service = |settlement: &Settlement, event: &Envelope, member: usize| {
            let rules = self.spec.members[member].ranks.as_ref()?;
            let priority = hand.priority(settlement.position.offset(), event);
            Service::of(self.numbers[member], rules, (event, priority), settlement).map(Change::Service)
        };
        taught(hand, settled, service)
    }

    /// What is learned of the handlers of a route. Nothing from dead letters that are handled again: they are those that failed.
    fn trials(&self, hand: &LogHand, shared: &Shared, settled: (ConsumerId, &[Settlement])) -> Vec<Change> {
        let trial = |settlement: &Settlement, event: &Envelope, member: usize| {
            let rules = self.spec.members[member].routes.as_ref()?;
            let (state, offset) =
                (&shared.state.subscriptions[self.numbers[member] as usize], settlement.position.offset());
            let too_early = state.about.routes_from.is_some_and(|from| offset < from);
            if too_early || state.redriven.contains_key(&offset) {
                return None;
            }
            Trial::of(self.numbers[member], rules, event, settlement).map(Change::Trial)
        };
        taught(hand, settled, trial)
    }

    /// Emitted events that were appended just now may be feedback.
    fn tell_emitted(&self, shared: &mut Shared) {
        let Shared { state, emitted, .. } = shared;
        if !state.waits_for_feedback() {
            return;
        }
        // They are the last of their topics.
        let mut offsets: HashMap<TopicId, u64> = HashMap::new();
        for (topic, ..) in emitted.iter() {
            *offsets.entry(*topic).or_insert_with(|| self.inner.log.next_offset(*topic)) -= 1;
        }
        for (topic, _, event) in emitted.iter() {
            let offset = offsets.entry(*topic).or_default();
            state.published(topic.0, *offset, event.published(), event);
            *offset += 1;
        }
    }

    /// Whether an event was dropped while it was being handled.
    fn was_missed(&self, shared: &Shared, member: usize, offset: u64) -> bool {
        let state = &shared.state.subscriptions[self.numbers[member] as usize];
        state.settled.contains(offset) && !state.redriven.contains_key(&offset)
    }

    fn emit(&self, shared: &mut Shared, emits: &[(String, Envelope)]) -> Result<(), AppendError> {
        let now = self.inner.clock.now();
        for (topic, emitted) in emits {
            let topic = self.inner.topics.get_or_create(&self.inner.log, topic, now)?;
            let partition = emitted.partition(topic.partitions);
            let (fixed, text, data) = emitted.stored(now);
            shared.batch.event(topic.id, partition, &[&fixed, text, data]);
            shared.emitted.push((topic.id, partition, emitted.clone().published_at(now)));
        }
        Ok(())
    }

    /// Goes on after all that is durable by now: whoever comes first does it, so that nothing hangs on one instance.
    pub(super) fn go_on(&self, hand: &mut LogHand) {
        let durable = self.inner.log.durable();
        let mut went_on = false;
        while let Some(settled) = hand.settling.pop_front_if(|settled| settled.end <= durable) {
            went_on = true;
            hand.go_on(&settled);
            if !settled.outcomes.is_empty() {
                let mut shared = self.inner.shared.lock();
                settled.outcomes.iter().for_each(|outcome| shared.tell(*outcome));
            }
        }
        if went_on {
            self.inner.progress.notify_waiters();
        }
    }

    /// The failed attempts before this one, for events that become dead letters: a chain of records, newest first.
    fn histories(&self, batch: &[Settlement]) -> Result<HashMap<(u64, u8), Vec<FailedAttempt>>, AppendError> {
        let mut histories = HashMap::new();
        for settlement in batch.iter().filter(|settlement| settlement.action == Action::DeadLetter) {
            let offset = settlement.position.offset();
            let number = self.numbers[usize::from(settlement.member)] as usize;
            let (mut next, redriven) = {
                let shared = self.inner.shared.lock();
                let state = &shared.state.subscriptions[number];
                let last = state.failing.get(&offset).map(|failing| failing.lsn);
                (last, state.redriven.get(&offset).copied())
            };
            let mut history = Vec::new();
            while let Some(lsn) = next {
                let read = match self.inner.log.record(lsn) {
                    // The retries of an event that is handled again do not keep their segments; what it died of does.
                    Err(ReadError::Trimmed { .. }) => break,
                    read => read.map_err(|error| AppendError::Fenced { reason: error.to_string() })?,
                };
                let Ok(Some(Change::Retry(retry))) = Change::decode(read.kind, &read.data) else { break };
                history.extend(retry.failed);
                next = retry.previous;
            }
            history.reverse();
            if let Some(lsn) = redriven {
                // What it died of before.
                let again = self.inner.redriven(lsn);
                let again = again.map_err(|error| AppendError::Fenced { reason: error.to_string() })?;
                history.splice(0..0, again.about.history);
            }
            histories.insert((offset, settlement.member), history);
        }
        Ok(histories)
    }
}

/// What the settlements of a batch teach, of events as their members were given them.
fn taught(
    hand: &LogHand,
    (consumer, batch): (ConsumerId, &[Settlement]),
    of: impl Fn(&Settlement, &Envelope, usize) -> Option<Change>,
) -> Vec<Change> {
    let change = |settlement: &Settlement| {
        let event = hand.in_flight.get(&settlement.position.offset())?;
        let member = usize::from(settlement.member);
        if event.awaits(consumer, settlement) { of(settlement, event.envelope_of(member), member) } else { None }
    };
    batch.iter().filter_map(change).collect()
}

/// A failed attempt that is followed by another: when that is due, and the record of the attempt before.
pub(in crate::transport) fn retry(
    subscription: SubscriptionNumber,
    settlement: &Settlement,
    (due, previous): (Timestamp, Option<Lsn>),
    (event_type, times): (TypeNumber, Times),
) -> Change {
    let attempt = settlement.attempt;
    Change::Retry(Retry {
        subscription,
        offset: settlement.position.offset(),
        event_type,
        attempts: attempt.number,
        due,
        times,
        failed: attempt.class.map(|class| failed_attempt(&attempt, class, settlement.error.as_deref())),
        previous,
    })
}

/// The last attempt failed, too: the event with its history.
pub(in crate::transport) fn dead_letter(
    (subscription, rule): (SubscriptionNumber, OnDeadLetter),
    event: &InFlight,
    settlement: &Settlement,
    (event_type, times): (TypeNumber, Times),
    mut history: Vec<FailedAttempt>,
) -> Change {
    let attempt = settlement.attempt;
    let class = attempt.class.unwrap_or(ErrorClass::Permanent);
    history.push(failed_attempt(&attempt, class, settlement.error.as_deref()));
    if history.len() > MAX_HISTORY {
        // The first attempts and the last ones tell most.
        history.drain(MAX_HISTORY / 2..history.len() - MAX_HISTORY / 2);
    }
    let about = DeadAbout {
        subscription,
        partition: event.partition,
        offset: settlement.position.offset(),
        hold: rule == OnDeadLetter::Hold,
        copy: false,
        event_type,
        times,
        history,
    };
    Change::DeadLetter(Dead { about, envelope: event.envelope_of(usize::from(settlement.member)).clone() })
}

/// The numbers of a batch's event types, with those types that it is the first to settle.
#[derive(Default)]
pub(in crate::transport) struct TypeNumbers {
    /// Events of a type come together.
    last: Option<TypeNumber>,
    pub(in crate::transport) new: Vec<EventType>,
}

impl TypeNumbers {
    /// The number of a type, a new one if it has none.
    pub(in crate::transport) fn number(&mut self, known: &Types, name: &str) -> TypeNumber {
        if let Some(last) = self.last.filter(|last| known.name(*last) == name) {
            return last;
        }
        if let Some(number) = known.number(name) {
            self.last = Some(number);
            return number;
        }
        if let Some(new) = self.new.iter().find(|new| new.name == name) {
            return new.number;
        }
        let number = known.next(self.new.len());
        if number != OTHER_TYPES {
            self.new.push(EventType { number, name: name.to_owned() });
        }
        number
    }
}
