//! What the log says, by replaying it. [`State::apply`] is the only way to change it, live and at recovery alike.

mod subscription;

use std::collections::HashMap;

use bytes::Bytes;
use oncue_log::Lsn;

pub(crate) use self::subscription::{DeadEntry, Failing, SubscriptionState};
use super::{
    dedup::Dedup,
    feedback::Awaiting,
    lesson,
    missed::Missed,
    records::{
        Change, Dead, Dropped, EventType, Keyed, OTHER_TYPES, Retry, Settle, Source, Subscription, SubscriptionNumber,
        TypeNumber,
    },
};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    event::Envelope,
    filter::Learner,
    metrics::Ended,
    policy::{Attempts, Ranker},
    transport::SourceState,
};

/// Most event types that have a number of their own in a log; more have none: [`OTHER_TYPES`].
pub(super) const MAX_NUMBERED_TYPES: usize = 65_536;

/// Version of the checkpoint's layout.
const CHECKPOINT: u8 = 8;

/// The version before: no route was learned.
const CHECKPOINT_WITHOUT_ROUTES: u8 = 7;

/// The version before that: nothing waited for feedback, and no priority was learned.
const CHECKPOINT_WITHOUT_FEEDBACK: u8 = 6;

/// And before that: nothing was learned.
const CHECKPOINT_WITHOUT_LESSONS: u8 = 5;

/// And before that: it did not count attempts.
const CHECKPOINT_WITHOUT_ATTEMPTS: u8 = 4;

/// And before that: it did not know of events that were missed, either.
const CHECKPOINT_WITHOUT_MISSED: u8 = 3;

#[derive(Default)]
pub(crate) struct State {
    /// By number; one that was removed keeps its place.
    pub(crate) subscriptions: Vec<SubscriptionState>,
    by_id: HashMap<String, SubscriptionNumber>,
    types: Types,
    pub(crate) dedup: Dedup,
    sources: HashMap<String, SourceState>,
    /// The subscriptions that wait for feedback, by the types of events that are.
    feedback: HashMap<String, Vec<SubscriptionNumber>>,
}

/// The event types that were settled, by number.
#[derive(Default)]
pub(crate) struct Types {
    names: Vec<String>,
    by_name: HashMap<String, TypeNumber>,
}

impl Types {
    pub(crate) fn number(&self, name: &str) -> Option<TypeNumber> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, number: TypeNumber) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }

    /// The number of a type that is new, as one of several.
    pub(crate) fn next(&self, nth: usize) -> TypeNumber {
        let number = self.names.len() + nth;
        TypeNumber::try_from(number).ok().filter(|_| number < MAX_NUMBERED_TYPES).unwrap_or(OTHER_TYPES)
    }

    fn add(&mut self, event_type: &EventType) -> Result<(), Malformed> {
        if self.number(&event_type.name) == Some(event_type.number) {
            return Ok(());
        }
        if event_type.number as usize != self.names.len() {
            return Err(Malformed("an event type's number skips one"));
        }
        self.names.push(event_type.name.clone());
        self.by_name.insert(event_type.name.clone(), event_type.number);
        Ok(())
    }
}

impl State {
    pub(crate) fn find(&self, id: &str) -> Option<&SubscriptionState> {
        self.subscriptions.get(*self.by_id.get(id)? as usize)
    }

    /// Every subscription that was not removed.
    pub(crate) fn known(&self) -> impl Iterator<Item = &SubscriptionState> {
        self.subscriptions.iter().filter(|state| !state.removed)
    }

    pub(crate) fn types(&self) -> &Types {
        &self.types
    }

    pub(crate) fn source(&self, id: &str) -> SourceState {
        self.sources.get(id).cloned().unwrap_or_default()
    }

    /// The number that the next new subscription gets.
    pub(crate) fn next_number(&self) -> SubscriptionNumber {
        SubscriptionNumber::try_from(self.subscriptions.len()).unwrap_or(SubscriptionNumber::MAX)
    }

    fn subscription(&mut self, number: SubscriptionNumber) -> Result<&mut SubscriptionState, Malformed> {
        self.subscriptions.get_mut(number as usize).ok_or(Malformed("speaks of a subscription that was never made"))
    }

    /// Whether some subscription waits for feedback.
    pub(crate) fn waits_for_feedback(&self) -> bool {
        !self.feedback.is_empty()
    }

    /// An event was published: if it is feedback, those that wait for it are told. To be called for every event, in the
    /// order of the log, before the changes that stand behind it are applied.
    #[inline]
    pub(crate) fn published(&mut self, topic: u32, offset: u64, published: Timestamp, event: &Envelope) {
        if !self.feedback.is_empty() {
            self.tell_feedback(topic, offset, published, event);
        }
    }

