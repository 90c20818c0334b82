//! Segments that leave the disk: those that were trimmed, and those that were rewritten into another one.
//!
//! They go in order, and each before what was there instead of it may go: a hole in the epochs is damage.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::Core;
use crate::error::StorageError;
use crate::options::TrimError;
use crate::record::Lsn;
use crate::segment::name_of;
use crate::spares::unless_gone;
use crate::storage::Storage;
use crate::view::{Segment, Written};

/// What still has its name and is not read any more.
#[derive(Default)]
pub(crate) struct Leaving {
    /// Trimmed segments, and whether their files are kept.
    trimmed: VecDeque<(u64, bool)>,
    /// Those whose records are in a later segment, under its name.
    superseded: Vec<u64>,
}

impl Leaving {
    /// The segments of these epochs were rewritten into another one, which has its name: that need not be durable yet.
    pub(crate) fn supersede(&mut self, epochs: impl Iterator<Item = u64>) {
        self.superseded.extend(epochs);
    }

    /// Makes the rewritten segment's name durable, then removes those that it stands for. What failed is tried again before
    /// anything else leaves.
    pub(crate) fn settle(&mut self, storage: &dyn Storage, made: &str) -> Result<(), StorageError> {
        let sync_dir = || storage.sync_dir().map_err(StorageError::on("sync the directory of", made));
        sync_dir()?;
        if self.superseded.is_empty() {
            return Ok(());
        }
        for epoch in &self.superseded {
            let name = name_of(*epoch);
            unless_gone(storage.remove(&name)).map_err(StorageError::on("remove", &name))?;
        }
        sync_dir()?;
        self.superseded.clear();
        Ok(())
    }

    /// Tries again what failed; `core` tells where.
    pub(crate) fn go_on(&mut self, core: &Core) -> Result<(), StorageError> {
        match self.superseded.last().copied() {
            Some(last) => self.settle(core.storage.as_ref(), &name_of(last)),
            None => Ok(()),
        }
    }
}

/// Removes the oldest segments up to an lsn.
pub(crate) fn trim(core: &Core, before: Lsn) -> Result<u64, TrimError> {
    trim_while(core, |_, next| next.first_lsn <= before)
}

/// Removes the oldest segments, which the newest checkpoint stands for, as long as they may go; asked is with the next one.
pub(crate) fn trim_while(core: &Core, may_go: impl Fn(&Arc<Segment>, &Segment) -> bool) -> Result<u64, TrimError> {
    let mut leaving = core.leaving.lock();
    let mut removed = 0;
    leaving.go_on(core).map_err(|source| TrimError { removed, source })?;
    loop {
        // In order, also where one could not go the last time.
        while let Some((epoch, keep)) = leaving.trimmed.front() {
            let keep = *keep && core.fence.get().is_none();
            let gone = core.spares.retire(core.storage.as_ref(), &name_of(*epoch), keep);
            gone.map_err(|source| TrimError { removed, source })?;
            leaving.trimmed.pop_front();
            removed += 1;
        }
        let view = core.view.read();
        // Without a checkpoint not even a segment without records: a log that begins later is one that has a checkpoint.
        let Some(limit) = view.checkpoint.map(|whole| whole.of_lsn) else { return Ok(removed) };
        let Some(next) = view.segments.get(1).filter(|next| next.first_lsn <= limit).cloned() else {
            return Ok(removed);
        };
        let Some(oldest) = view.segments.front().cloned() else { return Ok(removed) };
        drop(view);
        if !may_go(&oldest, &next) {
            return Ok(removed);
        }
        let failed = |source| TrimError { removed, source };
        if removed == 0 {
            core.sync_checkpoint().map_err(failed)?;
        }
        let reader = oldest.reader(core.storage.as_ref(), core.seed).map_err(failed)?;
        let index = reader.index(oldest.index_at().unwrap_or(0)).map_err(failed)?;
        let mut view = core.view.write();
        // What an index says of a topic that there is not takes no memory.
        let known = 1..=view.topics();
        for (topic, seen) in index.topics().filter(|(topic, _)| known.contains(topic)) {
            let offsets = view.offsets_mut(topic);
            offsets.first = offsets.first.max(seen.next_offset);
        }
        view.trim();
        drop(view);
        core.recent.lock().retain(|reader| reader.file.epoch != oldest.epoch);
        leaving.trimmed.push_back((oldest.epoch, oldest.written == Written::Once));
    }
}
