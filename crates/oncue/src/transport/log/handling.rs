//! What became of one event, as its records tell.

use oncue_log::{Lsn, Record};

use super::{
    Inner,
    inspect::storage,
    records::{Change, End, Retry, SubscriptionNumber, kind},
    state::{DeadEntry, Failing, SubscriptionState},
    topics::Topic,
};
use crate::{
    event::Envelope,
    transport::{EventHandling, InspectError, Position, Stage},
};

/// Events that are read at once.
const READ_RECORDS: usize = 512;

/// What the state knows of an event.
enum Known {
    Pending,
    Failing(Failing),
    Dead(DeadEntry),
    Settled(End),
}

impl Known {
    fn of(state: &SubscriptionState, offset: u64) -> Self {
        if let Some(dead) = state.dead.get(&offset) {
            Self::Dead(*dead)
        } else if let Some(failing) = state.failing.get(&offset) {
            Self::Failing(*failing)
        } else if state.settled.contains(offset) && !state.redriven.contains_key(&offset) {
            Self::Settled(state.end_of(offset))
        } else {
            Self::Pending
        }
    }
}

/// A subscription that is through with the event, and what was found of that so far.
struct Through {
    number: SubscriptionNumber,
    handling: EventHandling,
}

impl Inner {
    pub(super) fn oldest_unsettled(&self, id: &str) -> Result<Option<(Position, Envelope)>, InspectError> {
        let (topic, mut from) = {
            let shared = self.shared.lock();
            let state = shared.state.find(id).ok_or_else(|| Self::unknown(id))?;
            (oncue_log::TopicId(state.about.topic), state.settled.low())
        };
        from = from.max(self.offsets(topic).0);
        let mut cursor = self.log.cursor(topic, from);
        let mut records: Vec<Record> = Vec::new();
        loop {
            records.clear();
            if self.log.read(&mut cursor, READ_RECORDS, usize::MAX, &mut records).map_err(storage)? == 0 {
                return Ok(None);
            }
            let shared = self.shared.lock();
            let state = shared.state.find(id).ok_or_else(|| Self::unknown(id))?;
            for record in records.iter().filter(|record| !state.settled.contains(record.offset)) {
                let envelope = Envelope::from_stored(&record.data).map_err(storage)?;
                if state.about.wants(&envelope) {
                    let position = Position::new(record.partition, record.offset, 0);
                    return Ok(Some((position, envelope)));
                }
            }
        }
    }

    pub(super) fn handling(&self, topic: &str, position: Position) -> Result<Vec<EventHandling>, InspectError> {
        let topic = self.topics.get(topic).ok_or_else(|| InspectError::UnknownTopic(topic.to_owned()))?;
        let (lsn, envelope) = self.event(&topic, position)?;
        let offset = position.offset();
        let known: Vec<(SubscriptionNumber, String, Known)> = {
            let shared = self.shared.lock();
            let wants = |state: &&SubscriptionState| {
                let about = &state.about;
                about.topic == topic.id.0 && offset >= about.from && about.wants(&envelope)
            };
            let known =
                |state: &SubscriptionState| (state.about.number, state.about.id.clone(), Known::of(state, offset));
            shared.state.known().filter(wants).map(known).collect()
        };
        let mut handlings = Vec::with_capacity(known.len());
        let mut through = Vec::new();
        for (number, id, known) in known {
            let mut handling = EventHandling {
                subscription: id,
                stage: Stage::Pending,
                attempts: 0,
                read: None,
                ended: None,
                due: None,
                failed: Vec::new(),
            };
            match known {
                Known::Pending => {}
                Known::Failing(failing) => self.retrying(failing, &mut handling)?,
                Known::Dead(entry) => self.dead(entry, &mut handling)?,
                Known::Settled(End::Skipped) => handling.stage = Stage::Skipped,
                Known::Settled(End::Expired) => handling.stage = Stage::Expired,
                Known::Settled(End::Acked) => {
                    handling.stage = Stage::Settled;
                    through.push(Through { number, handling });
                    continue;
                }
            }
            handlings.push((number, handling));
        }
        self.find_settles(lsn, offset, &mut through)?;
        handlings.extend(through.into_iter().map(|through| (through.number, through.handling)));
        handlings.sort_unstable_by_key(|(number, _)| *number);
        Ok(handlings.into_iter().map(|(_, handling)| handling).collect())
    }

