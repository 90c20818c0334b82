//! The state records that ride beside the events: what they hold and how it is written.
//!
//! Acknowledgements are many and small: one record holds a batch of them, in varints. The others are rare: they are JSON,
//! so that a dump is readable and a field can be added.

use bytes::Bytes;
use oncue_log::{Lsn, TopicId};
use serde::{Deserialize, Serialize};

use super::{dedup::Window, missed::Gap};
pub(crate) use super::{lesson::Lesson, service::Service, trial::Trial};
use crate::codec::{Malformed, Reader, Writer};
use crate::{
    clock::Timestamp,
    event::{Envelope, takes},
    filter::{Feedback, Filter, Lessons},
    metrics::{Ended, Sample},
    policy::{ErrorClass, LearnedPriority, LearnedRoute},
    transport::{FailedAttempt, MemberSpec, StateChange},
};

/// Record kinds; see docs/log-format.md.
pub(crate) mod kind {
    pub(crate) const SETTLE: u8 = 17;
    pub(crate) const RETRY: u8 = 18;
    pub(crate) const DEAD_LETTER: u8 = 19;
    pub(crate) const KEYED: u8 = 20;
    pub(crate) const EVENT_TYPE: u8 = 21;
    pub(crate) const SUBSCRIPTION: u8 = 22;
    pub(crate) const SOURCE: u8 = 23;
    pub(crate) const REDRIVE: u8 = 24;
    pub(crate) const DISCARD: u8 = 25;
    pub(crate) const RESET: u8 = 26;
    pub(crate) const REMOVE: u8 = 27;
    pub(crate) const REMEMBER: u8 = 28;
    pub(crate) const WINDOW: u8 = 29;
    pub(crate) const DROPPED: u8 = 30;
    pub(crate) const LESSON: u8 = 31;
    pub(crate) const SERVICE: u8 = 32;
    pub(crate) const TRIAL: u8 = 33;
}

/// The number of a subscription in its log, from 0.
pub(crate) type SubscriptionNumber = u32;

/// The number of an event type in its log, from 0.
pub(crate) type TypeNumber = u32;

/// The number of all types that have none of their own.
pub(crate) const OTHER_TYPES: TypeNumber = TypeNumber::MAX;

/// One change of the state. Written first, then applied; replayed by being applied again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Settle(Settle),
    Retry(Retry),
    DeadLetter(Dead),
    Keyed(Keyed),
    EventType(EventType),
    Subscription(Subscription),
    Source(Source),
    Redrive(Redrive),
    Discard(Discard),
    Reset(Reset),
    Remove(Remove),
    Remember(Remember),
    /// How far back duplicates are recognised from now on.
    Window(Window),
    Dropped(Dropped),
    Lesson(Lesson),
    Service(Service),
    Trial(Trial),
}

/// A subscription is through with some events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settle {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) entries: Vec<Ack>,
}

/// The end of one event for one subscription, with the times that response times are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ack {
    pub(crate) offset: u64,
    /// The number of the event's type.
    pub(crate) event_type: TypeNumber,
    pub(crate) end: End,
    /// Attempts it took; 0: it was not handled.
    pub(crate) attempts: u32,
    pub(crate) times: Times,
}

/// How a subscription came through with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Acked,
    Skipped,
    Expired,
}

impl End {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Acked => 0,
            Self::Skipped => 1,
            Self::Expired => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, Malformed> {
        match code {
            0 => Ok(Self::Acked),
            1 => Ok(Self::Skipped),
            2 => Ok(Self::Expired),
            _ => Err(Malformed("an event ended in a way that is not known")),
        }
    }
}

/// An event type gets a number, so that settlements need not name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventType {
    pub(crate) number: TypeNumber,
    pub(crate) name: String,
}

/// A dead letter is handled again: a copy of the event, as it is to be handled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Redrive {
    pub(crate) about: RedriveAbout,
    pub(crate) envelope: Envelope,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RedriveAbout {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    /// The dead letter, whose history goes on; nothing if that is gone.
    pub(crate) history: Vec<FailedAttempt>,
}

/// A dead letter is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Discard {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) offset: u64,
}

/// A subscription begins anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reset {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) from: u64,
}

/// A subscription is forgotten; its number is not used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remove {
    pub(crate) subscription: SubscriptionNumber,
}

/// What is to be remembered about a subscription.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remember {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) what: Bytes,
}

