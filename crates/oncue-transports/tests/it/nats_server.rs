//! A NATS server of a test's own, which can be killed and started again, behind a connection that can be cut.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use oncue::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Mutex, watch},
};

/// How often it is looked whether the server is there.
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Server {
    program: PathBuf,
    folder: tempfile::TempDir,
    address: SocketAddr,
    running: Mutex<Child>,
    proxy: Proxy,
}

impl Server {
    /// One with a user's name and password; nothing if none is installed.
    pub(super) async fn start(name_and_password: Option<(&str, &str)>) -> Option<Self> {
        super::broker("nats")?;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/brokers/install/nats/bin/nats-server");
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let users = name_and_password.map_or(String::new(), |(name, password)| {
            format!("authorization {{ user: \"{name}\", password: \"{password}\" }}\n")
        });
        let store = folder.path().join("data");
        let text = format!("listen: \"{address}\"\n{users}jetstream {{ store_dir: \"{}\" }}\n", store.display());
        std::fs::write(folder.path().join("nats.conf"), text).unwrap();
        let running = Mutex::new(run(&program, folder.path(), address).await);
        let proxy = Proxy::start(address).await;
        Some(Self { program, folder, address, running, proxy })
    }

    /// The way to it that can be cut.
    pub(super) fn host(&self) -> String {
        self.proxy.address.to_string()
    }

    /// The way to it that is not cut.
    pub(super) fn direct(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// As by `kill -9`.
    pub(super) async fn restart(&self) {
        let mut running = self.running.lock().await;
        running.kill().await.unwrap();
        *running = run(&self.program, self.folder.path(), self.address).await;
    }

    pub(super) fn set(&self, mode: Mode) {
        self.proxy.mode.send_replace(mode);
    }
}

async fn run(program: &Path, folder: &Path, address: SocketAddr) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("nats.conf")).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let clock = Clock::system();
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let mut greeting = vec![0; 4096];
            let count = stream.read(&mut greeting).await.unwrap_or(0);
            if String::from_utf8_lossy(&greeting[..count]).contains("\"jetstream\":true") {
                return child;
            }
        }
        clock.sleep(LOOK).await;
    }
}

/// What becomes of connections through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Through,
    /// Those that there are end, and no other begins.
    Cut,
    /// What the server answers is lost.
    Mute,
}

struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), watch::Sender::new(Mode::Through));
        let watched = mode.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Mode::Cut {
                    tokio::spawn(pass(client, to, watched.clone()));
                }
            }
        });
        Self { address, mode }
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
