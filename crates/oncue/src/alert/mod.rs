//! Alerts: what somebody should know of before anybody asks, as events of their own.
//!
//! With [`App::alerts`](crate::App::alerts) an app looks after itself: a dead letter, a storm of retries, a subscription
//! that is stuck, and the other kinds of [`AlertKind`], become events of type `oncue.alert.*` in the topic
//! [`TOPIC`], and lines of the log. Without it nothing of this happens. A handler takes them like any other event:
//!
//! ```
//! use oncue::{alert::{Alert, Alerts, AlertKind}, prelude::*};
//! # use std::sync::{Arc, Mutex};
//!
//! #[handler]
//! async fn page(alert: Alert, State(pages): State<Arc<Mutex<Vec<Alert>>>>) {
//!     eprintln!("{} {}: {}", alert.kind, alert.status, alert.text);
//!     # pages.lock().unwrap().push(alert);
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> oncue::Result<()> {
//! # let pages = Arc::new(Mutex::new(Vec::<Alert>::new()));
//! # let refuse = (|_: &Envelope| Err::<(), _>("no such account")).named("charge").types(["order.created"]).inline();
//! # let charge = refuse.retry(policy::never());
//! let app = App::open("memory:").await?.on(charge).on(page).alerts(Alerts::default());
//! # let app = app.state(pages.clone()).start().await?;
//! # app.publish(Envelope::builder("order.created").build().unwrap()).await?;
//! # app.idle().await?;
//! let active = app.check_alerts().await;
//! assert_eq!((active[0].kind, active[0].subject.as_str()), (AlertKind::DeadLetter, "charge"));
//! # app.idle().await?;
//! # assert_eq!(*pages.lock().unwrap(), active);
//! # app.shutdown().await
//! # }
//! ```
//!
//! **Once.** What an alert is about (its kind and subject) is [raised](AlertStatus::Raised) once, stays active while the
//! condition holds, and is followed by one [recovery](AlertStatus::Recovered) when the condition has been gone for a
//! while. More dead letters, or missed events, are told by a [renewal](AlertStatus::Renewed), seldom. What is active is found in the topic
//! after a restart, and ids are derived from what an alert says and when, so that the deduplication of the transport
//! drops what a second instance says again.
//!
//! **No storm of its own.** Alerts about handlers of the alerts topic are logged and listed
//! ([`Bus::alerts`](crate::Bus::alerts)), and not published.

mod conditions;
mod evaluate;
mod notices;
mod settings;

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::settings::{Alerts, Condition, RetryStorm, Watched};
pub(crate) use self::{
    conditions::{Observation, Served, Waiting},
    evaluate::{State, evaluate},
    notices::Notice,
};

use crate::{
    clock::Timestamp,
    event::{CodecError, Envelope, Event, InvalidEvent},
};

/// The topic of alerts, unless [`Alerts::topic`] names another.
pub const TOPIC: &str = "oncue.alerts";

/// `CloudEvents` `source` of alerts.
const SOURCE: &str = "/oncue/alerts";

/// What an alert is about, and in which unit its value and threshold are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A subscription has dead letters. In dead letters; the threshold is 1.
    DeadLetter,
    /// Too many attempts of a subscription fail. In percent of the attempts within the window.
    RetryStorm,
    /// The oldest event of a subscription waits for too long. In seconds.
    Stuck,
    /// A circuit breaker is open or tries, and what is behind it is not called. 1, of 1, for those that stand around
    /// handlers; in whatever their owner counts for [others](Watched).
    BreakerOpen,
    /// Too many events wait for a subscription. In events.
    Lag,
    /// Too little room is left where the transport keeps its events. In bytes; it holds *below* the threshold.
    Disk,
    /// So many keys wait for a retry that a subscription reads nothing new. In keys.
    Parked,
    /// Events wait for a subscription that no handler of the app serves. In events; the threshold is 1.
    Detached,
    /// Retention dropped events before a subscription was through with them. In events so far; the threshold is 1.
    Missed,
    /// What a handler forwards to is not reached, for a while now, or refuses it: see
    /// [`Blocked`](crate::handler::Blocked). In seconds; the threshold of what is refused is 0.
    Blocked,
    /// A handler stopped: its events cannot be read, or its outcomes not be written. 1, of 1. Only a new start helps.
    HandlerStopped,
}

impl AlertKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::DeadLetter,
        Self::RetryStorm,
        Self::Stuck,
        Self::BreakerOpen,
        Self::Lag,
        Self::Disk,
        Self::Parked,
        Self::Detached,
        Self::Missed,
        Self::Blocked,
        Self::HandlerStopped,
    ];

    /// The type of its events: `oncue.alert.` and the kind.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::DeadLetter => "oncue.alert.dead_letter",
            Self::RetryStorm => "oncue.alert.retry_storm",
            Self::Stuck => "oncue.alert.stuck",
            Self::BreakerOpen => "oncue.alert.breaker_open",
            Self::Lag => "oncue.alert.lag",
            Self::Disk => "oncue.alert.disk",
            Self::Parked => "oncue.alert.parked",
            Self::Detached => "oncue.alert.detached",
            Self::Missed => "oncue.alert.missed",
            Self::Blocked => "oncue.alert.blocked",
            Self::HandlerStopped => "oncue.alert.handler_stopped",
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event_type().trim_start_matches("oncue.alert."))
    }
}

/// What an alert tells of its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// It holds now.
    Raised,
    /// It still holds, and there is more of it: dead letters, or missed events.
    Renewed,
    /// It holds no more.
    Recovered,
}

impl fmt::Display for AlertStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raised => "raised",
            Self::Renewed => "renewed",
            Self::Recovered => "recovered",
        })
    }
}

/// An alert: one condition of one thing, and what became of it. As an event its type is that of its
/// [kind](AlertKind::event_type), its key the subject, and its payload this struct as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// Whether it holds.
    pub status: AlertStatus,
    /// Whom it is about: a subscription, the transport's URL, or what a [`Condition`] names.
    pub subject: String,
    /// How much of it there is, in the unit of the kind; of a recovery, how much there was at last.
    pub value: u64,
    /// From where on it holds, in the same unit.
    pub threshold: u64,
    /// What happened, in a sentence.
    pub text: String,
    /// Since when it holds, as far as is known.
    pub since: Timestamp,
}

#[diagnostic::do_not_recommend]
impl Event for Alert {
    const TYPES: &'static [&'static str] = &{
        let mut types = [""; AlertKind::ALL.len()];
        let mut index = 0;
        while index < types.len() {
            types[index] = AlertKind::ALL[index].event_type();
            index += 1;
        }
        types
    };
    const TOPIC: &'static str = TOPIC;

    fn event_type(&self) -> &'static str {
        self.kind.event_type()
    }

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.subject))
    }

    fn encode(&self) -> Result<Bytes, CodecError> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| CodecError::new::<Self>(self.event_type(), &error))
    }

    fn decode(event_type: &str, data: &[u8]) -> Result<Self, CodecError> {
        serde_json::from_slice(data).map_err(|error| CodecError::new::<Self>(event_type, &error))
    }
}

impl Alert {
    /// The event of this alert, told at `now`.
    pub(crate) fn envelope(&self, id: &str, now: Timestamp) -> Result<Envelope, InvalidEvent> {
        Ok(Envelope::builder_of(self)?.id(id).source(SOURCE).time(now).build()?)
    }

    /// The alert of such an event.
    pub(crate) fn told(event: &Envelope) -> Option<Self> {
        (event.source() == SOURCE).then(|| event.decode().ok()).flatten()
    }
}

#[cfg(test)]
mod tests;
