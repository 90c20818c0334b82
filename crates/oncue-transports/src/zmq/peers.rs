//! The connections of a socket: those that came, or one that is made again whenever it is lost.

use std::{future::Future, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinSet,
};

use super::{
    endpoint::{Endpoint, EndpointError, Meeting},
    zmtp::{Reader, Socket, Writer, ZmtpError, connect, handshake},
};
use crate::{reconnect::pause, wire::Listening};

/// A peer has so long to say who it is.
const GREET: Duration = Duration::from_secs(10);

/// What keeps the connections. Dropped, it closes them.
pub(super) enum Peers {
    Accepting { _until_dropped: Listening },
    Connecting { _until_dropped: JoinSet<()> },
}

impl Peers {
    /// Converses with each peer, on this runtime; `lost` is told why there is none to connect to, once until there is one
    /// again.
    pub(super) fn meet<C, F>(
        endpoint: Endpoint,
        socket: Socket,
        converse: C,
        lost: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, EndpointError>
    where
        C: Fn(Reader, Writer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), ZmtpError>> + Send + 'static,
    {
        match endpoint.0 {
            Meeting::Bound(listener, address) => {
                let welcome = move |stream, _| welcome(stream, socket, converse.clone());
                let listening = TcpListener::from_std(listener)
                    .and_then(|listener| Listening::on(listener, &Handle::current(), welcome))
                    .map_err(|source| EndpointError::Bind { address: format!("tcp://{address}"), source })?;
                Ok(Self::Accepting { _until_dropped: listening })
            }
            Meeting::At(host) => {
                let mut tasks = JoinSet::new();
                tasks.spawn(keep(host, socket, converse, lost));
                Ok(Self::Connecting { _until_dropped: tasks })
            }
        }
    }
}

/// Converses with a peer that came.
async fn welcome<C, F>(stream: TcpStream, socket: Socket, converse: C)
where
    C: Fn(Reader, Writer) -> F,
    F: Future<Output = Result<(), ZmtpError>>,
{
    let peer = stream.peer_addr().map_or_else(|error| error.to_string(), |peer| peer.to_string());
    let (reader, writer) = match handshake(stream, socket, GREET).await {
        Ok(greeted) => greeted,
        Err(error) => return tracing::warn!(peer, %error, "a peer is refused"),
    };
    tracing::debug!(peer, "a peer came");
    match converse(reader, writer).await {
        Ok(()) => tracing::debug!(peer, "a peer went"),
        Err(error) => tracing::warn!(peer, %error, "a peer is lost"),
    }
}

/// Converses with the peer at an address, again and again.
async fn keep<C, F>(host: String, socket: Socket, converse: C, lost: impl Fn(&str))
where
    C: Fn(Reader, Writer) -> F,
    F: Future<Output = Result<(), ZmtpError>>,
{
    let mut attempts = 0_u32;
    loop {
        let greeted = async { handshake(connect(&host).await?, socket, GREET).await };
        let ended = match greeted.await {
            Ok((reader, writer)) => {
                tracing::debug!(peer = host, "connected");
                attempts = 0;
                converse(reader, writer).await
            }
            Err(error) => Err(error),
        };
        attempts = attempts.saturating_add(1);
        let error = ended.map_or_else(|error| error.to_string(), |()| "it closed the connection".to_owned());
        if attempts == 1 {
            lost(&format!("no connection to tcp://{host}: {error}"));
        } else {
            tracing::debug!(peer = host, error, attempts, "still no connection");
        }
        tokio::time::sleep(pause(attempts)).await;
    }
}
