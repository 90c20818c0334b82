//! Every attempt that a subscription's records tell of.

use std::collections::BTreeMap;

use oncue_log::ReadError;

use super::{
    Inner,
    inspect::storage,
    records::{Change, End, kind},
};
use crate::{
    clock::Timestamp,
    policy::ErrorClass,
    transport::{Attempt, FailedAttempt, InspectError, RecordedAttempt},
};

/// An attempt is recorded once by itself, and again in the history of its event's dead letter.
#[derive(Default)]
struct Found(BTreeMap<(Timestamp, u64, u32), RecordedAttempt>);

impl Found {
    fn add(&mut self, offset: u64, published: Timestamp, attempt: Attempt) {
        self.0.insert((attempt.ended, offset, attempt.number), RecordedAttempt { offset, published, attempt });
    }

    fn add_failed(&mut self, offset: u64, published: Timestamp, failed: &FailedAttempt) {
        let FailedAttempt { number, class, read, ended, .. } = *failed;
        // Where a policy held the event back nothing was called.
        if !matches!(class, ErrorClass::Filtered | ErrorClass::Shed) {
            self.add(offset, published, Attempt { number, class: Some(class), read, ended });
        }
    }
}

impl Inner {
    pub(super) fn recorded(&self, subscription: &str) -> Result<Vec<RecordedAttempt>, InspectError> {
        let number = {
            let shared = self.shared.lock();
            shared.state.find(subscription).ok_or_else(|| Self::unknown(subscription))?.about.number
        };
        let mut found = Found::default();
        for record in self.log.scan(0) {
            let record = match record {
                // What was dropped tells nothing any more; after it comes what is kept.
                Err(ReadError::Trimmed { .. }) => continue,
                record => record.map_err(storage)?,
            };
            if !matches!(record.kind, kind::SETTLE | kind::RETRY | kind::DEAD_LETTER) {
                continue;
            }
            match Change::decode(record.kind, &record.data).map_err(storage)? {
                Some(Change::Settle(settle)) if settle.subscription == number => {
                    for ack in settle.entries.iter().filter(|ack| ack.end == End::Acked && ack.attempts > 0) {
                        let (read, ended) = (ack.times.read, ack.times.ended);
                        let attempt = Attempt { number: ack.attempts, class: None, read, ended };
                        found.add(ack.offset, ack.times.published, attempt);
                    }
                }
                Some(Change::Retry(retry)) if retry.subscription == number => {
                    // A handler that put the event off did not fail.
                    retry
                        .failed
                        .iter()
                        .for_each(|failed| found.add_failed(retry.offset, retry.times.published, failed));
                }
                Some(Change::DeadLetter(dead)) if dead.about.subscription == number => {
                    let (offset, published) = (dead.about.offset, dead.about.times.published);
                    dead.about.history.iter().for_each(|failed| found.add_failed(offset, published, failed));
                }
                _ => {}
            }
        }
        Ok(found.0.into_values().collect())
    }
}
