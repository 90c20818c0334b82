//! How an event's value becomes bytes and back: JSON, `MessagePack`, or the bytes themselves.
//!
//! An event names its codec where it is derived; JSON is what it has otherwise:
//!
//! ```
//! use oncue::{event::codec::MessagePack, prelude::*};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "sensor.read", key = sensor, codec = MessagePack)]
//! struct SensorRead { sensor: u32, celsius: f64 }
//!
//! #[derive(Event)]
//! #[event(type = "image.stored", codec = raw, content_type = "image/png")]
//! struct ImageStored(Vec<u8>);
//! # assert_eq!(SensorRead::CONTENT_TYPE, "application/vnd.msgpack");
//! # assert_eq!(ImageStored::CONTENT_TYPE, "image/png");
//! ```

mod json;
mod media_type;
mod message_pack;
mod raw;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub use json::Json;
pub(crate) use media_type::{is_json, is_read_by};
pub use message_pack::{MAX_DEPTH, MessagePack};
pub use raw::Raw;

use super::CodecError;

/// Writes values of `T` as an event's data, and reads them. An event names it: `#[event(…, codec = MessagePack)]`.
///
/// A codec is a type without a value. `T` is its parameter, so that each codec says what it asks of a value: serde for
/// [`Json`] and [`MessagePack`], something else for your own.
///
/// ```
/// use bytes::Bytes;
/// use oncue::{event::{CodecError, codec::Codec}, prelude::*};
///
/// /// A number as text.
/// struct Text;
///
/// impl Codec<Reading> for Text {
///     const CONTENT_TYPE: &'static str = "text/plain";
///
///     fn encode(_event_type: &str, value: &Reading) -> Result<Bytes, CodecError> {
///         Ok(value.celsius.to_string().into())
///     }
///
///     fn decode(event_type: &str, data: &[u8]) -> Result<Reading, CodecError> {
///         let wrong = |reason: &dyn std::fmt::Display| CodecError::new::<Reading>(event_type, reason);
///         let text = str::from_utf8(data).map_err(|error| wrong(&error))?;
///         Ok(Reading { celsius: text.parse().map_err(|error| wrong(&error))? })
///     }
/// }
///
/// #[derive(Event)]
/// #[event(type = "sensor.read", codec = Text)]
/// struct Reading { celsius: i32 }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let event = Envelope::of(&Reading { celsius: -3 })?;
/// assert_eq!((event.content_type(), event.data().as_ref()), (Some("text/plain"), b"-3".as_slice()));
/// assert_eq!(event.decode::<Reading>()?.celsius, -3);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no codec of `{T}`",
    label = "no codec of `{T}`",
    note = "`codec` is `Json`, `MessagePack`, a type of yours that implements `Codec<{T}>`, or `raw`: the bytes of a `Bytes`, a `Vec<u8>` or a `String`"
)]
pub trait Codec<T> {
    /// `CloudEvents` `datacontenttype` of what this codec writes: a media type.
    const CONTENT_TYPE: &'static str;

    /// The data of a value.
    ///
    /// # Errors
    /// The value cannot be written in this form.
    fn encode(event_type: &str, value: &T) -> Result<Bytes, CodecError>;

    /// The value of an event's data. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// What does not fit, and where: line and column, or the byte.
    fn decode(event_type: &str, data: &[u8]) -> Result<T, CodecError>;
}

/// What serde writes and reads: the values that [`Json`] and [`MessagePack`] take. Nothing has to be implemented for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` derives `Event`, but not serde's `Serialize` and `Deserialize`",
    label = "an event's data is written and read by serde",
    note = "derive them too: `#[derive(Event, Serialize, Deserialize)]`"
)]
pub trait Payload: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Payload for T {}

#[cfg(test)]
mod tests;
