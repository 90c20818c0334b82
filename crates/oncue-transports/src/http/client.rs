//! The client's end: a pool of connections, one for each question that waits.

use std::{fs, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use oncue::transport::{BoxFuture, OpenError};
use percent_encoding::percent_decode_str;
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode, Url, header::CONTENT_TYPE, redirect::Policy};

use super::{MEDIA_TYPE, PATH};
use crate::wire::{Link, LinkError, MAX_WAIT, message::MAX_MESSAGE_BYTES};
use crate::{
    options::{self, Security},
    without_secrets,
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond the time that a question may wait at the node.
const ANSWER: Duration = Duration::from_secs(25);

pub(crate) struct HttpLink {
    client: Client,
    address: Url,
    user: Option<(String, String)>,
    shown: String,
}

impl HttpLink {
    pub(crate) fn new(url: &str) -> Result<Self, OpenError> {
        let shown = without_secrets(url);
        let wrong = |reason: String| OpenError::Url { url: shown.clone(), reason };
        let mut address: Url = url.parse().map_err(|error| wrong(format!("{error}; write `http://HOST:PORT`")))?;
        let user = (!address.username().is_empty()).then(|| {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decoded(address.username()), decoded(address.password().unwrap_or("")))
        });
        // Neither fails for an address with a host.
        let _ = (address.set_username(""), address.set_password(None));
        let log = address.path().trim_matches('/').to_owned();
        if log.contains('/') || address.fragment().is_some() {
            return Err(wrong("a node has logs: write `http://HOST:PORT` or `http://HOST:PORT/LOG`".to_owned()));
        }
        let security = security(&address).map_err(wrong)?;
        address.set_query(None);
        address.set_path(&if log.is_empty() { PATH.to_owned() } else { format!("{PATH}/{log}") });
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(MAX_WAIT + ANSWER)
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true);
        let client = convinced(client, &security).and_then(|client| client.build().map_err(|error| cause(&error)));
        let shown = shown.trim_end_matches('/').to_owned();
        Ok(Self { client: client.map_err(wrong)?, address, user, shown })
    }

    async fn post(&self, question: Bytes) -> Result<Bytes, LinkError> {
        let mut request = self.client.post(self.address.clone()).header(CONTENT_TYPE, MEDIA_TYPE).body(question);
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, Some(password));
        }
        let mut response = request.send().await.map_err(|error| self.unanswered(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(LinkError("it refuses these credentials: write `http://USER:PASSWORD@HOST:PORT`".to_owned()));
        }
        let is_answer = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
        if !is_answer {
            return Err(LinkError(format!("this is no Oncue node: it answers {}", response.status())));
        }
        let mut answer = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unanswered(&error))? {
            if answer.len() + part.len() > MAX_MESSAGE_BYTES {
                return Err(LinkError(format!("an answer of more than {MAX_MESSAGE_BYTES} bytes")));
            }
            answer.extend_from_slice(&part);
        }
        Ok(answer.freeze())
    }

    /// Why there is no answer, and what may help where the other end did not like the handshake, or this one.
    fn unanswered(&self, error: &reqwest::Error) -> LinkError {
        let cause = cause(error);
        if self.address.scheme() == "http" || cause.contains("refused") {
            return LinkError(cause);
        }
        LinkError(format!(
            "{cause}: does it encrypt? `ca=FILE` names who signed its certificate, `cert=FILE&key=FILE` one's own"
        ))
    }
}

/// The options of an address: files for its encryption.
fn security(address: &Url) -> Result<Security, String> {
    let mut security = Security::default();
    for (name, value) in options::options(address.query().unwrap_or("")) {
        match name {
            "ca" | "cert" | "key" if address.scheme() == "https" => security.take(name, value)?,
            "ca" | "cert" | "key" => return Err(format!("`{name}` is for encryption: write `https://`")),
            _ => return Err(format!("unknown option `{name}`: known are `ca`, `cert` and `key`")),
        }
    }
    security.check()?;
    Ok(security)
}

/// A client that trusts, and is trusted, by these files.
fn convinced(mut client: ClientBuilder, security: &Security) -> Result<ClientBuilder, String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    if let Some(ca) = &security.ca {
        let authorities = Certificate::from_pem_bundle(&read(ca)?);
        client = client.tls_certs_only(authorities.map_err(|error| format!("{}: {}", ca.display(), cause(&error)))?);
    }
    if let (Some(cert), Some(key)) = (&security.cert, &security.key) {
        let identity = Identity::from_pem(&[read(cert)?, read(key)?].concat());
        client = client.identity(identity.map_err(|error| format!("{}: {}", cert.display(), cause(&error)))?);
    }
    Ok(client)
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
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
