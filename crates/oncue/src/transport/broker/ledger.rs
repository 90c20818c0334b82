//! What is written of a subscription's partition, and by whom.
//!
//! A record of a ledger is a batch of changes as the embedded log has them, or a lease, or a part of a checkpoint.

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{
    Broker, BrokerError, LedgerName,
    known::{Known, Pending, change_of, lease, record_of},
};
use crate::{
    clock::Timestamp,
    codec::Malformed,
    transport::{
        StateChange,
        log::{
            keyed::Stored,
            records::{Change, Keyed},
        },
    },
};

/// Records that are read at once.
const READ_RECORDS: usize = 512;
/// The set of all that is settled is told again and again up to that size; a larger one, when the lease is given up.
const TOLD_BYTES: usize = 4096;

/// A subscription's ledger of one partition.
pub(super) struct Ledger {
    pub(super) name: LedgerName,
    known: Mutex<Known>,
    /// All that was settled when that was told last.
    told: Mutex<Bytes>,
    /// Who appends: one at a time, so that each knows what it follows.
    writing: tokio::sync::Mutex<()>,
}

/// Somebody is about to append.
pub(super) type Writing<'a> = tokio::sync::MutexGuard<'a, ()>;

/// What somebody else wrote.
pub(super) type Foreign = Vec<Change>;

impl Ledger {
    pub(super) fn new(name: LedgerName) -> Self {
        Self { name, known: Mutex::default(), told: Mutex::default(), writing: tokio::sync::Mutex::new(()) }
    }

