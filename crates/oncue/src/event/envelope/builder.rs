//! Building an envelope, attribute by attribute.

use bytes::Bytes;

use super::{DEFAULT_SOURCE, Envelope, EnvelopeError, attributes::Attributes};
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
        let data = std::mem::take(&mut self.data);
        let attributes = self.attributes();
        attributes.check(data.len())?;
        Ok(attributes.assemble(data))
    }

    /// Assembles what is known to be right.
    pub(super) fn assemble(mut self) -> Envelope {
        let data = std::mem::take(&mut self.data);
        self.attributes().assemble(data)
    }

    fn attributes(&self) -> Attributes<'_> {
        let extensions = self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Attributes {
            slots: [
                &self.id,
                &self.source,
                &self.event_type,
                &self.subject,
                &self.key,
                &self.content_type,
                &self.schema,
                &self.correlation,
                &self.causation,
            ],
            extensions,
            time: self.time,
            hops: self.hops,
            id_supplied: self.id_supplied,
            foreign: self.foreign,
        }
    }
}
