//! Sockets of libzmq, by pyzmq, each in a process of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

/// One socket: says where it is, then sends what it reads, or prints what it receives, parts as hex.
const PROGRAM: &str = r#"
import os, sys, threading, zmq
kind, address, prefixes = sys.argv[1], sys.argv[2], sys.argv[3:]
context = zmq.Context()
socket = context.socket(getattr(zmq, kind))
for prefix in prefixes:
    socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
if address == "bind":
    socket.bind("tcp://127.0.0.1:*")
    address = socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
else:
    socket.connect(address)
print(address, flush=True)
if kind in ("PUB", "PUSH"):
    for line in sys.stdin:
        socket.send_multipart([bytes.fromhex(part) for part in line.rstrip("\n").split(",")])
    socket.close()
    context.term()
else:
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        print(",".join(part.hex() for part in socket.recv_multipart()), flush=True)
"#;

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// A Python that has pyzmq; without one, the reason is printed, and where `CI=true` that is a failure.
pub(crate) fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pyzmq/bin/python");
    let has_it = |python: &PathBuf| {
        let asked = Command::new(python).args(["-c", "import zmq"]).output();
        asked.is_ok_and(|ended| ended.status.success())
    };
    let python = [own, "python3".into()].into_iter().find(has_it);
    if python.is_none() {
        let reason = "no pyzmq: python3 -m venv target/pyzmq && target/pyzmq/bin/pip install pyzmq";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        println!("skipped: {reason}");
    }
    python
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = if hex == "-" { "" } else { hex };
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A socket of another program. It is killed when this is dropped.
pub(crate) struct Program {
    process: Child,
    sending: ChildStdin,
    printed: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Program {
    /// One that listens on a port of its own.
    pub(crate) async fn bind(python: &Path, kind: &str, prefixes: &[&str]) -> Self {
        Self::start(python, kind, "bind", prefixes).await
    }

    /// One that connects to `tcp://HOST:PORT`.
    pub(crate) async fn connect(python: &Path, kind: &str, url: &str, prefixes: &[&str]) -> Self {
        Self::start(python, kind, url, prefixes).await
    }

    async fn start(python: &Path, kind: &str, address: &str, prefixes: &[&str]) -> Self {
        let mut command = tokio::process::Command::new(python);
        command.args(["-c", PROGRAM, kind, address]).args(prefixes).kill_on_drop(true);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let sending = process.stdin.take().unwrap();
        let mut printed = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = timeout(DEADLINE, printed.next_line()).await.expect("it says where it is").unwrap().unwrap();
        Self { process, sending, printed, url }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("tcp://").unwrap().parse().unwrap()
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, parts: &[&[u8]]) {
        let hex = |part: &&[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = parts.iter().map(hex).collect::<Vec<_>>().join(",") + "\n";
        self.sending.write_all(line.as_bytes()).await.unwrap();
    }

    /// The next message that it received.
    pub(crate) async fn received(&mut self) -> Vec<Vec<u8>> {
        self.received_within(DEADLINE).await.expect("a message comes")
    }

    /// The next message, if one comes soon enough.
    pub(crate) async fn received_within(&mut self, wait: Duration) -> Option<Vec<Vec<u8>>> {
        let line = timeout(wait, self.printed.next_line()).await.ok()?.unwrap().expect("it goes on");
        Some(line.split(',').map(bytes).collect())
    }

    /// Lets it send what it was given, and waits for its end.
    pub(crate) async fn end(self) {
        let Self { mut process, sending, .. } = self;
        drop(sending);
        assert!(timeout(DEADLINE, process.wait()).await.expect("it ends").unwrap().success());
    }
}
