//! A connection to a server that can be cut, and that loses what the server answers.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of connections through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Through,
    /// Those that there are end, and no other begins.
    Cut,
    /// What the server answers is lost.
    Mute,
}

#[cfg(any(feature = "amqp", feature = "kafka"))]
/// Addresses of the loopback that nobody listens on.
pub(super) fn free<const N: usize>() -> [SocketAddr; N] {
    // All are held until the last is known, so that they differ.
    let held = std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener: std::net::TcpListener| listener.local_addr().unwrap())
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) mode: watch::Sender<Mode>,
    /// Connections that there are.
    connections: watch::Sender<usize>,
}

impl Proxy {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), watch::Sender::new(Mode::Through));
        let (watched, connections) = (mode.subscribe(), watch::Sender::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Mode::Cut {
                    let (mode, counted) = (watched.clone(), counted.clone());
                    counted.send_modify(|count| *count += 1);
                    tokio::spawn(async move {
                        pass(client, to, mode).await;
                        counted.send_modify(|count| *count -= 1);
                    });
                }
            }
        });
        Self { address, mode, connections }
    }

    /// Ends all connections, and lets others begin.
    pub(super) async fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
        let mut connections = self.connections.subscribe();
        connections.wait_for(|count| *count == 0).await.unwrap();
        self.mode.send_replace(Mode::Through);
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answering = mode.clone();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count) = from_server.read(&mut bytes).await {
            let is_mute = *answering.borrow() == Mode::Mute;
            if count == 0 || (!is_mute && to_client.write_all(&bytes[..count]).await.is_err()) {
                return;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
