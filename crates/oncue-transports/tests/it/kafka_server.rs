//! A Kafka broker of a test's own, which can be killed and started again, behind a connection that can be cut; and the
//! tools that come with Kafka.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
};

use super::{
    broker_faults::{Server, USER},
    cutting::{Proxy, free},
};

/// How often it is looked whether the broker is there.
const LOOK: Duration = Duration::from_millis(50);
/// `ApiVersions`, version 0, of client "": what a broker answers before it knows who asks.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0, 0];
/// Any does, as long as a node keeps it.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

pub(super) struct Kafka {
    folder: tempfile::TempDir,
    address: SocketAddr,
    running: Mutex<Child>,
    proxy: Proxy,
}

/// A program of Kafka's, with the jars that `cargo xtask brokers up kafka` got.
pub(super) fn java() -> Command {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/brokers/install/kafka/libs/*");
    let mut java = Command::new("java");
    java.env("CLASSPATH", jars).args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    java.args(["-Djava.net.preferIPv4Stack=true", "-Dorg.apache.logging.log4j.level=INFO"]);
    java.stdin(Stdio::null()).kill_on_drop(true);
    java
}

impl Kafka {
    /// One with a user's name and password; nothing if none is installed.
    pub(super) async fn start() -> Option<Self> {
        super::broker("kafka")?;
        let [address, proxied, controller] = free();
        let proxy = Proxy::start(proxied).await;
        let folder = tempfile::tempdir().unwrap();
        let text = properties(folder.path(), address, (proxied, proxy.address), controller);
        std::fs::write(config(folder.path()), text).unwrap();
        let format = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"];
        let formatted = java().args(format).arg(config(folder.path())).output().await.unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let running = Mutex::new(run(folder.path(), address).await);
        Some(Self { folder, address, running, proxy })
    }
}

impl Server for Kafka {
    fn scheme(&self) -> &'static str {
        "kafka"
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
            *running = run(self.folder.path(), self.address).await;
        }
        .boxed()
    }
}

fn config(folder: &Path) -> PathBuf {
    folder.join("server.properties")
}

/// Whoever comes by the proxy is told to come by it again: it has a listener of its own.
fn properties(
    folder: &Path,
    direct: SocketAddr,
    (proxied, proxy): (SocketAddr, SocketAddr),
    controller: SocketAddr,
) -> String {
    let login =
        format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_{}=\"{}\";", USER.0, USER.1);
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=DIRECT://{direct},PROXIED://{proxied},CONTROLLER://{controller}
advertised.listeners=DIRECT://{direct},PROXIED://{proxy}
listener.security.protocol.map=DIRECT:SASL_PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=DIRECT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.direct.plain.sasl.jaas.config={login}
listener.name.proxied.plain.sasl.jaas.config={login}
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
auto.create.topics.enable=false
log.cleaner.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
",
        folder.join("log").display()
    )
}

async fn run(folder: &Path, address: SocketAddr) -> Child {
    let path = folder.join("out.log");
    let log = std::fs::File::options().create(true).append(true).open(&path).unwrap();
    let mut command = java();
    command.arg("kafka.Kafka").arg(config(folder)).current_dir(folder).stdout(log).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let clock = Clock::system();
    while !answers(address).await {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended:\n{}", std::fs::read_to_string(&path).unwrap_or_default());
        clock.sleep(LOOK).await;
    }
    child
}

/// Whether it repeats the number of a question, after its answer's length.
async fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    if stream.write_all(&QUESTION).await.is_err() {
        return false;
    }
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.is_ok() && answer[4..] == QUESTION[8..12]
}
