//! What is done to subscriptions of the log from outside: dead letters resolved, a new beginning, removal.

use std::sync::Arc;

use super::{
    Inner,
    hand::Afterwards,
    records::{Change, Discard, Redrive, RedriveAbout, Remember, Remove, Reset, SubscriptionNumber},
};
use crate::{
    clock::Timestamp,
    event::Envelope,
    transport::{Control, ControlError, Position, PublishError, Resolution},
};

/// What a resolved dead letter means to who serves the subscription.
struct Resolved {
    envelope: Envelope,
    offset: u64,
    redriven: bool,
}

pub(super) async fn control(inner: Arc<Inner>, subscription: String, control: Control) -> Result<(), ControlError> {
    let (number, served) = inner.find(&subscription)?;
    if served && matches!(control, Control::Reset(_) | Control::Remove) {
        return Err(ControlError::Served(subscription));
    }
    let mut resolved = Vec::new();
    let changes = match control {
        Control::Resolve(letters) => {
            let resolve = |(position, resolution)| inner.resolve(&subscription, number, position, resolution);
            let changes: Vec<_> = letters.into_iter().map(resolve).collect::<Result<_, _>>()?;
            changes
                .into_iter()
                .map(|(change, letter)| {
                    resolved.push(letter);
                    change
                })
                .collect()
        }
        Control::Reset(start) => {
            let topic = inner.topic_of(number);
            let from = inner.offset_of(topic, start).map_err(|error| ControlError::Storage(error.to_string()))?;
            vec![Change::Reset(Reset { subscription: number, from })]
        }
        Control::Remove => vec![Change::Remove(Remove { subscription: number })],
        Control::Remember(what) => vec![Change::Remember(Remember { subscription: number, what })],
    };
    let end = loop {
        match inner.write(number, &changes, &resolved) {
            Ok(end) => break end,
            Err(oncue_log::AppendError::Full) => {
                inner.space().await.map_err(|reason| ControlError::Publish(PublishError::Fenced(reason)))?;
            }
            Err(failed) => return Err(ControlError::Publish(super::publish::error(failed))),
        }
    };
    inner.durable(end).await.map_err(|reason| ControlError::Publish(PublishError::Fenced(reason)))?;
    inner.progress.notify_waiters();
    Ok(())
}

impl Inner {
    fn find(&self, subscription: &str) -> Result<(SubscriptionNumber, bool), ControlError> {
        let shared = self.shared.lock();
        let unknown = || ControlError::UnknownSubscription(subscription.to_owned());
        let number = shared.state.find(subscription).ok_or_else(unknown)?.about.number;
        Ok((number, shared.attached.contains_key(&number)))
    }

    fn resolve(
        &self,
        subscription: &str,
        number: SubscriptionNumber,
        position: Position,
        resolution: Resolution,
    ) -> Result<(Change, Resolved), ControlError> {
        let offset = position.offset();
        let entry = self.shared.lock().state.subscriptions[number as usize].dead.get(&offset).copied();
        let gone = || ControlError::NoDeadLetter { subscription: subscription.to_owned(), position };
        let dead = self.dead_record(entry.ok_or_else(gone)?.lsn);
        let dead = dead.map_err(|error| ControlError::Storage(error.to_string()))?;
        let envelope = match resolution {
            Resolution::Discard => {
                let resolved = Resolved { envelope: dead.envelope, offset, redriven: false };
                return Ok((Change::Discard(Discard { subscription: number, offset }), resolved));
            }
            Resolution::Redrive => dead.envelope,
            Resolution::Edit(edited) => edit(&dead.envelope, &edited)?,
        };
        let about =
            RedriveAbout { subscription: number, partition: dead.about.partition, offset, history: dead.about.history };
        let resolved = Resolved { envelope: envelope.clone(), offset, redriven: true };
        Ok((Change::Redrive(Redrive { about, envelope }), resolved))
    }

    /// Writes changes as one batch, applies them, and tells who serves the subscription.
    fn write(
        &self,
        number: SubscriptionNumber,
        changes: &[Change],
        resolved: &[Resolved],
    ) -> Result<oncue_log::Lsn, oncue_log::AppendError> {
        let core = self.shared.lock().attached.get(&number).and_then(std::sync::Weak::upgrade);
        let mut hand = core.as_ref().map(|core| core.hand.lock());
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        shared.batch.clear();
        for change in changes {
            shared.scratch.clear();
            change.encode(&mut shared.scratch);
            shared.batch.state(change.kind(), &[shared.scratch.as_slice()]);
        }
        if shared.batch.is_empty() {
            return Ok(shared.end);
        }
        let ticket = self.log.append(&shared.batch, self.clock.now().as_micros())?;
        shared.end = shared.end.max(ticket.end);
        for (lsn, change) in (ticket.end - changes.len() as u64..).zip(changes) {
            shared.applied(change, lsn);
        }
        if let Some(hand) = &mut hand {
            let mut afterwards = Afterwards { end: ticket.end, ..Afterwards::default() };
            for letter in resolved {
                // Handlers that come after this one have waited for it.
                let others = core.iter().flat_map(|core| &core.numbers);
                let waited_for = others
                    .map(|other| &shared.state.subscriptions[*other as usize])
                    .any(|other| !other.settled.contains(letter.offset));
                let key = letter.envelope.key_hash();
                if letter.redriven || waited_for {
                    let place = hand.place(letter.offset, &letter.envelope);
                    afterwards.retries.push((key, Timestamp::default(), place));
                } else {
                    afterwards.discarded.push((key, letter.offset));
                }
            }
            hand.settling.push_back(afterwards);
            // Whoever waits for the next event waits for this, too.
            hand.wake();
        }
        self.checkpoint_if_due(shared);
        Ok(ticket.end)
    }
}

/// The edited event, if it is still the same one; it says which edition it is.
pub(in crate::transport) fn edit(original: &Envelope, edited: &Envelope) -> Result<Envelope, ControlError> {
    for (what, expected, found) in [
        ("id", original.id(), edited.id()),
        ("source", original.source(), edited.source()),
        ("key", original.key().unwrap_or_default(), edited.key().unwrap_or_default()),
    ] {
        if expected != found {
            return Err(ControlError::OtherEvent {
                what: what.into(),
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
    }
    Ok(edited.edition_of(original))
}

#[cfg(test)]
mod tests;
