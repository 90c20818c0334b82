//! Whether all of a log holds: its bytes, and what they mean.

use std::{collections::BTreeMap, path::Path};

use oncue_log::{Found, KIND_EVENT, Progress, Refusal, StorageError, Verification};

use super::{
    TRIES, look_at,
    meaning::{Meaning, name_of},
    storage,
};
use crate::transport::OpenError;

/// What reading all of a log has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments, damage, the end.
    pub log: Verification,
    /// Records that hold, by the name of their kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// What there is of each topic, in the order they were made.
    pub topics: Vec<TopicCount>,
}

/// Events of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicCount {
    /// Its name; empty if nothing that is left tells it.
    pub name: String,
    /// How many events there are.
    pub events: u64,
    /// How many bytes they have in the log, encoded, without the headers of frames and records.
    pub bytes: u64,
}

/// Reads the log in a directory in full, beside whatever process has it open, and writes nothing: every segment, frame and
/// checksum, that nothing is missing in between, and that every record can be understood and fits what came before it.
///
/// # Errors
/// The directory holds no log or cannot be read. Damage is no error: it is in the answer.
pub fn verify(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, OpenError> {
    let mut tries = 1;
    loop {
        match try_to(directory, progress)? {
            // Segments were trimmed while they were read.
            Err(_) if tries < TRIES => tries += 1,
            verified => return verified.map_err(storage),
        }
    }
}

fn try_to(directory: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Result<Verified, StorageError>, OpenError> {
    let (snapshot, of) = look_at(directory)?;
    let (mut meaning, mut before, mut read) = (Meaning::default(), 0, 0);
    let mut kinds = BTreeMap::new();
    let mut events: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut look = |found: Found<'_>| {
        match &found {
            Found::Segment { bytes, .. } => {
                (before, read) = (before + read, *bytes);
                progress(Progress { bytes: before, of });
            }
            Found::Record { record, .. } => {
                meaning.record(record).map_err(Refusal::Damaged)?;
                *kinds.entry(name_of(record.kind)).or_default() += 1;
                if record.kind == KIND_EVENT {
                    let (count, bytes) = events.entry(record.topic.0).or_default();
                    (*count, *bytes) = (*count + 1, *bytes + record.data.len() as u64);
                }
            }
            _ => {}
        }
        meaning.found(&found).map(|_| ()).map_err(Refusal::Damaged)
    };
    let log = match oncue_log::verify(&snapshot, &mut look) {
        Ok(log) => log,
        Err(error) => return Ok(Err(error)),
    };
    let count = |(id, (events, bytes))| {
        let name = meaning.topic(id).unwrap_or_default().to_owned();
        TopicCount { name, events, bytes }
    };
    Ok(Ok(Verified { log, kinds, topics: events.into_iter().map(count).collect() }))
}
