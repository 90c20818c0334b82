//! Building an envelope: attributes are checked here, and nowhere after.

use bytes::Bytes;

use super::{
    DEFAULT_SOURCE, Envelope, EnvelopeError, FOREIGN, HAS_TIME, ID_SUPPLIED, MAX_ATTRIBUTES_BYTES, MAX_DATA_BYTES,
    Parts, SLOTS,
};
use crate::{clock::Timestamp, event::id};

/// Builds an [`Envelope`]; made by [`Envelope::builder`].
#[derive(Clone, Debug, Default)]
pub struct EnvelopeBuilder {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) event_type: String,
    pub(super) subject: String,
    pub(super) key: String,
    pub(super) content_type: String,
    pub(super) schema: String,
    pub(super) correlation: String,
    pub(super) causation: String,
    pub(super) extensions: Vec<(String, String)>,
    pub(super) time: Option<Timestamp>,
    pub(super) hops: u8,
    pub(super) id_supplied: bool,
    pub(super) foreign: bool,
    pub(super) data: Bytes,
}

macro_rules! text_setters {
    ($($(#[$doc:meta])* $name:ident => $field:ident;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $field: impl Into<String>) -> Self {
            self.$field = $field.into();
            self
        })*
    };
}

impl EnvelopeBuilder {
    text_setters! {
        /// The event type; [`Envelope::builder`] has set it.
        event_type => event_type;
        /// `CloudEvents` `source`; [`DEFAULT_SOURCE`] if not given.
        source => source;
        /// `CloudEvents` `subject`; also the key, unless [`key`](Self::key) is given.
        subject => subject;
        /// What order is kept for (`partitionkey`).
        key => key;
        /// `CloudEvents` `datacontenttype`, such as `application/json`.
        content_type => content_type;
        /// `CloudEvents` `dataschema`.
        schema => schema;
        /// The id of the first event of a chain.
        correlation_id => correlation;
        /// The id of the event that caused this one.
        causation_id => causation;
    }

    /// The publisher's own id. Publishing the same `source` and `id` again within the deduplication window is
    /// acknowledged as a duplicate and delivered once. Without it the event gets a new id, and every publish is a new
    /// event.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self.id_supplied = true;
        self
    }

    /// `CloudEvents` `time`: when the event was generated.
    #[must_use]
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// An extension attribute; the name is lower-case letters and digits. Given again, the value is replaced: no event
    /// has an attribute twice.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.extensions.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.extensions.push((name, value)),
        }
        self
    }

    /// How many emissions led here.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Marks a record that another tool wrote without `CloudEvents` attributes.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// The payload.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Checks the attributes and assembles the event.
    ///
    /// # Errors
    /// What is missing, malformed or too large.
    pub fn build(mut self) -> Result<Envelope, EnvelopeError> {
        if self.id.is_empty() {
            if self.id_supplied {
                return Err(EnvelopeError::Missing("id"));
            }
            self.id = id::fresh();
        }
        if self.source.is_empty() {
            DEFAULT_SOURCE.clone_into(&mut self.source);
        }
        if self.event_type.is_empty() {
            return Err(EnvelopeError::Missing("type"));
        }
        for (name, _) in &self.extensions {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            if name.is_empty() || name.len() > 20 || !name.bytes().all(allowed) {
                return Err(EnvelopeError::Name(name.clone()));
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
        if self.data.len() > MAX_DATA_BYTES {
            return Err(EnvelopeError::DataTooLarge { bytes: self.data.len() });
        }
        Ok(self.assemble())
    }

    fn slots(&self) -> [(&'static str, &str); SLOTS - 1] {
        [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.event_type),
            ("subject", &self.subject),
            ("partitionkey", &self.key),
            ("datacontenttype", &self.content_type),
            ("dataschema", &self.schema),
            ("correlationid", &self.correlation),
            ("causationid", &self.causation),
        ]
    }

    fn with_control_character(&self) -> Option<&str> {
        let extensions = self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let forbidden = |text: &str| text.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
        self.slots().into_iter().chain(extensions).find(|(_, value)| forbidden(value)).map(|(name, _)| name)
    }

    fn text_bytes(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        self.slots().iter().map(|(_, value)| value.len()).sum::<usize>() + extensions
    }

    /// Assembles checked attributes. Text past 64 KiB (only possible for an emitted event whose parent is at the limit)
    /// is cut by dropping extensions: never the payload, never a required attribute.
    pub(super) fn assemble(mut self) -> Envelope {
        while self.text_bytes() > usize::from(u16::MAX) && self.extensions.pop().is_some() {}
        let mut text = String::with_capacity(self.text_bytes());
        let mut ends = [0; SLOTS];
        for (end, (_, value)) in ends.iter_mut().zip(self.slots()) {
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
            data: self.data,
            key_hash: None,
        };
        parts.into_envelope(Timestamp::default())
    }
}
