//! Events as AMQP messages: the `CloudEvents` binding, binary mode written, both modes read.

use std::borrow::Cow;

#[cfg(test)]
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use oncue::{Envelope, clock::Timestamp};

use super::{reading::Stored, stream::Message};
use crate::{
    event::{self, FOREIGN, PUBLISHED},
    streams::{Mark, Stored as _},
};

/// What the names of attributes begin with; the second one is read, too.
const PREFIXES: [&str; 2] = ["cloudEvents_", "cloudEvents:"];
/// The attribute that is a property of its own.
const CONTENT_TYPE: &str = "datacontenttype";
/// Longest text of a property.
const SHORT_BYTES: usize = 255;

/// An event as a message.
pub(super) fn encode(event: &Envelope, published: Timestamp) -> Message {
    let mut headers = FieldTable::default();
    let mut properties = BasicProperties::default();
    let [prefix, _] = PREFIXES;
    let named = |name: &str| format!("{prefix}{name}").into();
    headers.insert(named("specversion"), text("1.0"));
    for (name, value) in event.attributes() {
        if name == CONTENT_TYPE && value.len() <= SHORT_BYTES {
            properties = properties.with_content_type((*value).into());
        } else {
            headers.insert(named(name), text(&value));
        }
    }
    if event.is_foreign() {
        headers.insert(FOREIGN.into(), AMQPValue::Boolean(true));
    }
    headers.insert(PUBLISHED.into(), AMQPValue::LongLongInt(published.as_micros()));
    let seconds = u64::try_from(published.as_micros().div_euclid(1_000_000)).unwrap_or_default();
    let properties = properties.with_headers(headers).with_timestamp(seconds);
    Message { properties, data: event.data().clone() }
}

/// A message as an event; what carries no `CloudEvents` attributes, or wrong ones, is one of another tool's, its type the
/// topic's name.
pub(super) fn decode(topic: &str, stored: &Stored) -> Result<Envelope, String> {
    let event = cloud_event(stored).or_else(|| foreign(topic, stored));
    let event = event.ok_or_else(|| format!("message {} is no event", stored.offset))?;
    let seconds = stored.properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
    let published = stored.number(PUBLISHED).and_then(|micros| i64::try_from(micros).ok());
    let published = published.or_else(|| seconds.map(|seconds| seconds.saturating_mul(1_000_000)));
    Ok(event.published_at(Timestamp::from_micros(published.unwrap_or_default())))
}

/// What an event of ours says of itself.
pub(super) fn mark(stored: &Stored) -> Option<Mark<'_>> {
    let headers = stored.properties.headers().as_ref()?.inner();
    let published = i64::try_from(stored.number(PUBLISHED)?).ok()?;
    let [prefix, _] = PREFIXES;
    let attribute = |attribute: &str| match headers.get(&*format!("{prefix}{attribute}"))? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    };
    Mark::new(attribute, published)
}

fn cloud_event(stored: &Stored) -> Option<Envelope> {
    let content_type = stored.properties.content_type().as_ref().map(ShortString::as_str);
    if event::is_structured(content_type) {
        return Envelope::from_json(&stored.data).ok();
    }
    let headers = stored.properties.headers().as_ref()?;
    let attributes = headers.into_iter().filter_map(|(name, value)| {
        let name = PREFIXES.iter().find_map(|prefix| name.as_str().strip_prefix(prefix))?;
        Some((Cow::Borrowed(name), written(value)?))
    });
    let attributes: Vec<_> = attributes.collect();
    event::binary(&attributes, content_type, headers.contains_key(FOREIGN), &stored.data)
}

fn foreign(topic: &str, stored: &Stored) -> Option<Envelope> {
    let content_type = stored.properties.content_type().as_ref().map(ShortString::as_str);
    let headers = stored.properties.headers().iter().flatten();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), written(value)?)));
    event::foreign((topic, "amqp", stored.offset), (None, content_type), headers, &stored.data)
}

/// A value as `CloudEvents` write it.
fn written(value: &AMQPValue) -> Option<Cow<'_, str>> {
    let number = match value {
        AMQPValue::LongString(text) => return std::str::from_utf8(text.as_bytes()).ok().map(Cow::Borrowed),
        AMQPValue::ShortString(text) => return Some(Cow::Borrowed(text.as_str())),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::Timestamp(seconds) => {
            let micros = i64::try_from(*seconds).ok()?.checked_mul(1_000_000)?;
            Timestamp::from_micros(micros).to_rfc3339()
        }
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        _ => return None,
    };
    Some(Cow::Owned(number))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(Message { properties, data }: Message) -> Stored {
        Stored { offset: 7, properties, data }
    }

    #[test]
    fn attributes_and_data_come_back() {
        let event = Envelope::builder("größe \"1\" 100%").source("/s").id("a b").key("ключ").content_type("text/plain");
        let event = event.extension("traceparent", "00-1").data(vec![0, 255, 10]).build().unwrap();
        let message = encode(&event, Timestamp::from_micros(1_000_005));
        let kind = message.properties.content_type().as_ref().map(ShortString::as_str);
        assert_eq!((kind, *message.properties.timestamp()), (Some("text/plain"), Some(1)));
        let message = stored(message);
        assert_eq!(mark(&message), Some(Mark::of(&event.clone().published_at(Timestamp::from_micros(1_000_005)))));
        let back = decode("events", &message).unwrap();
        assert_eq!((back.event_type(), back.id(), back.key()), (event.event_type(), "a b", Some("ключ")));
        assert_eq!((back.extension("traceparent"), back.data()), (Some("00-1"), event.data()));
        assert_eq!((back.content_type(), back.published()), (Some("text/plain"), Timestamp::from_micros(1_000_005)));
    }

    #[test]
    fn structured_mode_and_other_tools_are_read() {
        let decoded = |properties: BasicProperties, data: &'static [u8]| {
            decode("events", &stored(Message { properties, data: Bytes::from_static(data) })).unwrap()
        };
        let foreign = decoded(BasicProperties::default(), b"\x00raw");
        assert!(foreign.is_foreign());
        assert_eq!((foreign.event_type(), foreign.id(), &foreign.data()[..]), ("events", "events-7", &b"\x00raw"[..]));
        let mut headers = FieldTable::default();
        headers.insert("tenant".into(), text("a")).insert("X-Other".into(), text("b"));
        let foreign = decoded(BasicProperties::default().with_headers(headers), b"");
        assert_eq!(foreign.extensions().collect::<Vec<_>>(), [("tenant", "a")]);
        let json =
            || BasicProperties::default().with_content_type("application/cloudevents+json; charset=UTF-8".into());
        let event = decoded(json(), br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}"#);
        assert_eq!((event.event_type(), event.source(), event.is_foreign()), ("t", "/s", false));
        assert!(decoded(json(), b"{}").is_foreign(), "what is malformed keeps its bytes");
        let mut headers = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")] {
            headers.insert(format!("cloudEvents:{name}").into(), text(value));
        }
        headers.insert("cloudEvents:time".into(), AMQPValue::Timestamp(5));
        let event = decoded(BasicProperties::default().with_headers(headers), b"");
        assert_eq!((event.id(), event.time()), ("1", Some(Timestamp::from_micros(5_000_000))));
    }
}
