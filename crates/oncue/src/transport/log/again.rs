//! Giving events again that were passed by before: what waits is remembered as an offset, and found among the newest
//! events or in the log.

use oncue_log::{Cursor, ReadError, Record};

use super::{consumer::Core, feed::FedEvent, reading::LogHand, records::Redrive};
use crate::transport::ConsumeError;

impl Core {
    /// Reads one event that was passed by before. Events that waited behind one another are near each other: one cursor
    /// goes from the one to the next.
    ///
    /// Nothing if the topic dropped it meanwhile.
    pub(super) fn read_again(&self, hand: &mut LogHand, offset: u64) -> Result<Option<FedEvent>, ConsumeError> {
        let (mut copies, others) = self.read_copies(offset)?;
        if !others && !copies.is_empty() {
            // The topic may have dropped the event itself.
            let Redrive { about, envelope } = copies.remove(0).1;
            let copies = copies.into_iter().map(|(member, again)| (member, again.envelope)).collect();
            return Ok(Some(FedEvent { offset, partition: about.partition, envelope, copies }));
        }
        let copies = copies.into_iter().map(|(member, again)| (member, again.envelope)).collect();
        match self.read_original(hand, offset) {
            Ok(event) => Ok(Some(FedEvent { copies, ..event })),
            Err(_) if self.is_dropped(offset) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The event itself: as it was published, if it is that new, else from the log.
    fn read_original(&self, hand: &mut LogHand, offset: u64) -> Result<FedEvent, ConsumeError> {
        let mut handed = Vec::new();
        let (place, durable) = ((self.topic.id, offset), self.inner.log.durable());
        self.inner.shared.lock().recent.read(place, durable, (1, usize::MAX), &mut handed);
        match handed.pop() {
            Some(event) => Ok(event),
            None => FedEvent::of(&self.read_record(hand, offset)?),
        }
    }

    fn read_record(&self, hand: &mut LogHand, offset: u64) -> Result<Record, ConsumeError> {
        const NEAR: u64 = 256;
        let known = hand.reading.again.take();
        let near = known.filter(|cursor| cursor.offset() <= offset && offset - cursor.offset() < NEAR);
        // What lies between may have been dropped since: then the event itself is looked for.
        let read = match near.map(|cursor| self.read_from(cursor, offset)) {
            Some(Ok(read)) => Ok(read),
            Some(Err(_)) | None => self.read_from(self.inner.log.cursor(self.topic.id, offset), offset),
        };
        let (cursor, record) = read.map_err(|error| ConsumeError::Storage(error.to_string()))?;
        hand.reading.again = Some(cursor);
        record.filter(|record| record.offset == offset).ok_or_else(|| {
            ConsumeError::Storage(format!(
                "topic `{}`: event {offset} is gone although it is not settled",
                self.topic.name
            ))
        })
    }

    /// Reads on up to an event.
    fn read_from(&self, mut cursor: Cursor, offset: u64) -> Result<(Cursor, Option<Record>), ReadError> {
        let mut read = Vec::with_capacity(1);
        while cursor.offset() <= offset {
            read.clear();
            if self.inner.log.read(&mut cursor, 1, usize::MAX, &mut read)? == 0 {
                break;
            }
        }
        Ok((cursor, read.pop()))
    }

    /// The copies of an event that members handle again, edited perhaps; and whether other members are not through with the
    /// event itself.
    fn read_copies(&self, offset: u64) -> Result<(Vec<(u8, Redrive)>, bool), ConsumeError> {
        let (mut again, mut others) = (Vec::new(), false);
        {
            let shared = self.inner.shared.lock();
            for (member, number) in (0..).zip(&self.numbers) {
                let state = &shared.state.subscriptions[*number as usize];
                match state.redriven.get(&offset) {
                    Some(lsn) => again.push((member, *lsn)),
                    None => others |= !state.settled.contains(offset) && !state.dead.contains_key(&offset),
                }
            }
        }
        let read = |(member, lsn)| {
            let again = self.inner.redriven(lsn).map_err(|error| ConsumeError::Storage(error.to_string()))?;
            Ok((member, again))
        };
        Ok((again.into_iter().map(read).collect::<Result<_, _>>()?, others))
    }
}
