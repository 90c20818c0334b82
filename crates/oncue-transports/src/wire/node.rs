//! A node: logs that its clients reach by name, on threads of its own.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use oncue::{
    Clock,
    event::is_topic_name,
    transport::{LogTransport, LogUrl, OpenError, SettleError},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Mutex, watch},
};

use super::{
    host::Host,
    message::{Refusal, Reply, Request},
};

/// How long a session goes on that nothing is heard of, unless the node says otherwise: then what it holds is
/// delivered to others.
pub const LEASE: Duration = Duration::from_secs(10);
/// Most logs that are open at a time.
pub const MAX_LOGS: usize = 1_000;
/// A log that is reached by its name is closed when nobody has asked for it for so many leases.
const IDLE_LEASES: u32 = 6;
/// The name of the log that URLs without a path reach.
pub(crate) const MAIN: &str = "";

/// What a node has.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Where the log is that `http://HOST:PORT` reaches.
    pub data: PathBuf,
    /// Where further logs are, a directory each: `http://HOST:PORT/NAME` reaches the log `NAME`, which is made when it is
    /// first asked for. Nothing: there are none.
    pub logs: Option<PathBuf>,
    /// How long a session goes on that nothing is heard of.
    pub lease: Duration,
}

/// What clients reach over a wire.
pub struct Node {
    settings: NodeSettings,
    clock: Clock,
    logs: Mutex<HashMap<String, Arc<Host>>>,
    closing: watch::Sender<bool>,
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Node {
    /// A node on the log at a place, which is made if there is none. Stands still while the log is opened.
    ///
    /// # Errors
    /// The log does not open; there can be no threads.
    pub fn open(settings: NodeSettings, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let main = LogTransport::open(&LogUrl::file(&settings.data), clock.clone())?;
        // Clients may wait for an answer on all threads of another runtime of the process.
        let built = Builder::new_multi_thread().worker_threads(2).thread_name("oncue-node").enable_all().build();
        let url = settings.data.display().to_string();
        let runtime = built.map_err(|error| OpenError::Url { url, reason: error.to_string() })?;
        let handle = runtime.handle().clone();
        let main = Host::new(Arc::new(main), clock.clone(), settings.lease, &handle);
        let logs = Mutex::new(HashMap::from([(MAIN.to_owned(), main)]));
        let node = Arc::new(Self {
            settings,
            clock,
            logs,
            closing: watch::Sender::new(false),
            runtime: Some(runtime),
            handle,
        });
        node.handle.spawn(keep(Arc::downgrade(&node)));
        Ok(node)
    }

    /// The URL of the log that URLs without a path reach, as its owner says it.
    pub(super) fn main_url(&self) -> String {
        LogUrl::file(&self.settings.data).to_string()
    }

    /// Its threads.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Does what a request asks of the log with this name.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn answer(&self, log: &str, request: Request) -> Result<Reply, Refusal> {
        let mut closing = self.closing.subscribe();
        let answer = async { self.host(log).await?.answer(request).await };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(Refusal::Closing),
            // What fails because the log is being closed is asked again, when there is a node again.
            answer = answer => answer.map_err(|error| if *self.closing.borrow() { Refusal::Closing } else { error }),
        }
    }

    /// Ends all sessions and closes all logs; who asks something is told that it closes. What is not settled is delivered again when they are opened.
    ///
    /// # Errors
    /// What was written last may not be durable.
    pub async fn close(&self) -> Result<(), SettleError> {
        self.closing.send_replace(true);
        let logs = std::mem::take(&mut *self.logs.lock().await);
        let mut closed = Ok(());
        for host in logs.into_values() {
            closed = closed.and(host.close().await);
        }
        closed
    }

    async fn host(&self, log: &str) -> Result<Arc<Host>, Refusal> {
        let mut logs = self.logs.lock().await;
        if let Some(host) = logs.get(log) {
            return Ok(Arc::clone(host));
        }
        let refused = |reason: String| Refusal::Log { log: log.to_owned(), reason };
        let Some(directory) = self.settings.logs.as_ref().filter(|_| log != MAIN) else {
            return Err(refused("the node has one log: leave out the path, or start it with `--logs DIR`".to_owned()));
        };
        if !is_topic_name(log) || log.starts_with('.') {
            return Err(refused(
                "a name is 1 to 200 letters, digits, `.`, `_` or `-`, and begins with no `.`".to_owned(),
            ));
        }
        if logs.len() >= MAX_LOGS {
            return Err(refused(format!("{MAX_LOGS} logs are open, which is the limit: close some apps")));
        }
        let (url, clock) = (LogUrl::file(directory.join(log)), self.clock.clone());
        let opening = tokio::task::spawn_blocking(move || LogTransport::open(&url, clock)).await;
        let opened =
            opening.map_err(|error| refused(error.to_string()))?.map_err(|error| refused(error.to_string()))?;
        let host = Host::new(Arc::new(opened), self.clock.clone(), self.settings.lease, &self.handle);
        logs.insert(log.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    /// Ends what is over: sessions, and logs that nobody asks for.
    async fn tidy(&self) {
        // Nobody opens a log again while it is being closed.
        let mut logs = self.logs.lock().await;
        logs.values().for_each(|host| host.end_leases());
        let idle = |host: &Arc<Host>| Arc::strong_count(host) == 1 && host.is_idle(IDLE_LEASES * self.settings.lease);
        for (log, host) in logs.extract_if(|log, host| log != MAIN && idle(host)) {
            if let Err(error) = host.close().await {
                tracing::warn!(log, %error, "closed because nobody asks for it");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be dropped in a runtime, where nobody must wait for threads.
            runtime.shutdown_background();
        }
    }
}

async fn keep(node: Weak<Node>) {
    let Some(lease) = node.upgrade().map(|node| node.settings.lease) else { return };
    let mut ticks = tokio::time::interval(lease / 10);
    loop {
        ticks.tick().await;
        let Some(node) = node.upgrade() else { return };
        node.tidy().await;
    }
}
