//! What the log says, by replaying it. [`State::apply`] is the only way to change it, live and at recovery alike.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use oncue_log::Lsn;

use super::{
    dedup::Dedup,
    keyed::KeyedStates,
    offsets::OffsetSet,
    records::{Ack, Change, Dead, Keyed, Retry, Settle, Source, Subscription, SubscriptionNumber},
};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    metrics::{Ended, HandlerStats},
    transport::SourceState,
};

/// Version of the checkpoint's layout.
const CHECKPOINT: u8 = 1;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) subscriptions: Vec<SubscriptionState>,
    by_id: HashMap<String, SubscriptionNumber>,
    pub(crate) dedup: Dedup,
    sources: HashMap<String, SourceState>,
}

/// One handler's durable registration.
pub(crate) struct SubscriptionState {
    pub(crate) about: Subscription,
    /// Offsets that it is through with, or does not want.
    pub(crate) settled: OffsetSet,
    /// Events that failed and will be tried again.
    pub(crate) failing: BTreeMap<u64, Failing>,
    /// Dead letters, by offset.
    pub(crate) dead: BTreeMap<u64, DeadEntry>,
    pub(crate) keyed: KeyedStates,
    pub(crate) stats: HandlerStats,
}

/// An event that failed and will be tried again: constant in size, the history is a chain of records in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) attempts: u32,
    pub(crate) due: Timestamp,
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

