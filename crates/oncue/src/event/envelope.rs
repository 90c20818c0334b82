//! An event as it travels: the `CloudEvents` 1.0 attributes and the data bytes.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{id, partition_of};
use crate::clock::Timestamp;

mod attributes;
mod builder;
mod edition;
mod reply;
mod schedule;
mod stored;

pub(super) use attributes::Attributes;
pub use builder::EnvelopeBuilder;
pub use edition::EDITION;
pub use reply::REPLY_TOPIC;
pub(crate) use reply::is_reply_topic;
pub use schedule::{DEFAULT_PRIORITY, MAX_PRIORITY};

/// Most bytes of an event's data (payload).
pub const MAX_DATA_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of all attributes of one event together.
pub const MAX_ATTRIBUTES_BYTES: usize = 60 * 1024;
/// Most emissions in a row (an event that causes an event that causes …) before Oncue calls it a loop.
pub const MAX_HOPS: u8 = 32;

const _: () = assert!(MAX_ATTRIBUTES_BYTES < u16::MAX as usize, "attribute ends are 16-bit");
const _: () = assert!(
    MAX_DATA_BYTES + (1 << 20) < oncue_log::MAX_EVENT_BYTES,
    "the largest event fits a record of the log, with its history as a dead letter"
);

/// What a slot of the attribute text holds, in the order of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Id,
    Source,
    Type,
    Subject,
    Key,
    ContentType,
    Schema,
    Correlation,
    Causation,
    /// All extensions: name, NUL, value, NUL, ….
    Extensions,
}

const SLOTS: usize = Slot::Extensions as usize + 1;
const HAS_TIME: u8 = 1;
const ID_SUPPLIED: u8 = 2;
const FOREIGN: u8 = 4;

/// An event with its attributes: immutable, two words wide, and cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    parts: Arc<Parts>,
    /// Apart from the rest: the event that is published and the one that is handed out share all else.
    published: Timestamp,
}

/// All text attributes stand in one string, in a fixed order, each found by where it ends. An absent attribute is the
/// empty one, which `CloudEvents` does not allow as a value.
#[derive(Clone, PartialEq, Eq)]
struct Parts {
    text: Box<str>,
    ends: [u16; SLOTS],
    flags: u8,
    hops: u8,
    time: Timestamp,
    data: Bytes,
    /// Of the key; asked for several times on the way of an event.
    key_hash: Option<u64>,
}

impl Parts {
    fn slot(&self, slot: Slot) -> &str {
        let index = slot as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.text.get(usize::from(start)..usize::from(self.ends[index])).unwrap_or_default()
    }

    fn optional(&self, slot: Slot) -> Option<&str> {
        Some(self.slot(slot)).filter(|text| !text.is_empty())
    }

    fn key(&self) -> Option<&str> {
        self.optional(Slot::Key).or_else(|| self.optional(Slot::Subject))
    }

    fn into_envelope(mut self, published: Timestamp) -> Envelope {
        self.key_hash = self.key().map(|key| xxh3_64(key.as_bytes()));
        Envelope { parts: Arc::new(self), published }
    }
}

/// Why an event cannot be built or read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// A required attribute is missing or empty.
    #[error("attribute `{0}` is missing or empty: CloudEvents requires it")]
    Missing(&'static str),
    /// An attribute holds a control character.
    #[error("attribute `{0}` holds a control character: CloudEvents forbids them in attribute values")]
    ControlCharacter(String),
    /// An extension's name is not lower-case letters and digits.
    #[error("`{0}` is no attribute name: CloudEvents allows lower-case letters and digits, at most 20")]
    Name(String),
    /// An extension that Oncue acts on has a value that it cannot act on.
    #[error("attribute `{name}` is {value:?}: it takes {allowed}")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What it takes.
        allowed: &'static str,
    },
    /// The attributes are too large together.
    #[error("attributes of {bytes} bytes: the limit is {MAX_ATTRIBUTES_BYTES} (MAX_ATTRIBUTES_BYTES)")]
    AttributesTooLarge {
        /// Their size.
        bytes: usize,
    },
    /// The data is too large.
    #[error(
        "data of {bytes} bytes: the limit is {MAX_DATA_BYTES} (MAX_DATA_BYTES); put large content into a store and publish its address"
    )]
    DataTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Stored bytes are no envelope.
    #[error("stored event is not readable: {0}")]
    Stored(&'static str),
}

