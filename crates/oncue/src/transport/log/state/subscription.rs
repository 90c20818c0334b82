//! What the log says of one subscription.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use oncue_log::Lsn;

use super::super::{
    feedback::{Awaiting, Labelled},
    keyed::KeyedStates,
    lesson::Lost,
    missed::{Gap, MAX_RANGES, Missed},
    offsets::{OffsetSet, Stride},
    records::{Ack, End, Lesson, OTHER_TYPES, Service, Subscription, Trial, TypeNumber},
    trial::Worked,
};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    event::Envelope,
    filter::{Features, Feedback, Learner, Loss},
    metrics::{Ended, HandlerStats, Sample},
    policy::{Attempts, LearnedRoute, Ranker, RouteAsked, Routed, Router, Tried, Trouble},
    transport::{FailedAttempt, RouteChoice},
};

/// Events that were passed by unhandled (skipped or expired) that are told apart from handled ones: the newest.
const MAX_UNHANDLED: usize = 10_000;

/// Event types whose times are kept apart; those beyond share one more entry, `(other)`.
pub(super) const MAX_TYPES: usize = 1_024;

/// One handler's durable registration.
pub(crate) struct SubscriptionState {
    pub(crate) about: Subscription,
    /// It was removed; only its number is left.
    pub(crate) removed: bool,
    /// Offsets that it is through with, or does not want.
    pub(crate) settled: OffsetSet,
    /// Events that failed and will be tried again.
    pub(crate) failing: BTreeMap<u64, Failing>,
    /// Dead letters, by offset.
    pub(crate) dead: BTreeMap<u64, DeadEntry>,
    /// Dead letters that are handled again, by offset: the record that holds the event.
    pub(crate) redriven: BTreeMap<u64, Lsn>,
    /// The newest events that were passed by unhandled.
    unhandled: BTreeSet<(u64, bool)>,
    pub(crate) keyed: KeyedStates,
    /// Events whose time to live was over.
    expired: u64,
    pub(crate) by_type: BTreeMap<TypeNumber, HandlerStats>,
    /// Its attempts, counted.
    pub(crate) attempts: Attempts,
    /// What was learned of its events' ends; nothing before there was a lesson.
    pub(crate) learner: Option<Box<Learner>>,
    /// Events that wait for feedback; nothing before one did.
    pub(crate) awaiting: Option<Box<Awaiting>>,
    /// What was learned of how urgent its events are; nothing before one was handled.
    pub(crate) ranker: Option<Box<Ranker>>,
    /// What was learned of the handlers of its route; nothing before one was tried.
    pub(crate) router: Option<Box<Router>>,
    /// First attempts that wait for feedback; nothing before one did.
    pub(crate) trials: Option<Box<Awaiting<Routed>>>,
    /// What its topic dropped before it was through with it.
    pub(crate) missed: Missed,
    /// What is to be remembered about it.
    pub(crate) remembered: Option<Bytes>,
}

/// An event that failed and will be tried again: constant in size, the history is a chain of records in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) attempts: u32,
    pub(crate) due: Timestamp,
    /// What the next attempt is compared with; none if only the handler put it off.
    pub(crate) trouble: Option<Trouble>,
    /// The record of the last attempt.
    pub(crate) lsn: Lsn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadEntry {
    /// The dead letter's record.
    pub(crate) lsn: Lsn,
    /// Later events of its key wait.
    pub(crate) hold: bool,
}

impl SubscriptionState {
    pub(super) fn new(about: Subscription) -> Self {
        Self {
            removed: false,
            settled: OffsetSet::up_to(about.from),
            failing: BTreeMap::new(),
            dead: BTreeMap::new(),
            redriven: BTreeMap::new(),
            unhandled: BTreeSet::new(),
            keyed: KeyedStates::default(),
            expired: 0,
            by_type: BTreeMap::new(),
            attempts: Attempts::default(),
            learner: None,
            awaiting: None,
            ranker: None,
            router: None,
            trials: None,
            missed: Missed::default(),
            remembered: None,
            about,
        }
    }

    /// Events below an offset that it is not through with, those that are handled again included. Offsets of the stride may
    /// be events, others are none.
    pub(crate) fn unsettled_below(&self, next: u64, stride: Stride) -> u64 {
        let again = self.redriven.keys().filter(|offset| self.settled.contains(**offset)).count();
        self.settled.missing_below(next, stride) + again as u64
    }

