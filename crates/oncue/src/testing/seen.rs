//! What a test can see of its app, and how it is shown.

use std::fmt::Write as _;

use futures_util::future::FutureExt as _;

use super::{Attempt, TIME_OF_START, TestApp};
use crate::{
    clock::Timestamp,
    event::{Envelope, Event},
    handler::Outcome,
    receipt::EventOutcome,
    transport::{DeadLetter, EventRef, Position},
};

/// Characters of a payload that are shown.
const SHOWN_DATA: usize = 160;
/// Events of a topic, and attempts at one event, that are shown.
const SHOWN_LINES: usize = 20;

/// An event that a handler is through with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The event.
    pub event: Envelope,
    /// What became of it.
    pub outcome: EventOutcome,
}

impl TestApp {
    /// Every event of this type that was published, by the test or by a handler, in order.
    ///
    /// # Panics
    /// One of them cannot be decoded as `E`.
    #[must_use]
    #[track_caller]
    pub fn published<E: Event>(&self) -> Vec<E> {
        let of_type = |event: &Envelope| E::TYPES.contains(&event.event_type());
        let decode = |event: Envelope| match event.decode() {
            Ok(value) => value,
            Err(error) => panic!("{} was published and cannot be read: {error}", shown(&event)),
        };
        // A loop, so that the panic is the caller's.
        let mut published = Vec::new();
        for event in self.envelopes(E::TOPIC).into_iter().filter(of_type) {
            published.push(decode(event));
        }
        published
    }

    /// Every event of a topic, in order.
    #[must_use]
    pub fn envelopes(&self, topic: &str) -> Vec<Envelope> {
        self.events_of(topic).into_iter().map(|(_, event)| event).collect()
    }

    fn events_of(&self, topic: &str) -> Vec<(Position, Envelope)> {
        // A topic that nobody knows is one without events.
        self.bus().inspect().browse(topic, 0, usize::MAX).unwrap_or_default()
    }

    /// Every call of a handler, those that were made to fail instead included, in the order in which they began.
    ///
    /// # Panics
    /// There is no such handler.
    #[must_use]
    #[track_caller]
    pub fn attempts(&self, handler: &str) -> Vec<Attempt> {
        self.known(handler);
        self.attempts.of(handler)
    }

    /// The events that a handler is through with, and how, in the order of publishing.
    ///
    /// # Panics
    /// There is no such handler.
    #[must_use]
    #[track_caller]
    pub fn settled(&self, handler: &str) -> Vec<Settled> {
        self.known(handler);
        let outcomes = self.outcomes(handler).into_iter();
        outcomes.filter(|settled| settled.outcome != EventOutcome::Pending).collect()
    }

    /// The dead letters of a handler, oldest first; `bus().dead_letters(…)` redrives them.
    ///
    /// # Panics
    /// There is no such handler.
    #[must_use]
    #[track_caller]
    pub fn dead(&self, handler: &str) -> Vec<DeadLetter> {
        self.known(handler);
        self.bus().inspect().dead_letters(handler).unwrap_or_default()
    }

    /// The state that a handler keeps for a key (its `Keyed<T>`), if it has any.
    ///
    /// # Panics
    /// There is no such handler, or its state is no `T`.
    #[must_use]
    #[track_caller]
    pub fn keyed<T: serde::de::DeserializeOwned>(&self, handler: &str, key: &str) -> Option<T> {
        self.known(handler);
        let states = self.bus().inspect().states(handler).unwrap_or_default();
        let (_, state) = states.into_iter().find(|(known, _)| known == key)?;
        match serde_json::from_slice(&state) {
            Ok(state) => Some(state),
            Err(error) => panic!("the state of `{key}` is no `{}`: {error}", std::any::type_name::<T>()),
        }
    }

    /// Every event that a handler takes, with what became of it so far.
    fn outcomes(&self, handler: &str) -> Vec<Settled> {
        let Some(topic) = self.topic_of(handler) else { return Vec::new() };
        let mut outcomes = Vec::new();
        for (position, envelope) in self.events_of(&topic) {
            let event = EventRef { topic: topic.as_str().into(), position, envelope };
            let settled = self.bus().transport().outcome(&event, handler).now_or_never();
            let outcome = match settled {
                // It does not take this one.
                Some(Err(_)) => continue,
                Some(Ok(settled)) => settled.into(),
                None => EventOutcome::Pending,
            };
            outcomes.push(Settled { event: event.envelope, outcome });
        }
        outcomes
    }

    fn topic_of(&self, handler: &str) -> Option<String> {
        let subscriptions = self.bus().inspect().subscriptions();
        subscriptions.into_iter().find(|known| known.id == handler).map(|known| known.topic)
    }