impl Envelope {
    /// No event at all: where one has to stand in tests of a handler.
    pub(crate) fn blank() -> Self {
        let parts = Parts {
            text: Box::default(),
            ends: [0; SLOTS],
            flags: 0,
            hops: 0,
            time: Timestamp::default(),
            data: Bytes::new(),
            key_hash: None,
        };
        parts.into_envelope(Timestamp::default())
    }

    /// Starts building an event of this type.
    pub fn builder(event_type: impl Into<String>) -> EnvelopeBuilder {
        EnvelopeBuilder { event_type: event_type.into(), ..EnvelopeBuilder::default() }
    }

    fn slot(&self, slot: Slot) -> &str {
        self.parts.slot(slot)
    }

    /// The text of a slot as bytes; empty where the attribute is absent.
    pub(crate) fn slot_bytes(&self, slot: Slot) -> &[u8] {
        let index = slot as usize;
        let Parts { text, ends, .. } = &*self.parts;
        let start = if index == 0 { 0 } else { ends[index - 1] };
        text.as_bytes().get(usize::from(start)..usize::from(ends[index])).unwrap_or_default()
    }

    fn optional(&self, slot: Slot) -> Option<&str> {
        self.parts.optional(slot)
    }

    /// `CloudEvents` `id`: unique within [`source`](Self::source).
    #[must_use]
    pub fn id(&self) -> &str {
        self.slot(Slot::Id)
    }

    /// `CloudEvents` `source`: who produced it, a URI reference.
    #[must_use]
    pub fn source(&self) -> &str {
        self.slot(Slot::Source)
    }

    /// `CloudEvents` `type`: what happened, such as `order.created`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.slot(Slot::Type)
    }

    /// `CloudEvents` `subject`: what it happened to.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.optional(Slot::Subject)
    }

    /// What order is kept for: `partitionkey`, else `subject`, else nothing.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.parts.key()
    }

    /// The key as a number: what order is kept by in memory. Two keys with one hash wait for each other without need, and
    /// nothing else.
    pub(crate) fn key_hash(&self) -> Option<u64> {
        self.parts.key_hash
    }

    /// Which of so many partitions it belongs to.
    pub(crate) fn partition(&self, partitions: u16) -> u16 {
        if self.parts.key_hash.is_none() { 0 } else { partition_of(self.key(), partitions) }
    }

    /// The `partitionkey` extension, if it was given.
    #[must_use]
    pub fn partition_key(&self) -> Option<&str> {
        self.optional(Slot::Key)
    }

    /// `CloudEvents` `datacontenttype`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.optional(Slot::ContentType)
    }

    /// `CloudEvents` `dataschema`.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.optional(Slot::Schema)
    }

    /// The id of the first event of the chain that led to this one.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.optional(Slot::Correlation)
    }

    /// The id of the event whose handling emitted this one.
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.optional(Slot::Causation)
    }

    /// `CloudEvents` `time`: when the event was **generated** (not when it was published).
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        (self.parts.flags & HAS_TIME != 0).then_some(self.parts.time)
    }

    /// When a transport accepted the event (pᵢ of the model); zero before that.
    #[must_use]
    pub fn published(&self) -> Timestamp {
        self.published
    }

    /// How many emissions led here: 0 for an event that a source published.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.parts.hops
    }

    /// Whether the publisher chose the id, so that publishing it twice means the same event.
    #[must_use]
    pub fn id_supplied(&self) -> bool {
        self.parts.flags & ID_SUPPLIED != 0
    }

    /// Whether another tool wrote this record without `CloudEvents` attributes: its type is then the topic's name.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.parts.flags & FOREIGN != 0
    }

    /// The payload, byte for byte as published.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.parts.data
    }

    /// Extension attributes, in the order they were added.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.slot(Slot::Extensions);
        let mut part = move || {
            let (part, after) = rest.split_at_checked(first_zero(rest.as_bytes())?)?;
            rest = &after[1..];
            Some(part)
        };
        std::iter::from_fn(move || Some((part()?, part()?)))
    }

    /// One extension attribute.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The same event as accepted at `published`: for transports.
    #[must_use]
    #[inline]
    pub fn published_at(mut self, published: Timestamp) -> Self {
        self.published = published;
        self
    }

    /// Turns this into what `subscription` emitted as its `index`-th event while handling `parent`: derived id, one more
    /// hop, correlation and causation; the parent's key where the event has none of its own.
    #[must_use]
    pub fn emitted_by(self, parent: &Envelope, subscription: &str, index: usize) -> Self {
        let mut builder = self.into_builder();
        if !builder.id_supplied {
            builder.id = id::derived(parent.source(), parent.id(), subscription, index);
        }
        // Its id is recognised by its derivation, not by the window for what publishers send twice.
        builder.id_supplied = false;
        if builder.source.is_empty() || builder.source == DEFAULT_SOURCE {
            builder.source = format!("/oncue/{subscription}");
        }
        if builder.key.is_empty() && builder.subject.is_empty() {
            builder.key = parent.key().unwrap_or_default().to_owned();
        }
        builder.correlation = parent.correlation_id().unwrap_or_else(|| parent.id()).to_owned();
        builder.causation = parent.id().to_owned();
        builder.hops = parent.hops().saturating_add(1);
        if let Some(trace) = parent.extension("traceparent")
            && builder.extensions.iter().all(|(name, _)| name != "traceparent")
        {
            builder.extensions.push(("traceparent".to_owned(), trace.to_owned()));
        }
        builder.assemble()
    }

    /// Turns this into what the source `source` generated at `place`: an id that is the same each time, unless it brought
    /// one of its own, so that generating it again is recognised.
    pub(crate) fn generated_by(self, source: &str, place: &str, time: Option<Timestamp>) -> Self {
        let mut builder = self.into_builder();
        if !builder.id_supplied {
            builder = builder.id(id::generated(source, place));
        }
        if builder.source.is_empty() || builder.source == DEFAULT_SOURCE {
            builder.source = format!("/oncue/{source}");
        }
        builder.time = builder.time.or(time);
        builder.assemble()
    }
}

