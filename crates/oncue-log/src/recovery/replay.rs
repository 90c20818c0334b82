//! Handing what a log says to whoever opens it.

use bytes::Bytes;

use super::{Found, ReplayFn, Verified};
use crate::checkpoint::{self, Joined, TopicState, WholeCheckpoint, decode_topic};
use crate::error::OpenError;
use crate::frame::{FRAME_RECORDS, Frame, Place};
use crate::options::Recovery;
use crate::record::{KIND_DROP, KIND_EVENT, KIND_STATE, KIND_TOPIC, Record, Step};
use crate::segment::{Chunk, FIRST_FRAME};

/// What opening hands over.
#[derive(Clone, Copy, Debug)]
pub enum Replay<'a> {
    /// The caller's part of the newest whole checkpoint. At most once, and first.
    Checkpoint(&'a [u8]),
    /// An event, a topic definition, or a state record. In lsn order, from the checkpoint on.
    Record(&'a Record),
}

/// Replays from the checkpoint, or from the first record; returns the topics as they are at the end.
pub(super) fn replay_records(
    found: &[Found],
    verified: &Verified,
    report: &mut Recovery,
    replay: &mut ReplayFn<'_>,
) -> Result<Vec<TopicState>, OpenError> {
    let mut topics = Vec::new();
    let end = Place { epoch: found[found.len() - 1].file.epoch, position: verified.newest.end };
    let mut from = Place { epoch: found[0].file.epoch, position: FIRST_FRAME };
    if let Some(whole) = verified.checkpoint {
        let bytes = join(found, whole, end)?;
        let Some((restated, opaque)) = checkpoint::decode(&bytes) else {
            let its = found.iter().find(|segment| segment.file.epoch == whole.place.epoch);
            let file = &its.unwrap_or(&found[0]).file;
            return Err(file.damage(whole.place.position, "the checkpoint's topics cannot be read").into());
        };
        let refused = |reason| OpenError::Replay { lsn: whole.of_lsn, reason };
        replay(Replay::Checkpoint(opaque)).map_err(refused)?;
        (topics, from, report.replayed_from) = (restated, whole.place, whole.of_lsn);
    }
    each_frame(found, from, end, &mut |segment, frame| {
        let mut walk = frame.walk();
        while let Some(step) = walk.next(&frame.bytes) {
            let refuse = |reason: String| segment.file.damage(frame.header.place.position, reason);
            let step = step.map_err(|reason| refuse(reason.to_owned()))?;
            report.records += 1;
            if step.lsn < report.replayed_from {
                continue;
            }
            follow(&mut topics, &step, frame).map_err(refuse)?;
            if matches!(step.header.kind, KIND_TOPIC | KIND_EVENT | KIND_STATE..) {
                let record = step.record(&frame.bytes, frame.header.time);
                let refused = |reason| OpenError::Replay { lsn: step.lsn, reason };
                replay(Replay::Record(&record)).map_err(refused)?;
            }
        }
        Ok(true)
    })?;
    Ok(topics)
}

/// Keeps the topics up to date, and checks that their offsets are dense.
fn follow(topics: &mut Vec<TopicState>, step: &Step, frame: &Frame) -> Result<(), String> {
    let id = step.header.topic;
    match step.header.kind {
        KIND_TOPIC => {
            let (name, metadata) = decode_topic(step.data(&frame.bytes)).ok_or("a topic definition cannot be read")?;
            let metadata = Bytes::copy_from_slice(metadata);
            if id as usize == topics.len() + 1 {
                topics.push(TopicState { id, first_offset: 0, next_offset: 0, name: name.to_owned(), metadata });
            } else {
                let known = (id as usize).checked_sub(1).and_then(|place| topics.get_mut(place));
                known.ok_or_else(|| format!("topic {id} is defined out of turn"))?.metadata = metadata;
            }
        }
        KIND_DROP => {
            let known = (id as usize).checked_sub(1).and_then(|place| topics.get_mut(place));
            let topic = known.ok_or_else(|| format!("a drop of topic {id}, which is not defined"))?;
            topic.first_offset = topic.first_offset.max(step.header.offset);
        }
        KIND_EVENT => {
            let known = (id as usize).checked_sub(1).and_then(|place| topics.get_mut(place));
            let topic = known.ok_or_else(|| format!("an event of topic {id}, which is not defined"))?;
            if step.header.offset != topic.next_offset {
                return Err(format!("topic {id} has offset {} for {}", step.header.offset, topic.next_offset));
            }
            topic.next_offset += 1;
        }
        _ => {}
    }
    Ok(())
}

/// The parts of a checkpoint, joined.
fn join(found: &[Found], whole: WholeCheckpoint, end: Place) -> Result<Vec<u8>, OpenError> {
    let mut joined = Joined::of(whole.of_lsn);
    each_frame(found, whole.place, end, &mut |_, frame| {
        let mut walk = frame.walk();
        while let Some(Ok(step)) = walk.next(&frame.bytes) {
            if joined.take(step.header.kind, step.data(&frame.bytes)) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(joined.bytes)
}

/// Reads the frames of records from `from` up to `end`, as long as `look` wants more.
fn each_frame(
    found: &[Found],
    from: Place,
    end: Place,
    look: &mut dyn FnMut(&Found, &Frame) -> Result<bool, OpenError>,
) -> Result<(), OpenError> {
    for (place, segment) in found.iter().enumerate().skip_while(|(_, segment)| segment.file.epoch < from.epoch) {
        let epoch = segment.file.epoch;
        let mut position = if epoch == from.epoch { from.position } else { FIRST_FRAME };
        let mut chunk = Chunk::default();
        let stop = segment.index_at(found.get(place + 1)).unwrap_or(end.position);
        while position < stop {
            let frame = segment.file.frame_at(position, stop, &mut chunk, super::CHUNK_BYTES);
            let frame = frame.map_err(|error| segment.file.open_error(position, error))?;
            if frame.header.kind == FRAME_RECORDS && !look(segment, &frame)? {
                return Ok(());
            }
            position = frame.next().position;
        }
    }
    Ok(())
}
