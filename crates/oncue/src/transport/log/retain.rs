//! Retention: `settled` drops what every subscription of a topic is through with; `forever` keeps all.
//!
//! Segments go as a whole, oldest first. What is still wanted from them (the newest value of a key, a dead letter) is
//! written again at the end before; positions of events do not change.

use std::sync::Arc;

use oncue_log::{Lsn, TopicId};

use super::{Inner, Shared, records::Change, records::Keyed};
use crate::{
    event::is_reply_topic,
    transport::{InspectError, PublishError, StateChange},
};

/// What a log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Everything. The default of `file:`.
    Forever,
    /// Events that a subscription of their topic is not through with. A topic without subscriptions keeps all: one may
    /// come and begin at the earliest; but a topic of replies keeps what is to be read by those who wait for them. The
    /// default of `memory:`.
    Settled,
}

impl Inner {
    /// Drops what may go, after a checkpoint.
    pub(super) fn trim(&self, shared: &mut Shared) {
        if self.url.retention == Retention::Forever {
            return;
        }
        let trimmed = self.drop_rewritten(shared).and_then(|()| {
            let before = self.lowest_wanted(shared)?;
            self.rewrite(shared, before)?;
            shared.rewritten = Some((before, shared.end));
            self.drop_rewritten(shared)
        });
        if let Err(error) = trimmed {
            tracing::warn!(%error, "nothing was dropped from the log");
        }
    }

    /// Drops what was written again, once the copies are durable: a crash before that would lose both.
    fn drop_rewritten(&self, shared: &mut Shared) -> Result<(), InspectError> {
        if let Some((before, _)) = shared.rewritten.filter(|(_, end)| *end <= self.log.durable()) {
            self.log.trim(before).map_err(|error| InspectError::Storage(error.to_string()))?;
        }
        Ok(())
    }

    /// The record of the first event that somebody still wants.
    fn lowest_wanted(&self, shared: &Shared) -> Result<Lsn, InspectError> {
        let mut lowest = self.log.durable();
        for topic in self.log.topics() {
            let low = |state: &super::state::SubscriptionState| state.settled.low();
            let of_topic = shared.state.known().filter(|state| TopicId(state.about.topic) == topic.id);
            let wanted = of_topic.map(low).min().unwrap_or_else(|| {
                let replies = is_reply_topic(&topic.name);
                if replies { self.tails.lowest(topic.id).unwrap_or(topic.next_offset) } else { topic.first_offset }
            });
            let first = self.first_record(topic.id, wanted.max(topic.first_offset))?;
            lowest = lowest.min(first.map_or(lowest, |record| record.lsn));
        }
        Ok(lowest)
    }

    /// Writes what lies below `before` and is still wanted again, as one batch.
    fn rewrite(&self, shared: &mut Shared, before: Lsn) -> Result<(), InspectError> {
        let mut changes = Vec::new();
        for state in shared.state.known() {
            for (key, stored, _) in state.keyed.iter().filter(|(_, _, lsn)| *lsn < before) {
                if let Some(value) = self.value(stored)? {
                    let (subscription, key) = (state.about.number, key.to_owned());
                    changes.push(Change::Keyed(Keyed { subscription, key, change: StateChange::Set(value) }));
                }
            }
            for dead in state.dead.values().filter(|dead| dead.lsn < before) {
                let mut letter = self.dead_record(dead.lsn)?;
                letter.about.copy = true;
                changes.push(Change::DeadLetter(letter));
            }
            for lsn in state.redriven.values().filter(|lsn| **lsn < before) {
                changes.push(Change::Redrive(self.redriven(*lsn)?));
            }
        }
        for change in &changes {
            self.append_change(shared, change)
                .map_err(|error: PublishError| InspectError::Storage(error.to_string()))?;
        }
        Ok(())
    }

    /// Drops what may go now, instead of at the next checkpoint: the log holds as much as it may. Nothing if nothing more
    /// than the last time may go.
    pub(super) async fn make_room(self: &Arc<Self>) -> Result<(), String> {
        // In the first turn copies are written and a checkpoint, in the second both are durable and the rest can go.
        for _ in 0..2 {
            let end = {
                let mut shared = self.shared.lock();
                let shared = &mut *shared;
                let wanted = self.lowest_wanted(shared).map_err(|error| error.to_string())?;
                if self.url.retention == Retention::Forever || shared.made_room >= Some(wanted) {
                    return Ok(());
                }
                let now = self.clock.now().as_micros();
                let ticket = self.log.checkpoint(&shared.state.checkpoint(), now).map_err(|error| error.to_string())?;
                shared.end = shared.end.max(ticket.end);
                self.trim(shared);
                shared.end
            };
            self.durable(end).await?;
        }
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        self.drop_rewritten(shared).map_err(|error| error.to_string())?;
        shared.made_room = Some(self.lowest_wanted(shared).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Whether the log holds as much as it may.
    pub(super) fn is_full(&self) -> bool {
        self.url.max_bytes.is_some_and(|max| self.stored_bytes() > max)
    }

    /// What the segments of the log take.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.log.segments().saturating_mul(self.segment_bytes)
    }
}
