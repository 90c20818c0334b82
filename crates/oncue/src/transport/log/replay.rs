//! What opening a log tells, taken in.

use std::collections::HashMap;

use oncue_log::{KIND_EVENT, Replay};

use super::{
    dedup::{Dedup, Window},
    records::Change,
    state::State,
};
use crate::{
    clock::Timestamp,
    event::{Envelope, takes},
};

/// The state as the log tells it, and what must be known of the events for what it does not tell.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) state: State,
    seen: Seen,
}

/// What is remembered of replayed events.
enum Seen {
    /// Those whose publisher chose the id: topic, partition, offset, event. For those who go on writing.
    Supplied(Vec<(u32, u16, u64, Envelope)>),
    /// The type of each: topic, offset, number of the type. For those who only look.
    Types { numbers: HashMap<String, u32>, events: Vec<(u32, u64, u32)> },
}

impl Default for Seen {
    fn default() -> Self {
        Self::Supplied(Vec::new())
    }
}

impl Replayed {
    /// For a view that nobody consumes from.
    pub(super) fn to_look_at() -> Self {
        Self { state: State::default(), seen: Seen::Types { numbers: HashMap::new(), events: Vec::new() } }
    }

    pub(super) fn take(&mut self, replay: Replay<'_>) -> Result<(), String> {
        match replay {
            Replay::Checkpoint(bytes) => self.state.restore(bytes).map_err(|error| error.to_string()),
            Replay::Record(record) if record.kind == KIND_EVENT => {
                let envelope = Envelope::from_stored(&record.data).map_err(|error| error.to_string())?;
                self.state.published(record.topic.0, record.offset, envelope.published(), &envelope);
                match &mut self.seen {
                    Seen::Supplied(events) if envelope.id_supplied() => {
                        events.push((record.topic.0, record.partition, record.offset, envelope));
                    }
                    Seen::Supplied(_) => {}
                    Seen::Types { numbers, events } => {
                        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                        let known = numbers.get(envelope.event_type()).copied();
                        let number =
                            known.unwrap_or_else(|| *numbers.entry(envelope.event_type().to_owned()).or_insert(next));
                        events.push((record.topic.0, record.offset, number));
                    }
                }
                Ok(())
            }
            Replay::Record(record) => match Change::decode(record.kind, &record.data) {
                Ok(Some(change)) => self.state.apply(&change, record.lsn).map_err(|error| error.to_string()),
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// The state, once all is replayed.
    pub(super) fn into_state(self, log_id: u64, now: Timestamp, window: Window) -> State {
        let Self { mut state, seen } = self;
        state.dedup.set_window(window);
        match seen {
            Seen::Supplied(events) => {
                for (topic, partition, offset, envelope) in events {
                    let hash = Dedup::hash(log_id, topic, &envelope);
                    state.dedup.insert(hash, (topic, partition, offset), envelope.published());
                }
                state.dedup.forget(now);
            }
            Seen::Types { numbers, events } => pass_by(&mut state, &numbers, &events),
        }
        state
    }
}

/// Settles the events whose type a subscription does not take: their consumer passes them by without writing so. Only
/// those since the last checkpoint are known here, which says the same of those before it that a consumer had read.
fn pass_by(state: &mut State, numbers: &HashMap<String, u32>, events: &[(u32, u64, u32)]) {
    for subscription in &mut state.subscriptions {
        let about = &subscription.about;
        let mut taken = vec![true; numbers.len()];
        for (event_type, number) in numbers {
            taken[*number as usize] = takes(&about.types, event_type);
        }
        for (topic, offset, number) in events {
            if *topic == about.topic && !taken[*number as usize] {
                subscription.settled.insert(*offset);
            }
        }
    }
}
