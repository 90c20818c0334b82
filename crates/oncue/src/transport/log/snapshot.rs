//! Looking at a log that another process may be writing.

use std::{path::Path, sync::Arc};

use oncue_log::{Log, Options, Writer, storage::Snapshot};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Inner, LogTransport, LogUrl, Shared, replay::Replayed, retain::Keeper, tail::Tails, topics::Topics};
use crate::{
    clock::Clock,
    transport::{Inspect, OpenError},
};

/// How often a log is read from the start before what does not fit counts as damage. Old segments may go, and names of
/// new ones appear, while it is read.
const TRIES: usize = 5;

impl LogTransport {
    /// Looks at the log of a URL, as [`transport::inspect`](crate::transport::inspect) says.
    ///
    /// # Errors
    /// As there.
    pub fn snapshot(url: &LogUrl, clock: &Clock) -> Result<Arc<dyn Inspect>, OpenError> {
        let Some(directory) = &url.directory else {
            let reason = "only the process that has a log in memory can look at it; name a directory: `file:PATH`";
            return Err(OpenError::Url { url: url.to_string(), reason: reason.to_owned() });
        };
        Ok(Arc::new(looked_at(url, directory, clock)?))
    }
}

/// A view of the log in a directory.
pub(super) fn inner(directory: &Path, clock: &Clock) -> Result<Inner, OpenError> {
    looked_at(&LogUrl::file(directory), directory, clock)
}

fn looked_at(url: &LogUrl, directory: &Path, clock: &Clock) -> Result<Inner, OpenError> {
    let mut tries = 1;
    loop {
        match snapshot(url, directory, clock) {
            Err(OpenError::Log(oncue_log::OpenError::Storage(_) | oncue_log::OpenError::Damaged(_)))
                if tries < TRIES =>
            {
                tries += 1;
            }
            opened => return opened,
        }
    }
}

fn snapshot(url: &LogUrl, directory: &Path, clock: &Clock) -> Result<Inner, OpenError> {
    let storage = Snapshot::open(directory)?;
    let options = Options { writer: Writer::Inline, ..Options::default() };
    let segment_bytes = options.segment_bytes;
    let mut replayed = Replayed::to_look_at();
    let now = clock.now();
    let log = Log::open(Box::new(storage), options, now.as_micros(), &mut |replay| replayed.take(replay))?.log;
    let window = replayed.state.dedup.window();
    let state = replayed.into_state(log.log_id(), now, window);
    let topics = Topics::new(&log, url.partitions, (url.retention(), false));
    let shared = Mutex::new(Shared { end: log.durable(), state, ..Shared::default() });
    let (url, clock) = (url.clone(), clock.clone());
    let (feeds, tails, progress) = (Mutex::default(), Tails::default(), Notify::new());
    let (at_once, keeper) = (false, Keeper::default());
    Ok(Inner { url, log, clock, topics, segment_bytes, at_once, shared, feeds, tails, progress, keeper })
}
