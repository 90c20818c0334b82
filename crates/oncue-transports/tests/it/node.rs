//! An Oncue node over HTTP and over `ZeroMQ`: the delivery contract, with a log of one node for each place; and what may go wrong between.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use oncue::{App, Clock, transport::BoxFuture};
use oncue_conformance::{Disturbance, Factory, Filter, Opened, Suite, Tier};
use oncue_transports::{
    http::{Access, HttpServer},
    wire::{Node, NodeSettings},
    zmq::ZmqServer,
};
use tokio::sync::Mutex;

use crate::{open, proxy::Proxy};

/// Clients that are gone are known to be after so long.
const LEASE: Duration = Duration::from_secs(2);
/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// What carries messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Carrier {
    Http,
    Zmq,
}

impl Carrier {
    pub(crate) const ALL: [Self; 2] = [Self::Http, Self::Zmq];

    /// The URL of an address.
    pub(crate) fn url(self, address: SocketAddr) -> String {
        match self {
            Self::Http => format!("http://{address}"),
            Self::Zmq => format!("zmq://{address}"),
        }
    }
}

/// A node that listens on loopback, for every carrier.
pub(crate) struct Running {
    pub(crate) server: HttpServer,
    pub(crate) zmq: ZmqServer,
    pub(crate) node: Arc<Node>,
}

impl Running {
    pub(crate) async fn start(address: &str, directory: &Path) -> Self {
        Self::start_with(address, Access::default(), directory).await
    }

    pub(crate) async fn start_with(address: &str, access: Access, directory: &Path) -> Self {
        let (data, logs) = (directory.join("main"), Some(directory.join("logs")));
        let settings = NodeSettings { data, logs, lease: LEASE };
        let opening = tokio::task::spawn_blocking(move || Node::open(settings, Clock::system()));
        let node = opening.await.unwrap().unwrap();
        let server = HttpServer::listen(address, access, Arc::clone(&node)).await.unwrap();
        let zmq = ZmqServer::listen(address, Arc::clone(&node)).await.unwrap();
        Self { server, zmq, node }
    }

    /// Where it listens for a carrier.
    pub(crate) fn address(&self, carrier: Carrier) -> SocketAddr {
        match carrier {
            Carrier::Http => self.server.address(),
            Carrier::Zmq => self.zmq.address(),
        }
    }

    /// In good order.
    pub(crate) async fn stop(self) {
        self.node.close().await.unwrap();
        self.server.stop().await;
        self.zmq.stop().await;
    }
}

/// An app on a log of a node.
pub(crate) async fn app(url: String) -> App {
    App::with_transport(open(url).await, Clock::system())
}

/// Places are logs of one node, behind a proxy.
struct Logs {
    carrier: Carrier,
    directory: tempfile::TempDir,
    node: Arc<Mutex<Option<Running>>>,
    proxy: Arc<Proxy>,
}

impl Logs {
    async fn new(carrier: Carrier) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Running::start("127.0.0.1:0", directory.path()).await;
        let proxy = Arc::new(Proxy::start(node.address(carrier)).await);
        Self { carrier, directory, node: Arc::new(Mutex::new(Some(node))), proxy }
    }
}

impl Factory for Logs {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        let url = format!("{}/{place}", self.carrier.url(self.proxy.address()));
        Box::pin(async move { Ok(tokio::task::spawn_blocking(move || oncue_transports::open(&url, clock)).await??) })
    }

    fn disturb(&self, disturbance: Disturbance, _: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        let (node, proxy) = (Arc::clone(&self.node), Arc::clone(&self.proxy));
        let (carrier, directory) = (self.carrier, self.directory.path().to_owned());
        Ok(Box::pin(async move {
            if disturbance == Disturbance::Cut {
                return proxy.cut();
            }
            let mut node = node.lock().await;
            if let Some(running) = node.take() {
                running.stop().await;
            }
            let running = Running::start("127.0.0.1:0", &directory).await;
            proxy.lead_to(running.address(carrier));
            *node = Some(running);
        }))
    }
}

async fn keeps_the_contract(name: &str, carrier: Carrier) {
    let logs = Logs::new(carrier).await;
    let report = Suite::new(name, logs).instances(true).deadline(DEADLINE).run(&Filter::all(), Tier::Fast).await;
    println!("{report}");
    let failed: Vec<String> =
        report.failures().map(|entry| format!("{} {}: {}", entry.case.number, entry.case.name, entry.reason)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_http_keeps_the_contract() {
    keeps_the_contract("http:", Carrier::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_zeromq_keeps_the_contract() {
    keeps_the_contract("zmq:", Carrier::Zmq).await;
}
