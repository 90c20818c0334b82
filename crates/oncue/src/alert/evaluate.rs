//! The whole judgement as one pure function: nothing here reads a clock, a transport or a file.

use super::{
    Alert, AlertKind, AlertStatus, Alerts,
    conditions::{Memory, Observation},
    notices::{Notice, Notices},
};
use crate::clock::Timestamp;

/// What an app remembers from look to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    memory: Memory,
    notices: Notices,
}

/// What follows from a look.
pub(crate) struct Evaluated {
    pub(crate) state: State,
    /// What is to be told, now.
    pub(crate) notices: Vec<Notice>,
    /// When something may change although nothing happens; nothing: never. Later than now.
    pub(crate) next: Option<Timestamp>,
}

impl State {
    /// What was known before the app started, from the alerts that were told until then, in order.
    pub(crate) fn restored(told: impl IntoIterator<Item = (Timestamp, Alert)>) -> Self {
        let mut state = Self::default();
        for (at, alert) in told {
            if alert.kind == AlertKind::Missed {
                state.memory.had_missed(&alert.subject, alert.value);
            }
            state.notices.restore(at, alert);
        }
        for alert in state.notices.active() {
            if matches!(alert.kind, AlertKind::Stuck | AlertKind::Detached) {
                state.memory.was_stuck(&alert.subject, alert.since);
            }
        }
        state
    }

    /// The alerts that are active: raised, and not recovered.
    pub(crate) fn active(&self) -> Vec<Alert> {
        self.notices.active().map(|alert| Alert { status: AlertStatus::Raised, ..alert.clone() }).collect()
    }
}

/// From what was known, what is seen and what time it is: what is known then, and what is to be told.
pub(crate) fn evaluate(mut state: State, seen: &Observation, now: Timestamp, settings: &Alerts) -> Evaluated {
    let (holding, next) = state.memory.conditions(seen, now, settings);
    let telling = state.notices.tell(holding, now, settings);
    let next = next.into_iter().chain(telling.next).min();
    Evaluated { notices: telling.notices, next: next.map(|next| next.max(now.after(SHORTEST))), state }
}

/// Settings of zero must not make a look follow the other without a pause.
const SHORTEST: std::time::Duration = std::time::Duration::from_millis(1);
