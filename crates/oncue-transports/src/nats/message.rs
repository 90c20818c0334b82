//! Events as NATS messages: the `CloudEvents` binding, binary mode written, both modes read.

use std::borrow::Cow;

use async_nats::HeaderMap;
use bytes::Bytes;
use oncue::{Envelope, clock::Timestamp};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::event::{self, FOREIGN};

/// What attributes' headers begin with.
const PREFIX: &str = "ce-";
/// What headers are encoded for: what is not printable ASCII, and space, `"` and `%`.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// What a token of a subject is encoded for.
const NOT_IN_TOKENS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
/// The header that says what a message's data are.
const CONTENT_TYPE: &str = "content-type";

/// The headers of an event as a message; its data are the event's.
pub(super) fn headers(event: &Envelope) -> HeaderMap {
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
    headers
}

/// A message as an event; what carries no `CloudEvents` attributes, or wrong ones, is one of another tool's, its type the
/// topic's name.
pub(super) fn decode(
    topic: &str,
    sequence: u64,
    headers: &HeaderMap,
    data: &Bytes,
    published: Timestamp,
) -> Result<Envelope, String> {
    let headers: Vec<_> =
        headers.iter().filter_map(|(name, values)| Some((name.as_ref(), values.last()?.as_str()))).collect();
    let event = cloud_event(&headers, data).or_else(|| {
        let content_type = header(&headers, CONTENT_TYPE);
        event::foreign((topic, "nats", sequence), (None, content_type), headers.iter().copied(), data)
    });
    let event = event.ok_or_else(|| format!("message {sequence} is no event"))?;
    Ok(event.published_at(published))
}

fn header<'a>(headers: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The type of the data is an attribute as any other; of the message, it says that these are a whole event.
fn cloud_event(headers: &[(&str, &str)], data: &Bytes) -> Option<Envelope> {
    if event::is_structured(header(headers, CONTENT_TYPE)) {
        return Envelope::from_json(data).ok();
    }
    let attributes = headers.iter();
    let attributes = attributes.filter_map(|(name, value)| Some((event::attribute(name, PREFIX)?, unescaped(value))));
    let attributes: Vec<_> = attributes.collect();
    event::binary(&attributes, None, header(headers, FOREIGN).is_some(), data)
}

/// Percent-encoded, as the binding has it.
fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_HEADERS).to_string()
}

pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// A name as one token of a subject.
pub(super) fn token(name: &str) -> String {
    utf8_percent_encode(name, NOT_IN_TOKENS).to_string()
}

/// The name that a token was made of.
pub(super) fn name(token: &str) -> String {
    unescaped(token).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(event: &Envelope) -> Envelope {
        decode("events", 7, &headers(event), event.data(), Timestamp::from_micros(5)).unwrap()
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
            decode("events", 7, headers, &Bytes::from_static(data), Timestamp::default()).unwrap()
        };
        let foreign = decode(&headers, b"\x00raw");
        assert!(foreign.is_foreign());
        assert_eq!((foreign.event_type(), foreign.id(), &foreign.data()[..]), ("events", "events-7", &b"\x00raw"[..]));
        headers.insert("content-type", "application/cloudevents+json; charset=UTF-8");
        let event = decode(&headers, br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}"#);
        assert_eq!((event.event_type(), event.source()), ("t", "/s"));
        // What says that it is an event, and is none, stands in nobody's way.
        let malformed = decode(&headers, b"{}");
        assert_eq!(
            (malformed.is_foreign(), malformed.event_type(), &malformed.data()[..]),
            (true, "events", &b"{}"[..])
        );
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", "7");
        headers.insert("tenant", "acme");
        let malformed = decode(&headers, b"{}");
        assert_eq!((malformed.is_foreign(), malformed.extension("tenant")), (true, Some("acme")));
    }

    #[test]
    fn names_are_one_token() {
        assert_eq!(token("order.created"), "order%2Ecreated");
        assert_eq!(name(&token("a.b>*ü c")), "a.b>*ü c");
    }
}