    pub(super) fn ack(&mut self, ack: &Ack) {
        let again = self.redriven.remove(&ack.offset).is_some();
        let late = self.missed.take_back(ack.offset);
        if !self.settled.insert(ack.offset) && !again && !late {
            return;
        }
        let failing = self.failing.remove(&ack.offset);
        match ack.end {
            End::Acked => {
                let tried = Tried { number: ack.attempts, read: ack.times.read, ended: ack.times.ended };
                self.attempts.worked(tried, failing.and_then(|failing| failing.trouble).as_ref());
                self.record(ack.event_type, &ack.times.sample(Ended::Acked, again));
            }
            End::Skipped => self.unhandled(ack.offset, false),
            End::Expired => {
                self.unhandled(ack.offset, true);
                self.expired = self.expired.saturating_add(1);
            }
        }
    }

    /// An attempt failed; gives the trouble that the event is in.
    pub(super) fn failed(&mut self, offset: u64, attempt: &FailedAttempt) -> Option<Trouble> {
        let before = self.failing.get(&offset).and_then(|failing| failing.trouble);
        let tried = Tried { number: attempt.number, read: attempt.read, ended: attempt.ended };
        self.attempts.failed(tried, attempt.class, before.as_ref())
    }

    /// An event's time to live is over, or it is of no interest: it is passed by. Nothing is written of it: after a
    /// crash the same is found again.
    pub(crate) fn expire(&mut self, offset: u64) {
        self.redriven.remove(&offset);
        self.pass_by(offset);
        self.unhandled(offset, true);
        self.expired = self.expired.saturating_add(1);
    }

    /// An event is not wanted, or not any more: it is passed by, as one that is too late is.
    pub(crate) fn pass_by(&mut self, offset: u64) {
        self.failing.remove(&offset);
        self.settled.insert(offset);
    }

    pub(super) fn learn(&mut self, lesson: &Lesson) {
        match lesson.lost {
            Lost::Known(lost) => self.learn_one(&lesson.features, Some(lost)),
            Lost::Unknown => self.learn_one(&lesson.features, None),
            Lost::Waits(waits) => {
                let Self { about, awaiting, .. } = self;
                let Some(rules) = about.feedback() else { return };
                let awaiting = awaiting.get_or_insert_default();
                let labelled = awaiting.wait(rules, lesson.offset, waits, lesson.features.clone());
                self.learn_labelled(labelled);
            }
        }
    }

    /// An event was published that is feedback.
    pub(super) fn tell(&mut self, offset: u64, published: Timestamp, event: &Envelope) {
        let Some(key) = event.key_hash() else { return };
        let is_told = |feedback: &Feedback| feedback.types().iter().any(|known| known == event.event_type());
        if self.about.feedback().is_some_and(is_told) {
            let labelled = self.awaiting.get_or_insert_default().tell(key, offset, published);
            self.learn_labelled(labelled);
        }
        if self.about.route_feedback().is_some_and(is_told) {
            let labelled = self.trials.get_or_insert_default().tell(key, offset, published);
            self.learn_routed(labelled);
        }
    }

    /// A handler of its route was tried.
    pub(super) fn learn_trial(&mut self, trial: &Trial) {
        match trial.worked {
            Worked::Known(worked) => self.learn_route(&trial.routed, worked),
            Worked::Waits(waits) => {
                let Self { about, trials, .. } = self;
                let Some(rules) = about.route_feedback() else { return };
                let labelled = trials.get_or_insert_default().wait(rules, trial.offset, waits, trial.routed.clone());
                self.learn_routed(labelled);
            }
        }
    }

    fn learn_routed(&mut self, labelled: Vec<Labelled<Routed>>) {
        for (routed, came) in labelled {
            // Of which nobody knows what became of them, nothing is learned.
            let lost = came.and_then(|came| Some(self.about.route_feedback()?.lost(came)));
            if let Some(lost) = lost {
                self.learn_route(&routed, !lost);
            }
        }
    }

    fn learn_route(&mut self, routed: &Routed, worked: bool) {
        let Self { about, router, .. } = self;
        let Some(rules) = about.routes.as_deref() else { return };
        if router.is_none() {
            *router = Router::new(rules).map(Box::new);
        }
        if let Some(router) = router {
            router.learn(routed, rules.reward(worked, routed.micros as f64 / 1e6));
        }
    }

    /// Its route learns by other rules from now on. What the same is learned of goes on; what waits for feedback was chosen
    /// among the handlers of before.
    pub(super) fn reroute(&mut self, rules: Option<&LearnedRoute>) {
        let Self { about, router, trials, .. } = self;
        let before = about.routes.as_deref();
        let same = rules.filter(|rules| before.is_some_and(|before| before.learns_the_same(rules)));
        if same.map(LearnedRoute::arms) != before.map(LearnedRoute::arms) {
            *trials = None;
        }
        *router = same.and_then(|rules| router.as_ref()?.follow(rules)).map(Box::new);
    }