    fn tell_feedback(&mut self, topic: u32, offset: u64, published: Timestamp, event: &Envelope) {
        for number in self.feedback.get(event.event_type()).into_iter().flatten() {
            let state = self.subscriptions.get_mut(*number as usize).filter(|state| state.about.topic == topic);
            if let Some(state) = state {
                state.tell(offset, published, event);
            }
        }
    }

    /// Finds who waits for which feedback.
    fn note_feedback(&mut self) {
        self.feedback.clear();
        for state in self.subscriptions.iter().filter(|state| !state.removed) {
            for event_type in state.about.told_by() {
                let waiting = self.feedback.entry(event_type.clone()).or_default();
                if waiting.last() != Some(&state.about.number) {
                    waiting.push(state.about.number);
                }
            }
        }
    }

    /// Applies one change, which is recorded at `lsn`.
    pub(crate) fn apply(&mut self, change: &Change, lsn: Lsn) -> Result<(), Malformed> {
        match change {
            Change::Settle(Settle { subscription, entries }) => {
                let state = self.subscription(*subscription)?;
                for ack in entries {
                    state.ack(ack);
                }
            }
            Change::Retry(retry) => self.retry(retry, lsn)?,
            Change::DeadLetter(Dead { about, .. }) => {
                let state = self.subscription(about.subscription)?;
                if let Some(last) = about.history.last().filter(|_| !about.copy) {
                    state.failed(about.offset, last);
                }
                state.failing.remove(&about.offset);
                state.missed.take_back(about.offset);
                let again = state.redriven.remove(&about.offset).is_some();
                state.dead.insert(about.offset, DeadEntry { lsn, hold: about.hold });
                if !about.hold {
                    state.settled.insert(about.offset);
                }
                if !about.copy {
                    state.record(about.event_type, &about.times.sample(Ended::Dead, again));
                }
            }
            Change::Keyed(Keyed { subscription, key, change }) => {
                self.subscription(*subscription)?.keyed.apply(key, change, lsn);
            }
            Change::EventType(event_type) => self.types.add(event_type)?,
            Change::Subscription(about) => self.subscribe(about)?,
            Change::Source(Source { id, place, accepted, duplicates }) => {
                let source = self.sources.entry(id.clone()).or_default();
                source.place.clone_from(place);
                source.accepted += accepted;
                source.duplicates += duplicates;
            }
            Change::Redrive(redrive) => {
                let state = self.subscription(redrive.about.subscription)?;
                state.dead.remove(&redrive.about.offset);
                state.redriven.insert(redrive.about.offset, lsn);
            }
            Change::Discard(discard) => {
                let state = self.subscription(discard.subscription)?;
                state.dead.remove(&discard.offset);
                state.settled.insert(discard.offset);
            }
            Change::Reset(reset) => self.subscription(reset.subscription)?.reset(reset.from),
            Change::Remove(remove) => {
                let state = self.subscription(remove.subscription)?;
                state.remove();
                let (id, told) = (state.about.id.clone(), state.about.told_by().next().is_some());
                self.by_id.remove(&id);
                if told {
                    self.note_feedback();
                }
            }
            Change::Window(window) => self.dedup.set_window(*window),
            Change::Dropped(dropped) => self.drop_events(dropped)?,
            Change::Lesson(lesson) => self.subscription(lesson.subscription)?.learn(lesson),
            Change::Service(service) => self.subscription(service.subscription)?.learn_service(service),
            Change::Trial(trial) => self.subscription(trial.subscription)?.learn_trial(trial),
            Change::Remember(remember) => {
                self.subscription(remember.subscription)?.remembered = Some(remember.what.clone());
            }
        }
        Ok(())
    }

    fn drop_events(&mut self, dropped: &Dropped) -> Result<(), Malformed> {
        for (subscription, offset) in &dropped.expired {
            let state = self.subscription(*subscription)?;
            if !state.settled.contains(*offset) {
                state.expire(*offset);
            }
        }
        for state in self.subscriptions.iter_mut().filter(|state| !state.removed && state.about.topic == dropped.topic)
        {
            state.go_on_at(dropped.first);
        }
        for gap in &dropped.missed {
            self.subscription(gap.subscription)?.missed.add(gap);
        }
        Ok(())
    }

    fn retry(&mut self, retry: &Retry, lsn: Lsn) -> Result<(), Malformed> {
        let state = self.subscription(retry.subscription)?;
        let trouble = match &retry.failed {
            Some(failed) => state.failed(retry.offset, failed),
            None => state.failing.get(&retry.offset).and_then(|failing| failing.trouble),
        };
        state.failing.insert(retry.offset, Failing { attempts: retry.attempts, due: retry.due, trouble, lsn });
        let ended = if retry.failed.is_some() { Ended::Retried } else { Ended::Deferred };
        let again = state.redriven.contains_key(&retry.offset);
        state.record(retry.event_type, &retry.times.sample(ended, again));
        Ok(())
    }

