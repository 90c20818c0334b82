//! The messages of the other side: the same data and the same attributes, written by hand.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use oncue::Envelope;

use super::KEYS;
use crate::{events, measure::Result};

/// The attribute whose value is another one each time.
pub(super) const ID: &str = "id";
/// The attribute that is what order is kept for.
const KEY: &str = "partitionkey";

/// What messages are made of.
#[derive(Clone)]
pub(super) struct Template {
    /// Names and values, all but the id and the key.
    pub(super) attributes: Arc<[(String, String)]>,
    pub(super) data: Bytes,
    keyed: bool,
    last: Arc<AtomicU64>,
}

impl Template {
    /// With what an event of ours carries.
    pub(super) fn new(keyed: bool) -> Result<Self> {
        let event = events::one()?;
        let attributes = event.attributes().filter(|(name, _)| *name != ID);
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        Ok(Self { attributes, data: event.data().clone(), keyed, last: Arc::default() })
    }

    /// The id of the next message, as long as ours are, and its key.
    pub(super) fn next(&self) -> (String, Option<(&'static str, String)>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let key = self.keyed.then(|| (KEY, key(number)));
        (format!("{number:036}"), key)
    }
}

fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

/// Events of ours.
pub(super) fn events(first: u64, count: usize, keyed: bool) -> Result<Vec<Envelope>> {
    let event = |number| {
        let event = Envelope::builder(events::TYPE).data(vec![7; events::DATA_BYTES]);
        Ok(if keyed { event.key(key(number)) } else { event }.build()?)
    };
    (first..first + count as u64).map(event).collect()
}
