//! `MessagePack`.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Codec, Payload};
use crate::event::CodecError;

mod shape;

pub use shape::MAX_DEPTH;

/// [`MessagePack`](https://msgpack.org), through serde: JSON's model in binary, smaller and faster. `application/vnd.msgpack`,
/// as registered with the IANA; `application/msgpack` and `application/x-msgpack`, its older names, are read too.
///
/// Structs are maps with the names of their fields, not arrays: so a field may be added, and other languages read them. A
/// `Vec<u8>` is an array of numbers, as serde has it; annotate the field with `serde_bytes` to make it binary. Data nested
/// more than [`MAX_DEPTH`] deep is refused, as with JSON.
pub struct MessagePack;

impl<T: Payload> Codec<T> for MessagePack {
    const CONTENT_TYPE: &'static str = "application/vnd.msgpack";

    fn encode(event_type: &str, value: &T) -> Result<Bytes, CodecError> {
        // As much as serde_json begins with.
        let mut data = Vec::with_capacity(128);
        rmp_serde::encode::write_named(&mut data, value).map_err(|error| CodecError::new::<T>(event_type, &error))?;
        Ok(data.into())
    }

    fn decode(event_type: &str, data: &[u8]) -> Result<T, CodecError> {
        // Before anything is built: rmp-serde counts no nesting of enums, and would exhaust the stack.
        shape::check(data).map_err(|error| CodecError::new::<T>(event_type, &error))?;
        rmp_serde::from_slice(data).map_err(|error| {
            let byte = where_it_stops::<T>(data);
            CodecError::new::<T>(event_type, &format_args!("{error} at byte {byte}"))
        })
    }
}

/// How many bytes are read before the error. The fast reader does not tell, so this reads again, with one that does.
#[cold]
fn where_it_stops<T: DeserializeOwned>(data: &[u8]) -> usize {
    let mut reader = rmp_serde::Deserializer::new(data);
    // The same error as before.
    drop(T::deserialize(&mut reader));
    data.len() - reader.get_ref().len()
}
