//! Events as messages of other programs: `[type, structured CloudEvents JSON]` is written, anything is read.

use bytes::Bytes;
use oncue::{
    Envelope,
    event::{EnvelopeError, MAX_HOPS},
};

/// An event as a message: what subscribers choose by, then all of it.
pub(super) fn encode(event: &Envelope) -> Vec<Bytes> {
    vec![Bytes::from(event.event_type().to_owned()), Bytes::from(event.to_json())]
}

/// A message as an event. Its last part is one, or the data of one of another tool: then its type is the topic's name, and
/// its subject the first part, if there are several and it is text.
pub(super) fn decode(topic: &str, parts: &[Bytes]) -> Result<Envelope, EnvelopeError> {
    let (body, before) = parts.split_last().map_or((Bytes::new(), parts), |(body, before)| (body.clone(), before));
    // One that was emitted too often is refused when it is published, with all that comes beside it.
    if let Some(event) = Envelope::from_json(&body).ok().filter(|event| event.hops() <= MAX_HOPS) {
        return Ok(event);
    }
    let foreign = Envelope::builder(topic).source("zmq").foreign().data(body);
    let subject = before.first().and_then(|first| std::str::from_utf8(first).ok());
    match subject.map(|subject| foreign.clone().subject(subject).build()) {
        Some(Ok(event)) => Ok(event),
        _ => foreign.build(),
    }
}

#[cfg(test)]
mod tests {
    use oncue::event::MAX_DATA_BYTES;
    use proptest::prelude::*;

    use super::*;

    fn parts(parts: &[&[u8]]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::copy_from_slice(part)).collect()
    }

    fn decoded(message: &[&[u8]]) -> Envelope {
        decode("weather", &parts(message)).unwrap()
    }

    #[test]
    fn an_event_is_its_type_and_structured_json_and_comes_back() {
        let event = Envelope::builder("order.paid").source("/shop").id("1").key("a").content_type("text/plain");
        let event = event.extension("tenant", "acme").data(vec![0, 255]).build().unwrap();
        let message = encode(&event);
        assert_eq!(message[0], "order.paid");
        let json: serde_json::Value = serde_json::from_slice(&message[1]).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "partitionkey": "a",
            "datacontenttype": "text/plain", "tenant": "acme", "data_base64": "AP8=",
        });
        assert_eq!(json, expected);
        assert_eq!(decode("orders", &message).unwrap(), event);
    }

    #[test]
    fn what_is_no_event_is_foreign_with_its_topic_as_subject() {
        let event = decoded(&[b"weather.berlin", b"between", b"\x00raw"]);
        assert!(event.is_foreign());
        assert_eq!((event.event_type(), event.source(), event.subject()), ("weather", "zmq", Some("weather.berlin")));
        assert_eq!(event.data(), &b"\x00raw"[..]);
        assert_ne!(event.id(), decoded(&[b"weather.berlin", b"between", b"\x00raw"]).id(), "each is one of its own");
        let alone = decoded(&[b"weather.berlin 23"]);
        assert_eq!((alone.subject(), &alone.data()[..]), (None, &b"weather.berlin 23"[..]));
        for topic in [&b"\xff\xfe"[..], b"with\ncontrol", b"", &[b'x'; 100_000]] {
            let event = decoded(&[topic, b"{}"]);
            assert_eq!((event.is_foreign(), event.subject(), &event.data()[..]), (true, None, &b"{}"[..]));
        }
        let looping =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","oncuehops":"{}"}}"#, MAX_HOPS + 1);
        assert!(decoded(&[b"t", looping.as_bytes()]).is_foreign(), "it could not be published");
        assert!(decode("weather", &parts(&[&vec![0; MAX_DATA_BYTES + 1]])).is_err());
    }

    proptest! {
        #[test]
        fn whatever_parts_come_are_an_event_and_the_last_one_is_kept(
            message in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..5),
        ) {
            let message: Vec<Bytes> = message.into_iter().map(Bytes::from).collect();
            let event = decode("weather", &message).unwrap();
            prop_assert!(event.is_foreign());
            prop_assert_eq!(event.data(), &message.last().cloned().unwrap_or_default());
        }

        #[test]
        fn json_that_is_cut_or_changed_is_an_event_or_foreign(at in 0_usize..100, byte: u8, cut: bool) {
            let event = Envelope::builder("order.paid").source("/shop").id("1").data(r#"{"total":5}"#).build().unwrap();
            let mut json = encode(&event)[1].to_vec();
            let at = at % json.len();
            if cut { json.truncate(at) } else { json[at] = byte }
            let read = decode("orders", &[Bytes::from(json.clone())]).unwrap();
            prop_assert!(!read.is_foreign() || read.data() == &json);
        }
    }
}
