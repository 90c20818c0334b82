//! `oncue serve`: a node, which owns a log that other processes reach.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use oncue::{
    Clock,
    transport::{OpenError, SettleError},
};
use oncue_transports::{
    http::{Access, AccessError, HttpServer, ServeError},
    wire::{LEASE, Node, NodeSettings},
};
use thiserror::Error;

use crate::cli::{CommandError, interrupt::interrupted, print};

/// What addresses are.
const ADDRESS: &str = "an address is `http://HOST:PORT`, such as `http://127.0.0.1:7700`, or \
                       `https://HOST:PORT?cert=FILE&key=FILE`, with `&ca=FILE` for clients that show a certificate";

/// Own a log, and let other processes publish to it and subscribe to it
///
/// An app reaches it by `http://HOST:PORT` where it would say `file:DIR`. Nothing else changes: order per key, retries, dead
/// letters and keyed state are kept here. One line on stdout for each address says that it is ready.
///
/// Any other program publishes `CloudEvents` by POST to `/topics/TOPIC`, and reads them by GET.
///
/// Without more, anyone who reaches the address may do anything: listen on loopback, or where only your own services reach.
/// `https://` encrypts, and lets in who shows a certificate if it is told of which authority; `--users` asks for a name and
/// its password. Who is let in may do anything.
///
/// Ctrl-C or SIGTERM stops it in good order; apps that are connected wait until it is there again. After kill -9 it goes on
/// from what was acknowledged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data\n  \
                        oncue serve --listen http://127.0.0.1:7700 --data ./data --logs ./logs\n  \
                        oncue serve --listen 'https://0.0.0.0:7700?cert=node.pem&key=node.key' --users ./users --data ./data\n  \
                        curl http://127.0.0.1:7700/topics/orders -H 'ce-specversion: 1.0' -H 'ce-id: 1' \\\n       \
                        -H 'ce-source: /shop' -H 'ce-type: order.created' -d '{\"total\": 5}'\n\n\
                        Exit codes: 0 stopped by a signal; 1 it failed while it ran; 2 the address, a file or the \
                        directory cannot be used.")]
pub(super) struct Serve {
    /// Where to listen: `http://HOST:PORT`, port 0 for any that is free; or `https://HOST:PORT?cert=FILE&key=FILE`, encrypted
    /// by this certificate and key (PEM), with `&ca=FILE` for those alone who show a certificate of that authority. May be
    /// said more than once
    #[arg(long, value_name = "URL", required = true, value_parser = listen)]
    listen: Vec<Listen>,

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

    /// So long after a client was last heard of, what it holds goes to others
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE.as_secs_f64(), value_parser = lease)]
    lease: f64,
}

/// An address, and what it is encrypted by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen {
    address: String,
    tls: Option<Certificates>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    ca: Option<PathBuf>,
}

fn listen(url: &str) -> Result<Listen, String> {
    let (place, options) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, address) = place.split_once("://").ok_or(ADDRESS)?;
    let address = address.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or(ADDRESS)?;
    if host.is_empty() || host.contains(['/', '@']) || port.parse::<u16>().is_err() {
        return Err(ADDRESS.to_owned());
    }
    let (mut cert, mut key, mut ca) = (None, None, None);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, file) = option.split_once('=').unwrap_or((option, ""));
        let known = match name {
            "cert" => &mut cert,
            "key" => &mut key,
            "ca" => &mut ca,
            _ => return Err(format!("unknown option `{name}`: {ADDRESS}")),
        };
        *known = Some(PathBuf::from(file));
    }
    let tls = match (scheme, cert, key, ca) {
        ("http", None, None, None) => None,
        ("https", Some(cert), Some(key), ca) => Some(Certificates { cert, key, ca }),
        _ => return Err(ADDRESS.to_owned()),
    };
    Ok(Listen { address: address.to_owned(), tls })
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
    /// Who may come is not known.
    #[error("{0}")]
    Access(#[from] AccessError),
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
            Self::Data(OpenError::Directory(_) | OpenError::Url { .. }) | Self::Access(_) | Self::Listen(_) => true,
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
        let doors = self.listen.iter().map(|listen| Ok((listen, access(listen, self.users.as_deref())?)));
        let doors = doors.collect::<Result<Vec<_>, NodeError>>()?;
        let node = Node::open(settings, Clock::system()).map_err(NodeError::Data)?;
        runtime.block_on(async {
            let mut servers = Vec::with_capacity(self.listen.len());
            for (Listen { address, .. }, access) in doors {
                servers.push(HttpServer::listen(address, access, Arc::clone(&node)).await.map_err(NodeError::Listen)?);
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

fn access(listen: &Listen, users: Option<&Path>) -> Result<Access, AccessError> {
    let mut access = Access::default();
    if let Some(Certificates { cert, key, ca }) = &listen.tls {
        access = access.encrypted(cert, key, ca.as_deref())?;
    }
    match users {
        Some(users) => access.users(users),
        None => Ok(access),
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
    fn an_address_is_a_host_and_a_port_and_what_encrypts_it() {
        let plain = |address: &str| Ok(Listen { address: address.to_owned(), tls: None });
        assert_eq!(listen("http://127.0.0.1:7700/"), plain("127.0.0.1:7700"));
        assert_eq!(listen("http://[::1]:0"), plain("[::1]:0"));
        let tls = |ca| Some(Certificates { cert: "a".into(), key: "b".into(), ca });
        let encrypted = |ca| Ok(Listen { address: "h:1".to_owned(), tls: tls(ca) });
        assert_eq!(listen("https://h:1?cert=a&key=b"), encrypted(None));
        assert_eq!(listen("https://h:1/?key=b&ca=c&cert=a"), encrypted(Some("c".into())));
        for wrong in
            ["127.0.0.1:7700", "http://host", "http://:80", "http://host:99999", "https://host:1", "http://u@h:1"]
        {
            assert_eq!(listen(wrong), Err(ADDRESS.to_owned()), "{wrong}");
        }
        for wrong in
            ["http://h:1?cert=a&key=b", "https://h:1?cert=a", "https://h:1?cert=a&key=b&color=red", "ftp://h:1"]
        {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }
}
