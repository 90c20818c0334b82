//! A `RabbitMQ` server of a test's own, which can be killed and started again, behind a connection that can be cut.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command as AsyncCommand},
    sync::Mutex,
};

use super::{
    USER,
    broker_faults::Server,
    certificates::{self, AUTHORITY, BROKER},
    cutting::{Proxy, free},
};

const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// How often it is looked whether the server is there.
const LOOK: Duration = Duration::from_millis(50);
/// A client of AMQP 0-9-1 begins.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The first byte of the answer: a method.
const METHOD: u8 = 1;

pub(super) struct RabbitMq {
    node: Node,
    running: Mutex<Running>,
    proxy: Proxy,
    /// The name service that nodes find each other by; it ends with this.
    _names: Child,
}

struct Node {
    folder: tempfile::TempDir,
    address: SocketAddr,
    encrypted: SocketAddr,
    names: u16,
    distribution: u16,
}

/// A node, and all processes that it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn kill(&self) {
        if let Some(group) = self.0.id() {
            // What has ended already needs no end.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
        }
    }
}

impl RabbitMq {
    /// One with a user's name and password; nothing if none is installed.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(|_, _| String::new()).await
    }

    /// One that is also reached by TLS, at another address, by who shows a certificate, all of which are in its folder.
    pub(super) async fn start_encrypted() -> Option<Self> {
        let started = Self::start_with(|folder, encrypted| {
            certificates::make(folder);
            let file = |name| folder.join(name).display().to_string();
            let (broker, key, authority) = (file(BROKER.0), file(BROKER.1), file(AUTHORITY));
            format!(
                "listeners.ssl.1 = {encrypted}\nssl_options.cacertfile = {authority}\nssl_options.certfile = {broker}\n\
                 ssl_options.keyfile = {key}\nssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n"
            )
        });
        let server = started.await?;
        // It listens there once it listens where it greets.
        while TcpStream::connect(server.node.encrypted).await.is_err() {
            Clock::system().sleep(LOOK).await;
        }
        Some(server)
    }

    async fn start_with(more: impl FnOnce(&Path, SocketAddr) -> String) -> Option<Self> {
        super::broker("rabbitmq")?;
        let [address, encrypted, names, distribution] = free();
        let folder = tempfile::tempdir().unwrap();
        let more = more(folder.path(), encrypted);
        let user = format!("default_user = {}\ndefault_pass = {}\n", USER.0, USER.1);
        let text = format!(
            "listeners.tcp.1 = {address}\n{user}log.console = true\nlog.file = false\n\
             vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 100MB\n{more}"
        );
        std::fs::write(folder.path().join("rabbitmq.conf"), text).unwrap();
        std::fs::write(folder.path().join("enabled_plugins"), "[].\n").unwrap();
        let mut epmd = AsyncCommand::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &names.port().to_string()]);
        let names_process = epmd.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let node = Node { folder, address, encrypted, names: names.port(), distribution: distribution.port() };
        let running = Mutex::new(node.run().await);
        let proxy = Proxy::start(address).await;
        Some(Self { node, running, proxy, _names: names_process })
    }

    pub(super) fn folder(&self) -> &Path {
        self.node.folder.path()
    }

    /// Has it do something, as `rabbitmqctl` names it.
    pub(super) fn control<const N: usize>(&self, what: [&str; N]) -> impl Future<Output = ()> + Send + 'static {
        let mut command = self.node.command(CONTROL);
        command.args(what);
        async move {
            let done = command.output().await.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }

    pub(super) fn encrypted(&self) -> SocketAddr {
        self.node.encrypted
    }
}

impl Server for RabbitMq {
    fn scheme(&self) -> &'static str {
        "amqp"
    }

    fn address(&self) -> SocketAddr {
        self.node.address
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn restart(&self) -> BoxFuture<'_, ()> {
        async move {
            let mut running = self.running.lock().await;
            running.kill();
            running.0.wait().await.unwrap();
            *running = self.node.run().await;
        }
        .boxed()
    }
}

impl Node {
    /// A program that finds this node.
    fn command(&self, program: &str) -> AsyncCommand {
        let mut command = AsyncCommand::new(program);
        command
            .stdin(Stdio::null())
            .env("HOME", self.folder.path())
            .env("RABBITMQ_NODENAME", format!("faults-{}@localhost", self.distribution))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_EPMD_PORT", self.names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    }

    async fn run(&self) -> Running {
        let folder = self.folder.path();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("out.log")).unwrap();
        let mut command = self.command(PROGRAM);
        command
            .process_group(0)
            .stdout(log)
            .stderr(Stdio::null())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("rabbit.pid"))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        let mut running = Running(command.spawn().unwrap());
        let clock = Clock::system();
        while !greets(self.address).await {
            assert!(running.0.try_wait().unwrap().is_none(), "it ended:\n{}", log_of(folder));
            clock.sleep(LOOK).await;
        }
        running
    }
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("out.log")).unwrap_or_default()
}

async fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    if stream.write_all(GREETING).await.is_err() {
        return false;
    }
    stream.read_u8().await.is_ok_and(|first| first == METHOD)
}
