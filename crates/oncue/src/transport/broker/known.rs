//! What is known of a ledger: what its records say, applied in order; live and after a restart alike.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

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

/// Bytes of changes that make one record.
pub(super) const RECORD_BYTES: usize = 256 * 1024;
/// Changes that make one record, at most: their number within it is part of where they stand.
const RECORD_CHANGES: usize = 1 << 16;

/// The kinds of what is no change, in the place of a change's kind.
mod kind {
    /// Who holds the ledger, and until when.
    pub(super) const LEASE: u8 = 255;
    /// The set of all that is settled, with what was passed by: that leaves no other trace.
    pub(super) const SETTLED: u8 = 254;
    /// A checkpoint begins: what is wanted of earlier records is written again from here on.
    pub(super) const BEGIN: u8 = 253;
    /// A part of the state; the last one ends the checkpoint.
    pub(super) const PART: u8 = 252;
}

/// What was read of a ledger.
#[derive(Default)]
pub(super) struct Known {
    /// Of this subscription alone; its number is 0.
    pub(super) state: State,
    /// The offset of the last record that was applied; 0 if there is none.
    pub(super) last: u64,
    /// Who holds the lease, and until when.
    pub(super) lease: Option<(String, Timestamp)>,
    /// Failed attempts of events that will be tried again.
    pub(super) histories: BTreeMap<u64, Vec<FailedAttempt>>,
    /// The keys of dead letters, also of those that were resolved since it is served here.
    pub(super) dead_keys: BTreeMap<u64, Option<u64>>,
    /// Copies of dead letters that are handled again.
    pub(super) copies: BTreeMap<u64, Redrive>,
    /// Records are missing before what is read: they count only from the end of the checkpoint on that stands there.
    is_behind_gap: bool,
    /// The checkpoint that is being read, as far as it is.
    parts: Vec<Bytes>,
    /// What there is, and what of it was there before the last checkpoint began.
    size: Size,
    before: Size,
    /// The last checkpoint's own.
    pub(super) checkpoint: Size,
}

/// How much is kept of a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Size {
    fn without(self, other: Self) -> Self {
        let Self { records, bytes } = self;
        Self { records: records.saturating_sub(other.records), bytes: bytes.saturating_sub(other.bytes) }
    }
}

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

    /// How much was written since the last checkpoint.
    pub(super) fn since_checkpoint(&self) -> Size {
        self.size.without(self.checkpoint)
    }

    fn apply(&mut self, change: &Change, lsn: u64) -> Result<(), Malformed> {
        if !self.is_behind_gap {
            self.state.apply(change, lsn)?;
        }
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
            Change::Remove(_) => self.forget(),
            _ => {}
        }
        Ok(())
    }

    /// Whoever subscribes again begins with nothing.
    fn forget(&mut self) {
        self.state = State::default();
        self.histories.clear();
        self.dead_keys.clear();
        self.copies.clear();
    }

    /// Applies changes that were appended as one record.
    pub(super) fn appended(&mut self, offset: u64, record: &Bytes, changes: &[Change]) -> Result<(), Malformed> {
        for (number, change) in changes.iter().enumerate() {
            self.apply(change, lsn(offset, number))?;
        }
        self.passed(offset, record);
        Ok(())
    }

    /// A record was written or read.
    pub(super) fn passed(&mut self, offset: u64, record: &Bytes) {
        self.last = offset;
        self.size.records += 1;
        self.size.bytes += record.len() as u64;
    }

    /// Applies one record, and gives its changes.
    pub(super) fn take(&mut self, offset: u64, record: &Bytes) -> Result<Vec<Change>, Malformed> {
        let mut changes = Vec::new();
        let mut from = Reader::new(record);
        let mut number = 0;
        while !from.is_empty() {
            let kind = from.u8()?;
            let data = record.slice_ref(from.bytes()?);
            let mut about = Reader::new(&data);
            match kind {
                kind::LEASE => {
                    let holder = about.text()?.to_owned();
                    self.lease = Some((holder, Timestamp::from_micros(about.signed()?)));
                }
                kind::SETTLED => {
                    let settled = OffsetSet::decode(&mut about)?;
                    if let Some(state) = self.state.subscriptions.first_mut() {
                        // Who wrote it may read it late, and know more by then.
                        state.settled.merge(&settled);
                    }
                }
                kind::BEGIN => self.begin(about.varint()?),
                kind::PART => self.part(&data)?,
                kind => {
                    if let Some(change) = Change::decode(kind, &data)? {
                        self.apply(&change, lsn(offset, number))?;
                        changes.push(change);
                    }
                }
            }
            number += 1;
        }
        self.passed(offset, record);
        Ok(changes)
    }

    /// A checkpoint begins, behind a record that may be known or not.
    fn begin(&mut self, follows: u64) {
        self.parts.clear();
        if follows != self.last {
            // What was before is gone, so the checkpoint is whole: nothing goes before that.
            self.forget();
            self.is_behind_gap = true;
            (self.size, self.checkpoint) = (Size::default(), Size::default());
        }
        self.before = self.size;
    }

    /// A part of a checkpoint's state was read.
    fn part(&mut self, data: &Bytes) -> Result<(), Malformed> {
        let mut from = Reader::new(data);
        let (number, count) = (from.varint()?, from.varint()?);
        if number == 0 {
            self.parts.clear();
        }
        // Of one that was given up, and is followed by another.
        if number != self.parts.len() as u64 {
            return Ok(());
        }
        self.parts.push(data.slice_ref(from.bytes()?));
        if self.parts.len() as u64 == count {
            let whole = std::mem::take(&mut self.parts).concat();
            self.restore(&whole)?;
        }
        Ok(())
    }

    fn restore(&mut self, checkpoint: &[u8]) -> Result<(), Malformed> {
        let mut from = Reader::new(checkpoint);
        let mut state = State::default();
        state.restore(from.bytes()?)?;
        let histories = serde_json::from_slice(from.bytes()?);
        self.histories = histories.map_err(|_| Malformed("the failed attempts of a checkpoint are not readable"))?;
        let redriven = state.subscriptions.first().map(|state| &state.redriven);
        self.copies.retain(|offset, _| redriven.is_some_and(|redriven| redriven.contains_key(offset)));
        self.state = state;
        self.is_behind_gap = false;
        self.checkpointed();
        Ok(())
    }

    /// What stood before the checkpoint is of no use any more.
    pub(super) fn checkpointed(&mut self) {
        self.size = self.size.without(self.before);
        self.before = Size::default();
        self.checkpoint = self.size;
    }

    /// The first record of a checkpoint.
    pub(super) fn begun(&mut self) -> Bytes {
        self.before = self.size;
        let mut follows = Writer::default();
        follows.varint(self.last);
        entry(kind::BEGIN, follows.as_slice())
    }

    /// Its last ones: the state.
    pub(super) fn parts(&self) -> Vec<Bytes> {
        let mut whole = Writer::default();
        whole.bytes(&self.state.checkpoint());
        whole.bytes(&serde_json::to_vec(&self.histories).unwrap_or_default());
        let count = whole.as_slice().len().div_ceil(RECORD_BYTES);
        let mut parts: Vec<Bytes> = Vec::with_capacity(count);
        for (number, data) in whole.as_slice().chunks(RECORD_BYTES).enumerate() {
            let mut part = Writer::default();
            part.varint(number as u64);
            part.varint(count as u64);
            part.bytes(data);
            parts.push(entry(kind::PART, part.as_slice()));
        }
        if let (Some(last), Some((holder, until))) = (parts.last_mut(), &self.lease) {
            *last = [&**last, &lease(holder, *until)].concat().into();
        }
        parts
    }

    /// Everything that is settled, as a record tells it.
    pub(super) fn settled(&self) -> Bytes {
        let mut settled = Writer::default();
        let Some(state) = self.subscription() else { return Bytes::new() };
        state.settled.encode(&mut settled);
        entry(kind::SETTLED, settled.as_slice())
    }
}

