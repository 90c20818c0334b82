//! What is written of a subscription's partition, and what follows from it.
//!
//! A record of a ledger is a batch of changes as the embedded log has them, or a lease. State is what they say, applied in
//! order; live and after a restart alike.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{Broker, BrokerError, LedgerName};
use crate::{
    clock::Timestamp,
    codec::{Malformed, Reader, Writer},
    transport::{
        FailedAttempt,
        log::{
            offsets::OffsetSet,
            records::{Change, Dead, Redrive},
            state::{State, SubscriptionState},
        },
    },
};

/// Records that are read at once.
const READ_RECORDS: usize = 512;
/// Bytes of changes that make one record.
const RECORD_BYTES: usize = 256 * 1024;
/// Changes that make one record, at most: their number within it is part of where they stand.
const RECORD_CHANGES: usize = 1 << 16;
/// The kind of a lease, among those of changes.
const LEASE: u8 = 255;
/// The kind of the set of all that is settled, with what was passed by: that leaves no other trace.
const SETTLED: u8 = 254;

/// A subscription's ledger of one partition.
pub(super) struct Ledger {
    pub(super) name: LedgerName,
    known: Mutex<Known>,
    /// Who appends: one at a time, so that each knows what it follows.
    writing: tokio::sync::Mutex<()>,
}

/// What was read of it.
#[derive(Default)]
pub(super) struct Known {
    /// Of this subscription alone; its number is 0.
    pub(super) state: State,
    /// The offset of the last record that was applied; 0 if there is none.
    last: u64,
    /// Who holds the lease, and until when.
    pub(super) lease: Option<(String, Timestamp)>,
    /// Failed attempts of events that will be tried again.
    pub(super) histories: BTreeMap<u64, Vec<FailedAttempt>>,
    /// The keys of dead letters, also of those that were resolved since it is served here.
    pub(super) dead_keys: BTreeMap<u64, Option<u64>>,
    /// Copies of dead letters that are handled again.
    pub(super) copies: BTreeMap<u64, Redrive>,
}

/// Somebody is about to append.
pub(super) type Writing<'a> = tokio::sync::MutexGuard<'a, ()>;

/// What somebody else wrote.
pub(super) type Foreign = Vec<Change>;

impl Known {
    /// The subscription, once it was made.
    pub(super) fn subscription(&self) -> Option<&SubscriptionState> {
        self.state.subscriptions.first().filter(|state| !state.removed)
    }

    pub(super) fn is_held_by(&self, holder: &str) -> bool {
        self.lease.as_ref().is_some_and(|(known, _)| known == holder)
    }

    /// Until when somebody else holds the lease.
    pub(super) fn held_until(&self, holder: &str, now: Timestamp) -> Option<Timestamp> {
        self.lease.as_ref().filter(|(known, until)| known != holder && *until > now).map(|(_, until)| *until)
    }

    fn apply(&mut self, change: &Change, lsn: u64) -> Result<(), Malformed> {
        self.state.apply(change, lsn)?;
        match change {
            Change::Retry(retry) => self.histories.entry(retry.offset).or_default().extend(retry.failed.clone()),
            Change::Settle(settle) => settle.entries.iter().for_each(|ack| {
                self.histories.remove(&ack.offset);
                self.copies.remove(&ack.offset);
            }),
            Change::DeadLetter(Dead { about, envelope }) => {
                self.dead_keys.insert(about.offset, envelope.key_hash());
                self.histories.remove(&about.offset);
                self.copies.remove(&about.offset);
            }
            Change::Redrive(redrive) => {
                self.histories.insert(redrive.about.offset, redrive.about.history.clone());
                self.copies.insert(redrive.about.offset, redrive.clone());
            }
            Change::Reset(_) => {
                self.histories.clear();
                self.copies.clear();
            }
            // Whoever subscribes again begins with nothing.
            Change::Remove(_) => {
                *self = Self { last: self.last, lease: self.lease.take(), ..Self::default() };
            }
            _ => {}
        }
        Ok(())
    }

    /// Applies one record, and gives its changes.
    fn take(&mut self, offset: u64, record: &Bytes) -> Result<Vec<Change>, Malformed> {
        let mut changes = Vec::new();
        let mut from = Reader::new(record);
        let mut number = 0;
        while !from.is_empty() {
            let kind = from.u8()?;
            let data = record.slice_ref(from.bytes()?);
            if kind == LEASE {
                let mut lease = Reader::new(&data);
                let holder = lease.text()?.to_owned();
                self.lease = Some((holder, Timestamp::from_micros(lease.signed()?)));
            } else if kind == SETTLED {
                let settled = OffsetSet::decode(&mut Reader::new(&data))?;
                if let Some(state) = self.state.subscriptions.first_mut() {
                    state.settled = settled;
                }
            } else if let Some(change) = Change::decode(kind, &data)? {
                self.apply(&change, lsn(offset, number))?;
                changes.push(change);
            }
            number += 1;
        }
        self.last = offset;
        Ok(changes)
    }
}

/// Where a change stands: the offset of its record, and its number in it.
fn lsn(offset: u64, number: usize) -> u64 {
    offset * RECORD_CHANGES as u64 + number as u64
}

fn malformed(name: &LedgerName, offset: u64, error: Malformed) -> BrokerError {
    let LedgerName { subscription, partition } = name;
    BrokerError::Failed(format!("ledger of `{subscription}`, partition {partition}, record {offset}: {error}"))
}

