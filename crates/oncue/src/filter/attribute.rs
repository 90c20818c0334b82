//! The attributes that a filter can name, and their values.

use std::fmt::{self, Write as _};

use crate::event::{Envelope, Slot};

/// An attribute of an event, by its `CloudEvents` name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Core(Core),
    /// Any other name; also one that no attribute can have, which `validate` finds.
    Extension(Box<str>),
}

/// The names of [`Core::ALL`].
const NAMES: [&str; 12] = [
    "id",
    "subject",
    "partitionkey",
    "correlationid",
    "causationid",
    "time",
    "type",
    "dataschema",
    "source",
    "oncuehops",
    "datacontenttype",
    "specversion",
];

/// An attribute that an envelope has a place of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Core {
    /// One that is held as text.
    Text(Slot),
    Time,
    Hops,
    SpecVersion,
}

impl Core {
    /// All, in the order in which an index prefers them: first those whose values tend to be many, so that few filters
    /// share one.
    pub(super) const ALL: [Self; 12] = [
        Self::Text(Slot::Id),
        Self::Text(Slot::Subject),
        Self::Text(Slot::Key),
        Self::Text(Slot::Correlation),
        Self::Text(Slot::Causation),
        Self::Time,
        Self::Text(Slot::Type),
        Self::Text(Slot::Schema),
        Self::Text(Slot::Source),
        Self::Hops,
        Self::Text(Slot::ContentType),
        Self::SpecVersion,
    ];
    /// How many of [`ALL`](Self::ALL) come before all extensions.
    const BEFORE_EXTENSIONS: u8 = 5;

    /// The place among [`ALL`](Self::ALL).
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Text(Slot::Id) => 0,
            Self::Text(Slot::Subject) => 1,
            Self::Text(Slot::Key) => 2,
            Self::Text(Slot::Correlation) => 3,
            Self::Text(Slot::Causation) => 4,
            Self::Time => 5,
            Self::Text(Slot::Type) => 6,
            Self::Text(Slot::Schema) => 7,
            Self::Text(Slot::Source) => 8,
            Self::Hops => 9,
            Self::Text(Slot::ContentType) => 10,
            Self::SpecVersion | Self::Text(Slot::Extensions) => 11,
        }
    }

    fn name(self) -> &'static str {
        NAMES[usize::from(self.number())]
    }

    /// The value, if the event has one. What an envelope does not hold as text is written into `room`.
    #[inline]
    pub(super) fn of<'a>(self, event: &'a Envelope, room: &'a mut Option<ShortText>) -> Option<&'a [u8]> {
        match self {
            Self::Text(slot) => Some(event.slot_bytes(slot)).filter(|text| !text.is_empty()),
            Self::Time => Some(ShortText::write(room, event.time()?)),
            Self::Hops => (event.hops() > 0).then(|| ShortText::write(room, event.hops())),
            Self::SpecVersion => Some(b"1.0"),
        }
    }
}

impl Attribute {
    pub(super) fn named(name: &str) -> Self {
        match Core::ALL.into_iter().find(|core| core.name() == name) {
            Some(core) => Self::Core(core),
            None => Self::Extension(name.into()),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Core(core) => core.name(),
            Self::Extension(name) => name,
        }
    }

    /// The value, if the event has one. What an envelope does not hold as text is written into `room`.
    pub(super) fn of<'a>(&self, event: &'a Envelope, room: &'a mut Option<ShortText>) -> Option<&'a [u8]> {
        match self {
            Self::Core(core) => core.of(event, room),
            Self::Extension(name) => event.extension(name).map(str::as_bytes),
        }
    }

    /// The order in which an index prefers attributes, the most selective first.
    pub(super) fn rank(&self) -> (u8, &str) {
        match self {
            Self::Core(core) if core.number() < Core::BEFORE_EXTENSIONS => (core.number(), ""),
            Self::Extension(name) => (Core::BEFORE_EXTENSIONS, name),
            Self::Core(core) => (core.number() + 1, ""),
        }
    }
}

/// A text of a few bytes, without an allocation.
#[derive(Clone, Copy)]
pub(super) struct ShortText {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl ShortText {
    /// RFC 3339 with microseconds and a year of seven characters has 34.
    const MOST: usize = 40;

    fn write(room: &mut Option<Self>, value: impl fmt::Display) -> &[u8] {
        let text = room.insert(Self { bytes: [0; Self::MOST], length: 0 });
        // Nothing that is written here is longer; the text of such a thing would match nothing.
        if write!(text, "{value}").is_err() {
            text.length = 0;
        }
        &text.bytes[..text.length]
    }
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn every_attribute_of_binary_mode_can_be_read_by_its_name() {
        let parent = Envelope::builder("order.created").id("p").subject("o-1").build().unwrap();
        let event = Envelope::builder("order.paid")
            .source("/pay")
            .subject("o-1")
            .key("k")
            .content_type("text/plain")
            .schema("urn:s")
            .time(Timestamp::from_micros(1_473_023_719_000_001))
            .extension("tenant", "acme")
            .build()
            .unwrap()
            .emitted_by(&parent, "pay", 0);
        let named: Vec<_> = event.attributes().collect();
        assert_eq!(named.len(), 12);
        for (name, value) in named {
            assert_eq!(Attribute::named(name).of(&event, &mut None), Some(value.as_bytes()), "{name}");
            assert_eq!(Attribute::named(name).name(), name);
        }
        assert_eq!(Attribute::named("specversion").of(&event, &mut None), Some(&b"1.0"[..]));
        assert_eq!(Attribute::named("absent").of(&event, &mut None), None);
    }

    #[test]
    fn what_an_event_does_not_have_is_absent() {
        let event = Envelope::builder("a").build().unwrap();
        let present: Vec<_> = Core::ALL.into_iter().filter(|core| core.of(&event, &mut None).is_some()).collect();
        assert_eq!(present.into_iter().map(Core::name).collect::<Vec<_>>(), ["id", "type", "source", "specversion"]);
    }

    #[test]
    fn any_time_has_room() {
        for micros in [i64::MIN, -377_705_023_201_000_000, -1, 0, 253_402_207_200_999_999, i64::MAX] {
            let time = Timestamp::from_micros(micros);
            let event = Envelope::builder("a").time(time).build().unwrap();
            assert_eq!(Core::Time.of(&event, &mut None), Some(time.to_rfc3339().as_bytes()));
        }
    }

    #[test]
    fn ranks_differ_and_put_extensions_between() {
        let names = ["id", "subject", "causationid", "a", "b", "time", "type", "source", "specversion"];
        let ranks = names.map(Attribute::named);
        assert!(ranks.windows(2).all(|pair| pair[0].rank() < pair[1].rank()));
    }
}
