//! Events: typed in your code, an [`Envelope`] on the way.

pub mod codec;

mod cloudevents;
mod envelope;
mod id;
mod key;

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

pub use cloudevents::CloudEventError;
pub(crate) use envelope::Slot;
pub(crate) use envelope::is_reply_topic;
pub use envelope::{
    DEFAULT_PRIORITY, DEFAULT_SOURCE, EDITION, Envelope, EnvelopeBuilder, EnvelopeError, MAX_ATTRIBUTES_BYTES,
    MAX_DATA_BYTES, MAX_HOPS, MAX_PRIORITY, REPLY_TOPIC,
};
pub use id::derived as derived_id;
pub(crate) use id::fresh as fresh_id;
pub use key::{murmur2, partition_of};

/// The topic of events that name none.
pub const DEFAULT_TOPIC: &str = "events";

/// Whether a handler that takes `types` takes events of this type; no types = every type.
pub(crate) fn takes(types: &[String], event_type: &str) -> bool {
    types.is_empty() || types.iter().any(|known| known == event_type)
}

/// Whether a text can name a topic: 1 to 200 letters, digits, `.`, `_` or `-`, as every broker allows.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=200).contains(&name.len()) && name.bytes().all(allowed)
}

/// A type whose values are events. Derive it: `#[derive(Event)]` with
/// `#[event(type = "order.created", key = order_id)]`.
///
/// A struct has one event type; an enum has one per variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "derive it: `#[derive(Event, Serialize, Deserialize)] #[event(type = \"order.created\")]`"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// All event types that a value can have.
    const TYPES: &'static [&'static str];
    /// The topic that such events are published to.
    const TOPIC: &'static str = DEFAULT_TOPIC;
    /// `CloudEvents` `dataschema` of such events, if they name one.
    const SCHEMA: Option<&'static str> = None;
    /// The content type of [`encode`](Self::encode)d data. Events of an enum may differ: see
    /// [`content_type_of`](Self::content_type_of).
    const CONTENT_TYPE: &'static str = "application/json";

    /// The content type of data of one event type: what [`encode`](Self::encode) writes and [`decode`](Self::decode)
    /// reads.
    #[must_use]
    fn content_type_of(event_type: &str) -> &'static str {
        let _ = event_type;
        Self::CONTENT_TYPE
    }

    /// The event type of this value, one of [`TYPES`](Self::TYPES).
    fn event_type(&self) -> &'static str;

    /// What order is kept for, if for anything.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// The payload of this value.
    ///
    /// # Errors
    /// The value cannot be written in this content type.
    fn encode(&self) -> Result<Bytes, CodecError>;

    /// The value of a payload of this event type. It sees the bytes alone: [`Envelope::decode`] compares the content type
    /// first.
    ///
    /// # Errors
    /// The payload does not fit the type.
    fn decode(event_type: &str, data: &[u8]) -> Result<Self, CodecError>;
}

/// A payload that does not fit its type.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{type_name} from event type `{event_type}`: {reason}")]
pub struct CodecError {
    /// The Rust type.
    pub type_name: &'static str,
    /// The event type.
    pub event_type: String,
    /// What does not fit, and where.
    pub reason: String,
}

impl CodecError {
    /// `reason` may be any error of a codec.
    #[must_use]
    pub fn new<T>(event_type: &str, reason: &dyn std::fmt::Display) -> Self {
        Self { type_name: std::any::type_name::<T>(), event_type: event_type.to_owned(), reason: reason.to_string() }
    }
}

impl Envelope {
    /// The envelope of a typed event, with a new id.
    ///
    /// # Errors
    /// The value cannot be encoded, or breaks a limit.
    pub fn of<E: Event>(event: &E) -> Result<Self, InvalidEvent> {
        Ok(Self::builder_of(event)?.build()?)
    }

    /// As [`of`](Self::of), for those who add attributes of their own.
    ///
    /// # Errors
    /// The value cannot be encoded.
    pub fn builder_of<E: Event>(event: &E) -> Result<EnvelopeBuilder, InvalidEvent> {
        let event_type = event.event_type();
        let builder = Self::builder(event_type).content_type(E::content_type_of(event_type)).data(event.encode()?);
        let builder = match event.key() {
            Some(key) => builder.key(key),
            None => builder,
        };
        Ok(match E::SCHEMA {
            Some(schema) => builder.schema(schema),
            None => builder,
        })
    }

    /// The typed event in this envelope.
    ///
    /// # Errors
    /// The payload is of a content type that `E` does not read, or does not fit `E`. An event without content type, or
    /// without data, is taken for what `E` reads.
    pub fn decode<E: Event>(&self) -> Result<E, CodecError> {
        let reads = E::content_type_of(self.event_type());
        match self.content_type() {
            Some(given) if !codec::is_read_by(given, reads) && !self.data().is_empty() => {
                let name = std::any::type_name::<E>();
                let name = name.rsplit("::").next().unwrap_or(name);
                let reason = format_args!("content type is {given}, `{name}` reads {reads}");
                Err(CodecError::new::<E>(self.event_type(), &reason))
            }
            _ => E::decode(self.event_type(), self.data()),
        }
    }
}

/// Why a value cannot be published as an event.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum InvalidEvent {
    /// It cannot be encoded.
    #[error("cannot be encoded: {0}")]
    Codec(#[from] CodecError),
    /// Its attributes or its size break a rule.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// What can be published: a typed event, or an envelope.
pub trait IntoEvent: Send {
    /// The envelope, and the topic it goes to.
    ///
    /// # Errors
    /// The value cannot be encoded, or breaks a limit.
    fn into_event(self) -> Result<(&'static str, Envelope), InvalidEvent>;
}

impl<E: Event> IntoEvent for E {
    fn into_event(self) -> Result<(&'static str, Envelope), InvalidEvent> {
        Ok((E::TOPIC, Envelope::of(&self)?))
    }
}

impl IntoEvent for Envelope {
    fn into_event(self) -> Result<(&'static str, Envelope), InvalidEvent> {
        Ok((DEFAULT_TOPIC, self))
    }
}
