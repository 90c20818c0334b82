//! Reading new events of the topic, by itself or from the topic's feed; and those that wait for their time far ahead.

use oncue_log::Cursor;

use super::{
    Shared,
    consumer::Core,
    feed::{FedEvent, Seat},
    giving::Giving,
    hand::{Hand, Reading},
    records::SubscriptionNumber,
    schedule::Beyond,
};
use crate::{clock::Timestamp, transport::ConsumeError};

/// Records read from the log at once.
pub(super) const READ_RECORDS: usize = 512;
/// Most bytes of them, where nobody has said how many there is room for.
const READ_BYTES: usize = 4 << 20;

/// What is handed out and what waits, of a subscription of the log.
pub(super) type LogHand = Hand<LogReading>;

/// Where a subscription of the log reads.
pub(super) struct LogReading {
    /// Where new events are read, as long as no feed reads them.
    pub(super) cursor: Cursor,
    /// What the topic's feed reads for this subscription.
    pub(super) seat: Option<Seat>,
    /// What waited below and was dropped is forgotten.
    pub(super) first_kept: u64,
    /// Everything below was considered, where a feed reads.
    pub(super) fed_to: u64,
    /// Where events that waited are read again.
    pub(super) again: Option<Cursor>,
    /// Memory for what is read.
    pub(super) events: Vec<FedEvent>,
    /// Where more events that are not due yet are being looked for, up to an offset: those due at a time or later.
    pub(super) search: Option<(Cursor, Beyond)>,
}

impl LogReading {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { cursor, seat: None, first_kept: 0, fed_to: 0, again: None, events: Vec::new(), search: None }
    }
}

impl Reading for LogReading {
    fn read_to(&self) -> u64 {
        if self.seat.is_some() { self.fed_to } else { self.cursor.offset() }
    }

    fn is_searching(&self) -> bool {
        self.search.is_some()
    }
}

impl Core {
    /// Reads new events, and hands them out unless they have to wait; true if some were read.
    pub(super) fn read_new(&self, hand: &mut LogHand, giving: &mut Giving<'_>) -> Result<bool, ConsumeError> {
        if !giving.has_room() || hand.is_full() {
            return Ok(false);
        }
        if hand.reading.seat.is_some() {
            return self.eat(hand, giving);
        }
        let mut events = std::mem::take(&mut hand.reading.events);
        let wanted = giving.room.events.min(READ_RECORDS);
        let read = self.inner.read_events(&mut hand.reading.cursor, (wanted, giving.room.bytes), &mut events);
        let more = !events.is_empty();
        if more {
            let mut shared = self.inner.shared.lock();
            for event in events.drain(..) {
                self.give(hand, &mut shared, giving, event, false);
            }
        }
        self.inner.progress.notify_waiters();
        hand.reading.events = events;
        read?;
        if !more {
            // It keeps up: where the topic has many subscriptions, their common reader reads for it from now on.
            hand.reading.seat = self.inner.seat(&self.topic, hand.reading.cursor.offset(), &self.spec.members);
            hand.reading.fed_to = hand.reading.cursor.offset();
            return Ok(hand.reading.seat.is_some());
        }
        Ok(more)
    }

    /// As [`read_new`](Self::read_new), where the topic's feed reads.
    fn eat(&self, hand: &mut LogHand, giving: &mut Giving<'_>) -> Result<bool, ConsumeError> {
        let Some(helping) =
            hand.reading.seat.as_ref().map(|seat| seat.0.take(giving.room.events.min(READ_RECORDS), giving.room.bytes))
        else {
            return Ok(false);
        };
        let more = !helping.events.is_empty();
        let mut shared = self.inner.shared.lock();
        for event in helping.events {
            self.pass_by(hand, &mut shared, event.offset);
            hand.reading.fed_to = event.offset + 1;
            self.give(hand, &mut shared, giving, event, false);
        }
        self.pass_by(hand, &mut shared, helping.upto);
        drop(shared);
        if helping.left {
            hand.reading.cursor = self.inner.log.cursor(self.topic.id, hand.reading.fed_to);
            hand.reading.seat = None;
        }
        self.inner.progress.notify_waiters();
        Ok(more || helping.left)
    }

    /// Passes by what the feed found to be of no interest.
    fn pass_by(&self, hand: &mut LogHand, shared: &mut Shared, upto: u64) {
        if upto > hand.reading.fed_to {
            for number in &self.numbers {
                shared.state.subscriptions[*number as usize].settled.insert_range(hand.reading.fed_to, upto);
            }
            hand.reading.fed_to = upto;
        }
    }

    /// Takes notice of what the feed has passed by: for those who ask how far the subscription is.
    pub(super) fn catch_up(&self) {
        let mut hand = self.hand.lock();
        let Some(upto) = hand.reading.seat.as_ref().and_then(|seat| seat.0.passed_to()) else { return };
        let mut shared = self.inner.shared.lock();
        self.pass_by(&mut hand, &mut shared, upto);
    }

    /// Looks on for delayed events that found no room in the schedule; true if it is to go on with that at once.
    pub(super) fn look_for_delayed(&self, hand: &mut LogHand, now: Timestamp) -> Result<bool, ConsumeError> {
        if hand.is_full() {
            return Ok(false);
        }
        if hand.reading.search.is_none() {
            let Some(beyond) = hand.schedule.look_beyond() else { return Ok(false) };
            let low = {
                let shared = self.inner.shared.lock();
                let low = |number: &SubscriptionNumber| shared.state.subscriptions[*number as usize].settled.low();
                self.numbers.iter().map(low).min().unwrap_or(0)
            };
            hand.reading.search = Some((self.inner.log.cursor(self.topic.id, beyond.from.max(low)), beyond));
        }
        let Some((cursor, beyond)) = &mut hand.reading.search else { return Ok(false) };
        let (mut records, beyond) = (Vec::new(), *beyond);
        let read = self.inner.read_kept(cursor, (READ_RECORDS, READ_BYTES), &mut records);
        read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        let goes_on = !records.is_empty() && cursor.offset() < beyond.to;
        let shared = self.inner.shared.lock();
        for record in records.iter().filter(|record| record.offset < beyond.to && !self.is_over(&shared, record.offset))
        {
            let FedEvent { offset, envelope, .. } = FedEvent::of(record)?;
            let Some(due) = envelope.due().filter(|due| *due >= beyond.due) else { continue };
            let place = hand.place(offset, &envelope);
            if due > now { hand.schedule.add(due, place) } else { hand.make_ready(place) }
        }
        drop(shared);
        if !goes_on {
            hand.reading.search = None;
        }
        Ok(goes_on)
    }

    /// Whether every member is through with the event itself.
    fn is_over(&self, shared: &Shared, offset: u64) -> bool {
        self.numbers.iter().all(|number| shared.state.subscriptions[*number as usize].settled.contains(offset))
    }
}
