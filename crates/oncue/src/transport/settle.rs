//! Settling: making the outcome of a delivery durable.

use std::time::Duration;

use bytes::Bytes;

use super::{Members, Position};
use crate::{clock::Timestamp, event::Envelope, policy::ErrorClass};

/// An event handed out by a transport, and which members of the subscription are to handle it now.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Delivered {
    /// The event.
    pub envelope: Envelope,
    /// Where it stands.
    pub position: Position,
    /// Members that are to handle it now. **Each gets exactly one [`Settlement`]**, be it [`Action::Release`].
    pub due: Members,
    /// Members that are through with it: acked, or not interested.
    #[serde(default, skip_serializing_if = "nobody")]
    pub done: Members,
    /// Members that gave up on it: it is a dead letter of theirs, or they skip it because one before them gave up. So do
    /// those after them.
    #[serde(default, skip_serializing_if = "nobody")]
    pub dead: Members,
    /// Those of `dead` whose dead letter holds the event's key: those after them wait.
    #[serde(default, skip_serializing_if = "nobody")]
    pub held: Members,
    /// Attempts already made, for members that made any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<(u8, u32)>,
    /// What single members are given instead of the event: a dead letter of theirs that is handled again, edited perhaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<(u8, Envelope)>,
    /// When the first attempt failed, for members whose next attempt is to be compared with that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<(u8, Timestamp)>,
}

fn nobody(members: &Members) -> bool {
    members.is_empty()
}

impl Delivered {
    /// The event as `member` is given it.
    #[must_use]
    pub fn envelope_of(&self, member: usize) -> &Envelope {
        copy_of(&self.copies, member).unwrap_or(&self.envelope)
    }

    /// Since when `member` fails at it: without outages of what it calls, and zero before it failed.
    #[must_use]
    pub fn failing_for(&self, member: usize, now: Timestamp) -> Duration {
        let since = self.failing.iter().find(|(known, _)| usize::from(*known) == member);
        since.map_or(Duration::ZERO, |(_, since)| now.since(*since))
    }

    /// How many attempts `member` has made before this delivery.
    #[must_use]
    pub fn attempts_of(&self, member: usize) -> u32 {
        self.attempts.iter().find(|(known, _)| usize::from(*known) == member).map_or(0, |(_, attempts)| *attempts)
    }
}

/// The copy that a member has of an event, if it has one of its own.
pub(crate) fn copy_of(copies: &[(u8, Envelope)], member: usize) -> Option<&Envelope> {
    copies.iter().find(|(known, _)| usize::from(*known) == member).map(|(_, copy)| copy)
}

/// What becomes of a delivery for one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Action {
    /// Handled: done for this member.
    Ack,
    /// Not handled and never to be: a predecessor's dead letter makes this member skip the event.
    Skip,
    /// Not handled and never to be: its time to live is over.
    Expire,
    /// Failed: deliver again at this wall-clock time. With strict order the key waits.
    Retry(Timestamp),
    /// Failed for good: keep it as a dead letter, with its history.
    DeadLetter,
    /// Given back unhandled: deliver it again when its key is free. Writes nothing.
    Release,
}

/// What is recorded of an attempt: feeds response times, lineage, receipts and the decision model alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempt {
    /// Which attempt this was: 1 is the first; 0 if the handler did not run.
    pub number: u32,
    /// How it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// When the handler was given the event (rᵢ of the model).
    pub read: Timestamp,
    /// When its outcome was known.
    pub ended: Timestamp,
}

/// A change of a member's keyed state.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StateChange {
    /// The new value.
    Set(Bytes),
    /// The key has no state any more.
    Clear,
}

/// The outcome of one delivery for one member, with all that follows from it. Everything in one settle batch becomes
/// durable together or not at all, where the transport can (`Capabilities::atomic_settle`); elsewhere in the order
/// emits, state, dead letter or retry, and the acknowledgement last, so that a crash repeats and never loses.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Settlement {
    /// Which delivery.
    pub position: Position,
    /// Which member of the subscription.
    pub member: u8,
    /// What becomes of it.
    pub action: Action,
    /// The attempt that led here.
    pub attempt: Attempt,
    /// The error's text, of a failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// What is written with it, if anything: effects only with [`Action::Ack`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Box<Written>>,
}

/// What a handler leaves behind that acknowledges an event: becomes durable with that, or not at all.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// Events that it emitted, with the topics they go to.
    pub emits: Vec<(String, Envelope)>,
    /// The change of its keyed state.
    pub state: Option<StateChange>,
    /// How the handler was chosen, of one whose route is learned. The only thing that is written whatever the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<RouteChoice>,
}

/// Which of the handlers of a route was chosen, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RouteChoice {
    /// Which one, by its place among them.
    pub arm: u8,
    /// Which was believed to be best.
    pub best: u8,
    /// Whether it explores: any was as likely.
    pub explores: bool,
    /// Of how many it was chosen.
    pub among: u8,
}

impl Written {
    /// Bytes that the emitted events and the state take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let state = match &self.state {
            Some(StateChange::Set(value)) => value.len(),
            Some(StateChange::Clear) | None => 0,
        };
        state + self.emits.iter().map(|(_, event)| event.encoded_bytes()).sum::<usize>()
    }
}