    /// Which of the handlers of its route is called.
    pub(crate) fn route(&self, asked: &RouteAsked<'_>) -> Option<RouteChoice> {
        let rules = self.about.routes.as_deref()?;
        let choice = match &self.router {
            Some(router) => router.choose(asked),
            None => Router::new(rules)?.choose(asked),
        };
        choice.map(RouteChoice::from)
    }

    /// What a checkpoint says of its route: what was learned, and what waits for feedback; empty: nothing.
    pub(super) fn restore_route(&mut self, router: &[u8], trials: &[u8]) -> Result<(), Malformed> {
        if !router.is_empty() {
            self.router = Router::decode(&mut Reader::new(router))?.map(Box::new);
        }
        if !trials.is_empty() {
            self.trials = Some(Box::new(Awaiting::decode(&mut Reader::new(trials))?));
        }
        Ok(())
    }

    fn learn_labelled(&mut self, labelled: Vec<Labelled<Features>>) {
        for (features, came) in labelled {
            let lost = came.and_then(|came| Some(self.about.feedback()?.lost(came)));
            self.learn_one(&features, lost);
        }
    }

    pub(super) fn learn_service(&mut self, service: &Service) {
        let ranker = self.ranker.get_or_insert_default();
        ranker.learn(service.cost, &service.features, service.seconds(), service.priority);
    }

    /// The priority of an event that it takes, where priorities are learned: before enough was, what the event says itself.
    pub(crate) fn learned_priority(&self, event: &Envelope) -> Option<u8> {
        let rules = self.about.ranks.as_ref().filter(|_| self.about.wants(event))?;
        let ranker = self.ranker.as_ref();
        let learned =
            ranker.and_then(|ranker| ranker.priority(rules.cost_of_waiting(event), &rules.features_of(event)));
        Some(learned.unwrap_or_else(|| event.priority()))
    }

    /// Nothing: nobody knows.
    fn learn_one(&mut self, features: &Features, lost: Option<bool>) {
        let learner = self.learner.get_or_insert_with(|| Box::new(Learner::new(Loss::Logistic)));
        match lost {
            Some(lost) => {
                // It refuses labels that are none, and 0 and 1 are some.
                let _ = learner.learn(features, f64::from(u8::from(lost)));
            }
            None => learner.pass_by(features),
        }
    }

    pub(super) fn record(&mut self, event_type: TypeNumber, sample: &Sample) {
        let room = self.by_type.len() < MAX_TYPES;
        if let Some(known) = self.by_type.get_mut(&event_type) {
            known.record(sample);
            return;
        }
        let shared = if room { event_type } else { OTHER_TYPES };
        self.by_type.entry(shared).or_default().record(sample);
    }

    /// Of all types together.
    pub(crate) fn stats(&self) -> HandlerStats {
        let mut all = HandlerStats::default();
        self.by_type.values().for_each(|of_type| all.merge(of_type));
        all.expired = self.expired;
        all
    }

    /// Dead letters that it ever had.
    pub(crate) fn dead_ever(&self) -> u64 {
        self.by_type.values().map(|of_type| of_type.dead).sum()
    }

    fn unhandled(&mut self, offset: u64, expired: bool) {
        self.unhandled.insert((offset, expired));
        if self.unhandled.len() > MAX_UNHANDLED {
            self.unhandled.pop_first();
        }
    }

    /// How it came through with an event that is settled and no dead letter.
    pub(crate) fn end_of(&self, offset: u64) -> End {
        match self.unhandled.range((offset, false)..=(offset, true)).next() {
            None => End::Acked,
            Some((_, false)) => End::Skipped,
            Some((_, true)) => End::Expired,
        }
    }

    /// Events of a range of offsets whose time to live was over, of the newest that were passed by unhandled.
    pub(crate) fn expired(&self, offsets: Range<u64>) -> impl Iterator<Item = u64> {
        let known = self.unhandled.range((offsets.start, false)..(offsets.end, false));
        known.filter(|(_, expired)| *expired).map(|(offset, _)| *offset)
    }

