//! Connecting to a broker, with what it is to be convinced by, and again when the connection is lost.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, Error, ErrorKind, Event, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    tcp::{OwnedIdentity, OwnedTLSConfig},
};
use oncue::transport::broker::BrokerError;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::timeout,
};

use super::{stream::Message, url::AmqpUrl};
use crate::reconnect::pause;

/// Longest time that a broker may take for one answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What is said of one that did not come.
pub(super) const NO_ANSWER: &str = "no answer";
/// The code of a queue that is there with other properties.
pub(super) const OTHERWISE: u16 = 406;
/// The codes of what is refused whenever it is asked: access, properties, what is not allowed or not there to be had.
const FOR_GOOD: [u16; 4] = [403, OTHERWISE, 530, 540];
/// A broker that is silent for so long is gone, in seconds.
const HEARTBEAT: u16 = 10;

/// A connection, and a channel that publishes on it.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Who publishes has it for as long as messages are sent: they stand in this order.
    publishing: Mutex<Option<Channel>>,
}

/// A connection that is made again whenever it is lost.
pub(super) struct Link {
    pub(super) url: AmqpUrl,
    current: watch::Sender<Current>,
    lost: Notify,
    /// What the ids of its messages begin with, and how many it made.
    nonce: String,
    ids: AtomicU64,
}

enum Current {
    Connected(Arc<Session>),
    Lost(String),
    Closed,
}

pub(super) fn failed(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Failed(error.to_string())
}

/// An answer that came in time.
pub(super) async fn answered<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, BrokerError> {
    match timeout(ANSWER_WITHIN, asking).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(NO_ANSWER)),
    }
}

impl Link {
    /// A connection; the error says why there is none, and how to mend it.
    pub(super) async fn connect(url: AmqpUrl) -> Result<Arc<Self>, BrokerError> {
        let session = Arc::new(connect(&url).await?);
        let current = watch::Sender::new(Current::Connected(session));
        let (nonce, ids) = (format!("{:016x}", fastrand::u64(..)), AtomicU64::new(0));
        let link = Arc::new(Self { url, current, lost: Notify::new(), nonce, ids });
        tokio::spawn(Arc::clone(&link).keep());
        Ok(link)
    }

