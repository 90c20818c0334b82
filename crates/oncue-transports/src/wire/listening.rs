//! What every carrier has in common at the end that listens: a listener with limits, paths, and answers as bytes.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    message::{self, MAX_MESSAGE_BYTES, Refusal, Reply},
    node::MAIN,
};

/// Most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// After an error of accepting, such as no more file handles.
const PAUSE: Duration = Duration::from_millis(50);

/// A node cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}; is another process there, or is it no address of this machine?")]
pub struct ServeError {
    address: String,
    source: io::Error,
}

/// An accept loop. It stops when this is dropped.
pub(crate) struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Listens on `HOST:PORT`, and lets something converse on each connection until it is told to stop.
    pub(crate) async fn start<C, F>(address: &str, handle: &Handle, converse: C) -> Result<Self, ServeError>
    where
        C: Fn(TcpStream, watch::Receiver<bool>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let failed = |source| ServeError { address: address.to_owned(), source };
        let wanted = address.to_owned();
        // Connections are heard of by the threads of whoever bound the listener: those of the caller may stand still until
        // the node answers.
        let bound = handle.spawn(async move { TcpListener::bind(wanted).await }).await;
        let listener = bound.map_err(io::Error::other).and_then(|bound| bound).map_err(failed)?;
        Self::on(listener, handle, converse).map_err(failed)
    }

    /// The same with what listens already, on the same runtime.
    pub(crate) fn on<C, F>(listener: TcpListener, handle: &Handle, converse: C) -> io::Result<Self>
    where
        C: Fn(TcpStream, watch::Receiver<bool>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { address, stop, accepting: handle.spawn(accept(listener, converse, stopped)) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, and waits until all conversations are over.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<C, F>(listener: TcpListener, converse: C, mut stopped: watch::Receiver<bool>)
where
    C: Fn(TcpStream, watch::Receiver<bool>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let place = Arc::clone(&room).acquire_owned().await;
                listener.accept().await.map(|(stream, _)| (stream, place))
            } => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let conversation = converse(stream, stopped.clone());
                connections.spawn(async move {
                    let _place = place;
                    conversation.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Version and log of a path: `wire/v1` or `wire/v1/LOG`.
pub(crate) fn version_and_log(path: &str) -> Option<(u32, &str)> {
    let path = path.strip_prefix("wire/v")?;
    let (version, log) = path.split_once('/').unwrap_or((path, MAIN));
    Some((version.parse().ok()?, log))
}

/// An answer as it is sent; one that is too large says that it is.
pub(crate) fn encode_answer(answer: &Result<Reply, Refusal>) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let encoded = message::encode(answer)?;
    if encoded.len() > MAX_MESSAGE_BYTES {
        let refusal = Refusal::TooLarge { bytes: encoded.len(), limit: MAX_MESSAGE_BYTES };
        return message::encode(&Err::<Reply, _>(refusal));
    }
    Ok(encoded)
}
