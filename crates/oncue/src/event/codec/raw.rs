//! The bytes themselves.

use bytes::Bytes;

use super::Codec;
use crate::event::CodecError;

/// No codec at all: the data is the value's bytes. `application/octet-stream`, unless the event says better.
///
/// It takes `Bytes` (shared, not copied, when it is published), `Vec<u8>` and `String`. An event is a struct around one of
/// them, with `codec = raw`; neither the struct nor the field needs serde.
///
/// ```
/// use bytes::Bytes;
/// use oncue::prelude::*;
///
/// #[derive(Event)]
/// #[event(type = "image.stored", codec = raw, content_type = "image/png")]
/// struct ImageStored(Bytes);
/// # assert_eq!(Envelope::of(&ImageStored(Bytes::from_static(b"PNG")))?.data(), "PNG");
/// # Ok::<(), oncue::event::InvalidEvent>(())
/// ```
pub struct Raw;

/// The content type of bytes of which nothing is known.
pub(super) const OCTET_STREAM: &str = "application/octet-stream";

impl Codec<Bytes> for Raw {
    const CONTENT_TYPE: &'static str = OCTET_STREAM;

    fn encode(_event_type: &str, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(_event_type: &str, data: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(data))
    }
}

impl Codec<Vec<u8>> for Raw {
    const CONTENT_TYPE: &'static str = OCTET_STREAM;

    fn encode(_event_type: &str, value: &Vec<u8>) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(_event_type: &str, data: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(data.to_vec())
    }
}

impl Codec<String> for Raw {
    const CONTENT_TYPE: &'static str = OCTET_STREAM;

    fn encode(_event_type: &str, value: &String) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(event_type: &str, data: &[u8]) -> Result<String, CodecError> {
        let text = str::from_utf8(data).map_err(|error| {
            CodecError::new::<String>(event_type, &format_args!("no UTF-8 text at byte {}", error.valid_up_to()))
        })?;
        Ok(text.to_owned())
    }
}