    /// The events of its topic below an offset that it is not through with and that no copy is kept of.
    pub(crate) fn would_miss(&self, first: u64) -> Gap {
        let mut gap = Gap { subscription: self.about.number, events: 0, ranges: Vec::new() };
        let mut add = |from: u64, to: u64| {
            gap.events += to.saturating_sub(from);
            if from < to {
                gap.ranges.push((from, to));
            }
        };
        for Range { start, end } in self.settled.missing(first) {
            let mut from = start;
            let copies = self.dead.range(start..end).map(|(offset, _)| *offset);
            let mut copies: Vec<u64> =
                copies.chain(self.redriven.range(start..end).map(|(offset, _)| *offset)).collect();
            copies.sort_unstable();
            for copied in copies {
                add(from, copied);
                from = copied + 1;
            }
            add(from, end);
        }
        gap.ranges.drain(..gap.ranges.len().saturating_sub(MAX_RANGES));
        gap
    }

    /// Goes on at an offset: what lies below is not kept. What is kept of it are dead letters, and those that are handled
    /// again, which are copies.
    pub(super) fn go_on_at(&mut self, first: u64) {
        self.settled.raise(first);
        let again = &self.redriven;
        self.failing.retain(|offset, _| *offset >= first || again.contains_key(offset));
    }

    pub(super) fn reset(&mut self, from: u64) {
        self.about.from = from;
        self.settled = OffsetSet::up_to(from);
        self.failing.clear();
        self.dead.clear();
        self.redriven.clear();
        self.unhandled.clear();
        self.missed = Missed::default();
    }

    pub(super) fn remove(&mut self) {
        *self = Self { removed: true, ..Self::new(self.about.clone()) };
        self.about.types.clear();
        self.about.filter = None;
        // Nothing of it holds anything back.
        self.settled = OffsetSet::up_to(u64::MAX);
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u8(u8::from(self.removed));
        // Its describing part is JSON, as in its record.
        out.bytes(&serde_json::to_vec(&self.about).unwrap_or_default());
        self.settled.encode(out);
        out.varint(self.failing.len() as u64);
        for (offset, failing) in &self.failing {
            out.varint(*offset);
            out.varint(u64::from(failing.attempts));
            out.signed(failing.due.as_micros());
            out.varint(failing.lsn);
            Trouble::encode(failing.trouble.as_ref(), out);
        }
        out.varint(self.dead.len() as u64);
        for (offset, dead) in &self.dead {
            out.varint(*offset);
            out.varint(dead.lsn);
            out.u8(u8::from(dead.hold));
        }
        out.varint(self.redriven.len() as u64);
        for (offset, lsn) in &self.redriven {
            out.varint(*offset);
            out.varint(*lsn);
        }
        out.varint(self.unhandled.len() as u64);
        for (offset, expired) in &self.unhandled {
            out.varint(*offset);
            out.u8(u8::from(*expired));
        }
        self.keyed.encode(out);
        self.stats().encode(out);
        out.varint(self.by_type.len() as u64);
        for (event_type, stats) in &self.by_type {
            out.varint(u64::from(*event_type));
            stats.encode(out);
        }
        out.u8(u8::from(self.remembered.is_some()));
        if let Some(remembered) = &self.remembered {
            out.bytes(remembered);
        }
    }

    /// `counts`: of a version that counts attempts.
    pub(super) fn decode(from: &mut Reader<'_>, counts: bool) -> Result<Self, Malformed> {
        let removed = from.u8()? != 0;
        let about = serde_json::from_slice(from.bytes()?).map_err(|_| Malformed("a subscription is not readable"))?;
        let mut state = Self { removed, ..Self::new(about) };
        state.settled = OffsetSet::decode(from)?;
        for _ in 0..from.count(4)? {
            let offset = from.varint()?;
            let attempts = from.small()?;
            let due = Timestamp::from_micros(from.signed()?);
            let lsn = from.varint()?;
            let trouble = if counts { Trouble::decode(from)? } else { None };
            state.failing.insert(offset, Failing { attempts, due, trouble, lsn });
        }
        for _ in 0..from.count(3)? {
            let offset = from.varint()?;
            state.dead.insert(offset, DeadEntry { lsn: from.varint()?, hold: from.u8()? != 0 });
        }
        for _ in 0..from.count(2)? {
            state.redriven.insert(from.varint()?, from.varint()?);
        }
        for _ in 0..from.count(2)? {
            state.unhandled.insert((from.varint()?, from.u8()? != 0));
        }
        state.keyed = KeyedStates::decode(from)?;
        state.expired = HandlerStats::decode(from)?.expired;
        for _ in 0..from.count(2)? {
            state.by_type.insert(from.small()?, HandlerStats::decode(from)?);
        }
        if from.u8()? != 0 {
            state.remembered = Some(Bytes::copy_from_slice(from.bytes()?));
        }
        Ok(state)
    }
}
