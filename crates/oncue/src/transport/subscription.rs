//! What a subscription asks of a transport.

use crate::event::{Envelope, takes};

/// Most handlers that can be joined by `after` edges: their progress is one bit each.
pub const MAX_MEMBERS: usize = 64;

/// Where a new subscription begins. One that exists goes on where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first event that the topic still has.
    #[default]
    Earliest,
    /// With the next event that is published.
    Latest,
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

/// Which of the waiting events a handler is given first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The one that has waited longest: a queue.
    #[default]
    Fifo,
    /// The newest: a stack. Needs [`Ordered::Relaxed`], as it turns the order within a key around.
    Lifo,
    /// The one of the highest priority; among equals, the one that has waited longest.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The id that its position is kept under.
    pub id: String,
    /// Event types that it takes; empty = every type.
    pub types: Vec<String>,
    /// Where it begins if it is new.
    pub start: Start,
    /// What its dead letters do to their keys.
    pub on_dead_letter: OnDeadLetter,
}

impl MemberSpec {
    /// Whether this handler takes the event.
    #[must_use]
    pub fn matches(&self, envelope: &Envelope) -> bool {
        takes(&self.types, envelope.event_type())
    }
}

/// A subscription: one handler, or several that `after` edges join. They share what is read, and each keeps a position
/// of its own, so that joining or parting handlers loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// The topic.
    pub topic: String,
    /// The handlers, at most [`MAX_MEMBERS`].
    pub members: Vec<MemberSpec>,
    /// How strictly order is kept within a key.
    pub ordered: Ordered,
}

/// A set of members of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