/// A topic keeps no events below an offset: every subscription of it goes on there. Stands before the log's own record of
/// that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    pub(crate) topic: u32,
    pub(crate) first: u64,
    /// Who was not through with all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) missed: Vec<Gap>,
    /// Of subscriptions and the offsets of events that came too late for them: nothing else was written of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) expired: Vec<(SubscriptionNumber, u64)>,
}

/// The times of an attempt, as response times are made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) generated: Option<Timestamp>,
    pub(crate) published: Timestamp,
    pub(crate) read: Timestamp,
    pub(crate) ended: Timestamp,
}

impl Times {
    /// `again`: of a dead letter that is handled again.
    pub(crate) fn sample(&self, ended: Ended, again: bool) -> Sample {
        let Self { generated, published, read, ended: settled } = *self;
        Sample { generated, published, started: read, settled, ended, again }
    }
}

/// A failed attempt that will be followed by another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Retry {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) offset: u64,
    pub(crate) event_type: TypeNumber,
    pub(crate) attempts: u32,
    pub(crate) due: Timestamp,
    pub(crate) times: Times,
    /// How the attempt failed; none: deferred by the handler.
    pub(crate) failed: Option<FailedAttempt>,
    /// The record of the attempt before, so that the history needs no memory.
    pub(crate) previous: Option<Lsn>,
}

/// An event that a subscription gave up on: a copy, so that it outlives the topic's retention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dead {
    pub(crate) about: DeadAbout,
    pub(crate) envelope: Envelope,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeadAbout {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    /// Later events of the key wait for it.
    pub(crate) hold: bool,
    /// Written before, and again so that its segment could go: by versions that did not rewrite segments.
    #[serde(default)]
    pub(crate) copy: bool,
    pub(crate) event_type: TypeNumber,
    pub(crate) times: Times,
    pub(crate) history: Vec<FailedAttempt>,
}

/// A subscription's state of one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keyed {
    pub(crate) subscription: SubscriptionNumber,
    pub(crate) key: String,
    pub(crate) change: StateChange,
}

/// A subscription was made, or takes other event types than before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) number: SubscriptionNumber,
    pub(crate) id: String,
    pub(crate) topic: u32,
    /// The topic where topics have no numbers: on a broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic_name: Option<String>,
    pub(crate) types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<Filter>,
    #[serde(default)]
    pub(crate) emits: Vec<String>,
    #[serde(default)]
    pub(crate) after: Vec<String>,
    /// What it learns of its events' ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) learns: Option<Box<Lessons>>,
    /// Where feedback tells: the first offset that is learned from. The feedback of events before may have come before
    /// anybody waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) learns_from: Option<u64>,
    /// How it learns which of its events come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ranks: Option<Box<LearnedPriority>>,
    /// How it learns which of its handlers is given an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routes: Option<Box<LearnedRoute>>,
    /// As `learns_from`, of its route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routes_from: Option<u64>,
    /// The first offset that it wants.
    pub(crate) from: u64,
}

impl Subscription {
    /// As a handler asks for it, its number and its beginning to be filled in.
    pub(crate) fn of(member: &MemberSpec, topic: TopicId) -> Self {
        Self {
            number: 0,
            id: member.id.clone(),
            topic: topic.0,
            topic_name: None,
            types: member.types.clone(),
            filter: member.filter.clone(),
            emits: member.emits.clone(),
            after: member.after.clone(),
            learns: member.learns.clone().map(Box::new),
            learns_from: None,
            ranks: member.ranks.clone().map(Box::new),
            routes: member.routes.clone().map(Box::new),
            routes_from: None,
            from: 0,
        }
    }

    /// Whether it takes an event.
    pub(crate) fn wants(&self, event: &Envelope) -> bool {
        takes(&self.types, event.event_type()) && self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }

    /// The feedback that it learns by, if it does.
    pub(crate) fn feedback(&self) -> Option<&Feedback> {
        self.learns.as_ref()?.feedback()
    }

    /// The feedback that its route learns by, if it does.
    pub(crate) fn route_feedback(&self) -> Option<&Feedback> {
        self.routes.as_ref()?.told_by()
    }

    /// The types of events that are feedback.
    pub(crate) fn told_by(&self) -> impl Iterator<Item = &String> {
        self.feedback().into_iter().chain(self.route_feedback()).flat_map(Feedback::types)
    }

