//! The segments of an open log, for people and reports.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::error::ReadError;
use crate::frame::{FRAME_RECORDS, Place};
use crate::index::Index;
use crate::record::{Lsn, TopicId};
use crate::segment::{Chunk, FIRST_FRAME, SegmentFile, name_of};
use crate::view::Segment;

/// How much is read at once, of a segment's first and last frames.
const CHUNK_BYTES: usize = 64 << 10;

/// A segment, as its log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file.
    pub file: String,
    /// Its epoch.
    pub epoch: u64,
    /// The file's length.
    pub bytes: u64,
    /// Up to where it holds frames.
    pub used: u64,
    /// The lsn of its first record.
    pub first_lsn: Lsn,
    /// The lsn behind its last record.
    pub next_lsn: Lsn,
    /// When its first records were filled in, in microseconds since 1970.
    pub first_time: Option<i64>,
    /// When its last ones were.
    pub last_time: Option<i64>,
    /// Whether it is full: nothing is written to it any more.
    pub sealed: bool,
    /// The topics that it holds events of: the first offset, and the one behind the last.
    pub topics: Vec<(TopicId, u64, u64)>,
}

impl Core {
    /// Every segment, oldest first. Reads indexes and a few frames of each.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentInfo>, ReadError> {
        let view = self.view.read();
        let segments: Vec<_> = view.segments.iter().cloned().collect();
        let (active, end) = (view.index.clone(), view.end);
        drop(view);
        let durable = self.durable.load(Ordering::Acquire);
        let mut infos = Vec::with_capacity(segments.len());
        for (nth, segment) in segments.iter().enumerate() {
            let next_lsn = segments.get(nth + 1).map_or(durable, |next| next.first_lsn);
            infos.push(self.segment_info(segment, next_lsn, &active, end)?);
        }
        Ok(infos)
    }

    fn segment_info(
        &self,
        segment: &Arc<Segment>,
        next_lsn: Lsn,
        active: &Index,
        end: Place,
    ) -> Result<SegmentInfo, ReadError> {
        let reader = self.reader(segment)?;
        let (file, index_at) = (&reader.file, segment.index_at());
        let index = index_at.map_or(Ok(active), |index_at| reader.index(index_at))?;
        let used = index_at.unwrap_or(if end.epoch == segment.epoch { end.position } else { FIRST_FRAME });
        let (mut first_time, mut last_time) = (None, None);
        each_time(file, FIRST_FRAME..used, &mut |time| {
            first_time = Some(time);
            false
        })?;
        each_time(file, index.last().unwrap_or(used)..used, &mut |time| {
            last_time = Some(time);
            true
        })?;
        let topics = index.topics().map(|(id, topic)| (TopicId(id), topic.first_offset, topic.next_offset)).collect();
        Ok(SegmentInfo {
            file: name_of(segment.epoch),
            epoch: segment.epoch,
            bytes: file.len()?,
            used,
            first_lsn: segment.first_lsn,
            next_lsn,
            first_time,
            last_time: last_time.or(first_time),
            sealed: index_at.is_some(),
            topics,
        })
    }
}

/// Shows the times of the frames with records, for as long as more are wanted.
fn each_time(file: &SegmentFile, range: Range<u64>, look: &mut dyn FnMut(i64) -> bool) -> Result<(), ReadError> {
    let mut chunk = Chunk::default();
    let mut position = range.start;
    while position < range.end {
        let frame = file.frame_at(position, range.end, &mut chunk, CHUNK_BYTES);
        let frame = frame.map_err(|error| file.read_error(position, error))?;
        if frame.header.kind == FRAME_RECORDS && frame.header.records > 0 && !look(frame.header.time) {
            break;
        }
        position = frame.next().position;
    }
    Ok(())
}
