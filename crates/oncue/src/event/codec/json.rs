//! JSON.

use bytes::Bytes;

use super::{Codec, Payload};
use crate::event::CodecError;

/// JSON, through serde: the codec of events that name none. `application/json`.
pub struct Json;

impl<T: Payload> Codec<T> for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode(event_type: &str, value: &T) -> Result<Bytes, CodecError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| CodecError::new::<T>(event_type, &error))
    }

    fn decode(event_type: &str, data: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(data).map_err(|error| CodecError::new::<T>(event_type, &error))
    }
}