impl State {
    pub(crate) fn find(&self, id: &str) -> Option<&SubscriptionState> {
        self.subscriptions.get(*self.by_id.get(id)? as usize)
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

    /// Applies one change, which is recorded at `lsn`.
    pub(crate) fn apply(&mut self, change: &Change, lsn: Lsn) -> Result<(), Malformed> {
        match change {
            Change::Settle(Settle { subscription, entries }) => {
                let state = self.subscription(*subscription)?;
                for ack in entries {
                    state.ack(ack);
                }
            }
            Change::Retry(Retry { subscription, offset, attempts, due, failed, times, .. }) => {
                let state = self.subscription(*subscription)?;
                state.failing.insert(*offset, Failing { attempts: *attempts, due: *due, lsn });
                let ended = if failed.is_some() { Ended::Retried } else { Ended::Deferred };
                state.stats.record(&times.sample(ended));
            }
            Change::DeadLetter(Dead { about, .. }) => {
                let state = self.subscription(about.subscription)?;
                state.failing.remove(&about.offset);
                state.dead.insert(about.offset, DeadEntry { lsn, hold: about.hold });
                if !about.hold {
                    state.settled.insert(about.offset);
                }
                if !about.copy {
                    state.stats.record(&about.times.sample(Ended::Dead));
                }
            }
            Change::Keyed(Keyed { subscription, key, change }) => {
                self.subscription(*subscription)?.keyed.apply(key, change, lsn);
            }
            Change::Subscription(about) => self.subscribe(about)?,
            Change::Source(Source { id, place, accepted, duplicates }) => {
                let source = self.sources.entry(id.clone()).or_default();
                source.place.clone_from(place);
                source.accepted += accepted;
                source.duplicates += duplicates;
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, about: &Subscription) -> Result<(), Malformed> {
        if let Some(known) = self.subscriptions.get_mut(about.number as usize) {
            known.about = about.clone();
            return Ok(());
        }
        if about.number != self.next_number() {
            return Err(Malformed("a subscription's number skips one"));
        }
        self.by_id.insert(about.id.clone(), about.number);
        self.subscriptions.push(SubscriptionState {
            about: about.clone(),
            settled: OffsetSet::up_to(about.from),
            failing: BTreeMap::new(),
            dead: BTreeMap::new(),
            keyed: KeyedStates::default(),
            stats: HandlerStats::default(),
        });
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(CHECKPOINT);
        out.varint(self.subscriptions.len() as u64);
        for subscription in &self.subscriptions {
            subscription.encode(&mut out);
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
        if from.u8()? != CHECKPOINT {
            return Err(Malformed("a newer Oncue wrote this checkpoint: open the log with that version"));
        }
        for number in 0..from.count(8)? {
            let subscription = SubscriptionState::decode(&mut from)?;
            self.by_id.insert(subscription.about.id.clone(), subscription.about.number);
            if subscription.about.number as usize != number {
                return Err(Malformed("subscriptions are out of order"));
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
        Ok(())
    }
}

impl SubscriptionState {
    fn ack(&mut self, ack: &Ack) {
        if !self.settled.insert(ack.offset) {
            return;
        }
        self.failing.remove(&ack.offset);
        if ack.attempts > 0 {
            self.stats.record(&ack.times.sample(Ended::Acked));
        }
    }

    fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.about.number));
        out.bytes(self.about.id.as_bytes());
        out.varint(u64::from(self.about.topic));
        out.varint(self.about.types.len() as u64);
        for event_type in &self.about.types {
            out.bytes(event_type.as_bytes());
        }
        out.varint(self.about.from);
        self.settled.encode(out);
        out.varint(self.failing.len() as u64);
        for (offset, failing) in &self.failing {
            out.varint(*offset);
            out.varint(u64::from(failing.attempts));
            out.signed(failing.due.as_micros());
            out.varint(failing.lsn);
        }
        out.varint(self.dead.len() as u64);
        for (offset, dead) in &self.dead {
            out.varint(*offset);
            out.varint(dead.lsn);
            out.u8(u8::from(dead.hold));
        }
        self.keyed.encode(out);
        self.stats.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = from.small()?;
        let id = from.text()?.to_owned();
        let topic = from.small()?;
        let types = (0..from.count(1)?).map(|_| from.text().map(str::to_owned)).collect::<Result<_, _>>()?;
        let about = Subscription { number, id, topic, types, from: from.varint()? };
        let settled = OffsetSet::decode(from)?;
        let mut failing = BTreeMap::new();
        for _ in 0..from.count(4)? {
            let offset = from.varint()?;
            let attempts = from.small()?;
            let due = Timestamp::from_micros(from.signed()?);
            failing.insert(offset, Failing { attempts, due, lsn: from.varint()? });
        }
        let mut dead = BTreeMap::new();
        for _ in 0..from.count(3)? {
            let offset = from.varint()?;
            dead.insert(offset, DeadEntry { lsn: from.varint()?, hold: from.u8()? != 0 });
        }
        let keyed = KeyedStates::decode(from)?;
        let stats = HandlerStats::decode(from)?;
        Ok(Self { about, settled, failing, dead, keyed, stats })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::records::Times, *};
    use crate::transport::StateChange;

    fn times() -> Times {
        let time = Timestamp::from_micros(1);
        Times { generated: None, published: time, read: time, ended: time }
    }

    fn subscription(number: u32, id: &str) -> Change {
        let types = vec!["a".to_owned()];
        Change::Subscription(Subscription { number, id: id.to_owned(), topic: 1, types, from: 3 })
    }

    fn ack(subscription: u32, offset: u64) -> Change {
        let ack = Ack { offset, attempts: 1, times: times() };
        Change::Settle(Settle { subscription, entries: vec![ack] })
    }

    #[test]
    fn a_checkpoint_restores_all_of_it() {
        let mut state = State::default();
        let retry = Retry {
            subscription: 0,
            offset: 5,
            attempts: 2,
            due: Timestamp::from_micros(77),
            times: times(),
            failed: None,
            previous: None,
        };
        let keyed = Keyed { subscription: 0, key: "k".into(), change: StateChange::Set(Bytes::from_static(b"v")) };
        let source = Source { id: "s".into(), place: "12".into(), accepted: 3, duplicates: 1 };
        let changes = [
            subscription(0, "one"),
            subscription(1, "two"),
            ack(0, 3),
            ack(0, 9),
            Change::Retry(retry),
            Change::Keyed(keyed),
            Change::Source(source),
        ];
        for (lsn, change) in changes.iter().enumerate() {
            state.apply(change, lsn as u64).unwrap();
        }
        let mut restored = State::default();
        restored.restore(&state.checkpoint()).unwrap();
        let one = restored.find("one").unwrap();
        assert_eq!((one.settled.low(), one.settled.contains(9), one.stats.acked), (4, true, 2));
        assert_eq!(one.failing[&5], Failing { attempts: 2, due: Timestamp::from_micros(77), lsn: 4 });
        assert!(one.keyed.get("k").is_some());
        assert_eq!(restored.source("s").accepted, 3);
        assert_eq!(restored.next_number(), 2);
        assert_eq!(restored.checkpoint(), state.checkpoint());
    }

    #[test]
    fn settling_twice_changes_nothing() {
        let mut state = State::default();
        for change in [subscription(0, "one"), ack(0, 3), ack(0, 3)] {
            state.apply(&change, 0).unwrap();
        }
        assert_eq!(state.find("one").unwrap().stats.acked, 1);
    }

    #[test]
    fn records_that_do_not_fit_are_refused() {
        let mut state = State::default();
        assert!(state.apply(&ack(0, 1), 0).is_err());
        assert!(state.apply(&subscription(1, "skips"), 0).is_err());
    }
}
