//! The `CloudEvents` HTTP binding, for programs that have no Oncue client: `POST` publishes to a topic, `GET` reads one.
//! `docs/wire.md` describes it.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use oncue::{
    Envelope,
    event::CloudEventError,
    transport::{InspectError, Position, Publish, PublishError, Published},
};
use percent_encoding::percent_decode_str;
use serde_json::{json, value::RawValue};
use thiserror::Error;

use super::server::{Body, plain};
use crate::wire::{
    MAIN, Node,
    message::{Question, Refusal, Reply, Request},
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";
/// What the headers of attributes begin with in binary mode.
const PREFIX: &str = "ce-";
/// Tells who reads where to go on.
const NEXT: HeaderName = HeaderName::from_static("oncue-next");
/// Events of an answer, if nobody says how many.
const LIMIT: usize = 100;

/// A topic as a path names it: `/topics/NAME`, or `/logs/LOG/topics/NAME`.
pub(super) struct Path<'a> {
    log: &'a str,
    topic: &'a str,
}

impl<'a> Path<'a> {
    pub(super) fn of(path: &'a str) -> Option<Self> {
        if let Some(topic) = path.strip_prefix("/topics/") {
            return Some(Self { log: MAIN, topic });
        }
        let (log, topic) = path.strip_prefix("/logs/")?.split_once("/topics/")?;
        Some(Self { log, topic })
    }
}

/// Why a request is not what it should be.
#[derive(Debug, Error)]
enum Malformed {
    #[error("{0}")]
    Event(#[from] CloudEventError),
    #[error("event {index} of the batch: {error}")]
    Item { index: usize, error: CloudEventError },
    #[error("no batch of events: {0}; it is a JSON array")]
    Batch(serde_json::Error),
    #[error(
        "`{0}` is no format of events that is read here: send {STRUCTURED}, {BATCH}, or attributes as `ce-` headers"
    )]
    Format(String),
    #[error("`{0}`: a query is `from=OFFSET` and `limit=COUNT`")]
    Query(String),
}

/// Answers a request to a topic.
pub(super) async fn respond(
    node: &Node,
    path: Path<'_>,
    (method, query): (Method, Option<&str>),
    headers: &HeaderMap,
    body: Bytes,
) -> Response<Body> {
    match method {
        Method::POST => match events(path.topic, headers, body) {
            Ok(events) => publish(node, path, events).await,
            Err(malformed) => failed(StatusCode::BAD_REQUEST, &malformed),
        },
        Method::GET => match place(query) {
            Ok((from, limit)) => read(node, path, from, limit).await,
            Err(malformed) => failed(StatusCode::BAD_REQUEST, &malformed),
        },
        _ => {
            let mut response =
                plain(StatusCode::METHOD_NOT_ALLOWED, "POST publishes events, GET reads them\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            response
        }
    }
}

async fn publish(node: &Node, path: Path<'_>, events: Vec<Envelope>) -> Response<Body> {
    let batch = Publish { topic: path.topic.into(), events, source: None };
    match node.answer(path.log, Request::Append(batch)).await {
        Ok(Reply::Appended(published)) => {
            let published: Vec<_> = published.into_iter().map(place_of).collect();
            json(StatusCode::ACCEPTED, &json!({ "published": published }))
        }
        Ok(other) => failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("{other:?}")),
        Err(refusal) => refused(&refusal),
    }
}

fn place_of(Published { position, duplicate }: Published) -> serde_json::Value {
    json!({ "offset": position.offset(), "duplicate": duplicate })
}

async fn read(node: &Node, path: Path<'_>, from: u64, limit: usize) -> Response<Body> {
    let question = Question::Browse { topic: path.topic.to_owned(), from, limit };
    match node.answer(path.log, Request::Inspect(question)).await {
        Ok(Reply::Events(page)) => {
            let next = page.items.last().map_or(from, |(position, _): &(Position, Envelope)| position.offset() + 1);
            let events: Vec<String> = page.items.iter().map(|(_, event)| event.to_json()).collect();
            let mut response = plain(StatusCode::OK, format!("[{}]", events.join(",")));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(BATCH));
            response.headers_mut().insert(NEXT, next.into());
            response
        }
        Ok(other) => failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("{other:?}")),
        Err(refusal) => refused(&refusal),
    }
}

