//! `CloudEvents` 1.0 on the wire: structured JSON (one object) and binary mode (attributes beside the data).
//!
//! Source: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>. The payload of a JSON
//! event is kept byte for byte as it was written (`data`), or decoded (`data_base64`).

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Envelope, EnvelopeError, codec::is_json, envelope::Attributes};
use crate::clock::Timestamp;

/// Why bytes are no `CloudEvent`.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CloudEventError {
    /// Not JSON, or not one object.
    #[error("not a CloudEvents JSON object: {0}")]
    Json(String),
    /// Another version of the specification, or none.
    #[error("specversion is {0}, and only \"1.0\" is understood")]
    SpecVersion(String),
    /// An attribute has a wrong type or value.
    #[error("attribute `{name}`: {reason}")]
    Attribute {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The attributes break a rule of `CloudEvents` or a limit.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// The attributes of one JSON object, in the order they stand.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("one JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(10);
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if members.iter().any(|(known, _)| *known == name.0) {
                        return Err(A::Error::custom(format_args!("member `{}` stands twice", name.0)));
                    }
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A text of JSON, borrowed if nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Envelope {
    /// Reads one event in structured JSON mode.
    ///
    /// # Errors
    /// What is wrong, and in which attribute.
    pub fn from_json(json: &[u8]) -> Result<Self, CloudEventError> {
        let Members(members) =
            serde_json::from_slice(json).map_err(|error| CloudEventError::Json(error.to_string()))?;
        let text = |name: &str| {
            let (_, value) = members.iter().find(|(known, _)| known == name)?;
            Some(attribute_text(name, value))
        };
        match text("specversion").transpose()? {
            Some(version) if version == "1.0" => {}
            Some(other) => return Err(CloudEventError::SpecVersion(format!("{other:?}"))),
            None => return Err(CloudEventError::SpecVersion("missing".to_owned())),
        }
        let (mut texts, mut data) = (Vec::with_capacity(members.len()), Bytes::new());
        for (name, value) in &members {
            match &**name {
                "data" => data = Bytes::copy_from_slice(value.get().as_bytes()),
                "data_base64" => {
                    let wrong = |reason: String| CloudEventError::Attribute { name: "data_base64".into(), reason };
                    if members.iter().any(|(other, _)| other == "data") {
                        return Err(wrong("stands beside `data`; only one of them is allowed".into()));
                    }
                    let text = attribute_text(name, value)?;
                    data = BASE64.decode(&*text).map_err(|error| wrong(error.to_string()))?.into();
                }
                _ if value.get() == "null" => {}
                _ => texts.push((&**name, attribute_text(name, value)?)),
            }
        }
        let mut read = with_id();
        for (name, text) in &texts {
            set(&mut read, name, text)?;
        }
        read.check(data.len())?;
        Ok(read.assemble(data))
    }

    /// Writes this event in structured JSON mode. JSON data is embedded as it is, anything else as `data_base64`.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.write_json(true)
    }

    /// `embed`: whether data that is JSON may stand as it is.
    fn write_json(&self, embed: bool) -> String {
        let mut out = String::with_capacity(self.encoded_bytes() + 200);
        out.push_str("{\"specversion\":\"1.0\"");
        for (name, value) in self.attributes() {
            push_member(&mut out, name, &json_string(&value));
        }
        if !self.data().is_empty() {
            let is_json = embed && self.content_type().is_none_or(is_json);
            let json = is_json.then(|| std::str::from_utf8(self.data()).ok()).flatten();
            match json.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok()) {
                Some(text) => push_member(&mut out, "data", text),
                None => push_member(&mut out, "data_base64", &json_string(&BASE64.encode(self.data()))),
            }
        }
        out.push('}');
        out
    }

    /// Writes this event in structured JSON mode as one line, such that reading it gives the same bytes of data: what has a
    /// line's end in it, or blanks around it, is `data_base64`.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        let is_plain = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let (first, last) = (self.data().first(), self.data().last());
        let is_bare = first.is_none_or(is_plain) && last.is_none_or(is_plain);
        self.write_json(is_bare && !self.data().iter().any(|byte| matches!(byte, b'\r' | b'\n')))
    }

    /// All attributes but `specversion`, by their `CloudEvents` names: what binary mode carries beside the data.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let core = [
            Some(("id", Cow::Borrowed(self.id()))),
            Some(("source", Cow::Borrowed(self.source()))),
            Some(("type", Cow::Borrowed(self.event_type()))),
            self.time().map(|time| ("time", Cow::Owned(time.to_rfc3339()))),
        ];
        let optional = [
            borrowed_of("subject", self.subject()),
            borrowed_of("datacontenttype", self.content_type()),
            borrowed_of("dataschema", self.schema()),
            borrowed_of("partitionkey", self.partition_key()),
            borrowed_of("correlationid", self.correlation_id()),
            borrowed_of("causationid", self.causation_id()),
            (self.hops() > 0).then(|| ("oncuehops", Cow::Owned(self.hops().to_string()))),
        ];
        let extensions = self.extensions().map(|(name, value)| (name, Cow::Borrowed(value)));
        core.into_iter().chain(optional).flatten().chain(extensions)
    }

    /// Reads binary mode: attributes by their `CloudEvents` names (without a binding's prefix), and the data.
    ///
    /// # Errors
    /// What is wrong, and in which attribute.
    pub fn from_binary<'a>(
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
        data: Bytes,
    ) -> Result<Self, CloudEventError> {
        let (mut read, mut seen) = (with_id(), Vec::with_capacity(16));
        for (name, value) in attributes {
            if seen.contains(&name) {
                let reason = "stands twice".to_owned();
                return Err(CloudEventError::Attribute { name: name.to_owned(), reason });
            }
            seen.push(name);
            set(&mut read, name, value)?;
        }
        read.check(data.len())?;
        Ok(read.assemble(data))
    }
}

