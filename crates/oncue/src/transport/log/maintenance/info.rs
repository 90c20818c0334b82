//! What a log takes, and what holds it back.

use std::path::Path;

use oncue_log::{Lsn, SegmentInfo, TopicId, storage::Storage as _};

use super::{
    super::{Inner, inspect::storage, offsets::Stride, snapshot},
    TRIES, look_at,
};
use crate::{
    clock::{Clock, Timestamp},
    event::is_reply_topic,
    transport::{InspectError, OpenError},
};

/// What is known of the log in a directory.
#[derive(Clone, Debug)]
pub struct LogInfo {
    /// Its id.
    pub log_id: u64,
    /// Bytes of all files of the directory.
    pub bytes: u64,
    /// Bytes of those that are kept to become segments.
    pub spare_bytes: u64,
    /// Records that were ever written.
    pub next_lsn: Lsn,
    /// The newest checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Its topics, in the order they were made.
    pub topics: Vec<TopicSpace>,
    /// What holds the log back, the oldest first.
    pub holds: Vec<Hold>,
    /// How many segments, from the oldest on, hold nothing that a subscription is not through with.
    pub free_segments: usize,
    /// Bytes of these.
    pub free_bytes: u64,
}

/// A checkpoint: opening begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// It stands for every record below.
    pub lsn: Lsn,
    /// When it was written.
    pub time: Timestamp,
    /// Records since: what opening replays.
    pub records_since: u64,
}

/// A topic in its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpace {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u16,
    /// The oldest offset that is kept.
    pub first_offset: u64,
    /// The offset that the next event gets.
    pub next_offset: u64,
    /// How many segments hold events of it.
    pub segments: usize,
    /// Subscriptions of it.
    pub subscriptions: usize,
}

/// Something for which old events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The topic.
    pub topic: String,
    /// The subscription that is not through with it; none: the topic has none, and one may come.
    pub subscription: Option<String>,
    /// The first offset that is wanted.
    pub offset: u64,
    /// How many events from there on it is not through with.
    pub events: u64,
    /// When the first of them was published.
    pub since: Timestamp,
    /// The segment that it is in.
    pub segment: String,
    /// Its record.
    pub lsn: Lsn,
}

/// Tells what the log in a directory takes and what holds it back, beside whatever process has it open. Reads indexes and what
/// came since the newest checkpoint.
///
/// # Errors
/// The directory holds no log or cannot be read; the log is damaged.
pub fn info(directory: &Path, clock: &Clock) -> Result<LogInfo, OpenError> {
    let mut tries = 1;
    loop {
        let (files, bytes) = look_at(directory)?;
        let inner = snapshot::inner(directory, clock)?;
        match inner.log_info(bytes) {
            Err(_) if tries < TRIES => tries += 1,
            Err(InspectError::Storage(reason)) => return Err(unreadable(directory, reason)),
            Err(error) => return Err(unreadable(directory, error.to_string())),
            Ok(mut info) => {
                let spares = files.list().unwrap_or_default().into_iter().filter(|(name, _)| name.ends_with(".spare"));
                info.spare_bytes = spares.map(|(_, bytes)| bytes).sum();
                return Ok(info);
            }
        }
    }
}

fn unreadable(directory: &Path, reason: String) -> OpenError {
    let source = std::io::Error::other(reason);
    super::storage(oncue_log::StorageError { what: "read", file: directory.display().to_string(), source })
}

impl Inner {
    fn log_info(&self, bytes: u64) -> Result<LogInfo, InspectError> {
        let segments = self.log.segment_infos().map_err(storage)?;
        let next_lsn = self.log.durable();
        let checkpoint = match self.log.checkpointed() {
            None => None,
            Some(lsn) => {
                let time = Timestamp::from_micros(self.log.record(lsn).map_err(storage)?.time);
                Some(CheckpointInfo { lsn, time, records_since: next_lsn - lsn })
            }
        };
        let holds = self.holds(&segments)?;
        let wanted = holds.first().map_or(next_lsn, |hold| hold.lsn).min(checkpoint.map_or(0, |known| known.lsn));
        let is_free = |segment: &&SegmentInfo| segment.sealed && segment.next_lsn <= wanted;
        let free: Vec<u64> = segments.iter().take_while(is_free).map(|segment| segment.bytes).collect();
        Ok(LogInfo {
            log_id: self.log.log_id(),
            bytes,
            spare_bytes: 0,
            next_lsn,
            checkpoint,
            topics: self.topic_spaces(&segments),
            holds,
            free_segments: free.len(),
            free_bytes: free.iter().sum(),
            segments,
        })
    }

    fn topic_spaces(&self, segments: &[SegmentInfo]) -> Vec<TopicSpace> {
        let shared = self.shared.lock();
        let space = |info: oncue_log::TopicInfo| {
            let holds_it = |segment: &&SegmentInfo| segment.topics.iter().any(|(id, ..)| *id == info.id);
            TopicSpace {
                partitions: self.topics.get(&info.name).map_or(1, |topic| topic.partitions),
                first_offset: info.first_offset,
                next_offset: info.next_offset,
                segments: segments.iter().filter(holds_it).count(),
                subscriptions: shared.state.known().filter(|state| state.about.topic == info.id.0).count(),
                name: info.name,
            }
        };
        self.log.topics().into_iter().map(space).collect()
    }

    /// What retention keeps segments for, as `retain.rs` has it.
    fn holds(&self, segments: &[SegmentInfo]) -> Result<Vec<Hold>, InspectError> {
        let mut holds = Vec::new();
        for topic in self.log.topics() {
            let lows: Vec<(Option<String>, u64, u64)> = {
                let shared = self.shared.lock();
                let of_topic = shared.state.known().filter(|state| TopicId(state.about.topic) == topic.id);
                let low = |state: &super::super::state::SubscriptionState| {
                    let unsettled = state.unsettled_below(topic.next_offset, Stride::ALL);
                    (Some(state.about.id.clone()), state.settled.low(), unsettled)
                };
                of_topic.map(low).collect()
            };
            let nobody = lows.is_empty() && !is_reply_topic(&topic.name);
            let kept = topic.next_offset - topic.first_offset;
            for (subscription, low, events) in lows.into_iter().chain(nobody.then_some((None, 0, kept))) {
                let low = low.max(topic.first_offset);
                if let Some(record) = self.first_record(topic.id, low)? {
                    let is_in = |segment: &&SegmentInfo| segment.next_lsn > record.lsn;
                    let segment = segments.iter().find(is_in).map_or_else(String::new, |segment| segment.file.clone());
                    let since = Timestamp::from_micros(record.time);
                    let (topic, offset, lsn) = (topic.name.clone(), low, record.lsn);
                    holds.push(Hold { topic, subscription, offset, events, since, segment, lsn });
                }
            }
        }
        holds.sort_by_key(|hold| hold.lsn);
        Ok(holds)
    }
}
