//! Events that people changed, to have them handled again.

use super::{Envelope, EnvelopeBuilder, Slot};

/// The extension that counts how often an event was edited: `1` is the first edition after the published one.
pub const EDITION: &str = "oncueedition";

impl Envelope {
    /// The same event to be changed, such as a dead letter that is to be handled again. It keeps its id.
    #[must_use]
    pub fn into_builder(self) -> EnvelopeBuilder {
        let own = |slot| self.slot(slot).to_owned();
        EnvelopeBuilder {
            id: own(Slot::Id),
            source: own(Slot::Source),
            event_type: own(Slot::Type),
            subject: own(Slot::Subject),
            key: own(Slot::Key),
            content_type: own(Slot::ContentType),
            schema: own(Slot::Schema),
            correlation: own(Slot::Correlation),
            causation: own(Slot::Causation),
            extensions: self.extensions().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            time: self.time(),
            hops: self.hops(),
            id_supplied: self.id_supplied(),
            foreign: self.is_foreign(),
            data: self.data().clone(),
        }
    }

    /// How often it was edited since it was published.
    #[must_use]
    pub fn edition(&self) -> u32 {
        self.extension(EDITION).and_then(|edition| edition.parse().ok()).unwrap_or(0)
    }

    /// This event as the next edition of `original`: published when that was.
    pub(crate) fn edition_of(&self, original: &Self) -> Self {
        let mut builder = self.clone().into_builder();
        builder.extensions.retain(|(name, _)| name != EDITION);
        builder.extensions.push((EDITION.to_owned(), (original.edition() + 1).to_string()));
        builder.assemble().published_at(original.published())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edition_counts_up_and_keeps_what_was_not_changed() {
        let original = Envelope::builder("a").id("1").subject("s").extension("x", "y").data("old").build().unwrap();
        let first = original.clone().into_builder().data("new").build().unwrap().edition_of(&original);
        assert_eq!((first.id(), first.subject(), first.extension("x")), ("1", Some("s"), Some("y")));
        assert_eq!((first.data().as_ref(), first.edition()), (b"new".as_slice(), 1));
        assert_eq!(first.clone().edition_of(&first).edition(), 2);
    }
}