/// Where the first byte is that is zero, looking at eight at once.
fn first_zero(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (chunks, rest) = bytes.as_chunks();
    for (at, chunk) in chunks.iter().enumerate() {
        let chunk = u64::from_le_bytes(*chunk);
        // The lowest bit that is set is of the first zero; above it there may be false ones.
        let zeros = chunk.wrapping_sub(ONES) & !chunk & HIGH;
        if zeros != 0 {
            return Some(8 * at + zeros.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == 0).map(|at| 8 * chunks.len() + at)
}

/// The `source` of events whose publisher names none.
pub const DEFAULT_SOURCE: &str = "/oncue";

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The payload may be secret or large: only its size is shown.
        f.debug_struct("Envelope")
            .field("id", &self.id())
            .field("source", &self.source())
            .field("type", &self.event_type())
            .field("key", &self.key())
            .field("hops", &self.parts.hops)
            .field("data_bytes", &self.parts.data.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_gets_an_error_that_names_it() {
        assert_eq!(Envelope::builder("").build(), Err(EnvelopeError::Missing("type")));
        assert_eq!(Envelope::builder("a").id("").build(), Err(EnvelopeError::Missing("id")));
        assert_eq!(Envelope::builder("a").extension("No", "x").build(), Err(EnvelopeError::Name("No".into())));
        assert_eq!(
            Envelope::builder("a").subject("x\ny").build(),
            Err(EnvelopeError::ControlCharacter("subject".into()))
        );
        assert_eq!(
            Envelope::builder("a").data(vec![0; MAX_DATA_BYTES + 1]).build(),
            Err(EnvelopeError::DataTooLarge { bytes: MAX_DATA_BYTES + 1 })
        );
        assert!(matches!(
            Envelope::builder("a").subject("x".repeat(MAX_ATTRIBUTES_BYTES)).build(),
            Err(EnvelopeError::AttributesTooLarge { .. })
        ));
    }

    #[test]
    fn an_extension_stands_once() {
        let event = Envelope::builder("a").extension("b", "1").extension("c", "2").extension("b", "3").build().unwrap();
        assert!(event.extensions().eq([("b", "3"), ("c", "2")]));
    }

    #[test]
    fn an_emitted_event_knows_where_it_comes_from() {
        let parent = Envelope::builder("order.created").id("p").source("/shop").subject("o-1").build().unwrap();
        let emit = || Envelope::builder("order.paid").build().unwrap().emitted_by(&parent, "charge", 0);
        let child = emit();
        assert_eq!(child.id(), emit().id(), "handling again gives the same id");
        assert_eq!((child.hops(), child.key(), child.source()), (1, Some("o-1"), "/oncue/charge"));
        assert_eq!((child.correlation_id(), child.causation_id()), (Some("p"), Some("p")));
        let grandchild = Envelope::builder("x").build().unwrap().emitted_by(&child, "notify", 0);
        assert_eq!((grandchild.correlation_id(), grandchild.causation_id()), (Some("p"), Some(child.id())));
    }
}
