//! Which topics and ledgers there are: a broker lists no queues, so a stream says it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncue::transport::broker::{BrokerError, LedgerName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Coming as _, Division, Kind, Stored as _, Stream, Streams};

/// The name of its stream: no topic has it.
pub(super) const NAME: &str = "oncue-registry";
/// How long is waited for the first message of a stream that may be empty.
const LAST_WITHIN: Duration = Duration::from_millis(100);

/// What was made, once; the first entry of a topic counts.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Topic {
        name: String,
        partitions: u16,
        #[serde(default = "one", skip_serializing_if = "is_one")]
        streams: u16,
    },
    Ledger {
        subscription: String,
        partition: u16,
    },
}

fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(streams: &u16) -> bool {
    *streams == 1
}

#[derive(Default)]
struct Known {
    topics: BTreeMap<String, Division>,
    ledgers: BTreeSet<LedgerName>,
}

pub(super) struct Registry<S> {
    stream: Arc<S>,
    known: Arc<Mutex<Known>>,
}

impl<S: Stream> Registry<S> {
    pub(super) async fn open(streams: &Arc<impl Streams<Stream = S>>) -> Result<Self, BrokerError> {
        let stream = streams.stream(NAME, Kind::Registry).await?;
        let known: Arc<Mutex<Known>> = Arc::default();
        let taking = Arc::clone(&known);
        stream.follow(
            0,
            Box::new(move |coming: S::Coming<'_>| {
                let stored = coming.keep();
                let mut known = taking.lock();
                match serde_json::from_slice(stored.data()) {
                    Ok(Entry::Topic { name, partitions, streams }) => {
                        known.topics.entry(name).or_insert(Division { partitions, streams });
                    }
                    Ok(Entry::Ledger { subscription, partition }) => {
                        known.ledgers.insert(LedgerName { subscription, partition });
                    }
                    Err(error) => tracing::warn!(%error, offset = stored.offset(), "not an entry of the registry"),
                }
            }),
        );
        if let Some(last) = stream.last(LAST_WITHIN).await? {
            stream.reach(last.offset()).await?;
        }
        Ok(Self { stream, known })
    }

    async fn enter(&self, entry: &Entry) -> Result<(), BrokerError> {
        let data = serde_json::to_vec(entry).map_err(|error| BrokerError::Failed(error.to_string()))?;
        self.stream.append(vec![S::record(&[], data.into())], None).await.map(drop)
    }

    /// How a topic is divided, if it was entered.
    pub(super) async fn topic(&self, name: &str) -> Result<Option<Division>, BrokerError> {
        if self.known_topic(name).is_none() {
            self.stream.catch_up().await?;
        }
        Ok(self.known_topic(name))
    }

    /// Enters a topic: how it is divided, which somebody else may have entered first.
    pub(super) async fn enter_topic(&self, name: &str, division: Division) -> Result<Division, BrokerError> {
        let Division { partitions, streams } = division;
        self.enter(&Entry::Topic { name: name.to_owned(), partitions, streams }).await?;
        Ok(self.known_topic(name).unwrap_or(division))
    }

    fn known_topic(&self, name: &str) -> Option<Division> {
        self.known.lock().topics.get(name).copied()
    }

    /// Whether a ledger is there.
    pub(super) async fn has_ledger(&self, name: &LedgerName) -> Result<bool, BrokerError> {
        let known = || self.known.lock().ledgers.contains(name);
        if !known() {
            self.stream.catch_up().await?;
        }
        Ok(known())
    }

    pub(super) async fn enter_ledger(&self, name: &LedgerName) -> Result<(), BrokerError> {
        let (subscription, partition) = (name.subscription.clone(), name.partition);
        self.enter(&Entry::Ledger { subscription, partition }).await
    }

    pub(super) async fn topics(&self) -> Result<Vec<(String, u16)>, BrokerError> {
        self.stream.catch_up().await?;
        Ok(self.known.lock().topics.iter().map(|(name, division)| (name.clone(), division.partitions)).collect())
    }

    pub(super) async fn ledgers(&self) -> Result<Vec<LedgerName>, BrokerError> {
        self.stream.catch_up().await?;
        Ok(self.known.lock().ledgers.iter().cloned().collect())
    }
}