    /// A fresh id of a message.
    pub(super) fn id(&self) -> String {
        format!("{}-{:x}", self.nonce, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The connection that there is, or will be soon.
    pub(super) async fn session(&self) -> Result<Arc<Session>, BrokerError> {
        let mut current = self.current.subscribe();
        let waiting = current.wait_for(|current| !matches!(current, Current::Lost(_)));
        // What it gives is a lock: nothing is waited for under it.
        if let Ok(Ok(found)) = timeout(ANSWER_WITHIN, waiting).await {
            return match &*found {
                Current::Connected(session) => Ok(Arc::clone(session)),
                _ => Err(BrokerError::Closed),
            };
        }
        match &*self.current.borrow() {
            Current::Lost(reason) => Err(failed(format!("no connection to `{}`: {reason}", self.url.shown))),
            Current::Connected(session) => Ok(Arc::clone(session)),
            Current::Closed => Err(BrokerError::Closed),
        }
    }

    /// Somebody got no answer by a session: it is of no use any more.
    pub(super) fn lose(&self, session: &Arc<Session>) {
        let is_current =
            matches!(&*self.current.borrow(), Current::Connected(current) if Arc::ptr_eq(current, session));
        if is_current {
            self.lost.notify_one();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.current.borrow(), Current::Closed)
    }

    pub(super) async fn shut(&self) {
        let Current::Connected(session) = self.current.send_replace(Current::Closed) else { return };
        // One that is gone already needs no closing.
        let _ = answered(session.connection.close(200, "closed".into())).await;
    }

    /// Connects again, as often as it is lost.
    async fn keep(self: Arc<Self>) {
        loop {
            let Some(session) = self.connected() else { return };
            let mut events = Box::pin(session.connection.events_listener());
            let broken = async {
                while let Some(event) = events.next().await {
                    if let Event::Error(error) = event {
                        return error.to_string();
                    }
                }
                "it was closed".to_owned()
            };
            let reason = tokio::select! {
                reason = broken => reason,
                () = self.lost.notified() => "it does not answer".to_owned(),
            };
            if !self.turn(Current::Lost(reason)) {
                return;
            }
            // Whatever of it is left would hold what it has: the broker sees it end. Nobody waits for a dead one.
            tokio::spawn(async move { answered(session.connection.close(200, "lost".into())).await });
            for attempts in 1.. {
                match connect(&self.url).await {
                    Ok(session) => {
                        self.turn(Current::Connected(Arc::new(session)));
                        break;
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        tracing::debug!(url = self.url.shown, reason, "no connection: it is tried again");
                        if !self.turn(Current::Lost(reason)) {
                            return;
                        }
                    }
                }
                tokio::time::sleep(pause(attempts)).await;
            }
        }
    }

    fn connected(&self) -> Option<Arc<Session>> {
        match &*self.current.borrow() {
            Current::Connected(session) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Whether it is still open.
    fn turn(&self, to: Current) -> bool {
        self.current.send_if_modified(|current| {
            let is_open = !matches!(current, Current::Closed);
            if is_open {
                *current = to;
            }
            is_open
        })
    }
}

impl Session {
    /// Sends messages to a queue, one after the other. Each is confirmed later.
    pub(super) async fn send(&self, queue: &str, messages: &[&Message]) -> Result<Vec<PublisherConfirm>, BrokerError> {
        let mut publishing = self.publishing.lock().await;
        let channel = match publishing.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => {
                let channel = answered(self.connection.create_channel()).await?;
                // Without it, what is lost is lost in silence.
                answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                channel
            }
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::with_capacity(messages.len());
        for Message { properties, data } in messages {
            // Kept beyond a power cut, as far as the broker does that.
            let properties = properties.clone().with_delivery_mode(2);
            let sending = channel.basic_publish("".into(), queue.into(), options, data, properties);
            confirms.push(answered(sending).await?);
        }
        *publishing = Some(channel);
        Ok(confirms)
    }
}

async fn connect(url: &AmqpUrl) -> Result<Session, BrokerError> {
    let mut server = url.server.clone();
    server.query.heartbeat = Some(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name("oncue".into());
    let runtime = lapin::runtime::default_runtime().map_err(failed)?;
    let security = security(url).map_err(BrokerError::Refused)?;
    let connecting = Connection::connect_uri_with_config(server, properties, security, runtime);
    match timeout(ANSWER_WITHIN, connecting).await {
        Ok(Ok(connection)) => Ok(Session { connection, publishing: Mutex::default() }),
        Ok(Err(error)) if is_refusal(&error) => Err(BrokerError::Refused(reason(&error))),
        Ok(Err(error)) => Err(BrokerError::Failed(reason(&error))),
        Err(_) => Err(failed(format!("no answer in {} s: is it an AMQP port?", ANSWER_WITHIN.as_secs()))),
    }
}

fn security(url: &AmqpUrl) -> Result<OwnedTLSConfig, String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let security = &url.security;
    let identity = match (&security.cert, &security.key) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 { pem: read(cert)?, key: read(key)? }),
        _ => None,
    };
    let chain = security.ca.as_deref().map(read).transpose()?;
    let cert_chain = chain.map(String::from_utf8).transpose().map_err(|_| "`ca` is no PEM file".to_owned())?;
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Whether it is refused whenever it is asked.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refused) if FOR_GOOD.contains(&refused.get_id()))
}

/// What went wrong, and how to mend it.
fn reason(error: &Error) -> String {
    let mend = match error.kind() {
        ErrorKind::ProtocolError(refused) => match refused.get_id() {
            403 => "the broker refuses these credentials: write `amqp://USER:PASSWORD@HOST:PORT`",
            530 => "the virtual host is not there, or not for this user: write `amqp://HOST:PORT/VHOST`",
            _ => "the broker refuses the connection",
        },
        ErrorKind::IOError(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "is a broker there, and does it take connections from here?",
            std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset => {
                "the broker hung up: is it an AMQP port, and is encryption (`amqps://`) what it expects, and a certificate \
                 (`cert=FILE&key=FILE`)?"
            }
            _ => {
                "is a broker there? With `amqps://`: `ca=FILE` names who signed its certificate, `cert=FILE&key=FILE` one's own"
            }
        },
        _ => "is a broker there, and does it take connections from here?",
    };
    format!("{error}: {mend}")
}
