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

#[cfg(feature = "kafka-tls")]
use super::certificates::{self, AUTHORITY, BROKER};
use super::{
    USER,
    broker_faults::Server,
    cutting::{Proxy, free},
};

/// How often it is looked whether the broker is there.
const LOOK: Duration = Duration::from_millis(50);
/// `ApiVersions`, version 0, of client "": what a broker answers before it knows who asks.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0, 0];
/// Any does, as long as a node keeps it.
pub(super) const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

pub(super) struct Kafka {
    folder: tempfile::TempDir,
    address: SocketAddr,
    proxied: SocketAddr,
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
        Self::start_saying("").await
    }

    /// One that asks who may do what: at first, anybody anything.
    pub(super) async fn start_guarded() -> Option<Self> {
        let guard = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                     allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n";
        Self::start_saying(guard).await
    }

    async fn start_saying(more: &str) -> Option<Self> {
        let [address, proxied, controller] = free();
        let login = format!("plain.PlainLoginModule required user_{}=\"{}\";", USER.0, USER.1);
        let direct = Direct { address, protocol: "SASL_PLAINTEXT", mechanism: "PLAIN", login: &login };
        Self::start_with(&direct, (proxied, controller), "", |_| more.to_owned()).await
    }

    /// Changes who may do what, as Kafka's own tool is told.
    pub(super) fn rights<const N: usize>(&self, what: [&str; N]) -> impl Future<Output = ()> + Send + 'static {
        let file = self.folder.path().join("client.properties");
        let login = format!("plain.PlainLoginModule required username=\"{}\" password=\"{}\";", USER.0, USER.1);
        let text = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
             sasl.jaas.config=org.apache.kafka.common.security.{login}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut tool = java();
        tool.arg("org.apache.kafka.tools.AclCommand").args(["--bootstrap-server", &self.address.to_string()]);
        tool.arg("--command-config").arg(file).args(what);
        async move {
            let done = tool.output().await.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// One that is reached by TLS and SCRAM alone, by who shows a certificate, all of which are in its folder.
    #[cfg(feature = "kafka-tls")]
    pub(super) async fn start_encrypted() -> Option<Self> {
        let [address, proxied, controller] = free();
        let login = "scram.ScramLoginModule required;";
        let direct = Direct { address, protocol: "SASL_SSL", mechanism: "SCRAM-SHA-512", login };
        let user = format!("SCRAM-SHA-512=[name={},password={}]", USER.0, USER.1);
        let keys = |folder: &Path| {
            certificates::make(folder);
            let file = |name| folder.join(name).display().to_string();
            let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
            std::fs::write(folder.join("keystore.pem"), read(BROKER.1) + &read(BROKER.0)).unwrap();
            let (own, authority) = (file("keystore.pem"), file(AUTHORITY));
            format!(
                "ssl.keystore.type=PEM\nssl.keystore.location={own}\nssl.truststore.type=PEM\n\
                 ssl.truststore.location={authority}\nlistener.name.direct.ssl.client.auth=required\n"
            )
        };
        Self::start_with(&direct, (proxied, controller), &user, keys).await
    }

    async fn start_with(
        direct: &Direct<'_>,
        (proxied, controller): (SocketAddr, SocketAddr),
        scram: &str,
        more: impl FnOnce(&Path) -> String,
    ) -> Option<Self> {
        super::broker("kafka")?;
        let proxy = Proxy::start(proxied).await;
        let folder = tempfile::tempdir().unwrap();
        let text = properties(folder.path(), direct, (proxied, proxy.address), controller) + &more(folder.path());
        std::fs::write(config(folder.path()), text).unwrap();
        let mut format = java();
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(config(folder.path()));
        if !scram.is_empty() {
            format.args(["--add-scram", scram]);
        }
        let formatted = format.output().await.unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let running = Mutex::new(run(folder.path(), proxied).await);
        Some(Self { folder, address: direct.address, proxied, running, proxy })
    }

    #[cfg(feature = "kafka-tls")]
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The listener that is not proxied.
struct Direct<'a> {
    address: SocketAddr,
    protocol: &'a str,
    mechanism: &'a str,
    login: &'a str,
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
            *running = run(self.folder.path(), self.proxied).await;
        }
        .boxed()
    }
}

pub(super) fn config(folder: &Path) -> PathBuf {
    folder.join("server.properties")
}

/// Whoever comes by the proxy is told to come by it again: it has a listener of its own.
fn properties(
    folder: &Path,
    direct: &Direct<'_>,
    (proxied, proxy): (SocketAddr, SocketAddr),
    controller: SocketAddr,
) -> String {
    let Direct { address, protocol, mechanism, login } = direct;
    let plain = format!("plain.PlainLoginModule required user_{}=\"{}\";", USER.0, USER.1);
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=DIRECT://{address},PROXIED://{proxied},CONTROLLER://{controller}
advertised.listeners=DIRECT://{address},PROXIED://{proxy}
listener.security.protocol.map=DIRECT:{protocol},PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PROXIED
controller.listener.names=CONTROLLER
listener.name.direct.sasl.enabled.mechanisms={mechanism}
listener.name.proxied.sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.direct.{}.sasl.jaas.config=org.apache.kafka.common.security.{login}
listener.name.proxied.plain.sasl.jaas.config=org.apache.kafka.common.security.{plain}
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
auto.create.topics.enable=false
log.cleaner.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
",
        mechanism.to_lowercase(),
        folder.join("log").display()
    )
}

/// A broker that is configured in a folder, once it answers.
pub(super) async fn run(folder: &Path, address: SocketAddr) -> Child {
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
