//! What the records of a log mean, as they come by.

use std::collections::BTreeMap;

use oncue_log::{Found, KIND_CHECKPOINT, KIND_DROP, KIND_EVENT, KIND_TOPIC, Record};

use super::super::{
    records::{Change, SubscriptionNumber, kind},
    state::State,
};
use crate::event::Envelope;

/// Follows the log, so that what it speaks of by number has a name, and what does not fit is found.
#[derive(Default)]
pub(super) struct Meaning {
    topics: BTreeMap<u32, String>,
    /// What the records say together; none where it is not known what came before.
    state: Option<State>,
}

/// A record that is understood.
pub(super) enum Understood {
    Topic,
    Part,
    /// The events of a topic below an offset are not kept.
    Drop,
    Event(Envelope),
    Change(Box<Change>),
    /// Of a kind that is not ours, and may be passed over.
    Unknown,
}

impl Meaning {
    /// What a record says; the reason if it cannot be understood, or does not fit.
    pub(super) fn record(&mut self, record: &Record) -> Result<Understood, String> {
        if record.lsn == 0 {
            self.state = Some(State::default());
        }
        match record.kind {
            KIND_TOPIC => {
                let (name, _) = record.topic_definition().ok_or("a topic definition cannot be read")?;
                self.topics.insert(record.topic.0, name.to_owned());
                Ok(Understood::Topic)
            }
            KIND_CHECKPOINT => Ok(Understood::Part),
            KIND_DROP => Ok(Understood::Drop),
            KIND_EVENT => {
                let envelope = Envelope::from_stored(&record.data).map_err(|error| error.to_string())?;
                if let Some(state) = &mut self.state {
                    state.published(record.topic.0, record.offset, envelope.published(), &envelope);
                }
                Ok(Understood::Event(envelope))
            }
            number => match Change::decode(number, &record.data).map_err(|error| error.to_string())? {
                None => Ok(Understood::Unknown),
                Some(change) => {
                    let fits = self.state.as_mut().map_or(Ok(()), |state| state.apply(&change, record.lsn));
                    fits.map_err(|error| error.to_string())?;
                    Ok(Understood::Change(Box::new(change)))
                }
            },
        }
    }

    /// What else is found; of a checkpoint, the state that it restates.
    pub(super) fn found(&mut self, found: &Found<'_>) -> Result<Option<State>, String> {
        match found {
            Found::Checkpoint { topics, opaque, .. } => {
                for (place, (name, _)) in topics.iter().enumerate() {
                    self.topics.insert(u32::try_from(place + 1).unwrap_or(u32::MAX), name.clone());
                }
                let mut state = State::default();
                state.restore(opaque).map_err(|error| error.to_string())?;
                if self.state.is_some() {
                    return Ok(Some(state));
                }
                let mut own = State::default();
                own.restore(opaque).map_err(|error| error.to_string())?;
                self.state = Some(own);
                Ok(Some(state))
            }
            Found::Damage(spot) if spot.records > 0 => {
                // What is missing may have said what the next record speaks of.
                self.state = None;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// A topic's name, if it is known.
    pub(super) fn topic(&self, id: u32) -> Option<&str> {
        self.topics.get(&id).map(String::as_str)
    }

    /// A subscription's id, if it is known.
    pub(super) fn subscription(&self, number: SubscriptionNumber) -> Option<&str> {
        let state = self.state.as_ref()?.subscriptions.get(number as usize)?;
        Some(&state.about.id)
    }

    /// The topic of a subscription, if it is known.
    pub(super) fn topic_of(&self, number: SubscriptionNumber) -> Option<&str> {
        let state = self.state.as_ref()?.subscriptions.get(number as usize)?;
        self.topic(state.about.topic)
    }

    /// An event type's name, if it is known.
    pub(super) fn event_type(&self, number: u32) -> Option<&str> {
        self.state.as_ref().map(|state| state.types().name(number)).filter(|name| !name.is_empty())
    }
}

/// The name of a kind of record.
pub(super) fn name_of(number: u8) -> &'static str {
    match number {
        KIND_TOPIC => "topic",
        KIND_CHECKPOINT => "checkpoint_part",
        KIND_DROP => "drop",
        KIND_EVENT => "event",
        kind::SETTLE => "settle",
        kind::RETRY => "retry",
        kind::DEAD_LETTER => "dead_letter",
        kind::KEYED => "keyed_state",
        kind::EVENT_TYPE => "event_type",
        kind::SUBSCRIPTION => "subscription",
        kind::SOURCE => "source",
        kind::REDRIVE => "redrive",
        kind::DISCARD => "discard",
        kind::RESET => "reset",
        kind::REMOVE => "remove",
        kind::REMEMBER => "remember",
        kind::WINDOW => "window",
        kind::DROPPED => "dropped",
        kind::LESSON => "lesson",
        kind::SERVICE => "service",
        kind::TRIAL => "trial",
        _ => "unknown",
    }
}