    /// Whether it is as a handler asks for it.
    pub(crate) fn is_as(&self, member: &MemberSpec) -> bool {
        let Self { number, from, learns_from, routes_from, .. } = *self;
        *self == Self { number, from, learns_from, routes_from, ..Self::of(member, TopicId(self.topic)) }
    }

    /// Learns by feedback from the topic's next event on, if it does; as before, if nothing of that is `known` to change.
    pub(crate) fn learning_from(mut self, next: u64, known: Option<&Self>) -> Self {
        let goes_on = known.filter(|known| known.learns == self.learns).map(|known| known.learns_from);
        self.learns_from = goes_on.unwrap_or_else(|| self.feedback().map(|_| next));
        let goes_on =
            known.filter(|known| known.route_feedback() == self.route_feedback()).map(|known| known.routes_from);
        self.routes_from = goes_on.unwrap_or_else(|| self.route_feedback().map(|_| next));
        self
    }
}

/// A source with state came this far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) id: String,
    pub(crate) place: String,
    /// How many events of this batch were new, and how many duplicates.
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
}

impl Change {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Settle(_) => kind::SETTLE,
            Self::Retry(_) => kind::RETRY,
            Self::DeadLetter(_) => kind::DEAD_LETTER,
            Self::Keyed(_) => kind::KEYED,
            Self::Subscription(_) => kind::SUBSCRIPTION,
            Self::Source(_) => kind::SOURCE,
            Self::EventType(_) => kind::EVENT_TYPE,
            Self::Redrive(_) => kind::REDRIVE,
            Self::Discard(_) => kind::DISCARD,
            Self::Reset(_) => kind::RESET,
            Self::Remove(_) => kind::REMOVE,
            Self::Remember(_) => kind::REMEMBER,
            Self::Window(_) => kind::WINDOW,
            Self::Dropped(_) => kind::DROPPED,
            Self::Lesson(_) => kind::LESSON,
            Self::Service(_) => kind::SERVICE,
            Self::Trial(_) => kind::TRIAL,
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Settle(settle) => settle.encode(out),
            Self::Retry(retry) => json(out, retry),
            Self::DeadLetter(dead) => {
                json(out, &dead.about);
                out.bytes(&dead.envelope.to_stored());
            }
            Self::Keyed(keyed) => {
                out.varint(u64::from(keyed.subscription));
                out.bytes(keyed.key.as_bytes());
                if let StateChange::Set(value) = &keyed.change {
                    out.bytes(value);
                }
            }
            Self::Subscription(subscription) => json(out, subscription),
            Self::Source(source) => json(out, source),
            Self::EventType(event_type) => json(out, event_type),
            Self::Redrive(redrive) => {
                json(out, &redrive.about);
                out.bytes(&redrive.envelope.to_stored());
            }
            Self::Discard(discard) => json(out, discard),
            Self::Reset(reset) => json(out, reset),
            Self::Remove(remove) => json(out, remove),
            Self::Window(window) => json(out, window),
            Self::Dropped(dropped) => json(out, dropped),
            Self::Lesson(lesson) => lesson.encode(out),
            Self::Service(service) => service.encode(out),
            Self::Trial(trial) => trial.encode(out),
            Self::Remember(remember) => {
                out.varint(u64::from(remember.subscription));
                out.bytes(&remember.what);
            }
        }
    }

    /// `None` for a kind that is not ours (the log has already refused unknown kinds that must not be skipped).
    pub(crate) fn decode(kind: u8, data: &Bytes) -> Result<Option<Self>, Malformed> {
        let mut from = Reader::new(data);
        Ok(Some(match kind {
            kind::SETTLE => Self::Settle(Settle::decode(&mut from)?),
            kind::RETRY => Self::Retry(from_json(&mut from)?),
            kind::DEAD_LETTER => {
                let about = from_json(&mut from)?;
                Self::DeadLetter(Dead { about, envelope: copied_event(&mut from, data)? })
            }
            kind::REDRIVE => {
                let about = from_json(&mut from)?;
                Self::Redrive(Redrive { about, envelope: copied_event(&mut from, data)? })
            }
            kind::KEYED => {
                let subscription = from.small()?;
                let key = from.text()?.to_owned();
                let change = if from.is_empty() {
                    StateChange::Clear
                } else {
                    // A copy: a slice would keep its whole frame in memory.
                    StateChange::Set(Bytes::copy_from_slice(from.bytes()?))
                };
                Self::Keyed(Keyed { subscription, key, change })
            }
            kind::SUBSCRIPTION => Self::Subscription(from_json(&mut from)?),
            kind::SOURCE => Self::Source(from_json(&mut from)?),
            kind::EVENT_TYPE => Self::EventType(from_json(&mut from)?),
            kind::DISCARD => Self::Discard(from_json(&mut from)?),
            kind::RESET => Self::Reset(from_json(&mut from)?),
            kind::REMOVE => Self::Remove(from_json(&mut from)?),
            kind::WINDOW => Self::Window(from_json(&mut from)?),
            kind::DROPPED => Self::Dropped(from_json(&mut from)?),
            kind::LESSON => Self::Lesson(Lesson::decode(&mut from)?),
            kind::SERVICE => Self::Service(Service::decode(&mut from)?),
            kind::TRIAL => Self::Trial(Trial::decode(&mut from)?),
            kind::REMEMBER => {
                let subscription = from.small()?;
                Self::Remember(Remember { subscription, what: Bytes::copy_from_slice(from.bytes()?) })
            }
            _ => return Ok(None),
        }))
    }
}

