//! A small proxy between clients and a node: it cuts connections, and loses answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// Leads every connection on to a node, on a thread of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    node: Mutex<SocketAddr>,
    /// How often everything was cut.
    cuts: watch::Sender<u64>,
    /// How many of the next answers get lost, each with its connection.
    losing: AtomicUsize,
    lost: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start(node: SocketAddr) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            node: Mutex::new(node),
            cuts: watch::Sender::new(0),
            losing: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let leading = Arc::clone(&shared);
        let listening = runtime.spawn(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
        let listener = listening.await.unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(lead(client, Arc::clone(&leading)));
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections lead from now on.
    pub(crate) fn lead_to(&self, node: SocketAddr) {
        *self.shared.node.lock() = node;
        self.cut();
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Loses so many of the next answers, after the node has given them.
    pub(crate) fn lose(&self, answers: usize) {
        self.shared.losing.store(answers, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn lead(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let node = *shared.node.lock();
    let Ok(mut node) = TcpStream::connect(node).await else { return };
    let ((mut from_client, mut to_client), (mut from_node, mut to_node)) = (client.split(), node.split());
    let there = tokio::io::copy(&mut from_client, &mut to_node);
    let back = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            let read = from_node.read(&mut part).await.unwrap_or(0);
            let lost = |left: usize| left.checked_sub(1);
            if read == 0 || shared.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost).is_ok() {
                shared.lost.fetch_add(usize::from(read > 0), Ordering::SeqCst);
                return;
            }
            if to_client.write_all(&part[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = there => {}
        () = back => {}
        _ = cuts.changed() => {}
    }
}
