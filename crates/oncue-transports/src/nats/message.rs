//! Events as NATS messages: the `CloudEvents` binding, binary mode written, both modes read.

use async_nats::HeaderMap;
use bytes::Bytes;
use oncue::{Envelope, clock::Timestamp};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What attributes' headers begin with.
const PREFIX: &str = "ce-";
/// What headers are encoded for: what is not printable ASCII, and space, `"` and `%`.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// What a token of a subject is encoded for.
const NOT_IN_TOKENS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
/// Marks what another tool wrote, and was passed on with the attributes that it was given.
const FOREIGN: &str = "oncue-foreign";

/// An event as a message: its headers, and its data.
pub(super) fn encode(event: &Envelope) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert("ce-specversion", "1.0");
    for (name, value) in event.attributes() {
        headers.insert(format!("{PREFIX}{name}"), escaped(&value));
    }
    if event.is_foreign() {
        headers.insert(FOREIGN, "true");
    }
    // The broker recognises what is published twice by this.
    headers.insert("Nats-Msg-Id", escaped(&format!("{} {}", event.source(), event.id())));
    (headers, event.data().clone())
}

/// A message as an event; what carries no `CloudEvents` attributes is one of another tool's, its type the topic's name.
pub(super) fn decode(
    topic: &str,
    (stream, sequence): (&str, u64),
    headers: &HeaderMap,
    data: Bytes,
    published: Timestamp,
) -> Result<Envelope, String> {
    let mut attributes = Vec::new();
    let mut structured = false;
    for (name, values) in headers.iter() {
        let name = name.to_string().to_ascii_lowercase();
        let value = values.last().map(ToString::to_string).unwrap_or_default();
        if let Some(attribute) = name.strip_prefix(PREFIX) {
            attributes.push((attribute.to_owned(), unescaped(&value)));
        } else if name == "content-type" {
            structured |= value.starts_with("application/cloudevents");
        }
    }
    let event = if structured {
        Envelope::from_json(&data).map_err(|error| error.to_string())?
    } else if attributes.is_empty() {
        let foreign = Envelope::builder(topic).id(format!("{stream}-{sequence}")).source("nats").foreign().data(data);
        foreign.build().map_err(|error| error.to_string())?
    } else {
        let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let event = Envelope::from_binary(attributes, data).map_err(|error| error.to_string())?;
        match headers.get(FOREIGN) {
            Some(_) => event.into_builder().foreign().build().map_err(|error| error.to_string())?,
            None => event,
        }
    };
    Ok(event.published_at(published))
}

/// Percent-encoded, as the binding has it.
fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_HEADERS).to_string()
}

pub(super) fn unescaped(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A name as one token of a subject.
pub(super) fn token(name: &str) -> String {
    utf8_percent_encode(name, NOT_IN_TOKENS).to_string()
}

/// The name that a token was made of.
pub(super) fn name(token: &str) -> String {
    unescaped(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(event: &Envelope) -> Envelope {
        let (headers, data) = encode(event);
        decode("events", ("events", 7), &headers, data, Timestamp::from_micros(5)).unwrap()
    }

    #[test]
    fn attributes_and_data_come_back() {
        let event = Envelope::builder("größe \"1\" 100%").source("/s").id("a b").key("ключ");
        let event = event.extension("traceparent", "00-1").data(vec![0, 255, 10]).build().unwrap();
        let back = there_and_back(&event);
        assert_eq!((back.event_type(), back.id(), back.key()), (event.event_type(), "a b", Some("ключ")));
        assert_eq!((back.extension("traceparent"), back.data()), (Some("00-1"), event.data()));
        assert_eq!(back.published(), Timestamp::from_micros(5));
    }

    #[test]
    fn structured_mode_and_other_tools_are_read() {
        let mut headers = HeaderMap::new();
        let decode = |headers: &HeaderMap, data: &'static [u8]| {
            decode("events", ("events", 7), headers, Bytes::from_static(data), Timestamp::default())
        };
        let foreign = decode(&headers, b"\x00raw").unwrap();
        assert!(foreign.is_foreign());
        assert_eq!((foreign.event_type(), foreign.id(), &foreign.data()[..]), ("events", "events-7", &b"\x00raw"[..]));
        headers.insert("content-type", "application/cloudevents+json; charset=UTF-8");
        let event = decode(&headers, br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}"#).unwrap();
        assert_eq!((event.event_type(), event.source()), ("t", "/s"));
        assert!(decode(&headers, b"{}").is_err());
    }

    #[test]
    fn names_are_one_token() {
        assert_eq!(token("order.created"), "order%2Ecreated");
        assert_eq!(name(&token("a.b>*ü c")), "a.b>*ü c");
    }
}
