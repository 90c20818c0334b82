//! Taking events in from the transport: as many as there is room for, each into the lane of its key.

use tokio::task::coop;

use super::{
    Dispatcher, WINDOW_BYTES, WINDOW_EVENTS, Work,
    gather::Gather,
    lanes::Entry,
    run::{Run, RunId},
};
use crate::{
    clock::Timestamp,
    transport::{Delivered, Limit, Order},
};

/// Events of a handler with layers that are taken in, at most, before the outcomes of those before them are sent: what is
/// learned of outcomes is known to the layers of the calls that follow.
const IN_A_ROW: usize = 64;

impl Dispatcher {
    /// How much more may be taken from the transport.
    pub(super) fn limit(&self) -> Limit {
        let events = match (self.order, self.members.first()) {
            // What is taken waits here in the order it came: so take no more than can start.
            (Order::Lifo | Order::Priority, Some(member)) => {
                let at_once = member.batch.map_or(1, |batch| batch.size).saturating_mul(member.concurrency);
                at_once.min(WINDOW_EVENTS).saturating_sub(self.unfinished())
            }
            _ => WINDOW_EVENTS,
        };
        Limit {
            events: events.min(WINDOW_EVENTS.saturating_sub(self.runs.len() + self.at_once)),
            bytes: WINDOW_BYTES.saturating_sub(self.bytes),
        }
    }

    /// Events that wait for a handler or are being handled.
    fn unfinished(&self) -> usize {
        self.runs.iter().filter(|(_, run)| !run.ended).count()
    }

    /// Takes in what arrived, as much as goes in a row; whether anything is left.
    pub(super) fn accept_some(&mut self, arrived: &mut std::vec::Drain<'_, Delivered>, now: Timestamp) -> bool {
        let layered = self.members.iter().any(|member| !member.callee.layers.is_empty());
        for delivered in arrived.take(if layered { IN_A_ROW } else { WINDOW_EVENTS }) {
            self.accept(delivered, now);
            if !coop::has_budget_remaining() {
                break;
            }
        }
        !arrived.as_slice().is_empty()
    }

    /// Takes in an event: it starts if its key is free, else it waits in the key's lane.
    fn accept(&mut self, delivered: Delivered, now: Timestamp) {
        // If nothing becomes of it at once, it will be this one.
        let id = self.runs.vacant_key();
        let joins = self.gather.as_ref().is_some_and(Gather::has_room);
        let entry = self.lanes.enter(delivered.envelope.key_hash(), id, joins);
        if entry == Entry::Start && self.is_one_call(&delivered, now) {
            self.call_at_once(id, delivered, now);
            return;
        }
        let run = Run::new(delivered, &self.members, now);
        self.bytes += run.bytes();
        self.runs.insert(run);
        match entry {
            Entry::Start => self.start(id),
            Entry::Wait => {}
            Entry::GiveBack => self.give_back(id),
        }
    }

    pub(super) fn start(&mut self, id: RunId) {
        if self.gather.is_some() {
            // At once: whether the next event of its key may join it depends on the room that it takes.
            self.advance(id);
        } else {
            self.work.push_back(Work::Advance(id));
        }
    }
}
