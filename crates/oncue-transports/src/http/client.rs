//! The client's end: a pool of connections, one for each question that waits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oncue::transport::{BoxFuture, OpenError};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect::Policy};

use super::{MEDIA_TYPE, PATH};
use crate::wire::{Link, LinkError, MAX_WAIT, message::MAX_MESSAGE_BYTES};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond the time that a question may wait at the node.
const ANSWER: Duration = Duration::from_secs(25);

pub(crate) struct HttpLink {
    client: Client,
    address: Url,
    shown: String,
}

impl HttpLink {
    pub(crate) fn new(url: &str) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Url { url: url.to_owned(), reason };
        let mut address: Url = url.parse().map_err(|error| wrong(format!("{error}; write `http://HOST:PORT`")))?;
        let log = address.path().trim_matches('/').to_owned();
        if log.contains('/') || address.query().is_some() || address.fragment().is_some() {
            return Err(wrong(
                "a node has logs and no options: write `http://HOST:PORT` or `http://HOST:PORT/LOG`".to_owned(),
            ));
        }
        address.set_path(&if log.is_empty() { PATH.to_owned() } else { format!("{PATH}/{log}") });
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(MAX_WAIT + ANSWER)
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, address, shown: url.trim_end_matches('/').to_owned() })
    }

    async fn post(&self, question: Bytes) -> Result<Bytes, LinkError> {
        let request = self.client.post(self.address.clone()).header(CONTENT_TYPE, MEDIA_TYPE).body(question);
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        let is_answer = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
        if !is_answer {
            return Err(LinkError(format!("this is no Oncue node: it answers {}", response.status())));
        }
        let mut answer = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| reason(&error))? {
            if answer.len() + part.len() > MAX_MESSAGE_BYTES {
                return Err(LinkError(format!("an answer of more than {MAX_MESSAGE_BYTES} bytes")));
            }
            answer.extend_from_slice(&part);
        }
        Ok(answer.freeze())
    }
}

impl Link for HttpLink {
    fn url(&self) -> &str {
        &self.shown
    }

    fn ask(&self, question: Bytes) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(self.post(question))
    }
}

/// What went wrong, down to the first cause, without the URL that is said already.
fn reason(error: &reqwest::Error) -> LinkError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    LinkError(cause.to_string())
}
