//! A node to test: a process of its own, which is killed and started again, or one that runs already.

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use oncue::{Clock, Observer, transport::BoxFuture};
use oncue_conformance::{Disturbance, Factory, Intruder, Opened};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::open;

/// Seconds after which a client that is gone is known to be.
const LEASE: &str = "2";
/// The file of who may come.
const USERS: &str = "users";
/// Who may come to a node of the suite's own, and the password.
const USER: (&str, &str) = ("conformance", "let-me-in");

/// A process that serves, in a directory of its own.
pub(super) struct Served {
    program: PathBuf,
    directory: TempDir,
    child: Child,
    /// Where it listens, as `http://HOST:PORT` or `zmq://HOST:PORT`.
    url: String,
}

impl Served {
    pub(super) fn start(program: PathBuf, directory: TempDir, listen: &str) -> io::Result<Self> {
        let users = directory.path().join(USERS);
        fs::write(&users, "")?;
        #[cfg(unix)]
        fs::set_permissions(&users, PermissionsExt::from_mode(0o600))?;
        fs::write(&users, format!("{}:{}\n", USER.0, USER.1))?;
        let (child, url) = start(&program, &directory, listen)?;
        Ok(Self { program, directory, child, url })
    }

    /// Where its clients come.
    pub(super) fn url_of(&self, (user, password): (&str, &str)) -> String {
        self.url.replacen("://", &format!("://{user}:{password}@"), 1)
    }

    pub(super) fn url(&self) -> String {
        if asks_for_a_name(&self.url) { self.url_of(USER) } else { self.url.clone() }
    }

    /// Kills it, and starts it again where it was.
    fn restart(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.url) = start(&self.program, &self.directory, &self.url)?;
        Ok(())
    }
}

/// Over ZeroMQ nobody is asked.
fn asks_for_a_name(url: &str) -> bool {
    url.starts_with("http")
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself; its directory goes with this.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(program: &PathBuf, directory: &TempDir, url: &str) -> io::Result<(Child, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--listen", url, "--lease", LEASE]);
    if asks_for_a_name(url) {
        command.arg("--users").arg(directory.path().join(USERS));
    }
    command.arg("--data").arg(directory.path().join("main")).arg("--logs").arg(directory.path().join("logs"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut ready)?;
    }
    match ready.trim_end().rsplit_once(' ') {
        Some((_, url)) => Ok((child, url.to_owned())),
        None => {
            let status = child.wait()?;
            Err(io::Error::other(format!("`{} serve` ended: {status}", program.display())))
        }
    }
}

/// Places are logs of a node.
#[derive(Clone)]
pub(super) struct Logs {
    /// `http://HOST:PORT/` or `zmq://HOST:PORT/`, and what all names of this run begin with.
    pub(super) beginning: String,
    /// What stands behind a name: `?` and options, or nothing.
    pub(super) options: String,
    /// The process, if it is ours.
    pub(super) served: Option<Arc<Mutex<Served>>>,
}

impl Logs {
    pub(super) fn of(&self, place: &str) -> String {
        format!("{}{place}{}", self.beginning, self.options)
    }
}

impl Factory for Logs {
    fn open(&self, place: &str, clock: Clock) -> BoxFuture<'static, Opened> {
        let url = self.of(place);
        Box::pin(async move { open(url, clock).await })
    }

    fn open_as(
        &self,
        intruder: Intruder,
        place: &str,
        clock: Clock,
    ) -> Result<BoxFuture<'static, Opened>, &'static str> {
        let Some(served) = &self.served else {
            return Err("nobody said how to get in where one must not: the node is not ours");
        };
        if !asks_for_a_name(&served.lock().url) {
            return Err(
                "ZeroMQ has neither encryption nor passwords here: it listens where only its own clients reach",
            );
        }
        let base = match intruder {
            Intruder::WrongCredentials => served.lock().url_of((USER.0, "wrong")),
            Intruder::NoCredentials => served.lock().url.clone(),
            Intruder::NoTls => return Err("the suite's node is on loopback, without encryption"),
        };
        let url = format!("{base}/{place}");
        Ok(Box::pin(async move { open(url, clock).await }))
    }

    fn observer(&self, place: &str, clock: Clock) -> Result<Observer, &'static str> {
        let url = self.of(place);
        Ok(Observer::with(clock, move || oncue_transports::inspect(&url, &Clock::system())))
    }

    fn disturb(&self, disturbance: Disturbance, _: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        let Some(served) = self.served.as_ref().filter(|_| disturbance == Disturbance::Restart).map(Arc::clone) else {
            return Err("the node is not ours to stop, and connections are cut by the tests of the transport");
        };
        Ok(Box::pin(async move {
            let restarted = tokio::task::spawn_blocking(move || served.lock().restart()).await;
            if let Err(error) = restarted.map_err(io::Error::other).and_then(|restarted| restarted) {
                tracing::error!(%error, "the node does not start again");
            }
        }))
    }
}
