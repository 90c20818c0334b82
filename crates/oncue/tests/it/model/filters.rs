//! What subscriptions do not want: events lie between those that they handle that their filters leave out.

use oncue::filter::Filter;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::known::{Model, Number, is_echo};

/// What filters tell apart.
pub(super) type Kind = u8;

/// Kinds are below.
pub(super) const KINDS: Kind = 3;

/// The kinds of events that a filter leaves out, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftOut(u8);

impl LeftOut {
    pub(super) fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind) != 0
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    pub(super) fn filter(self) -> Filter {
        let left_out = (0..KINDS).filter(|kind| self.has(*kind));
        left_out.fold(!Filter::exact("kind", "unknown"), |filter, kind| {
            filter.and(!Filter::exact("kind", kind.to_string()))
        })
    }

    /// What one of these filters leaves out.
    pub(super) fn of(filter: Option<&Filter>) -> Self {
        let is_its = |left_out: &Self| filter.is_some_and(|filter| *filter == left_out.filter());
        (0..1 << KINDS).map(Self).find(is_its).unwrap_or_default()
    }
}

/// One kind of three, or two, or even all.
pub(super) fn left_out() -> impl Strategy<Value = LeftOut> {
    prop_oneof![2 => Just(0), 6 => (0..KINDS).prop_map(|kind| 1 << kind), 4 => 1_u8..1 << KINDS].prop_map(LeftOut)
}

impl Model {
    /// Whether a subscription takes an event, with the filter that it has now.
    pub(super) fn takes(&self, subscription: usize, number: Number) -> bool {
        self.takes_type(subscription, number) && !self.leaves_out(subscription, number)
    }

    /// Whether an event is of a type that it takes.
    pub(super) fn takes_type(&self, subscription: usize, number: Number) -> bool {
        !is_echo(number) || self.program.subscriptions[subscription].echoes
    }

    pub(super) fn leaves_out(&self, subscription: usize, number: Number) -> bool {
        let kind = self.events.get(&number).and_then(|known| known.kind);
        kind.is_some_and(|kind| self.served[subscription].left_out.has(kind))
    }

    /// Whether an event has a place in its key's order: also one that is handled though the filter leaves it out by now.
    pub(super) fn has_turn(&self, subscription: usize, number: Number) -> bool {
        let track = self.tracks.get(&(subscription, number));
        self.takes(subscription, number) || track.is_some_and(|track| track.dead || track.redriven || track.running)
    }

    /// A subscription that is served reads events that its filter leaves out: these it may pass by for good.
    pub(super) fn pass_by(&mut self, subscription: usize) {
        let left_out = |number: &&Number| self.leaves_out(subscription, **number);
        let left_out: Vec<_> = self.events.keys().filter(left_out).map(|number| (subscription, *number)).collect();
        self.passed_by.extend(left_out);
    }

    /// Whether an event was settled because the filter left it out once.
    pub(super) fn is_passed_by(&self, subscription: usize, number: Number) -> bool {
        let ended = |track: &super::known::Track| track.acked || track.dead || track.discarded;
        self.passed_by.contains(&(subscription, number))
            && !self.tracks.get(&(subscription, number)).is_some_and(ended)
            && self.settled(subscription, number) == Some(oncue::transport::Settled::Acked)
    }
}