    /// What was read of it, as far as that is.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(super) async fn write(&self) -> Writing<'_> {
        self.writing.lock().await
    }

    pub(super) fn malformed(&self, offset: u64, error: Malformed) -> BrokerError {
        let LedgerName { subscription, partition } = &self.name;
        BrokerError::Failed(format!("ledger of `{subscription}`, partition {partition}, record {offset}: {error}"))
    }

    /// Reads on to the end; gives the changes that others wrote.
    pub(super) async fn catch_up(&self, broker: &dyn Broker, writing: &Writing<'_>) -> Result<Foreign, BrokerError> {
        self.catch_up_with(broker, &mut Pending::new([]), writing).await
    }

    /// The same, where something is being appended: what of it is there, though that was not told, is done.
    pub(super) async fn catch_up_with(
        &self,
        broker: &dyn Broker,
        pending: &mut Pending,
        _: &Writing<'_>,
    ) -> Result<Foreign, BrokerError> {
        let mut foreign = Vec::new();
        loop {
            let from = self.known.lock().last + 1;
            let records = broker.records(&self.name, from, READ_RECORDS).await?;
            if records.is_empty() {
                return Ok(foreign);
            }
            let mut known = self.known.lock();
            for (offset, record) in records {
                let changes = known.take(offset, &record).map_err(|error| self.malformed(offset, error))?;
                // Nobody else writes the same bytes: they hold when what was handled.
                if pending.is_in_doubt && pending.records.front().is_some_and(|(ours, _)| *ours == record) {
                    pending.records.pop_front();
                    pending.is_in_doubt = false;
                } else {
                    foreign.extend(changes);
                }
            }
        }
    }

    /// Appends and applies what follows from what is known. The error is [`BrokerError::Moved`] if that is not all; what
    /// was not appended is still pending.
    pub(super) async fn append(
        &self,
        broker: &dyn Broker,
        pending: &mut Pending,
        _: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        while let Some((record, changes)) = pending.records.front() {
            let after = self.known.lock().last;
            let appended = broker.append(&self.name, record.clone(), after).await;
            let offset = appended.inspect_err(|error| {
                pending.is_in_doubt |= matches!(error, BrokerError::Failed(_));
            })?;
            let applied = self.known.lock().appended(offset, record, changes);
            applied.map_err(|error| self.malformed(offset, error))?;
            pending.records.pop_front();
            pending.is_in_doubt = false;
        }
        Ok(())
    }

    /// Appends a record that holds no changes.
    pub(super) async fn append_record(
        &self,
        broker: &dyn Broker,
        record: Bytes,
        _: &Writing<'_>,
    ) -> Result<u64, BrokerError> {
        let after = self.known.lock().last;
        let offset = broker.append(&self.name, record.clone(), after).await?;
        self.known.lock().passed(offset, &record);
        Ok(offset)
    }

    /// Gives up the lease, and tells what was passed by under it.
    pub(super) async fn release(
        &self,
        broker: &dyn Broker,
        holder: &str,
        writing: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        let settled = self.known.lock().settled();
        self.append_lease(broker, (holder, Timestamp::default()), &settled, writing).await
    }

    /// Keeps the lease up, and tells what was passed by since that was told last: nobody else would know.
    pub(super) async fn renew(
        &self,
        broker: &dyn Broker,
        held: (&str, Timestamp),
        writing: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        let settled = self.known.lock().settled();
        if settled.len() > TOLD_BYTES || *self.told.lock() == settled {
            return self.lease(broker, held, writing).await;
        }
        self.append_lease(broker, held, &settled, writing).await?;
        *self.told.lock() = settled;
        Ok(())
    }

    /// Takes the lease.
    pub(super) async fn lease(
        &self,
        broker: &dyn Broker,
        held: (&str, Timestamp),
        writing: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        self.append_lease(broker, held, &[], writing).await
    }

    async fn append_lease(
        &self,
        broker: &dyn Broker,
        (holder, until): (&str, Timestamp),
        settled: &[u8],
        writing: &Writing<'_>,
    ) -> Result<(), BrokerError> {
        let record = [settled, &*lease(holder, until)].concat();
        self.append_record(broker, record.into(), writing).await?;
        self.known.lock().lease = Some((holder.to_owned(), until));
        Ok(())
    }

    /// The change that the state points to, if it does. A checkpoint may have moved it meanwhile.
    pub(super) async fn pointed(
        &self,
        broker: &dyn Broker,
        pointer: impl Fn(&Known) -> Option<u64>,
    ) -> Result<Option<Change>, BrokerError> {
        let find = || pointer(&self.known.lock());
        let Some(mut lsn) = find() else { return Ok(None) };
        loop {
            if let Some(change) = self.change(broker, lsn).await? {
                return Ok(Some(change));
            }
            if find() == Some(lsn) {
                let writing = self.write().await;
                self.catch_up(broker, &writing).await?;
            }
            match find() {
                Some(moved) if moved != lsn => lsn = moved,
                Some(_) => {
                    let (LedgerName { subscription, .. }, record) = (&self.name, record_of(lsn));
                    return Err(BrokerError::Failed(format!("ledger of `{subscription}`: record {record} is gone")));
                }
                None => return Ok(None),
            }
        }
    }

    /// The change at a place, if that is still there.
    pub(super) async fn change(&self, broker: &dyn Broker, lsn: u64) -> Result<Option<Change>, BrokerError> {
        let offset = record_of(lsn);
        let found = broker.records(&self.name, offset, 1).await?.pop().filter(|(found, _)| *found == offset);
        let Some((_, record)) = found else { return Ok(None) };
        change_of(&record, lsn).map_err(|error| self.malformed(offset, error))
    }

    /// A keyed value, from memory or from its record.
    pub(super) async fn value(&self, broker: &dyn Broker, key: &str) -> Result<Option<Bytes>, BrokerError> {
        let stored = |known: &Known| known.subscription()?.keyed.get(key);
        if let Some(Stored::InMemory(value)) = stored(&self.known.lock()) {
            return Ok(Some(value));
        }
        let pointer = |known: &Known| match stored(known)? {
            Stored::InLog(lsn) => Some(lsn),
            Stored::InMemory(_) => None,
        };
        match self.pointed(broker, pointer).await? {
            Some(Change::Keyed(Keyed { change: StateChange::Set(value), .. })) => Ok(Some(value)),
            _ => match stored(&self.known.lock()) {
                // It was set anew at this moment.
                Some(Stored::InMemory(value)) => Ok(Some(value)),
                _ => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests;