/// The events of a request: one or a batch as JSON, or one as headers and data. What says nothing of itself is another
/// tool's: its type is the topic's name.
fn events(topic: &str, headers: &HeaderMap, body: Bytes) -> Result<Vec<Envelope>, Malformed> {
    let content_type = headers.get(CONTENT_TYPE).map(text);
    // The media type alone says the mode, whatever its parameters are.
    let media = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media.to_ascii_lowercase().as_str() {
        STRUCTURED => return Ok(vec![Envelope::from_json(&body)?]),
        BATCH => return batch(&body),
        other if other.starts_with("application/cloudevents") => return Err(Malformed::Format(other.to_owned())),
        _ => {}
    }
    let mut attributes = Vec::new();
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(PREFIX) {
            attributes.push((attribute, attribute_text(&text(value))));
        }
    }
    if attributes.is_empty() {
        let foreign = Envelope::builder(topic).source("http").foreign().data(body);
        let foreign = content_type.into_iter().fold(foreign, |foreign, kind| foreign.content_type(kind));
        return Ok(vec![foreign.build().map_err(CloudEventError::from)?]);
    }
    attributes.extend(content_type.map(|kind| ("datacontenttype", kind)));
    let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
    Ok(vec![Envelope::from_binary(attributes, body)?])
}

fn batch(body: &[u8]) -> Result<Vec<Envelope>, Malformed> {
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(Malformed::Batch)?;
    let event = |(index, item): (usize, &&RawValue)| {
        Envelope::from_json(item.get().as_bytes()).map_err(|error| Malformed::Item { index, error })
    };
    items.iter().enumerate().map(event).collect()
}

/// A header's bytes as text: some senders encode no percents, and mean UTF-8, or what HTTP once meant, Latin-1.
fn text(value: &HeaderValue) -> String {
    let latin = || value.as_bytes().iter().copied().map(char::from).collect();
    std::str::from_utf8(value.as_bytes()).map_or_else(|_| latin(), str::to_owned)
}

/// What a header says: without the quotes of a quoted string, and percent-decoded once.
fn attribute_text(header: &str) -> String {
    let quoted = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let unquoted = quoted.map(|quoted| {
        let mut escaped = false;
        let kept = quoted.chars().filter(|letter| {
            escaped = *letter == '\\' && !escaped;
            !escaped
        });
        kept.collect::<String>()
    });
    percent_decode_str(unquoted.as_deref().unwrap_or(header)).decode_utf8_lossy().into_owned()
}

/// From where to read, and how much at most.
fn place(query: Option<&str>) -> Result<(u64, usize), Malformed> {
    let (mut from, mut limit) = (0, LIMIT);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let wrong = || Malformed::Query(pair.to_owned());
        match pair.split_once('=').ok_or_else(wrong)? {
            ("from", offset) => from = offset.parse().map_err(|_| wrong())?,
            ("limit", count) => limit = count.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok((from, limit))
}

pub(super) fn refused(refusal: &Refusal) -> Response<Body> {
    let status = match refusal {
        Refusal::Append(PublishError::Invalid { .. } | PublishError::TopicName(_)) => StatusCode::BAD_REQUEST,
        Refusal::Append(PublishError::TooLarge { .. }) | Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Inspect(InspectError::UnknownTopic(_)) | Refusal::Log { .. } => StatusCode::NOT_FOUND,
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::Append(_) | Refusal::Closing => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = failed(status, refusal);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn failed(status: StatusCode, error: &impl ToString) -> Response<Body> {
    json(status, &json!({ "error": error.to_string() }))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = plain(status, format!("{value}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_decoded_once_and_a_quoted_string_loses_its_quotes() {
        for (header, said) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC", "Euro €"),
            ("100%2520", "100%20"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            ("\"", "\""),
        ] {
            assert_eq!(attribute_text(header), said, "{header}");
        }
    }

    #[test]
    fn what_is_not_encoded_is_read_all_the_same() {
        for bytes in ["ünï 100%".as_bytes(), b"\xfcn\xef 100%"] {
            assert_eq!(attribute_text(&text(&HeaderValue::from_bytes(bytes).unwrap())), "ünï 100%");
        }
    }

    #[test]
    fn a_path_names_a_topic_of_a_log() {
        let path = |path| Path::of(path).map(|path| (path.log, path.topic));
        assert_eq!(path("/topics/orders"), Some((MAIN, "orders")));
        assert_eq!(path("/logs/eu/topics/orders.v1"), Some(("eu", "orders.v1")));
        assert_eq!((path("/topic/orders"), path("/logs/eu")), (None, None));
    }

    #[test]
    fn a_query_that_is_not_understood_is_refused() {
        assert_eq!(place(None).ok(), Some((0, LIMIT)));
        assert_eq!(place(Some("from=7&limit=2")).ok(), Some((7, 2)));
        for wrong in ["from", "from=-1", "limit=x", "after=3"] {
            assert!(matches!(place(Some(wrong)), Err(Malformed::Query(_))), "{wrong}");
        }
    }
}
