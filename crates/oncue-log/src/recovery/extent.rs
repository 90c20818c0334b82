//! Which bytes of which files are the log, as it is now.

use super::{Survey, survey, verify};
use crate::error::OpenError;
use crate::options::Recovery;
use crate::record::Lsn;
use crate::segment::Chunk;
use crate::storage::Storage;

/// What a copy of a log must hold.
pub(crate) struct Extent {
    pub(crate) log_id: u64,
    /// Every record below is in it.
    pub(crate) next_lsn: Lsn,
    /// Oldest first.
    pub(crate) pieces: Vec<Piece>,
}

/// A segment's file, and how many of its bytes are the log's: what lies behind them is of no meaning.
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Finds the end as opening does. The log would open with what it tells.
pub(crate) fn extent(storage: &dyn Storage) -> Result<Extent, OpenError> {
    let Survey { found, .. } = survey(storage)?;
    let Some(newest) = found.last() else {
        return Ok(Extent { log_id: 0, next_lsn: 0, pieces: Vec::new() });
    };
    let verified = verify(&found, &mut Recovery::default())?.newest;
    let mut extent = Extent { log_id: newest.header.log_id, next_lsn: verified.next_lsn, pieces: Vec::new() };
    for (segment, next) in found.iter().zip(&found[1..]) {
        let (file, index_at) = (&segment.file, segment.index_at(Some(next)).unwrap_or(0));
        let bytes = match file.header_at(index_at, &mut Chunk::default(), 0)? {
            Some(index) => index_at + index.frame_bytes() as u64,
            None => file.len()?,
        };
        extent.pieces.push(Piece { name: file.name.clone(), bytes });
    }
    extent.pieces.push(Piece { name: newest.file.name.clone(), bytes: verified.end });
    Ok(extent)
}
