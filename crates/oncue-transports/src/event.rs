//! What messages say of events, however a broker writes their headers.

use std::borrow::Cow;

use bytes::Bytes;
use oncue::Envelope;

/// Marks what another tool wrote, and was passed on with the attributes that it was given.
pub(crate) const FOREIGN: &str = "oncue-foreign";
/// When it was published, in microseconds: brokers' own timestamps are coarser.
pub(crate) const PUBLISHED: &str = "oncue-published";

/// Whether the data are the whole event, by the type of a message's content.
pub(crate) fn is_structured(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|kind| kind.starts_with("application/cloudevents"))
}

/// The name of an attribute, as a header says it behind a prefix; headers are written in any case.
pub(crate) fn attribute<'a>(header: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    let (begin, name) = header.split_at_checked(prefix.len())?;
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    begin
        .eq_ignore_ascii_case(prefix)
        .then(|| if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) })
}

/// An event in binary mode; nothing if there are no attributes, or wrong ones.
pub(crate) fn binary(
    attributes: &[(Cow<'_, str>, Cow<'_, str>)],
    content_type: Option<&str>,
    is_foreign: bool,
    data: &Bytes,
) -> Option<Envelope> {
    if attributes.is_empty() {
        return None;
    }
    let attributes = attributes.iter().map(|(name, value)| (&**name, &**value));
    let attributes = attributes.chain(content_type.map(|kind| ("datacontenttype", kind)));
    let event = Envelope::from_binary(attributes, data.clone()).ok()?;
    if is_foreign { event.into_builder().foreign().build().ok() } else { Some(event) }
}

/// What another tool wrote: its type is the topic's name; its key is kept, and its headers become extensions where they
/// can.
pub(crate) fn foreign<'a, V: AsRef<str>>(
    (topic, broker, offset): (&str, &str, u64),
    (key, content_type): (Option<&str>, Option<&str>),
    headers: impl Iterator<Item = (&'a str, V)>,
    data: &Bytes,
) -> Option<Envelope> {
    let plain = Envelope::builder(topic).id(format!("{topic}-{offset}")).source(broker).foreign().data(data.clone());
    let mut whole = plain.clone();
    if let Some(key) = key {
        whole = whole.key(key);
    }
    if let Some(kind) = content_type {
        whole = whole.content_type(kind);
    }
    let is_extension = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    for (name, value) in headers.filter(|(name, _)| is_extension(name)) {
        whole = whole.extension(name, value.as_ref());
    }
    whole.build().or_else(|_| plain.build()).ok()
}
