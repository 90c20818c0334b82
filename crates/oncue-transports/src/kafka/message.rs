//! Events as Kafka records: the `CloudEvents` binding, binary mode written, both modes read.

use std::borrow::Cow;

use bytes::Bytes;
use oncue::{Envelope, clock::Timestamp};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};

use crate::{
    event::{self, FOREIGN, PUBLISHED},
    streams::{self, Mark},
};

/// What attributes' headers begin with.
const PREFIX: &str = "ce_";
/// The attribute that is a header without that.
const CONTENT_TYPE: (&str, &str) = ("datacontenttype", "content-type");

/// A record to be written.
pub(crate) struct Message {
    pub(super) key: Option<String>,
    pub(super) headers: OwnedHeaders,
    pub(super) data: Bytes,
    /// Milliseconds.
    pub(super) timestamp: Option<i64>,
}

/// A record that was read.
pub(crate) struct Stored {
    offset: u64,
    key: Option<Bytes>,
    headers: Headers,
    data: Bytes,
    /// Milliseconds.
    timestamp: Option<i64>,
}

/// A record as it comes.
pub(crate) struct Coming<'a>(pub(super) BorrowedMessage<'a>);

/// What there is room for at first: names and values of a dozen headers.
const HEADERS: usize = 12;
const HEADERS_BYTES: usize = 480;

/// Names and values that are text, in one buffer: a record has a dozen of them, and each is short.
struct Headers {
    text: String,
    /// Of each, where its name begins, its value, and where that ends.
    places: Vec<[usize; 3]>,
}

impl Headers {
    fn new() -> Self {
        Self { text: String::with_capacity(HEADERS_BYTES), places: Vec::with_capacity(HEADERS) }
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        let begin = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        self.places.push([begin, middle, self.text.len()]);
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.places.iter().map(|[begin, middle, end]| (&self.text[*begin..*middle], &self.text[*middle..*end]))
    }
}

fn offset(message: &BorrowedMessage<'_>) -> u64 {
    u64::try_from(message.offset()).unwrap_or_default()
}

impl From<&BorrowedMessage<'_>> for Stored {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let mut headers = Headers::new();
        for header in message.headers().iter().flat_map(|headers| headers.iter()) {
            headers.push(header.key, header.value.unwrap_or_default());
        }
        Self {
            offset: offset(message),
            key: message.key().map(Bytes::copy_from_slice),
            headers,
            data: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            timestamp: message.timestamp().to_millis(),
        }
    }
}

impl Stored {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl streams::Stored for Stored {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    fn data(&self) -> &Bytes {
        &self.data
    }
}

impl streams::Coming<Stored> for Coming<'_> {
    fn offset(&self) -> u64 {
        offset(&self.0)
    }

    fn mark(&self) -> Option<Mark<'_>> {
        let headers = self.0.headers()?;
        mark(headers.iter().map(|header| (header.key, header.value)))
    }

    fn keep(self) -> Stored {
        Stored::from(&self.0)
    }
}

/// What a record of ours says of its event: names and values of its headers.
fn mark<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<Mark<'a>> {
    const NAMES: [&str; 4] = ["source", "id", "partitionkey", "subject"];
    let (mut values, mut published) = ([None; NAMES.len()], None);
    for (header, value) in headers {
        let attribute = header.strip_prefix(PREFIX);
        if let Some(at) = attribute.and_then(|attribute| NAMES.iter().position(|name| *name == attribute)) {
            values[at] = std::str::from_utf8(value?).ok();
        } else if header == PUBLISHED {
            published = std::str::from_utf8(value?).ok()?.parse().ok();
        }
    }
    Mark::new(|attribute| values[NAMES.iter().position(|name| *name == attribute)?], published?)
}

fn header(headers: OwnedHeaders, name: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key: name, value: Some(value) })
}

