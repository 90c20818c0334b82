//! Reading what was taken already, from an offset on.

use std::sync::Arc;

use futures_util::FutureExt as _;
use oncue::{clock::Timestamp, transport::broker::BrokerError};
use rdkafka::{Offset, consumer::Consumer as _, error::KafkaError};
use tokio::time::timeout;

use super::{
    clients::{ANSWER_WITHIN, Clients, Partition, failed},
    message::Stored,
};
use crate::streams::Stored as _;

/// How often errors of a connection may come instead of records.
const INTERRUPTIONS: u32 = 20;

/// How often it must be told, one time after the other, that there is nothing more. The first may be of before; and who leads a
/// partition since a moment ago may not know yet how far it reaches.
const ENDS: u32 = 3;

/// Where a partition was read to: what comes next is here or on its way.
#[derive(PartialEq, Eq)]
pub(super) struct ReadTo {
    partition: Partition,
    next: u64,
}

impl Clients {
    /// Reads records from an offset on, until it is enough or `end` is reached.
    pub(super) async fn read(
        &self,
        partition: &Partition,
        from: u64,
        end: u64,
        mut is_enough: impl FnMut(Stored) -> bool + Send,
    ) -> Result<(), BrokerError> {
        if from >= end {
            return Ok(());
        }
        let (reading, mut reader) = (&self.reading, self.reader.lock().await);
        // If this is given up, it is known of no place.
        if reader.take() != Some(ReadTo { partition: partition.clone(), next: from }) {
            // Without that, it would begin up to a second later.
            self.again(|| Self::partitions(reading, &partition.topic)).await?;
            reading.assign(&partition.from(from)?).map_err(failed)?;
        }
        let read = async {
            let (mut interruptions, mut ends, mut next) = (0, 0, from);
            loop {
                let received = match reading.recv().now_or_never() {
                    Some(received) => Ok(received),
                    None => timeout(ANSWER_WITHIN, reading.recv()).await,
                };
                let stored = match received {
                    Ok(Ok(message)) => Stored::from(&message),
                    Ok(Err(KafkaError::PartitionEOF(_))) => {
                        ends += 1;
                        if ends == ENDS {
                            return Ok(None);
                        }
                        self.reaches(partition, end).await?;
                        reading.assign(&partition.from(next)?).map_err(failed)?;
                        continue;
                    }
                    Ok(Err(error)) if interruptions == INTERRUPTIONS => return Err(failed(error)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, topic = partition.topic, "reading was interrupted");
                        interruptions += 1;
                        continue;
                    }
                    Err(_) => return Err(failed("no answer")),
                };
                let offset = stored.offset();
                // Others may have come since.
                if offset >= end {
                    return Ok(None);
                }
                (next, ends) = (offset + 1, 0);
                let is_last = next >= end;
                if is_enough(stored) || is_last {
                    return Ok((!is_last).then_some(next));
                }
            }
        }
        .await;
        match read {
            // Who reads on finds what was fetched meanwhile.
            Ok(Some(next)) => *reader = Some(ReadTo { partition: partition.clone(), next }),
            // What was fetched beyond that is of no use.
            Ok(None) | Err(_) => reading.unassign().map_err(failed)?,
        }
        read.map(drop)
    }

    /// Whether who leads a partition knows that it reaches so far.
    async fn reaches(&self, partition: &Partition, end: u64) -> Result<(), BrokerError> {
        let (_, known) = self.extent(partition).await?;
        if known < end {
            return Err(failed(format!("`{}` reaches to {end}, of which its leader knows {known}", partition.topic)));
        }
        Ok(())
    }

    /// The offset of the first record of a time or later; nothing if there is none.
    pub(super) async fn since(&self, partition: &Partition, time: Timestamp) -> Result<Option<u64>, BrokerError> {
        let times = partition.at(Offset::Offset(time.as_micros().div_euclid(1_000)))?;
        let found = self
            .again(|| async {
                let (times, reading) = (times.clone(), Arc::clone(&self.reading));
                let asking = tokio::task::spawn_blocking(move || reading.offsets_for_times(times, ANSWER_WITHIN));
                asking.await.map_err(|_| BrokerError::Closed)?.map_err(failed)
            })
            .await?;
        Ok(found.elements().first().and_then(|found| match found.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }))
    }
}
