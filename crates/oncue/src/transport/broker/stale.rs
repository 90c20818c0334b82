//! Events that were handed out under a lease that was lost, and have not come back: later ones of their keys wait for them,
//! where this process serves the partition again meanwhile.

use std::collections::BTreeMap;

use super::share::ReadTo;
use crate::transport::{
    Members, Settlement,
    log::hand::{ConsumerId, Hand, InFlight, KeyHash},
};

/// By offset. Those without a key have no order, and are not in it.
#[derive(Default)]
pub(super) struct Stale(BTreeMap<u64, Out>);

struct Out {
    key: KeyHash,
    holder: ConsumerId,
    /// Members that have said nothing of it yet.
    open: Members,
}

impl Stale {
    /// The lease is lost under which these are in flight.
    pub(super) fn add<'a>(&mut self, in_flight: impl Iterator<Item = (&'a u64, &'a InFlight)>) {
        self.0.extend(in_flight.filter_map(|(offset, event)| {
            let key = event.envelope.key_hash()?;
            Some((*offset, Out { key, holder: event.holder, open: event.open }))
        }));
    }

    /// They hold their keys under a new lease, too.
    pub(super) fn hold(&self, hand: &mut Hand<ReadTo>) {
        self.0.values().for_each(|out| hand.is_out(out.key));
    }

    /// Whether a settlement is of one of them. It says nothing but that it has come back: what becomes of the event is for who
    /// handles it under the new lease.
    pub(super) fn come_back(&mut self, hand: &mut Hand<ReadTo>, consumer: ConsumerId, settlement: &Settlement) -> bool {
        let offset = settlement.position.offset();
        let Some(out) = self.0.get_mut(&offset).filter(|out| out.holder == consumer) else { return false };
        out.open.remove(usize::from(settlement.member));
        if out.open.is_empty() {
            self.forget(hand, offset);
        }
        true
    }

    /// An instance goes, and with it what it was given.
    pub(super) fn leave(&mut self, hand: &mut Hand<ReadTo>, consumer: ConsumerId) {
        let left: Vec<u64> =
            self.0.iter().filter(|(_, out)| out.holder == consumer).map(|(offset, _)| *offset).collect();
        left.into_iter().for_each(|offset| self.forget(hand, offset));
    }

    fn forget(&mut self, hand: &mut Hand<ReadTo>, offset: u64) {
        if let Some(Out { key, .. }) = self.0.remove(&offset) {
            hand.has_come_back(key, self.0.values().all(|other| other.key != key));
        }
    }
}