/// Where a change stands: the offset of its record, and its number in it.
fn lsn(offset: u64, number: usize) -> u64 {
    offset * RECORD_CHANGES as u64 + number as u64
}

/// The record that a change stands in.
pub(super) fn record_of(lsn: u64) -> u64 {
    lsn / RECORD_CHANGES as u64
}

/// The change of a record that stands at `lsn`.
pub(super) fn change_of(record: &Bytes, lsn: u64) -> Result<Option<Change>, Malformed> {
    let mut from = Reader::new(record);
    for _ in 0..lsn % RECORD_CHANGES as u64 {
        from.u8()?;
        from.bytes()?;
    }
    let kind = from.u8()?;
    let data = record.slice_ref(from.bytes()?);
    Change::decode(kind, &data)
}

pub(super) fn lease(holder: &str, until: Timestamp) -> Bytes {
    let mut lease = Writer::default();
    lease.bytes(holder.as_bytes());
    lease.signed(until.as_micros());
    entry(kind::LEASE, lease.as_slice())
}

fn entry(kind: u8, data: &[u8]) -> Bytes {
    let mut record = Writer::default();
    record.u8(kind);
    record.bytes(data);
    record.into_bytes()
}

/// What is to be appended: each record once, whatever gets lost on the way.
pub(super) struct Pending {
    /// The first one may have been appended, without having been told.
    pub(super) is_in_doubt: bool,
    pub(super) records: VecDeque<(Bytes, Vec<Change>)>,
}

impl Pending {
    pub(super) fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut pending = Self { is_in_doubt: false, records: VecDeque::new() };
        let (mut record, mut scratch, mut of_record) = (Writer::default(), Writer::default(), Vec::new());
        for change in changes {
            scratch.clear();
            change.encode(&mut scratch);
            let is_full = record.as_slice().len() + scratch.as_slice().len() > RECORD_BYTES;
            if !of_record.is_empty() && (is_full || of_record.len() == RECORD_CHANGES) {
                pending.records.push_back((std::mem::take(&mut record).into_bytes(), std::mem::take(&mut of_record)));
            }
            record.u8(change.kind());
            record.bytes(scratch.as_slice());
            of_record.push(change);
        }
        if !of_record.is_empty() {
            pending.records.push_back((record.into_bytes(), of_record));
        }
        pending
    }
}
