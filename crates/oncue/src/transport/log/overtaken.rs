//! When a topic drops events that a subscription was not through with: it goes on at the first that is kept, and knows how many
//! it missed. `docs/delivery.md` says what that means for users.

use std::{
    collections::HashSet,
    sync::{Arc, Weak, atomic::Ordering},
};

use oncue_log::{AppendError, Cursor, ReadError, Record, TopicId};

use super::{
    Inner, Shared,
    consumer::Core,
    missed::Gap,
    reading::LogHand,
    records::{Change, Dropped, SubscriptionNumber},
};

/// Most ranges that one record tells, of all subscriptions together.
const MOST_RANGES: usize = 100_000;

impl Inner {
    /// Writes down that a topic keeps nothing below `first`, and who misses something by that; the log itself is told
    /// after. Gives those whose consumers have to forget what waited.
    pub(super) fn go_on_at(
        &self,
        shared: &mut Shared,
        topic: TopicId,
        first: u64,
    ) -> Result<Vec<Arc<Core>>, AppendError> {
        let of_topic = || shared.state.known().filter(|state| state.about.topic == topic.0);
        let mut missed: Vec<Gap> =
            of_topic().map(|state| state.would_miss(first)).filter(|gap| gap.events > 0).collect();
        let most = MOST_RANGES / missed.len().max(1);
        for gap in &mut missed {
            gap.ranges.drain(..gap.ranges.len().saturating_sub(most));
        }
        let numbers: Vec<SubscriptionNumber> = of_topic().map(|state| state.about.number).collect();
        let kept = self.offsets(topic).0.min(first);
        let of_each =
            of_topic().flat_map(|state| state.expired(kept..first).map(|offset| (state.about.number, offset)));
        let dropped = Change::Dropped(Dropped { topic: topic.0, first, missed, expired: of_each.collect() });
        self.try_append(shared, &dropped)?;
        let Change::Dropped(Dropped { missed, .. }) = dropped else { return Ok(Vec::new()) };
        for gap in &missed {
            let id = &shared.state.subscriptions[gap.subscription as usize].about.id;
            tracing::warn!(subscription = %id, missed = gap.events, first_kept = first,
                "retention dropped events that a subscription was not through with: it goes on at the first that is kept");
            let events = gap.ranges.iter().flat_map(|(from, to)| *from..*to);
            let number = gap.subscription;
            if !shared.waiting.is_empty() {
                events.for_each(|offset| shared.tell((number, offset)));
            }
        }
        // Before the log answers that they are gone, it is known why.
        let cores: Vec<Arc<Core>> =
            numbers.iter().filter_map(|number| shared.attached.get(number)).filter_map(Weak::upgrade).collect();
        for core in &cores {
            core.first_kept.fetch_max(first, Ordering::AcqRel);
        }
        Ok(cores)
    }

    /// A subscription that stands before the first event of its topic is told what it missed, whatever dropped that.
    pub(super) fn note_gaps(&self, topic: TopicId) -> Result<(), AppendError> {
        let (first, _) = self.offsets(topic);
        let mut shared = self.shared.lock();
        let stands_before =
            |state: &super::state::SubscriptionState| state.about.topic == topic.0 && state.settled.low() < first;
        if !shared.state.known().any(stands_before) {
            return Ok(());
        }
        let cores = self.go_on_at(&mut shared, topic, first)?;
        drop(shared);
        wake(&cores);
        Ok(())
    }

    /// Reads on in a topic; where the next events were dropped, from the first one on that is kept.
    pub(super) fn read_kept(
        &self,
        cursor: &mut Cursor,
        (most, most_bytes): (usize, usize),
        out: &mut Vec<Record>,
    ) -> Result<usize, ReadError> {
        loop {
            match self.log.read(cursor, most, most_bytes, out) {
                Err(gone @ ReadError::Trimmed { .. }) => {
                    let (first, _) = self.offsets(cursor.topic());
                    if first <= cursor.offset() {
                        return Err(gone);
                    }
                    *cursor = self.log.cursor(cursor.topic(), first);
                }
                read => return read,
            }
        }
    }
}

/// Whoever waits for events looks again.
pub(super) fn wake(cores: &[Arc<Core>]) {
    cores.iter().for_each(|core| core.hand.lock().wake());
}

impl Core {
    /// Whether the topic dropped an event.
    pub(super) fn is_dropped(&self, offset: u64) -> bool {
        offset < self.first_kept.load(Ordering::Acquire)
    }

    /// Forgets what waited and was dropped since it was looked at last.
    pub(super) fn forget_dropped(&self, hand: &mut LogHand) {
        let first = self.first_kept.load(Ordering::Acquire);
        if hand.reading.first_kept >= first {
            return;
        }
        hand.reading.first_kept = first;
        let copies: HashSet<u64> = {
            let shared = self.inner.shared.lock();
            let states = self.numbers.iter().map(|number| &shared.state.subscriptions[*number as usize]);
            let copies = states.flat_map(|state| {
                state
                    .dead
                    .range(..first)
                    .map(|(offset, _)| *offset)
                    .chain(state.redriven.range(..first).map(|(offset, _)| *offset))
            });
            copies.collect()
        };
        hand.forget_below(first, &copies);
        let skipped = |cursor: &Cursor| cursor.offset() < first;
        if skipped(&hand.reading.cursor) {
            hand.reading.cursor = self.inner.log.cursor(self.topic.id, first);
        }
        if let Some((cursor, _)) = hand.reading.search.as_mut().filter(|(cursor, _)| skipped(cursor)) {
            *cursor = self.inner.log.cursor(self.topic.id, first);
        }
        hand.reading.again = None;
    }

    /// Keys that dead letters hold whose events the topic dropped: nothing that is read tells of them.
    pub(super) fn hold_keys(&self, hand: &mut LogHand) {
        let held: Vec<(u64, u64)> = {
            let shared = self.inner.shared.lock();
            let states = self.numbers.iter().map(|number| &shared.state.subscriptions[*number as usize]);
            let held = states.flat_map(|state| {
                let below = state.dead.range(..state.settled.low());
                below.filter(|(_, dead)| dead.hold).map(|(offset, dead)| (*offset, dead.lsn))
            });
            held.collect()
        };
        for (offset, lsn) in held {
            match self.inner.dead_record(lsn) {
                Ok(dead) => hand.park(dead.envelope.key_hash(), offset),
                Err(error) => tracing::error!(%error, offset, "a dead letter cannot be read: its key is not held"),
            }
        }
    }
}