    fn event(&self, topic: &Topic, position: Position) -> Result<(Lsn, Envelope), InspectError> {
        let mut records = Vec::with_capacity(1);
        let mut cursor = self.log.cursor(topic.id, position.offset());
        match self.log.read(&mut cursor, 1, usize::MAX, &mut records) {
            Ok(_) | Err(oncue_log::ReadError::Trimmed { .. }) => {}
            Err(error) => return Err(storage(error)),
        }
        let unknown = || InspectError::UnknownEvent { topic: topic.name.to_string(), position };
        let record = records.pop().filter(|record| record.partition == position.partition()).ok_or_else(unknown)?;
        Ok((record.lsn, Envelope::from_stored(&record.data).map_err(storage)?))
    }

    /// An event that waits for its next attempt: its failed ones are a chain of records, newest first.
    fn retrying(&self, failing: Failing, handling: &mut EventHandling) -> Result<(), InspectError> {
        (handling.stage, handling.attempts, handling.due) = (Stage::Retrying, failing.attempts, Some(failing.due));
        let mut next = Some(failing.lsn);
        while let Some(lsn) = next {
            let record = match self.log.record(lsn) {
                // Older attempts may have been dropped with their segment.
                Err(oncue_log::ReadError::Trimmed { .. }) => break,
                record => record.map_err(storage)?,
            };
            let Ok(Some(Change::Retry(retry))) = Change::decode(record.kind, &record.data) else {
                return Err(InspectError::Storage(format!("record {lsn} is no retry")));
            };
            if handling.read.is_none() {
                (handling.read, handling.ended) = (Some(retry.times.read), Some(retry.times.ended));
            }
            handling.failed.extend(retry.failed);
            next = retry.previous;
        }
        handling.failed.reverse();
        Ok(())
    }

    fn dead(&self, entry: DeadEntry, handling: &mut EventHandling) -> Result<(), InspectError> {
        let about = self.dead_record(entry.lsn)?.about;
        handling.stage = Stage::Dead;
        handling.attempts = about.history.last().map_or(0, |attempt| attempt.number);
        (handling.read, handling.ended) = (Some(about.times.read), Some(about.times.ended));
        handling.failed = about.history;
        Ok(())
    }

    /// Reads on from an event until all who are through with it have said so. What was passed by leaves no record.
    fn find_settles(&self, event: Lsn, offset: u64, through: &mut [Through]) -> Result<(), InspectError> {
        let mut missing = through.len();
        let mut records = self.log.scan(event);
        while missing > 0
            && let Some(record) = records.next().transpose().map_err(storage)?
        {
            if !matches!(record.kind, kind::SETTLE | kind::RETRY) {
                continue;
            }
            match Change::decode(record.kind, &record.data).map_err(storage)? {
                Some(Change::Settle(settle)) => {
                    let Some(ack) = settle.entries.iter().find(|ack| ack.offset == offset) else { continue };
                    let Some(Through { handling, .. }) = find(through, settle.subscription) else { continue };
                    match ack.end {
                        End::Acked => (handling.read, handling.ended) = (Some(ack.times.read), Some(ack.times.ended)),
                        End::Skipped => handling.stage = Stage::Skipped,
                        End::Expired => handling.stage = Stage::Expired,
                    }
                    handling.attempts = ack.attempts;
                    missing -= 1;
                }
                Some(Change::Retry(Retry { subscription, offset: of, failed, .. })) if of == offset => {
                    if let Some(Through { handling, .. }) = find(through, subscription) {
                        handling.failed.extend(failed);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn find(through: &mut [Through], number: SubscriptionNumber) -> Option<&mut Through> {
    through.iter_mut().find(|through| through.number == number)
}
