//! A NATS server of a test's own, which can be killed and started again, behind a connection that can be cut.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::Clock;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Mutex,
};

use super::{
    USER,
    broker_faults::Server,
    certificates::{self, AUTHORITY, BROKER},
    cutting::Proxy,
};

/// How often it is looked whether the server is there.
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Nats {
    program: PathBuf,
    folder: tempfile::TempDir,
    address: SocketAddr,
    running: Mutex<Child>,
    proxy: Proxy,
}

impl Nats {
    /// One with a user's name and password; nothing if none is installed.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(|_| user()).await
    }

    /// One that is reached by TLS alone, by who shows a certificate, all of which are in its folder.
    pub(super) async fn start_encrypted() -> Option<Self> {
        Self::start_with(|folder| {
            certificates::make(folder);
            let file = |name| folder.join(name).display().to_string();
            let (broker, key, authority) = (file(BROKER.0), file(BROKER.1), file(AUTHORITY));
            let tls = format!(
                "tls {{ cert_file: \"{broker}\", key_file: \"{key}\", ca_file: \"{authority}\", verify: true }}\n"
            );
            user() + &tls
        })
        .await
    }

    /// One whose configuration says more than where it is and what it keeps.
    pub(super) async fn start_with(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        super::broker("nats")?;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/brokers/install/nats/bin/nats-server");
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let text = text(address, folder.path(), &more(folder.path()));
        std::fs::write(folder.path().join("nats.conf"), text).unwrap();
        let running = Mutex::new(run(&program, folder.path(), address).await);
        let proxy = Proxy::start(address).await;
        Some(Self { program, folder, address, running, proxy })
    }

    /// Says the rest of its configuration anew, and has it read while it runs.
    pub(super) fn reconfigure(&self, more: &str) -> impl Future<Output = ()> + Send + use<> {
        let running = self.running.try_lock().unwrap().id().unwrap();
        let (path, text) = (self.folder.path().join("nats.conf"), text(self.address, self.folder.path(), more));
        async move {
            std::fs::write(path, text).unwrap();
            let told = Command::new("kill").args(["-HUP", &running.to_string()]).status().await.unwrap();
            assert!(told.success());
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// What a configuration says.
fn text(address: SocketAddr, folder: &Path, more: &str) -> String {
    let store = folder.join("data");
    format!("listen: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n{more}", store.display())
}

/// A user's name and password are wanted.
fn user() -> String {
    format!("authorization {{ user: \"{}\", password: \"{}\" }}\n", USER.0, USER.1)
}

impl Server for Nats {
    fn scheme(&self) -> &'static str {
        "nats"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn restart(&self) -> BoxFuture<'_, ()> {
        async move {
            let mut running = self.running.lock().await;
            running.kill().await.unwrap();
            *running = run(&self.program, self.folder.path(), self.address).await;
        }
        .boxed()
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