/// Data with numbers beside them.
pub(super) fn record(numbers: &[(&'static str, u64)], data: Bytes) -> Message {
    let headers =
        numbers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| header(headers, name, &value.to_string()));
    Message { key: None, headers, data, timestamp: None }
}

/// An event as a record; its key is what order is kept for.
pub(super) fn encode(event: &Envelope, published: Timestamp) -> Message {
    let mut named = String::with_capacity(HEADERS_BYTES / HEADERS);
    let mut with = |headers, name: &str, value: &str| {
        named.clear();
        named.push_str(PREFIX);
        named.push_str(name);
        header(headers, &named, value)
    };
    let mut headers = with(OwnedHeaders::new_with_capacity(HEADERS), "specversion", "1.0");
    for (name, value) in event.attributes() {
        let (attribute, content_type) = CONTENT_TYPE;
        headers = if name == attribute { header(headers, content_type, &value) } else { with(headers, name, &value) };
    }
    if event.is_foreign() {
        headers = header(headers, FOREIGN, "true");
    }
    headers = header(headers, PUBLISHED, &published.as_micros().to_string());
    let timestamp = Some(published.as_micros().div_euclid(1_000));
    Message { key: event.key().map(str::to_owned), headers, data: event.data().clone(), timestamp }
}

/// A record as an event; what carries no `CloudEvents` attributes, or wrong ones, is one of another tool's, its type the
/// topic's name.
pub(super) fn decode(topic: &str, stored: &Stored) -> Result<Envelope, String> {
    let event = cloud_event(stored).or_else(|| foreign(topic, stored));
    let event = event.ok_or_else(|| format!("record {} is no event", stored.offset))?;
    let micros = stored.header(PUBLISHED).and_then(|micros| micros.parse().ok());
    let micros = micros.or_else(|| stored.timestamp.map(|millis| millis.saturating_mul(1_000)));
    Ok(event.published_at(Timestamp::from_micros(micros.unwrap_or_default())))
}

fn cloud_event(stored: &Stored) -> Option<Envelope> {
    let content_type = stored.header(CONTENT_TYPE.1);
    if event::is_structured(content_type) {
        return Envelope::from_json(&stored.data).ok();
    }
    let attribute = |(name, value)| Some((event::attribute(name, PREFIX)?, Cow::Borrowed(value)));
    let attributes: Vec<_> = stored.headers.iter().filter_map(attribute).collect();
    event::binary(&attributes, content_type, stored.header(FOREIGN).is_some(), &stored.data)
}

/// Its key is kept where it is text.
fn foreign(topic: &str, stored: &Stored) -> Option<Envelope> {
    let key = stored.key.as_ref().and_then(|key| std::str::from_utf8(key).ok());
    let content_type = stored.header(CONTENT_TYPE.1);
    event::foreign((topic, "kafka", stored.offset), (key, content_type), stored.headers.iter(), &stored.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(message: Message) -> Stored {
        let mut headers = Headers::new();
        message.headers.iter().for_each(|header| headers.push(header.key, header.value.unwrap_or_default()));
        Stored {
            offset: 7,
            key: message.key.clone().map(Bytes::from),
            headers,
            data: message.data,
            timestamp: message.timestamp,
        }
    }

    fn foreign(key: Option<&'static str>, headers: &[(&str, &str)], data: &'static [u8]) -> Stored {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| header(headers, name, value));
        stored(Message { key: key.map(str::to_owned), headers, data: Bytes::from_static(data), timestamp: Some(5) })
    }

    #[test]
    fn attributes_and_data_come_back() {
        let event = Envelope::builder("größe \"1\" 100%").source("/s").id("a b").key("ключ").content_type("text/plain");
        let event = event.extension("traceparent", "00-1").data(vec![0, 255, 10]).build().unwrap();
        let message = encode(&event, Timestamp::from_micros(1_000_005));
        assert_eq!((message.key.as_deref(), message.timestamp), (Some("ключ"), Some(1_000)));
        let known = mark(message.headers.iter().map(|header| (header.key, header.value)));
        assert_eq!(known, Some(Mark::of(&event.clone().published_at(Timestamp::from_micros(1_000_005)))));
        let back = decode("events", &stored(message)).unwrap();
        assert_eq!((back.event_type(), back.id(), back.key()), (event.event_type(), "a b", Some("ключ")));
        assert_eq!((back.extension("traceparent"), back.data()), (Some("00-1"), event.data()));
        assert_eq!((back.content_type(), back.published()), (Some("text/plain"), Timestamp::from_micros(1_000_005)));
    }

    #[test]
    fn structured_mode_and_other_tools_are_read() {
        let decoded = |stored: &Stored| decode("events", stored).unwrap();
        let raw = decoded(&foreign(Some("k"), &[("tenant", "a"), ("X-Other", "b")], b"\x00raw"));
        assert!(raw.is_foreign());
        assert_eq!((raw.event_type(), raw.id(), &raw.data()[..]), ("events", "events-7", &b"\x00raw"[..]));
        assert_eq!((raw.key(), raw.extension("tenant")), (Some("k"), Some("a")));
        assert_eq!(raw.published(), Timestamp::from_micros(5_000));
        let json = [("content-type", "application/cloudevents+json; charset=UTF-8")];
        let event =
            decoded(&foreign(None, &json, br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}"#));
        assert_eq!((event.event_type(), event.source(), event.is_foreign()), ("t", "/s", false));
        assert!(decoded(&foreign(None, &json, b"{}")).is_foreign(), "what is malformed keeps its bytes");
        let binary = [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "t")];
        let event = decoded(&foreign(None, &binary, b"x"));
        assert_eq!((event.id(), event.event_type(), event.is_foreign()), ("1", "t", false));
    }

    #[test]
    fn numbers_stand_beside_data() {
        use crate::streams::Stored as _;
        let stored = stored(record(&[("oncue-number", 5)], Bytes::from_static(b"x")));
        assert_eq!(
            (stored.number("oncue-number"), stored.number("other"), &stored.data()[..]),
            (Some(5), None, &b"x"[..])
        );
    }
}