fn encoded(changes: &[Change]) -> Vec<(Bytes, usize)> {
    let mut records = Vec::new();
    let (mut record, mut scratch, mut count) = (Writer::default(), Writer::default(), 0);
    for change in changes {
        scratch.clear();
        change.encode(&mut scratch);
        let is_full = record.as_slice().len() + scratch.as_slice().len() > RECORD_BYTES || count == RECORD_CHANGES;
        if count > 0 && is_full {
            records.push((std::mem::take(&mut record).into_bytes(), std::mem::take(&mut count)));
        }
        record.u8(change.kind());
        record.bytes(scratch.as_slice());
        count += 1;
    }
    if count > 0 {
        records.push((record.into_bytes(), count));
    }
    records
}

fn lease(holder: &str, until: Timestamp) -> Bytes {
    let (mut record, mut lease) = (Writer::default(), Writer::default());
    lease.bytes(holder.as_bytes());
    lease.signed(until.as_micros());
    record.u8(LEASE);
    record.bytes(lease.as_slice());
    record.into_bytes()
}

impl Ledger {
    pub(super) fn new(name: LedgerName) -> Self {
        Self { name, known: Mutex::default(), writing: tokio::sync::Mutex::new(()) }
    }

    /// What was read of it, as far as that is.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(super) async fn write(&self) -> Writing<'_> {
        self.writing.lock().await
    }

    /// Reads on to the end; gives the changes that others wrote.
    pub(super) async fn catch_up(&self, broker: &dyn Broker, _: &Writing<'_>) -> Result<Foreign, BrokerError> {
        let mut foreign = Vec::new();
        loop {
            let from = self.known.lock().last + 1;
            let records = broker.records(&self.name, from, READ_RECORDS).await?;
            if records.is_empty() {
                return Ok(foreign);
            }
            let mut known = self.known.lock();
            for (offset, record) in records {
                let changes = known.take(offset, &record).map_err(|error| malformed(&self.name, offset, error))?;
                foreign.extend(changes);
            }
        }
    }

    /// Appends and applies changes that follow from what is known; the error is [`BrokerError::Moved`] if that is not all.
    pub(super) async fn append(
        &self,
        broker: &dyn Broker,
        changes: &[Change],
        _: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        let mut done = 0;
        for (record, count) in encoded(changes) {
            let after = self.known.lock().last;
            let offset = broker.append(&self.name, record, after).await?;
            let mut known = self.known.lock();
            for (number, change) in changes[done..done + count].iter().enumerate() {
                let applied = known.apply(change, lsn(offset, number));
                applied.map_err(|error| malformed(&self.name, offset, error))?;
            }
            known.last = offset;
            done += count;
        }
        Ok(())
    }

    /// Gives up the lease, and tells what was passed by under it.
    pub(super) async fn release(&self, broker: &dyn Broker, holder: &str, _: &Writing<'_>) -> Result<(), BrokerError> {
        let mut record = Writer::default();
        let after = {
            let known = self.known.lock();
            if let Some(state) = known.subscription() {
                let mut settled = Writer::default();
                state.settled.encode(&mut settled);
                record.u8(SETTLED);
                record.bytes(settled.as_slice());
            }
            known.last
        };
        let over = lease(holder, Timestamp::default());
        let record = [record.as_slice(), &over].concat();
        let offset = broker.append(&self.name, record.into(), after).await?;
        let mut known = self.known.lock();
        known.lease = Some((holder.to_owned(), Timestamp::default()));
        known.last = offset;
        Ok(())
    }

    /// Takes or keeps the lease.
    pub(super) async fn lease(
        &self,
        broker: &dyn Broker,
        (holder, until): (&str, Timestamp),
        _: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        let after = self.known.lock().last;
        let offset = broker.append(&self.name, lease(holder, until), after).await?;
        let mut known = self.known.lock();
        known.lease = Some((holder.to_owned(), until));
        known.last = offset;
        Ok(())
    }

    /// A change that the state points to.
    pub(super) async fn change(&self, broker: &dyn Broker, lsn: u64) -> Result<Change, BrokerError> {
        let (offset, number) = (lsn / RECORD_CHANGES as u64, lsn % RECORD_CHANGES as u64);
        let found = broker.records(&self.name, offset, 1).await?.pop().filter(|(found, _)| *found == offset);
        let gone = || BrokerError::Failed(format!("ledger of `{}`: record {offset} is gone", self.name.subscription));
        let (_, record) = found.ok_or_else(gone)?;
        let mut from = Reader::new(&record);
        let decode = |error| malformed(&self.name, offset, error);
        for _ in 0..number {
            from.u8().map_err(decode)?;
            from.bytes().map_err(decode)?;
        }
        let kind = from.u8().map_err(decode)?;
        let data = record.slice_ref(from.bytes().map_err(decode)?);
        Change::decode(kind, &data).map_err(decode)?.ok_or_else(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::log::records::{Discard, Subscription};

    #[test]
    fn what_is_written_is_what_is_read() {
        let about = Subscription::of(&crate::transport::MemberSpec::default(), oncue_log::TopicId(0));
        let discard = |offset| Change::Discard(Discard { subscription: 0, offset });
        let changes = [Change::Subscription(about), discard(7), discard(9)];
        let records = encoded(&changes);
        assert_eq!(records.len(), 1);
        let mut known = Known::default();
        assert_eq!(known.take(5, &records[0].0).unwrap(), changes);
        known.take(8, &lease("me", Timestamp::from_micros(3))).unwrap();
        assert_eq!((known.last, known.is_held_by("me")), (8, true));
        assert!(known.subscription().unwrap().settled.contains(9));
        assert_eq!(known.held_until("you", Timestamp::from_micros(2)), Some(Timestamp::from_micros(3)));
        assert_eq!(known.held_until("you", Timestamp::from_micros(3)), None);
    }
}
