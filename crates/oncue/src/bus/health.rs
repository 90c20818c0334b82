//! How a running app is, in one answer: for liveness and readiness probes, and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Bus,
    alerts::{open, waits},
};
use crate::{alert::AlertKind, handler::Registration, source::Activity, transport::SubscriptionInfo};

/// How an app is; made by [`Bus::health`]. As JSON: `{"status": "degraded", "reasons": [{"cause": "paused", …}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of the reasons.
    pub status: HealthStatus,
    /// Why it is not [`Ok`](HealthStatus::Ok), the worst first; one per cause and subject.
    pub reasons: Vec<HealthReason>,
}

/// How well an app works, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All of it works.
    #[default]
    Ok,
    /// It works, and somebody should look at it.
    Degraded,
    /// It does not: events are not taken, or not handled, before a new start.
    Failed,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}

/// Why an app is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReason {
    /// How bad it is.
    pub status: HealthStatus,
    /// What it is.
    pub cause: HealthCause,
    /// Whom it is about: a subscription, a source, the transport's URL, or the subject of an alert.
    pub subject: String,
    /// What happened, in a sentence.
    pub text: String,
}

/// What is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCause {
    /// The transport is closed: the app was shut down.
    Closed,
    /// A write failed, and the transport takes nothing more.
    Fenced,
    /// A handler is paused: its events wait.
    Paused,
    /// A source gave up: nothing more comes from it.
    Source,
    /// What an alert would say. Handlers that stopped, that cannot write to what they forward to, open circuit breakers, detached
    /// subscriptions and those that read nothing new are known without alerts too; the rest only [where they are on](crate::App::alerts).
    #[serde(untagged)]
    Alert(AlertKind),
}

impl HealthCause {
    fn status(self) -> HealthStatus {
        match self {
            Self::Closed | Self::Fenced | Self::Alert(AlertKind::HandlerStopped) => HealthStatus::Failed,
            Self::Paused | Self::Source | Self::Alert(_) => HealthStatus::Degraded,
        }
    }
}

impl Health {
    fn of(mut reasons: Vec<HealthReason>) -> Self {
        reasons.sort_by(|one, other| {
            let order = |reason: &HealthReason| (std::cmp::Reverse(reason.status), reason.cause);
            order(one).cmp(&order(other)).then_with(|| one.subject.cmp(&other.subject))
        });
        // What is seen now stands before what was alerted of it: the first of each stays.
        reasons.dedup_by(|later, first| later.cause == first.cause && later.subject == first.subject);
        Self { status: reasons.first().map_or(HealthStatus::Ok, |reason| reason.status), reasons }
    }
}

impl Bus {
    /// How the app is now. Reads memory and little of the disk; for more, see [`inspect`](Self::inspect).
    #[must_use]
    pub fn health(&self) -> Health {
        let url = self.transport().url();
        let storage = self.inspect().storage();
        let mut found = Vec::new();
        let mut add = |cause: HealthCause, subject: &str, text: String| {
            found.push(HealthReason { status: cause.status(), cause, subject: subject.to_owned(), text });
        };
        if let Some(reason) = storage.fenced {
            add(HealthCause::Fenced, &url, format!("{url} takes nothing more since a write failed: {reason}"));
        }
        if storage.closed {
            add(HealthCause::Closed, &url, format!("{url} is closed"));
        }
        if let Some(error) = &*self.0.failed.borrow() {
            add(HealthCause::Alert(AlertKind::HandlerStopped), error.handler(), error.to_string());
        }
        for source in self.sources() {
            if let Activity::Failed { error } = &source.activity {
                add(HealthCause::Source, &source.id, format!("source `{}` gave up: {error}", source.id));
            }
        }
        let shown = self.0.serving.shown();
        for condition in shown.breakers().iter().filter_map(open) {
            add(HealthCause::Alert(condition.kind), &condition.subject, condition.text);
        }
        for (handler, blocked) in shown.blocked() {
            add(HealthCause::Alert(AlertKind::Blocked), &handler.id, waits(handler, &blocked));
        }
        let subscriptions = if storage.closed { Vec::new() } else { self.inspect().subscriptions() };
        for info in &subscriptions {
            let handler = shown.handlers.iter().find(|handler| handler.id == info.id);
            if let Some((cause, text)) = of_subscription(info, handler) {
                add(cause, &info.id, text);
            }
        }
        for alert in self.alerts() {
            add(HealthCause::Alert(alert.kind), &alert.subject, alert.text);
        }
        Health::of(found)
    }
}

fn of_subscription(info: &SubscriptionInfo, handler: Option<&Registration>) -> Option<(HealthCause, String)> {
    let id = &info.id;
    match handler {
        _ if info.full => {
            let text = format!("`{id}` reads nothing new: {} keys wait for a retry or a dead letter", info.parked_keys);
            Some((HealthCause::Alert(AlertKind::Parked), text))
        }
        Some(handler) if handler.options.paused => Some((HealthCause::Paused, format!("`{id}` is paused"))),
        None if !info.attached && info.lag > 0 => {
            let text = format!("no handler serves `{id}`, and {} events wait for it", info.lag);
            Some((HealthCause::Alert(AlertKind::Detached), text))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(cause: HealthCause, subject: &str, text: &str) -> HealthReason {
        HealthReason { status: cause.status(), cause, subject: subject.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn the_worst_reason_decides_and_the_same_is_said_once() {
        assert_eq!(Health::of(Vec::new()), Health { status: HealthStatus::Ok, reasons: Vec::new() });
        let stopped = HealthCause::Alert(AlertKind::HandlerStopped);
        let health = Health::of(vec![
            reason(HealthCause::Paused, "b", ""),
            reason(stopped, "a", "seen"),
            reason(HealthCause::Paused, "a", ""),
            reason(HealthCause::Alert(AlertKind::DeadLetter), "a", ""),
            reason(stopped, "a", "alerted"),
        ]);
        let told: Vec<_> =
            health.reasons.iter().map(|reason| (reason.cause, &*reason.subject, &*reason.text)).collect();
        let expected = [
            (stopped, "a", "seen"),
            (HealthCause::Paused, "a", ""),
            (HealthCause::Paused, "b", ""),
            (HealthCause::Alert(AlertKind::DeadLetter), "a", ""),
        ];
        assert_eq!((health.status, &told[..]), (HealthStatus::Failed, &expected[..]));
    }

    #[test]
    fn causes_are_one_word_in_json() {
        let reasons = vec![reason(HealthCause::Paused, "a", ""), reason(HealthCause::Alert(AlertKind::Stuck), "a", "")];
        let health = Health::of(reasons);
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!((&json["status"], &json["reasons"][0]["cause"]), (&"degraded".into(), &"paused".into()));
        assert_eq!(json["reasons"][1]["cause"], "stuck");
        assert_eq!(serde_json::from_value::<Health>(json).unwrap(), health);
    }
}
