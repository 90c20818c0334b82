//! One turn of handing out events.

use super::hand::ConsumerId;
use crate::{
    clock::Timestamp,
    transport::{Delivered, Limit},
};

/// An instance is given events: at what time, how much more there is room for, and what it has so far.
pub(in crate::transport) struct Giving<'a> {
    pub(in crate::transport) to: ConsumerId,
    pub(in crate::transport) now: Timestamp,
    pub(in crate::transport) room: Limit,
    pub(in crate::transport) out: &'a mut Vec<Delivered>,
}

impl Giving<'_> {
    pub(in crate::transport) fn has_room(&self) -> bool {
        self.room.events > 0 && self.room.bytes > 0
    }

    pub(in crate::transport) fn give(&mut self, delivered: Delivered) {
        self.room.events -= 1;
        self.room.bytes = self.room.bytes.saturating_sub(delivered.envelope.encoded_bytes());
        self.out.push(delivered);
    }
}
