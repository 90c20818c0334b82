//! `oncue serve`: a node, which owns a log that other processes reach.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use oncue::{
    Clock,
    transport::{OpenError, SettleError},
};
use oncue_transports::{
    http::{HttpServer, ServeError},
    wire::{LEASE, Node, NodeSettings},
};
use thiserror::Error;

use crate::cli::{CommandError, interrupt::interrupted, print};

/// What addresses begin with.
const HTTP: &str = "http://";

/// Own a log, and let other processes publish to it and subscribe to it
///
/// An app reaches it by `http://HOST:PORT` where it would say `file:DIR`. Nothing else changes: order per key, retries, dead
/// letters and keyed state are kept here. One line on stdout for each address says that it is ready.
///
/// Any other program publishes `CloudEvents` by POST to `/topics/TOPIC`, and reads them by GET.
///
/// Anyone who reaches the address may do anything: there is no encryption and no password yet. Listen on loopback, or
/// where only your own services reach.
///
/// Ctrl-C or SIGTERM stops it in good order; apps that are connected wait until it is there again. After kill -9 it goes on
/// from what was acknowledged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data --logs ./logs\n  \
                        curl http://127.0.0.1:7700/topics/orders -H 'ce-specversion: 1.0' -H 'ce-id: 1' \\\n       \
                        -H 'ce-source: /shop' -H 'ce-type: order.created' -d '{\"total\": 5}'\n\n\
                        Exit codes: 0 stopped by a signal; 1 it failed while it ran; 2 the address or the directory \
                        cannot be used.")]
pub(super) struct Serve {
    /// Where to listen: `http://HOST:PORT`, port 0 for any that is free. May be said more than once
    #[arg(long, value_name = "URL", required = true, value_parser = address)]
    listen: Vec<String>,

    /// Directory of the log, made if it does not exist; an app that had it by `file:DIR` goes on by `http://HOST:PORT`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Directory of further logs: `http://HOST:PORT/NAME` reaches the log NAME, which is made when it is first asked for
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,

    /// So long after a client was last heard of, what it holds goes to others
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE.as_secs_f64(), value_parser = lease)]
    lease: f64,
}

/// Takes what stands between `http://` and the end.
fn address(url: &str) -> Result<String, String> {
    let address = url.strip_prefix(HTTP).map(|rest| rest.trim_end_matches('/'));
    let whole = |address: &&str| {
        address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok())
    };
    let address = address.filter(whole).map(str::to_owned);
    address.ok_or_else(|| "an address is `http://HOST:PORT`, such as `http://127.0.0.1:7700`".to_owned())
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
            Self::Data(OpenError::Directory(_) | OpenError::Url { .. }) | Self::Listen(_) => true,
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
        let node = Node::open(settings, Clock::system()).map_err(NodeError::Data)?;
        runtime.block_on(async {
            let mut servers = Vec::with_capacity(self.listen.len());
            for address in &self.listen {
                servers.push(HttpServer::listen(address, Arc::clone(&node)).await.map_err(NodeError::Listen)?);
            }
            for server in &servers {
                print(&format!("serving {} on {}\n", self.data.display(), server.url()))?;
            }
            interrupted().await;
            tracing::info!("stopping: the log is being closed");
            tokio::select! {
                stopped = stop(&node, servers) => stopped.map_err(NodeError::Close)?,
                () = interrupted() => return Err(NodeError::Interrupted.into()),
            }
            Ok(())
        })
    }
}

/// Clients are told that the node closes, and ask again later.
async fn stop(node: &Node, servers: Vec<HttpServer>) -> Result<(), SettleError> {
    let closed = node.close().await;
    for server in servers {
        server.stop().await;
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(address("http://127.0.0.1:7700/").as_deref(), Ok("127.0.0.1:7700"));
        assert_eq!(address("http://[::1]:0").as_deref(), Ok("[::1]:0"));
        for wrong in
            ["127.0.0.1:7700", "http://host", "http://:80", "http://host:99999", "https://host:1", "http://u@h:1"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
