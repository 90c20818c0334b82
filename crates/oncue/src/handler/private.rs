//! What the macros' code names. No part of the public API.

pub use std::borrow::Cow;

pub use bytes::Bytes;
pub use serde_json;

use crate::event::{CodecError, Event};

/// What an event's data is made of: JSON, through serde.
#[diagnostic::on_unimplemented(
    message = "`{Self}` derives `Event`, but not serde's `Serialize` and `Deserialize`",
    label = "an event's data is written and read by serde",
    note = "derive them too: `#[derive(Event, Serialize, Deserialize)]`"
)]
pub trait Payload: Sized {
    /// Encodes as JSON.
    ///
    /// # Errors
    /// What serde says.
    fn write(&self, event_type: &str) -> Result<Bytes, CodecError>;

    /// Decodes JSON.
    ///
    /// # Errors
    /// What serde says, with line and column.
    fn read(event_type: &str, data: &[u8]) -> Result<Self, CodecError>;
}

#[diagnostic::do_not_recommend]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Payload for T {
    fn write(&self, event_type: &str) -> Result<Bytes, CodecError> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| CodecError::new::<T>(event_type, &error))
    }

    fn read(event_type: &str, data: &[u8]) -> Result<Self, CodecError> {
        serde_json::from_slice(data).map_err(|error| CodecError::new::<T>(event_type, &error))
    }
}

/// The error of an event type that an enum has no variant for.
#[must_use]
pub fn unknown_type<E: Event>(event_type: &str) -> CodecError {
    CodecError::new::<E>(event_type, &format_args!("no variant has this type; known are {}", E::TYPES.join(", ")))
}

/// A key's text: borrowed if it is text already.
pub fn key<T: std::fmt::Display + ?Sized>(key: &T) -> Cow<'static, str> {
    Cow::Owned(key.to_string())
}

/// The type of an event that has only one: what a variant that names none takes over.
#[must_use]
pub const fn only_type<E: Event>() -> &'static str {
    assert!(E::TYPES.len() == 1, "an enum in an enum has several event types: wrap its events one by one");
    E::TYPES[0]
}