    /// Refuses a handler that there is not: a test that asks for it is misspelt.
    #[track_caller]
    pub(super) fn known(&self, handler: &str) {
        let known: Vec<String> = self.bus().inspect().subscriptions().into_iter().map(|known| known.id).collect();
        assert!(
            known.iter().any(|known| known == handler),
            "there is no handler `{handler}`: the app has {}",
            if known.is_empty() { "none".to_owned() } else { format!("`{}`", known.join("`, `")) }
        );
    }

    /// What every handler has not done yet.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let mut unfinished = Vec::new();
        for known in self.bus().inspect().subscriptions() {
            let attempts = self.attempts.of(&known.id);
            let pending = self.outcomes(&known.id).into_iter().filter(|event| event.outcome == EventOutcome::Pending);
            unfinished.extend(pending.map(|Settled { event, .. }| {
                let last = attempts.iter().rfind(|attempt| attempt.event.id() == event.id());
                let state = last.map_or_else(
                    || "it was not handled yet".to_owned(),
                    |attempt| format!("attempt {} {}", attempt.number, state_of(attempt)),
                );
                format!("handler `{}` and {}: {state}", known.id, shown(&event))
            }));
        }
        unfinished.truncate(SHOWN_LINES);
        unfinished
    }

    /// All that was published and handled, for people: failed assertions print it.
    #[must_use]
    pub fn seen(&self) -> String {
        let mut text = format!("seen until {}:", time(self.now()));
        let mut topics = self.topics.lock().clone();
        let subscriptions = self.bus().inspect().subscriptions();
        topics.extend(subscriptions.iter().map(|known| known.topic.clone()));
        for topic in topics {
            let events = self.envelopes(&topic);
            let many = if events.len() == 1 { "1 event".to_owned() } else { format!("{} events", events.len()) };
            let _ = write!(text, "\n  {many} in topic `{topic}`");
            let lines = events.iter().map(|event| {
                let by = if event.causation_id().is_some() { ", emitted" } else { "" };
                format!("{} at {}{by}", shown(event), time(event.published()))
            });
            list(&mut text, "    ", lines);
        }
        for known in subscriptions {
            let _ = write!(text, "\n  handler `{}`", known.id);
            let attempts = self.attempts.of(&known.id);
            for Settled { event, outcome } in self.outcomes(&known.id).into_iter().take(SHOWN_LINES) {
                let _ = write!(text, "\n    {}: {}", shown(&event), ending(&outcome));
                let of_event = attempts.iter().filter(|attempt| attempt.event.id() == event.id());
                let line = |attempt: &Attempt| {
                    format!("attempt {} at {} {}", attempt.number, time(attempt.started), state_of(attempt))
                };
                list(&mut text, "      ", of_event.map(line));
            }
        }
        text
    }
}

/// The first lines of a list.
fn list(text: &mut String, indent: &str, lines: impl Iterator<Item = String>) {
    for (index, line) in lines.enumerate() {
        if index == SHOWN_LINES {
            let _ = write!(text, "\n{indent}…");
            return;
        }
        let _ = write!(text, "\n{indent}{line}");
    }
}

/// An event in one line: type, key and data.
pub(super) fn shown(event: &Envelope) -> String {
    let key = event.key().map(|key| format!(" of `{key}`")).unwrap_or_default();
    let data = match std::str::from_utf8(event.data()) {
        Ok("") => String::new(),
        Ok(text) if text.chars().count() > SHOWN_DATA => {
            format!(" {}…", text.chars().take(SHOWN_DATA).collect::<String>())
        }
        Ok(text) => format!(" {text}"),
        Err(_) => format!(" ({} bytes)", event.data().len()),
    };
    format!("{}{key}{data}", event.event_type())
}

/// A time as time since the start.
fn time(time: Timestamp) -> String {
    let since = time.since(TIME_OF_START);
    if since.is_zero() { "0s".to_owned() } else { format!("{since:?}") }
}

fn ending(outcome: &EventOutcome) -> String {
    match outcome {
        EventOutcome::Acked => "acked".to_owned(),
        EventOutcome::Skipped => "skipped".to_owned(),
        EventOutcome::Expired => "expired".to_owned(),
        EventOutcome::Missed => "missed".to_owned(),
        EventOutcome::DeadLettered { error } => format!("dead letter: {error}"),
        EventOutcome::Pending => "pending".to_owned(),
    }
}

fn state_of(attempt: &Attempt) -> String {
    let injected = if attempt.injected { " (the test said so)" } else { "" };
    match (&attempt.outcome, attempt.ended) {
        (None, None) => "still runs, and waits for what time alone does not bring".to_owned(),
        (None, Some(_)) => "was stopped".to_owned(),
        (Some(Outcome::Ack), _) => "acked".to_owned(),
        (Some(Outcome::Fail { class, error }), _) => format!("failed, {class}: {error}{injected}"),
        (Some(Outcome::Reject { error, .. }), _) => format!("rejected: {error}{injected}"),
        (Some(Outcome::Defer(delay)), _) => format!("deferred by {delay:?}{injected}"),
    }
}
