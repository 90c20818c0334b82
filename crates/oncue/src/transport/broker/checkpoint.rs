//! Checkpoints of a ledger: so that it need not be read from its beginning, nor grow for ever.
//!
//! What the state points to (keyed values, dead letters) is written again, then the state itself. From then on the records
//! before are of no use, and go. A crash in between leaves records that say again what is known, or that are no whole
//! checkpoint and are passed by.

use super::{
    Broker, BrokerError,
    known::{Known, Pending, RECORD_BYTES},
    ledger::{Ledger, Writing},
};
use crate::transport::{
    StateChange,
    log::records::{Change, Dead, DeadAbout, Keyed, Redrive, RedriveAbout},
};

/// A checkpoint is due after so many records or bytes, and after so many times its own size.
const RECORDS: u64 = 2_048;
const BYTES: u64 = 4 << 20;
const TIMES: u64 = 2;

impl Known {
    /// Whether so much was written since the last checkpoint that the next one is worth its price.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        let (since, last) = (self.since_checkpoint(), self.checkpoint);
        since.records >= RECORDS.max(TIMES * last.records) || since.bytes >= BYTES.max(TIMES * last.bytes)
    }
}

/// What is written again.
enum Wanted {
    Value(String),
    Dead(u64),
    Copy(u64),
}

impl Ledger {
    /// Writes a checkpoint, and has what is before it dropped. The error is [`BrokerError::Moved`] if somebody else wrote
    /// meanwhile: then there is none.
    pub(super) async fn checkpoint(&self, broker: &dyn Broker, writing: &Writing<'_>) -> Result<(), BrokerError> {
        let begin = self.known().begun();
        let begun = self.append_record(broker, begin, writing).await?;
        self.write_again(broker, writing).await?;
        let parts = self.known().parts();
        for part in parts {
            self.append_record(broker, part, writing).await?;
        }
        self.known().checkpointed();
        broker.purge(&self.name, begun).await
    }

    async fn write_again(&self, broker: &dyn Broker, writing: &Writing<'_>) -> Result<(), BrokerError> {
        let wanted: Vec<Wanted> = {
            let known = self.known();
            let Some(state) = known.subscription() else { return Ok(()) };
            let values = state.keyed.iter().map(|(key, ..)| Wanted::Value(key.to_owned()));
            let dead = state.dead.keys().map(|offset| Wanted::Dead(*offset));
            values.chain(dead).chain(known.copies.keys().map(|offset| Wanted::Copy(*offset))).collect()
        };
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for wanted in wanted {
            let Some((change, size)) = self.again(broker, wanted).await? else { continue };
            changes.push(change);
            bytes += size;
            if bytes >= RECORD_BYTES {
                bytes = 0;
                self.append(broker, &mut Pending::new(std::mem::take(&mut changes)), writing).await?;
            }
        }
        self.append(broker, &mut Pending::new(changes), writing).await
    }

    /// A change that says again what the state points to, and about its size.
    async fn again(&self, broker: &dyn Broker, wanted: Wanted) -> Result<Option<(Change, usize)>, BrokerError> {
        Ok(match wanted {
            Wanted::Value(key) => self.value(broker, &key).await?.map(|value| {
                let size = key.len() + value.len();
                (Change::Keyed(Keyed { subscription: 0, key, change: StateChange::Set(value) }), size)
            }),
            Wanted::Dead(offset) => {
                let lsn = self.known().subscription().and_then(|state| state.dead.get(&offset)).map(|dead| dead.lsn);
                let Some(lsn) = lsn else { return Ok(None) };
                let Some(Change::DeadLetter(dead)) = self.change(broker, lsn).await? else { return Ok(None) };
                let size = dead.envelope.encoded_bytes();
                let about = DeadAbout { copy: true, ..dead.about };
                Some((Change::DeadLetter(Dead { about, envelope: dead.envelope }), size))
            }
            Wanted::Copy(offset) => {
                let known = self.known();
                let Some(copy) = known.copies.get(&offset).cloned() else { return Ok(None) };
                let size = copy.envelope.encoded_bytes();
                let history = known.histories.get(&offset).cloned().unwrap_or(copy.about.history);
                let about = RedriveAbout { history, ..copy.about };
                Some((Change::Redrive(Redrive { about, envelope: copy.envelope }), size))
            }
        })
    }
}