fn borrowed_of<'a>(name: &'static str, value: Option<&'a str>) -> Option<(&'static str, Cow<'a, str>)> {
    value.map(|value| (name, Cow::Borrowed(value)))
}

/// No attributes yet, of an event whose id is its publisher's.
fn with_id<'a>() -> Attributes<'a> {
    Attributes { id_supplied: true, ..Attributes::default() }
}

fn set<'a>(read: &mut Attributes<'a>, name: &'a str, value: &'a str) -> Result<(), CloudEventError> {
    let wrong = |reason: String| CloudEventError::Attribute { name: name.to_owned(), reason };
    match name {
        "specversion" if value == "1.0" => {}
        "specversion" => return Err(CloudEventError::SpecVersion(format!("{value:?}"))),
        "time" => read.time = Some(Timestamp::parse_rfc3339(value).map_err(wrong)?),
        "oncuehops" => read.hops = value.parse().map_err(|_| wrong(format!("`{value}` is not 0 to 255")))?,
        _ => match read.slot(name) {
            Some(slot) => *slot = value,
            None => read.extensions.push((name, value)),
        },
    }
    Ok(())
}

/// A string as it is; a number or a boolean in its canonical text, as the specification's type system has it.
fn attribute_text<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, CloudEventError> {
    let raw = value.get();
    let wrong = |reason: String| CloudEventError::Attribute { name: name.to_owned(), reason };
    match raw.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str::<Text<'_>>(raw).map(|text| text.0).map_err(|error| wrong(error.to_string()))
        }
        Some(b'{' | b'[') => Err(wrong("must be a string, a number or a boolean".into())),
        Some(b'n') => Ok(Cow::Borrowed("")),
        _ => Ok(Cow::Borrowed(raw)),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push_member(out: &mut String, name: &str, json: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.created","subject":"o-1","time":"2016-09-04T21:15:19Z","datacontenttype":"application/json","tries":3,"data":{"total":1.50}}"#;

    #[test]
    fn json_goes_there_and_back_with_the_payload_untouched() {
        let event = Envelope::from_json(ORDER.as_bytes()).unwrap();
        assert_eq!((event.id(), event.source(), event.key()), ("1", "/shop", Some("o-1")));
        assert_eq!(event.data().as_ref(), br#"{"total":1.50}"#);
        assert_eq!(event.extension("tries"), Some("3"));
        assert!(event.id_supplied());
        assert_eq!(Envelope::from_json(event.to_json().as_bytes()).unwrap(), event);
    }

    #[test]
    fn binary_data_survives_json() {
        let event = Envelope::builder("blob").source("/s").id("1").data(vec![0, 255, 128]).build().unwrap();
        assert!(event.to_json().contains("data_base64"));
        assert_eq!(Envelope::from_json(event.to_json().as_bytes()).unwrap(), event);
    }

    #[test]
    fn a_line_is_one_line_and_keeps_every_byte() {
        for data in ["{\"a\": 1}", "{\n\"a\": 1\n}", " 1", "1\n", "\"x\"\t", "null", "", "no json"] {
            let event = Envelope::builder("t").source("/s").id("1").data(data.as_bytes().to_vec()).build().unwrap();
            let line = event.to_json_line();
            assert!(!line.contains(['\n', '\r']), "{line}");
            let read = Envelope::from_json(line.as_bytes()).unwrap();
            assert_eq!((read.data(), read.to_json_line()), (event.data(), line.clone()), "{data:?}");
        }
    }

    #[test]
    fn binary_mode_goes_there_and_back() {
        let event = Envelope::from_json(ORDER.as_bytes()).unwrap();
        let attributes: Vec<(String, String)> =
            event.attributes().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        let pairs = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(Envelope::from_binary(pairs, event.data().clone()).unwrap(), event);
    }

    #[test]
    fn malformed_events_are_refused_with_the_reason() {
        for (json, reason) in [
            ("", "not a CloudEvents JSON object"),
            ("[]", "one JSON object"),
            (r#"{"id":"1"}"#, "specversion is missing"),
            (r#"{"specversion":"0.3"}"#, "only \"1.0\""),
            (r#"{"specversion":"1.0","source":"/s","type":"t"}"#, "`id` is missing"),
            (r#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}"#, "`id` stands twice"),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"noon"}"#, "attribute `time`"),
            (r#"{"specversion":"1.0","id":{},"source":"/s","type":"t"}"#, "attribute `id`"),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"AA=="}"#,
                "beside `data`",
            ),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"} x"#, "trailing"),
        ] {
            let error = Envelope::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
