//! An event as the log stores it: fixed numbers, then all text, then the data. The layout is in `docs/log-format.md`.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Envelope, EnvelopeError, Parts, SLOTS};
use crate::clock::Timestamp;

const FIXED_BYTES: usize = 20 + 2 * SLOTS;
const LAYOUT: u8 = 1;
/// Data that is larger is not copied out of the memory that it was read into.
const WORTH_SHARING: usize = 64 * 1024;

impl Envelope {
    /// Bytes that the event takes in a log or a buffer.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        FIXED_BYTES + self.parts.text.len() + self.parts.data.len()
    }

    /// The stored form, in three parts (numbers, text, data) so that nothing has to be joined to be written.
    /// `published` is the time that the transport accepts it.
    #[must_use]
    pub(crate) fn stored(&self, published: Timestamp) -> ([u8; FIXED_BYTES], &[u8], &[u8]) {
        let mut fixed = [0; FIXED_BYTES];
        let mut out = &mut fixed[..];
        out.put_u8(LAYOUT);
        out.put_u8(self.parts.flags);
        out.put_u8(self.parts.hops);
        out.put_u8(0);
        out.put_i64_le(self.parts.time.as_micros());
        out.put_i64_le(published.as_micros());
        for end in self.parts.ends {
            out.put_u16_le(end);
        }
        (fixed, self.parts.text.as_bytes(), &self.parts.data)
    }

    /// The stored form in one piece.
    #[must_use]
    pub(crate) fn to_stored(&self) -> Bytes {
        let (fixed, text, data) = self.stored(self.published);
        let mut out = BytesMut::with_capacity(self.encoded_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(text);
        out.extend_from_slice(data);
        out.freeze()
    }

    /// Reads the stored form. The event has memory of its own: what is read from a log shares a whole frame's memory, and
    /// a small event that is kept would keep all of that. Only large data is shared.
    pub(crate) fn from_stored(stored: &Bytes) -> Result<Self, EnvelopeError> {
        let fixed: &[u8; FIXED_BYTES] =
            stored.first_chunk().ok_or(EnvelopeError::Stored("shorter than its fixed part"))?;
        if fixed[0] != LAYOUT {
            return Err(EnvelopeError::Stored("unknown layout version; a newer Oncue wrote it"));
        }
        let long = |at: usize| i64::from_le_bytes(std::array::from_fn(|index| fixed[at + index]));
        let ends: [u16; SLOTS] =
            std::array::from_fn(|slot| u16::from_le_bytes([fixed[20 + 2 * slot], fixed[21 + 2 * slot]]));
        if !ends.is_sorted() {
            return Err(EnvelopeError::Stored("attributes overlap"));
        }
        let data_at = FIXED_BYTES + usize::from(ends[SLOTS - 1]);
        if stored.len() < data_at {
            return Err(EnvelopeError::Stored("shorter than its attributes"));
        }
        let text = std::str::from_utf8(&stored[FIXED_BYTES..data_at])
            .map_err(|_| EnvelopeError::Stored("attributes are not UTF-8"))?;
        let data = &stored[data_at..];
        let data = if data.len() > WORTH_SHARING { stored.slice_ref(data) } else { Bytes::copy_from_slice(data) };
        let parts = Parts {
            text: text.into(),
            ends,
            flags: fixed[1],
            hops: fixed[2],
            time: Timestamp::from_micros(long(4)),
            data,
            key_hash: None,
        };
        Ok(parts.into_envelope(Timestamp::from_micros(long(12))))
    }
}

/// As its stored form, in one piece of bytes: for wires, not for people, who are shown [`to_json`](Envelope::to_json).
impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_stored())
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_stored(&Bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(
            id in "[a-z0-9]{1,40}",
            subject in proptest::option::of("[^\\x00-\\x1f\\x7f]{1,60}"),
            key in proptest::option::of("[^\\x00-\\x1f\\x7f]{1,60}"),
            extensions in proptest::collection::btree_map("x[a-z0-9]{0,19}", "[^\\x00-\\x1f\\x7f]{0,30}", 0..4),
            time in proptest::option::of(any::<i64>()),
            published in any::<i64>(),
            data in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut builder = Envelope::builder("order.created").id(id.clone()).source("/shop").data(data.clone());
            if let Some(subject) = &subject { builder = builder.subject(subject.clone()); }
            if let Some(key) = &key { builder = builder.key(key.clone()); }
            if let Some(time) = time { builder = builder.time(Timestamp::from_micros(time)); }
            for (name, value) in &extensions { builder = builder.extension(name.clone(), value.clone()); }
            let event = builder.build().unwrap().published_at(Timestamp::from_micros(published));
            let read = Envelope::from_stored(&event.to_stored()).unwrap();
            prop_assert_eq!(&read, &event);
            prop_assert_eq!(read.id(), id.as_str());
            prop_assert_eq!(read.key(), key.as_deref().or(subject.as_deref()));
            prop_assert_eq!(read.time(), time.map(Timestamp::from_micros));
            prop_assert_eq!(read.data().as_ref(), data.as_slice());
            let seen = read.extensions().map(|(name, value)| (name.to_owned(), value.to_owned()));
            prop_assert!(seen.eq(extensions), "in the order they were added");
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(event) = Envelope::from_stored(&Bytes::from(bytes)) {
                let _ = (format!("{event:?}"), event.key().map(str::len), event.extensions().count());
            }
        }
    }
}
