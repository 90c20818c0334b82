//! `oncue serve`: a node, which owns a log that other processes reach.

mod address;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use oncue::{
    App, Bus, Clock,
    alert::Alerts,
    transport::{OpenError, SettleError},
};
#[cfg(feature = "http")]
use oncue_transports::http::AccessError;
use oncue_transports::wire::{LEASE, Node, NodeSettings, ServeError};
use thiserror::Error;

use self::address::{Address, Door, Server};
use crate::cli::{CommandError, interrupt::interrupted, print};

/// How long what is being forwarded may take when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// Own a log, and let other processes publish to it and subscribe to it
///
/// An app reaches it by `http://HOST:PORT` or `zmq://HOST:PORT` where it would say `file:DIR`. Nothing else changes: order per key, retries, dead
/// letters and keyed state are kept here. One line on stdout for each address says that it is ready.
///
/// Any other program publishes `CloudEvents` by POST to `/topics/TOPIC` of an `http://` address, and reads them by GET.
///
/// Without more, anyone who reaches the address may do anything: listen on loopback, or where only your own services reach.
/// `https://` encrypts, and lets in who shows a certificate if it is told of which authority; `--users` asks for a name and
/// its password; over ZeroMQ there is neither. Who is let in may do anything.
///
/// With `--config`, topics are forwarded to other transports (`[bridges.NAME]`), and `[topics.NAME]` says what they keep; the file may
/// change meanwhile.
///
/// Ctrl-C or SIGTERM stops it in good order; apps that are connected wait until it is there again. After kill -9 it goes on
/// from what was acknowledged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data\n  \
                        oncue serve --listen http://127.0.0.1:7700 --listen zmq://127.0.0.1:7701 --data ./data\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data --logs ./logs\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data --config oncue.toml\n  \
                        oncue serve --listen 'https://0.0.0.0:7700?cert=node.pem&key=node.key' --users ./users --data ./data\n  \
                        curl http://127.0.0.1:7700/topics/orders -H 'ce-specversion: 1.0' -H 'ce-id: 1' \\\n       \
                        -H 'ce-source: /shop' -H 'ce-type: order.created' -d '{\"total\": 5}'\n\n\
                        Exit codes: 0 stopped by a signal; 1 it failed while it ran; 2 the address, a file or the \
                        directory cannot be used.")]
pub(super) struct Serve {
    /// Where to listen: `http://HOST:PORT` or `zmq://HOST:PORT`, port 0 for any that is free; or `https://HOST:PORT?cert=FILE&key=FILE`, encrypted
    /// by this certificate and key (PEM), with `&ca=FILE` for those alone who show a certificate of that authority. May be
    /// said more than once
    #[arg(long, value_name = "URL", required = true, value_parser = Address::parse)]
    listen: Vec<Address>,

    /// File of who may come: `NAME:PASSWORD` on each line, readable by nobody else. Clients say
    /// `http://NAME:PASSWORD@HOST:PORT`. Without it, no name is asked for
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,

    /// Directory of the log, made if it does not exist; an app that had it by `file:DIR` goes on by `http://HOST:PORT`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Directory of further logs: `http://HOST:PORT/NAME` reaches the log NAME, which is made when it is first asked for
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,

    /// Configuration file with `[bridges.NAME]`: which topics of the log in `--data` are forwarded, and where to
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// So long after a client was last heard of, what it holds goes to others
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE.as_secs_f64(), value_parser = lease)]
    lease: f64,
}

fn lease(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.ok_or_else(|| "a lease is from 0.1 to 3600 seconds".to_owned())
}

/// Why a node does not serve.
#[derive(Debug, Error)]
pub(super) enum NodeError {
    /// The log does not open.
    #[error("--data: {0}")]
    Data(OpenError),
    /// What is to be forwarded is not said as it should be, or cannot be served.
    #[error("--config: {0}")]
    Config(oncue::Error),
    /// Who may come is not known.
    #[cfg(feature = "http")]
    #[error("{0}")]
    Access(#[from] AccessError),
    /// Who is to be asked for a name would come by another way.
    #[error("--users: over {0} nobody is asked for a name: leave out one of them")]
    Unguarded(String),
    /// It cannot listen.
    #[error("--listen: {0}")]
    Listen(#[from] ServeError),
    /// It was stopped, and what was written last may not be durable.
    #[error("stopped, and the log did not close: {0}")]
    Close(SettleError),
    /// Interrupted a second time.
    #[error("interrupted again: stopped at once; what was acknowledged is safe")]
    Interrupted,
}

impl NodeError {
    /// Whether the cause is what was asked for.
    pub(super) fn is_callers(&self) -> bool {
        match self {
            #[cfg(feature = "http")]
            Self::Access(_) => true,
            Self::Data(OpenError::Directory(_) | OpenError::Url { .. })
            | Self::Config(_)
            | Self::Unguarded(_)
            | Self::Listen(_) => true,
            Self::Data(_) | Self::Close(_) | Self::Interrupted => false,
        }
    }
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)?;
        let lease = Duration::from_secs_f64(self.lease);
        let settings = NodeSettings { data: self.data.clone(), logs: self.logs, lease };
        let doors = self.listen.iter().map(|address| Door::of(address, self.users.as_deref()));
        let doors = doors.collect::<Result<Vec<_>, _>>()?;
        let node = Node::open(settings, Clock::system()).map_err(NodeError::Data)?;
        runtime.block_on(async {
            let bridges = match self.config {
                Some(file) => Some(forward(&node, file).await?),
                None => None,
            };
            let mut servers = Vec::with_capacity(self.listen.len());
            for door in doors {
                servers.push(door.open(Arc::clone(&node)).await?);
            }
            for server in &servers {
                print(&format!("serving {} on {}\n", self.data.display(), server.url()))?;
            }
            interrupted().await;
            tracing::info!("stopping: the log is being closed");
            tokio::select! {
                stopped = stop(bridges, &node, servers) => stopped.map_err(NodeError::Close)?,
                () = interrupted() => return Err(NodeError::Interrupted.into()),
            }
            Ok(())
        })
    }
}

/// An app beside the node, of the bridges that a file says.
async fn forward(node: &Arc<Node>, file: PathBuf) -> Result<Bus, NodeError> {
    let node = Arc::clone(node);
    let local = tokio::task::spawn_blocking(move || node.local()).await;
    // It is cancelled when the program ends.
    let local = local.map_err(|_| NodeError::Interrupted)?.map_err(NodeError::Data)?;
    let app = App::with_transport(local, Clock::system()).config(file).bridges(oncue_transports::bridge_to);
    app.alerts(Alerts::default()).start().await.map_err(NodeError::Config)
}

/// Clients are told that the node closes, and ask again later.
async fn stop(bridges: Option<Bus>, node: &Node, servers: Vec<Server>) -> Result<(), SettleError> {
    if let Some(bridges) = bridges
        && let Err(error) = bridges.shutdown_within(GRACE).await
    {
        tracing::warn!(%error, "what was being forwarded is forwarded again at the next start");
    }
    let closed = node.close().await;
    for server in servers {
        server.stop().await;
    }
    closed
}
