//! What is asked of a server: streams made and described, messages appended, and read by sequence.

use std::{collections::HashMap, time::Duration};

use async_nats::{HeaderMap, Message, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use oncue::{clock::Timestamp, transport::broker::BrokerError};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::refusals::Connection;

/// Longest time that a server may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often what may be repeated is, where nobody answered: a server that starts again is back by then.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes that are read at once.
const READ_BYTES: usize = 4 << 20;
/// `wrong last sequence`, of any subject or of the stream.
const WRONG_SEQUENCE: u64 = 10_071;
/// How many messages stand behind those of an answer.
const PENDING: &str = "Nats-Num-Pending";
/// The code of a stream that is not there.
const NO_STREAM: u64 = 10_059;

/// A confirmation.
#[derive(Debug, Deserialize)]
pub(super) struct Confirmed {
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}

/// What a stream is.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) subjects: HashMap<String, u64>,
}

/// A message that a stream holds.
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
    pub(super) headers: HeaderMap,
    pub(super) data: Bytes,
}

pub(super) fn failed(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Failed(error.to_string())
}

/// Asks until somebody answers. Only what changes nothing when it is asked twice. `headers` makes them, mostly once.
async fn ask(
    Connection { client, refusals }: &Connection,
    subject: &str,
    headers: impl Fn() -> Option<HeaderMap>,
    data: Bytes,
) -> Result<Message, BrokerError> {
    let (mut tries, mut hearing) = (0, refusals.hear());
    loop {
        let mut request = Request::new().payload(data.clone()).timeout(Some(ANSWER_WITHIN));
        if let Some(headers) = headers() {
            request = request.headers(headers);
        }
        let answer = tokio::select! {
            biased;
            answer = client.send_request(subject.to_owned(), request) => answer.map_err(failed),
            why = hearing.unanswered(subject) => Err(why),
        };
        match answer {
            Err(error @ BrokerError::Failed(_)) if tries < TRIES => {
                tries += 1;
                tracing::debug!(%error, subject, "no answer: asked again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// What an answer says if it is a refusal.
#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    description: Option<String>,
}

fn refusal(message: &Message) -> Result<Option<Refusal>, BrokerError> {
    serde_json::from_slice(&message.payload).map(|answer: Answer| answer.error).map_err(failed)
}

fn answer<T: DeserializeOwned>(message: &Message) -> Result<T, BrokerError> {
    match refusal(message)? {
        None => serde_json::from_slice(&message.payload).map_err(failed),
        Some(Refusal { err_code: WRONG_SEQUENCE, .. }) => Err(BrokerError::Moved),
        Some(Refusal { description, .. }) => Err(failed(description.as_deref().unwrap_or("refused without a reason"))),
    }
}

pub(super) async fn request<T: DeserializeOwned>(
    connection: &Connection,
    what: &str,
    body: &Value,
) -> Result<T, BrokerError> {
    let data = serde_json::to_vec(body).map_err(failed)?;
    answer(&ask(connection, &format!("$JS.API.{what}"), || None, data.into()).await?)
}

/// Appends a message, and waits until the server has it. The headers hold what it recognises a repetition by.
pub(super) async fn append(
    connection: &Connection,
    subject: &str,
    headers: impl Fn() -> HeaderMap,
    data: Bytes,
) -> Result<Confirmed, BrokerError> {
    answer(&ask(connection, subject, || Some(headers()), data).await?)
}

/// A stream, if it is there, with how many messages the subjects have that fit a pattern.
pub(super) async fn stream(
    connection: &Connection,
    name: &str,
    subjects: &str,
) -> Result<Option<StreamInfo>, BrokerError> {
    let body = serde_json::to_vec(&json!({ "subjects_filter": subjects })).map_err(failed)?;
    let message = ask(connection, &format!("$JS.API.STREAM.INFO.{name}"), || None, body.into()).await?;
    match refusal(&message)? {
        Some(Refusal { err_code: NO_STREAM, .. }) => Ok(None),
        _ => answer(&message).map(Some),
    }
}

/// Reads messages of a stream, as `query` asks for them (ADR-31).
pub(super) async fn read(connection: &Connection, stream: &str, query: &Value) -> Result<Vec<Stored>, BrokerError> {
    read_on(connection, stream, query).await.map(|(messages, _)| messages)
}

/// The same, and whether there may be more behind them.
pub(super) async fn read_on(
    Connection { client, refusals }: &Connection,
    stream: &str,
    query: &Value,
) -> Result<(Vec<Stored>, bool), BrokerError> {
    let (subject, mut hearing) = (format!("$JS.API.DIRECT.GET.{stream}"), refusals.hear());
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(failed)?;
    let mut query = query.clone();
    if query.get("batch").is_some() {
        query["max_bytes"] = READ_BYTES.into();
    }
    let is_batch = query.get("batch").is_some();
    let body = serde_json::to_vec(&query).map_err(failed)?;
    let asked = client.publish_with_reply(subject.clone(), inbox, body.into()).await;
    asked.map_err(failed)?;
    let mut messages = Vec::new();
    loop {
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(ANSWER_WITHIN, answers.next()) => answer,
            why = hearing.unanswered(&subject) => return Err(why),
        };
        let message = answer.map_err(|_| failed("no answer"))?.ok_or(BrokerError::Closed)?;
        match message.status.map(|status| status.as_u16()) {
            None => {}
            // The end of what was asked for, and how many stand behind it.
            Some(204) => {
                let pending = message.headers.as_ref().and_then(|headers| headers.get(PENDING));
                return Ok((messages, pending.is_none_or(|pending| pending.as_str() != "0")));
            }
            // Nothing there, or nothing more.
            Some(404) => return Ok((messages, false)),
            Some(503) => return Err(failed("nobody answers for the stream")),
            Some(code) => {
                return Err(failed(format!("{code} {}", message.description.as_deref().unwrap_or_default())));
            }
        }
        messages.push(stored(message)?);
        if !is_batch {
            return Ok((messages, true));
        }
    }
}

fn stored(message: Message) -> Result<Stored, BrokerError> {
    let headers = message.headers.unwrap_or_default();
    let text = |name: &str| headers.get(name).map(ToString::to_string);
    let (subject, sequence, time) = (text("Nats-Subject"), text("Nats-Sequence"), text("Nats-Time-Stamp"));
    let sequence = sequence.and_then(|sequence| sequence.parse().ok());
    let time = time.and_then(|time| Timestamp::parse_rfc3339(&time).ok());
    let (Some(subject), Some(sequence), Some(time)) = (subject, sequence, time) else {
        return Err(failed("a message without subject, sequence or time"));
    };
    Ok(Stored { subject, sequence, time, headers, data: message.payload })
}