impl Settle {
    fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.subscription));
        let base = self.entries.first().map_or(Timestamp::default(), |ack| ack.times.ended).as_micros();
        out.signed(base);
        out.varint(self.entries.len() as u64);
        for ack in &self.entries {
            out.varint(ack.offset);
            let generated = u64::from(ack.times.generated.is_some());
            out.varint(u64::from(ack.attempts) << 3 | u64::from(ack.end.code()) << 1 | generated);
            out.varint(u64::from(ack.event_type));
            let (ended, read) = (ack.times.ended.as_micros(), ack.times.read.as_micros());
            out.signed(ended.wrapping_sub(base));
            out.signed(ended.wrapping_sub(read));
            out.signed(read.wrapping_sub(ack.times.published.as_micros()));
            if let Some(generated) = ack.times.generated {
                out.signed(ack.times.published.as_micros().wrapping_sub(generated.as_micros()));
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let subscription = from.small()?;
        let base = from.signed()?;
        let count = from.count(6)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = from.varint()?;
            let flags = from.varint()?;
            let event_type = from.small()?;
            let ended = base.wrapping_add(from.signed()?);
            let read = ended.wrapping_sub(from.signed()?);
            let published = read.wrapping_sub(from.signed()?);
            let generated = if flags & 1 == 1 {
                Some(Timestamp::from_micros(published.wrapping_sub(from.signed()?)))
            } else {
                None
            };
            entries.push(Ack {
                offset,
                event_type,
                end: End::from_code((flags >> 1 & 3) as u8)?,
                attempts: u32::try_from(flags >> 3).map_err(|_| Malformed("too many attempts"))?,
                times: Times {
                    generated,
                    published: Timestamp::from_micros(published),
                    read: Timestamp::from_micros(read),
                    ended: Timestamp::from_micros(ended),
                },
            });
        }
        Ok(Self { subscription, entries })
    }
}

/// The copy of an event behind what is said about it.
fn copied_event(from: &mut Reader<'_>, data: &Bytes) -> Result<Envelope, Malformed> {
    let stored = data.slice_ref(from.bytes()?);
    Envelope::from_stored(&stored).map_err(|_| Malformed("a copied event is not readable"))
}

fn json<T: Serialize>(out: &mut Writer, value: &T) {
    // These types hold texts, numbers and lists of them: writing them as JSON cannot fail.
    out.bytes(&serde_json::to_vec(value).unwrap_or_default());
}

fn from_json<T: for<'a> Deserialize<'a>>(from: &mut Reader<'_>) -> Result<T, Malformed> {
    serde_json::from_slice(from.bytes()?).map_err(|_| Malformed("a JSON record does not fit its kind"))
}

/// A failed attempt, its error's text cut to what is worth keeping.
pub(crate) fn failed_attempt(
    attempt: &crate::transport::Attempt,
    class: ErrorClass,
    error: Option<&str>,
) -> FailedAttempt {
    const MAX_ERROR_BYTES: usize = 1024;
    let error = error.unwrap_or_default();
    let cut = error.floor_char_boundary(MAX_ERROR_BYTES);
    FailedAttempt {
        number: attempt.number,
        class,
        read: attempt.read,
        ended: attempt.ended,
        error: error[..cut].to_owned(),
    }
}

#[cfg(test)]
mod tests;
