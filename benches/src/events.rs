//! The events that every row publishes.

use oncue::Envelope;

use crate::measure::Result;

pub(crate) const TYPE: &str = "bench";
pub(crate) const TOPIC: &str = "bench";
/// Bytes of one event's data.
pub(crate) const DATA_BYTES: usize = 256;
/// How the rows' settings say it.
pub(crate) const PAYLOAD: &str = "256 B of data";

/// An event, its id made by Oncue.
pub(crate) fn one() -> Result<Envelope> {
    Ok(Envelope::builder(TYPE).data(vec![7; DATA_BYTES]).build()?)
}

pub(crate) fn many(count: usize) -> Result<Vec<Envelope>> {
    (0..count).map(|_| one()).collect()
}