    fn subscribe(&mut self, about: &Subscription) -> Result<(), Malformed> {
        if let Some(known) = self.subscriptions.get_mut(about.number as usize) {
            if known.about.learns != about.learns {
                // What was learned before says nothing of it.
                (known.learner, known.awaiting) = (None, None);
            }
            if known.about.ranks != about.ranks {
                known.ranker = None;
            }
            if known.about.routes != about.routes {
                known.reroute(about.routes.as_deref());
            }
            let told = known.about.told_by().chain(about.told_by()).next().is_some();
            known.about = about.clone();
            if told {
                self.note_feedback();
            }
            return Ok(());
        }
        if about.number != self.next_number() {
            return Err(Malformed("a subscription's number skips one"));
        }
        self.by_id.insert(about.id.clone(), about.number);
        self.subscriptions.push(SubscriptionState::new(about.clone()));
        if about.told_by().next().is_some() {
            self.note_feedback();
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(CHECKPOINT);
        out.varint(self.types.names.len() as u64);
        for name in &self.types.names {
            out.bytes(name.as_bytes());
        }
        out.varint(self.subscriptions.len() as u64);
        for subscription in &self.subscriptions {
            subscription.encode(&mut out);
            subscription.missed.encode(&mut out);
            subscription.attempts.encode(&mut out);
            let learned = subscription.learner.as_deref().map(Learner::encode);
            out.bytes(&learned.unwrap_or_default());
            let mut waits = Writer::default();
            subscription.awaiting.iter().for_each(|awaiting| awaiting.encode(&mut waits));
            out.bytes(waits.as_slice());
            let mut ranks = Writer::default();
            subscription.ranker.iter().for_each(|ranker| ranker.encode(&mut ranks));
            out.bytes(ranks.as_slice());
            let mut routes = Writer::default();
            subscription.router.iter().for_each(|router| router.encode(&mut routes));
            out.bytes(routes.as_slice());
            let mut trials = Writer::default();
            subscription.trials.iter().for_each(|waiting| waiting.encode(&mut trials));
            out.bytes(trials.as_slice());
        }
        self.dedup.encode(&mut out);
        out.varint(self.sources.len() as u64);
        for (id, source) in &self.sources {
            out.bytes(id.as_bytes());
            out.bytes(source.place.as_bytes());
            out.varint(source.accepted);
            out.varint(source.duplicates);
        }
        out.into_bytes()
    }

    pub(crate) fn restore(&mut self, checkpoint: &[u8]) -> Result<(), Malformed> {
        let mut from = Reader::new(checkpoint);
        let version = from.u8()?;
        match version {
            CHECKPOINT_WITHOUT_MISSED..=CHECKPOINT => {}
            1 | 2 => return Err(Malformed("a version of Oncue before its first release wrote this checkpoint")),
            _ => return Err(Malformed("a newer Oncue wrote this checkpoint: open the log with that version")),
        }
        for number in 0..from.count(1)? {
            let number = TypeNumber::try_from(number).unwrap_or(TypeNumber::MAX);
            self.types.add(&EventType { number, name: from.text()?.to_owned() })?;
        }
        for number in 0..from.count(8)? {
            let counts = version > CHECKPOINT_WITHOUT_ATTEMPTS;
            let mut subscription = SubscriptionState::decode(&mut from, counts)?;
            if version > CHECKPOINT_WITHOUT_MISSED {
                subscription.missed = Missed::decode(&mut from)?;
            }
            if counts {
                subscription.attempts = Attempts::decode(&mut from)?;
            }
            if version > CHECKPOINT_WITHOUT_LESSONS {
                subscription.learner = lesson::restored(from.bytes()?)?;
            }
            if version > CHECKPOINT_WITHOUT_FEEDBACK {
                let waits = from.bytes()?;
                if !waits.is_empty() {
                    subscription.awaiting = Some(Box::new(Awaiting::decode(&mut Reader::new(waits))?));
                }
                let ranks = from.bytes()?;
                if !ranks.is_empty() {
                    subscription.ranker = Some(Box::new(Ranker::decode(&mut Reader::new(ranks))?));
                }
            }
            if version > CHECKPOINT_WITHOUT_ROUTES {
                subscription.restore_route(from.bytes()?, from.bytes()?)?;
            }
            if subscription.about.number as usize != number {
                return Err(Malformed("subscriptions are out of order"));
            }
            if !subscription.removed {
                self.by_id.insert(subscription.about.id.clone(), subscription.about.number);
            }
            self.subscriptions.push(subscription);
        }
        self.dedup = Dedup::decode(&mut from)?;
        for _ in 0..from.count(4)? {
            let id = from.text()?.to_owned();
            let place = from.text()?.to_owned();
            let state = SourceState { place, accepted: from.varint()?, duplicates: from.varint()? };
            self.sources.insert(id, state);
        }
        self.note_feedback();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
