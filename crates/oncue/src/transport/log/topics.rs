//! Topics of the log: names to ids, how many partitions each has, and what it keeps.

use std::{collections::BTreeMap, sync::Arc};

use oncue_log::{AppendError, Log, Ticket, TopicId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::retain::Declared;
use crate::{
    clock::Timestamp,
    transport::{Retention, RetentionFrom},
};

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
    /// What is written of each, by id.
    written: RwLock<BTreeMap<TopicId, Metadata>>,
    /// What the app says. Held while a topic is made or written.
    declared: Mutex<Declared>,
    /// Of topics made from now on.
    partitions: u16,
    /// What topics keep of which nothing is said.
    url: Retention,
    /// Others may look at the log, and do not know its URL.
    tells_url: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    partitions: u16,
    /// What was said at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention: Option<Retention>,
    /// What the app said last, for those who look at the log beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<(Retention, RetentionFrom)>,
}

impl Topics {
    pub(crate) fn new(log: &Log, partitions: u16, (url, tells_url): (Retention, bool)) -> Self {
        let (mut by_name, mut written) = (BTreeMap::new(), BTreeMap::new());
        for info in log.topics() {
            let plain = Metadata { partitions: 1, retention: None, declared: None };
            let metadata: Metadata = serde_json::from_slice(&info.metadata).unwrap_or(plain);
            let name: Arc<str> = info.name.into();
            by_name.insert(Arc::clone(&name), Topic { id: info.id, name, partitions: metadata.partitions });
            written.insert(info.id, metadata);
        }
        let (by_name, written) = (RwLock::new(by_name), RwLock::new(written));
        Self { by_name, written, declared: Mutex::default(), partitions, url, tells_url }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Topic> {
        self.by_name.read().get(name).cloned()
    }

    pub(crate) fn name(&self, id: u32) -> Option<String> {
        self.by_name.read().values().find(|topic| topic.id.0 == id).map(|topic| topic.name.to_string())
    }

    /// What a topic keeps, and who says so.
    pub(crate) fn retention(&self, id: TopicId) -> (Retention, RetentionFrom) {
        let said = self.written.read().get(&id).and_then(Metadata::said);
        said.unwrap_or((self.url, RetentionFrom::Url))
    }

    /// Whether nothing ever goes, of any topic.
    pub(crate) fn keep_all(&self) -> bool {
        let goes = |known: &Metadata| known.said().is_some_and(|(retention, _)| !retention.is_forever());
        self.url.is_forever() && !self.written.read().values().any(goes)
    }

    /// The name has been checked. A full log is told as such: wait and ask again.
    pub(crate) fn get_or_create(&self, log: &Log, name: &str, now: Timestamp) -> Result<Topic, AppendError> {
        if let Some(topic) = self.get(name) {
            return Ok(topic);
        }
        let declared = self.declared.lock();
        let mut by_name = self.by_name.write();
        if let Some(topic) = by_name.get(name) {
            return Ok(topic.clone());
        }
        let declared = self.wish(&declared, name);
        let metadata = Metadata { partitions: self.partitions, retention: None, declared };
        let (id, _) = log.create_topic(name, &metadata.encoded(), now.as_micros())?;
        let topic = Topic { id, name: name.into(), partitions: self.partitions };
        self.written.write().insert(id, metadata);
        by_name.insert(Arc::clone(&topic.name), topic.clone());
        Ok(topic)
    }

    /// What is to be written of a topic that nothing was said of at run time.
    fn wish(&self, declared: &Declared, name: &str) -> Option<(Retention, RetentionFrom)> {
        let of_url = (self.tells_url && !self.url.is_forever()).then_some((self.url, RetentionFrom::Url));
        declared.get(name).copied().or(of_url)
    }

    /// Takes over what the app says, instead of what it said before.
    pub(crate) fn declare(&self, log: &Log, declared: Declared, now: Timestamp) -> Result<(), AppendError> {
        let mut known = self.declared.lock();
        *known = declared;
        let topics: Vec<Topic> = self.by_name.read().values().cloned().collect();
        for topic in topics {
            let declared = self.wish(&known, &topic.name);
            self.write(log, &topic, now, |metadata| metadata.declared = declared)?;
        }
        Ok(())
    }

    /// Sets what a topic keeps, whatever else is said of it; nothing: what else is said counts again.
    pub(crate) fn set(
        &self,
        log: &Log,
        topic: &Topic,
        retention: Option<Retention>,
        now: Timestamp,
    ) -> Result<Ticket, AppendError> {
        let _one_at_a_time = self.declared.lock();
        self.write(log, topic, now, |metadata| metadata.retention = retention)
    }

    fn write(
        &self,
        log: &Log,
        topic: &Topic,
        now: Timestamp,
        change: impl FnOnce(&mut Metadata),
    ) -> Result<Ticket, AppendError> {
        let mut written = self.written.write();
        let plain = Metadata { partitions: topic.partitions, retention: None, declared: None };
        let known = written.entry(topic.id).or_insert(plain);
        let mut changed = known.clone();
        change(&mut changed);
        if changed == *known {
            return Ok(Ticket { lsn: 0, end: 0, offset: 0 });
        }
        let ticket = log.set_metadata(topic.id, &changed.encoded(), now.as_micros())?;
        *known = changed;
        Ok(ticket)
    }
}

impl Metadata {
    /// What was said of the topic itself.
    fn said(&self) -> Option<(Retention, RetentionFrom)> {
        self.retention.map(|retention| (retention, RetentionFrom::RunTime)).or(self.declared)
    }

    fn encoded(&self) -> Vec<u8> {
        // Numbers and names: writing them as JSON cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
