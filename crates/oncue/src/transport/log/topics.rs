//! Topics of the log: names to ids, and how many partitions each has.

use std::{collections::BTreeMap, sync::Arc};

use oncue_log::{AppendError, Log, TopicId};
use parking_lot::RwLock;

use crate::clock::Timestamp;

/// A topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: Arc<str>,
    /// Fixed when the topic is made, so that a key never moves.
    pub(crate) partitions: u16,
}

pub(crate) struct Topics {
    by_name: RwLock<BTreeMap<Arc<str>, Topic>>,
    /// Of topics made from now on.
    partitions: u16,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Metadata {
    partitions: u16,
}

impl Topics {
    pub(crate) fn new(log: &Log, partitions: u16) -> Self {
        let topic = |info: oncue_log::TopicInfo| {
            let partitions = serde_json::from_slice(&info.metadata).map_or(1, |meta: Metadata| meta.partitions);
            let name: Arc<str> = info.name.into();
            (Arc::clone(&name), Topic { id: info.id, name, partitions })
        };
        Self { by_name: RwLock::new(log.topics().into_iter().map(topic).collect()), partitions }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Topic> {
        self.by_name.read().get(name).cloned()
    }

    pub(crate) fn name(&self, id: u32) -> Option<String> {
        self.by_name.read().values().find(|topic| topic.id.0 == id).map(|topic| topic.name.to_string())
    }

    /// The name has been checked. A full log is told as such: wait and ask again.
    pub(crate) fn get_or_create(&self, log: &Log, name: &str, now: Timestamp) -> Result<Topic, AppendError> {
        if let Some(topic) = self.get(name) {
            return Ok(topic);
        }
        let mut by_name = self.by_name.write();
        if let Some(topic) = by_name.get(name) {
            return Ok(topic.clone());
        }
        let metadata = serde_json::to_vec(&Metadata { partitions: self.partitions }).unwrap_or_default();
        let (id, _) = log.create_topic(name, &metadata, now.as_micros())?;
        let topic = Topic { id, name: name.into(), partitions: self.partitions };
        by_name.insert(Arc::clone(&topic.name), topic.clone());
        Ok(topic)
    }
}
