//! Topics of Kafka: made where they are not there, and looked at.

use std::sync::Arc;

use oncue::transport::broker::BrokerError;
use rdkafka::{
    admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::Consumer as _,
    error::RDKafkaErrorCode as Code,
};

use super::clients::{ANSWER_WITHIN, Clients, Consumer, HEADER_BYTES, failed};
use crate::streams::{MAX_EVENT_BYTES, MAX_RECORD_BYTES};

/// Bytes of a ledger's file: what is deleted goes by whole files.
const LEDGER_SEGMENT_BYTES: usize = 4 * MAX_RECORD_BYTES;
/// Copies that all have to be there before one may be missing.
const SAFE_REPLICAS: u16 = 3;
/// What a record may take where nobody says.
const DEFAULT_RECORD_BYTES: usize = 1_048_588;

/// What a topic is to have, where it is not there.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) partitions: u16,
    /// Payload of its largest record.
    pub(super) record_bytes: usize,
    /// Bytes of its files, where the broker's default is not what is wanted.
    pub(super) segment_bytes: Option<usize>,
}

impl Wanted {
    pub(super) fn events(partitions: u16) -> Self {
        Self { partitions, record_bytes: MAX_EVENT_BYTES, segment_bytes: None }
    }

    pub(super) fn registry() -> Self {
        Self::events(1)
    }

    pub(super) fn ledger() -> Self {
        Self { partitions: 1, record_bytes: MAX_RECORD_BYTES, segment_bytes: Some(LEDGER_SEGMENT_BYTES) }
    }
}

impl Clients {
    /// Makes a topic, if it is not there: how large its records may be.
    pub(super) async fn declare(&self, topic: &str, wanted: Wanted) -> Result<usize, BrokerError> {
        self.again(|| async {
            if Self::partitions(&self.reading, topic).await? == 0 {
                self.make(topic, wanted).await?;
            }
            // What was made is known everywhere a little later, and by this client before it follows.
            match Self::partitions(&self.following, topic).await? {
                0 => Err(failed(format!("the topic `{topic}` is not there yet"))),
                count if count == usize::from(wanted.partitions) => Ok(()),
                count => Err(BrokerError::Refused(format!(
                    "the topic `{topic}` has {count} partitions in Kafka, and had {} when it was first used here: keys are \
                     elsewhere now. Copy it into a new topic (`oncue mirror`, MirrorMaker, Connect) and use that",
                    wanted.partitions
                ))),
            }
        })
        .await?;
        Ok(self.record_limit(topic).await.unwrap_or(DEFAULT_RECORD_BYTES))
    }

    /// How many partitions a topic has, and each a leader; 0 if it is not there. The client knows them from then on.
    pub(super) async fn partitions(client: &Arc<Consumer>, topic: &str) -> Result<usize, BrokerError> {
        let (client, name) = (Arc::clone(client), topic.to_owned());
        let asking = tokio::task::spawn_blocking(move || client.fetch_metadata(Some(&name), ANSWER_WITHIN));
        let metadata = asking.await.map_err(|_| BrokerError::Closed)?.map_err(failed)?;
        let Some(known) = metadata.topics().iter().find(|known| known.name() == topic) else { return Ok(0) };
        match known.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(0),
            Some(code) if is_refusal(code) => return Err(refused(topic, code)),
            Some(code) => return Err(failed(format!("the topic `{topic}`: {code}"))),
            None => {}
        }
        if let Some(leaderless) = known.partitions().iter().find(|partition| partition.leader() < 0) {
            return Err(failed(format!("the topic `{topic}` has no leader of partition {}", leaderless.id())));
        }
        Ok(known.partitions().len())
    }

    async fn make(&self, topic: &str, wanted: Wanted) -> Result<(), BrokerError> {
        let limit = (wanted.record_bytes + HEADER_BYTES).to_string();
        let segment = wanted.segment_bytes.map(|bytes| bytes.to_string());
        let in_sync = self.url.replicas.map(|replicas| replicas.saturating_sub(1).max(1).to_string());
        let replication = TopicReplication::Fixed(self.url.replicas.map_or(-1, i32::from));
        // What is acknowledged stays until somebody says otherwise.
        let mut new = NewTopic::new(topic, i32::from(wanted.partitions), replication)
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("max.message.bytes", &limit);
        if let Some(segment) = &segment {
            new = new.set("segment.bytes", segment);
        }
        if let Some(in_sync) = in_sync.as_ref().filter(|_| self.url.replicas >= Some(SAFE_REPLICAS)) {
            new = new.set("min.insync.replicas", in_sync);
        }
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN));
        let made = self.admin.create_topics([&new], &options).await.map_err(failed)?;
        for made in made {
            match made {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) if is_refusal(code) => return Err(refused(topic, code)),
                Err((_, code)) => return Err(failed(format!("the topic `{topic}` cannot be made: {code}"))),
            }
        }
        Ok(())
    }

    /// How large a record of a topic may be, if one may know.
    async fn record_limit(&self, topic: &str) -> Option<usize> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let described = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        let entries = described.into_iter().next()?.ok()?;
        entries.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }
}

/// What is refused whenever it is asked.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::PolicyViolation
    )
}

fn refused(topic: &str, code: Code) -> BrokerError {
    let mend = match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "give the account the rights to describe, read, write and create it, or make it beforehand"
        }
        Code::InvalidReplicationFactor => "fewer brokers than copies: write a smaller `replicas`",
        Code::InvalidTopic => "another topic's name differs in `.` and `_` alone, or it is not a name: use another one",
        _ => "the broker's settings do not allow it",
    };
    BrokerError::Refused(format!("the topic `{topic}`: {code}: {mend}"))
}
