//! All attributes of an event, borrowed: they are checked here, and nowhere after, and assembled into one text.

use bytes::Bytes;

use super::{
    Envelope, EnvelopeError, FOREIGN, HAS_TIME, ID_SUPPLIED, MAX_ATTRIBUTES_BYTES, MAX_DATA_BYTES, Parts, SLOTS, Slot,
};
use crate::clock::Timestamp;

/// What the slots are called.
const NAMES: [&str; SLOTS - 1] = [
    "id",
    "source",
    "type",
    "subject",
    "partitionkey",
    "datacontenttype",
    "dataschema",
    "correlationid",
    "causationid",
];

#[derive(Debug, Default)]
pub(in crate::event) struct Attributes<'a> {
    /// By [`Slot`]; an absent one is empty.
    pub(in crate::event) slots: [&'a str; SLOTS - 1],
    pub(in crate::event) extensions: Vec<(&'a str, &'a str)>,
    pub(in crate::event) time: Option<Timestamp>,
    pub(in crate::event) hops: u8,
    pub(in crate::event) id_supplied: bool,
    pub(in crate::event) foreign: bool,
}

impl<'a> Attributes<'a> {
    /// The slot of a name; none if it is no name of one.
    pub(in crate::event) fn slot(&mut self, name: &str) -> Option<&mut &'a str> {
        let place = NAMES.iter().position(|known| *known == name)?;
        self.slots.get_mut(place)
    }

    /// What is missing, malformed or too large.
    pub(in crate::event) fn check(&self, data_bytes: usize) -> Result<(), EnvelopeError> {
        for required in [Slot::Id, Slot::Source, Slot::Type] {
            if self.slots[required as usize].is_empty() {
                return Err(EnvelopeError::Missing(NAMES[required as usize]));
            }
        }
        for (name, _) in &self.extensions {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if name.is_empty() || name.len() > 20 || !name.bytes().all(allowed) {
                return Err(EnvelopeError::Name((*name).to_owned()));
            }
        }
        if let Some(name) = self.with_control_character() {
            return Err(EnvelopeError::ControlCharacter(name.to_owned()));
        }
        self.check_schedule()?;
        self.check_reply()?;
        let bytes = self.text_bytes();
        if bytes > MAX_ATTRIBUTES_BYTES {
            return Err(EnvelopeError::AttributesTooLarge { bytes });
        }
        if data_bytes > MAX_DATA_BYTES {
            return Err(EnvelopeError::DataTooLarge { bytes: data_bytes });
        }
        Ok(())
    }

    fn with_control_character(&self) -> Option<&str> {
        let forbidden = |text: &str| text.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
        let slots = NAMES.into_iter().zip(self.slots);
        slots.chain(self.extensions.iter().copied()).find(|(_, value)| forbidden(value)).map(|(name, _)| name)
    }

    fn text_bytes(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        self.slots.iter().map(|value| value.len()).sum::<usize>() + extensions
    }

    /// Assembles checked attributes. Text past 64 KiB (only possible for an emitted event whose parent is at the limit)
    /// is cut by dropping extensions: never the payload, never a required attribute.
    pub(in crate::event) fn assemble(mut self, data: Bytes) -> Envelope {
        while self.text_bytes() > usize::from(u16::MAX) && self.extensions.pop().is_some() {}
        let mut text = String::with_capacity(self.text_bytes());
        let mut ends = [0; SLOTS];
        for (end, value) in ends.iter_mut().zip(self.slots) {
            text.push_str(value);
            *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
        }
        for (name, value) in &self.extensions {
            for part in [name, value] {
                text.push_str(part);
                text.push('\0');
            }
        }
        ends[SLOTS - 1] = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let parts = Parts {
            text: text.into(),
            ends,
            flags: flag(self.time.is_some(), HAS_TIME)
                | flag(self.id_supplied, ID_SUPPLIED)
                | flag(self.foreign, FOREIGN),
            hops: self.hops,
            time: self.time.unwrap_or_default(),
            data,
            key_hash: None,
        };
        parts.into_envelope(Timestamp::default())
    }
}
