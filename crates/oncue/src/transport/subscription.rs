//! What a subscription asks of a transport.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Position, Retention, RetentionFrom};
use crate::{
    clock::Timestamp,
    event::{Envelope, takes},
    filter::{Filter, Lessons},
    policy::{LearnedPriority, LearnedRoute},
};

/// Most handlers that can be joined by `after` edges: their progress is one bit each.
pub const MAX_MEMBERS: usize = 64;

/// Where a new subscription begins. One that exists goes on where it stands, unless it is [reset](Control::Reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first event that the topic still has.
    #[default]
    Earliest,
    /// With the next event that is published.
    Latest,
    /// With the event at this position.
    At(Position),
    /// With the first event that was published at this time or later.
    Since(Timestamp),
}

/// How strictly order is kept within a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordered {
    /// Event n+1 of a key is not started before event n is settled; a failing event holds its key (and no other).
    #[default]
    Strict,
    /// Later events of a key may pass one that waits for its retry.
    Relaxed,
}

/// Which of the waiting events is handed out next, as far as the order within keys allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The oldest: a queue.
    #[default]
    Fifo,
    /// The newest: a stack. Only with [`Ordered::Relaxed`].
    Lifo,
    /// The one of the highest priority (9 before 0), and of those the oldest.
    Priority,
}

/// What a dead letter does to later events of its key, and to the handlers `after` the one that gave up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadLetter {
    /// The key goes on; handlers after this one skip the event.
    #[default]
    Continue,
    /// Both wait until it is redriven or discarded.
    Hold,
}

/// One handler's durable registration.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MemberSpec {
    /// The id that its position is kept under.
    pub id: String,
    /// Event types that it takes; empty = every type.
    pub types: Vec<String>,
    /// What it takes of these; nothing = all.
    pub filter: Option<Filter>,
    /// Event types that it may emit: for graphs.
    pub emits: Vec<String>,
    /// Handlers that it comes after: for graphs.
    pub after: Vec<String>,
    /// Where it begins if it is new.
    pub start: Start,
    /// What its dead letters do to their keys.
    pub on_dead_letter: OnDeadLetter,
    /// What is learned of its events' ends, where the transport learns; nothing = nothing.
    #[serde(default)]
    pub learns: Option<Lessons>,
    /// How it learns which of its events come first, where the transport learns and its order is by priority; nothing = what
    /// events say themselves.
    #[serde(default)]
    pub ranks: Option<LearnedPriority>,
    /// How it learns which of its handlers is given an event, where the transport learns; nothing = it has one.
    #[serde(default)]
    pub routes: Option<LearnedRoute>,
}

impl MemberSpec {
    /// Whether this handler takes the event.
    #[must_use]
    pub fn matches(&self, envelope: &Envelope) -> bool {
        takes(&self.types, envelope.event_type()) && self.filter.as_ref().is_none_or(|filter| filter.matches(envelope))
    }
}

/// A subscription: one handler, or several that `after` edges join. They share what is read, and each keeps a position
/// of its own, so that joining or parting handlers loses nothing.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SubscriptionSpec {
    /// The topic.
    pub topic: String,
    /// The handlers, at most [`MAX_MEMBERS`].
    pub members: Vec<MemberSpec>,
    /// Which of the waiting events is next.
    pub order: Order,
    /// How strictly order is kept within a key.
    pub ordered: Ordered,
}

/// What is done to a subscription from outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Control {
    /// Dead letters are taken up again, or dropped: all of them or none.
    Resolve(Vec<(Position, Resolution)>),
    /// It begins anew: dead letters and retries are forgotten, keyed states stay. Not while it is served.
    Reset(Start),
    /// It is forgotten, with its dead letters and its keyed states. Not while it is served.
    Remove,
    /// What is to be remembered about it, instead of what was.
    Remember(Bytes),
}

/// What is done to topics.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TopicControl {
    /// What topics keep, by name, as the app says in its code or its configuration file, instead of what it said before. Of
    /// other topics the transport's own setting counts.
    Declare(BTreeMap<String, (Retention, RetentionFrom)>),
    /// What one topic keeps from now on, whatever the app says; remembered with the topic, which is made if it does not exist.
    /// Nothing: what the app says counts again.
    Set(String, Option<Retention>),
    /// What topics need not keep goes now.
    Retain,
}

/// What becomes of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Resolution {
    /// It is handled again, from the first attempt on, by this subscription alone.
    Redrive,
    /// As [`Redrive`](Self::Redrive), with these attributes and this data. Id, source and position stay.
    Edit(Envelope),
    /// It is given up: nothing waits for it any more.
    Discard,
}

/// A set of members of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Members(u64);

impl Members {
    /// No member.
    pub const NONE: Self = Self(0);

    /// The first `count` members.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        Self(if count >= MAX_MEMBERS { u64::MAX } else { (1 << count) - 1 })
    }

    /// From one bit per member.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit per member.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `member` is in the set.
    #[must_use]
    pub const fn contains(self, member: usize) -> bool {
        self.0 & (1 << member) != 0
    }

    /// Adds a member.
    pub fn insert(&mut self, member: usize) {
        self.0 |= 1 << member;
    }

    /// Removes a member.
    pub fn remove(&mut self, member: usize) {
        self.0 &= !(1 << member);
    }

    /// Whether no member is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every member of `other` is in this set.
    #[must_use]
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether a member of `other` is in this set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let member = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            (member < u64::BITS).then_some(member as usize)
        })
    }
}
