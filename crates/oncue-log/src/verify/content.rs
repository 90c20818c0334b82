//! What the records of a log say of each other: topics, dense offsets, whole checkpoints.

use std::collections::BTreeMap;

use crate::checkpoint::{self, Part, Tracker, decode_topic};
use crate::frame::{Frame, Place};
use crate::record::{KIND_CHECKPOINT, KIND_EVENT, KIND_TOPIC, Lsn, Step};

/// A checkpoint, restated and joined.
pub(super) struct Restated {
    pub(super) of_lsn: Lsn,
    pub(super) topics: Vec<(String, u64)>,
    /// Its bytes, and where the caller's part begins in them.
    pub(super) bytes: Vec<u8>,
    pub(super) opaque: usize,
}

/// What is known, at some place of the log.
#[derive(Default)]
pub(super) struct Content {
    /// Every record from the log's first on was seen.
    pub(super) complete: bool,
    /// Events may be missing: a rewritten segment is read.
    pub(super) gaps: bool,
    /// The next offset of each topic, as far as it is known.
    next: BTreeMap<u32, Option<u64>>,
    tracker: Tracker,
    /// The parts of the checkpoint that is coming by, and what was known when it began.
    joined: Vec<u8>,
    at_begin: BTreeMap<u32, Option<u64>>,
    /// The newest whole one.
    pub(super) checkpoint: Option<(Lsn, Place)>,
}

impl Content {
    /// Records are missing here.
    pub(super) fn lose(&mut self) {
        self.complete = false;
        self.next.values_mut().for_each(|next| *next = None);
        self.tracker = Tracker::default();
    }

    /// A segment begins, which was rewritten or not: then, or before it, records may have been dropped.
    pub(super) fn begin(&mut self, rewritten: bool) {
        if rewritten || self.gaps {
            self.lose();
            self.checkpoint = self.checkpoint.filter(|_| !rewritten);
        }
        self.gaps = rewritten;
    }

    /// Takes in a record, and gives the checkpoint that is whole with it.
    pub(super) fn take(&mut self, step: &Step, frame: &Frame) -> Result<Option<Restated>, String> {
        let data = step.data(&frame.bytes);
        match step.header.kind {
            KIND_TOPIC => self.define(step.header.topic, data).map(|()| None),
            KIND_EVENT => self.event(step.header.topic, step.header.offset).map(|()| None),
            KIND_CHECKPOINT => self.part(step.lsn, data, frame.header.place),
            _ => Ok(None),
        }
    }

    fn define(&mut self, id: u32, data: &[u8]) -> Result<(), String> {
        decode_topic(data).ok_or("a topic definition cannot be read")?;
        if self.complete && (id == 0 || id as usize > self.next.len() + 1) {
            return Err(format!("topic {id} is defined out of turn"));
        }
        self.next.entry(id).or_insert(self.complete.then_some(0));
        Ok(())
    }

    fn event(&mut self, id: u32, offset: u64) -> Result<(), String> {
        let known = self.next.get(&id).copied();
        self.next.insert(id, Some(offset.saturating_add(1)));
        match known {
            None if self.complete => Err(format!("an event of topic {id}, which is not defined")),
            Some(Some(next)) if offset < next || (offset > next && !self.gaps) => {
                Err(format!("topic {id} has offset {offset} for {next}"))
            }
            _ => Ok(()),
        }
    }

    fn part(&mut self, lsn: Lsn, data: &[u8], place: Place) -> Result<Option<Restated>, String> {
        let (part, slice) = Part::decode(data).ok_or("a checkpoint's part contradicts itself")?;
        if part.part == 0 {
            self.joined.clear();
            self.at_begin.clone_from(&self.next);
        }
        self.joined.extend_from_slice(slice);
        let Some(whole) = self.tracker.see(lsn, part, place) else { return Ok(None) };
        self.checkpoint = Some((whole.of_lsn, whole.place));
        let bytes = std::mem::take(&mut self.joined);
        let (topics, opaque) = checkpoint::decode(&bytes).ok_or("the checkpoint's topics cannot be read")?;
        for topic in &topics {
            match self.at_begin.get(&topic.id) {
                Some(Some(next)) if *next != topic.next_offset => {
                    let (id, said) = (topic.id, topic.next_offset);
                    return Err(format!("the checkpoint says that offset {said} of topic {id} is next, it was {next}"));
                }
                Some(Some(_)) => {}
                None if self.complete => {
                    return Err(format!("a checkpoint of topic {}, which is not defined", topic.id));
                }
                // Where an event has come by since the checkpoint began, that is known better.
                _ => {
                    let next = self.next.entry(topic.id).or_default();
                    *next = next.or(Some(topic.next_offset));
                }
            }
        }
        let opaque = bytes.len() - opaque.len();
        let topics = topics.into_iter().map(|topic| (topic.name, topic.next_offset)).collect();
        Ok(Some(Restated { of_lsn: whole.of_lsn, topics, bytes, opaque }))
    }
}
