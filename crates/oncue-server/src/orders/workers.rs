//! Processes of their own that run the handlers of an order system whose events come over a broker or a node.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use oncue::{App, Bus, Clock};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    HANDLERS,
    gateway::Gateway,
    progress::Progress,
    run::{GRACE, Home, OrdersError, open, start},
};

/// What a worker writes when it serves.
const READY: &str = "ready";
/// How often it is looked whether everything is handled.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is known of the workers.
enum News {
    Serves { worker: usize, process: u32 },
    Ended { worker: usize, process: u32, status: ExitStatus },
    Failed(OrdersError),
}

/// Workers, each begun anew when it ends. They go when this does: each reads to the end of its input, and then stops.
pub(super) struct Workers {
    /// What keeps each running; nothing, once all are to go.
    inputs: Arc<Mutex<Option<Vec<Option<ChildStdin>>>>>,
    news: mpsc::Receiver<News>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many, and waits until all of them serve.
    pub(super) async fn start(
        count: usize,
        command: impl Fn() -> io::Result<Command> + Send + Sync + 'static,
        progress: &Progress,
    ) -> Result<Self, OrdersError> {
        let inputs = Arc::new(Mutex::new(Some((0..count).map(|_| None).collect::<Vec<_>>())));
        let (sender, news) = mpsc::channel(count);
        let command = Arc::new(command);
        let threads = (0..count).map(|worker| {
            let (inputs, command, sender) = (Arc::clone(&inputs), Arc::clone(&command), sender.clone());
            let keep = move || keep(worker, &*command, &inputs, &sender);
            thread::Builder::new().name(format!("worker-{}", worker + 1)).spawn(keep)
        });
        let threads = threads.collect::<io::Result<_>>().map_err(OrdersError::Worker)?;
        let mut workers = Self { inputs, news, threads };
        let mut serving = 0;
        while serving < count {
            serving += usize::from(workers.hear(progress).await?);
        }
        Ok(workers)
    }

    /// Waits for the next news, and tells it; whether it is that one serves.
    async fn hear(&mut self, progress: &Progress) -> Result<bool, OrdersError> {
        // The threads that send end only when they failed.
        match self.news.recv().await {
            Some(News::Serves { worker, process }) => {
                progress.say(&format!("worker {worker}: process {process}"));
                Ok(true)
            }
            Some(News::Ended { worker, process, status }) => {
                progress.say(&format!(
                    "worker {worker}, process {process}, has ended ({status}): another is started in its place"
                ));
                Ok(false)
            }
            Some(News::Failed(error)) => Err(error),
            None => Err(OrdersError::Killed),
        }
    }

    /// Tells what happens to them; ends when one cannot be had.
    pub(super) async fn watch(&mut self, progress: &Progress) -> OrdersError {
        loop {
            if let Err(error) = self.hear(progress).await {
                return error;
            }
        }
    }

    /// Has them stop in good order.
    pub(super) async fn stop(self) {
        drop(self.inputs.lock().take());
        drop(self.news);
        let threads = self.threads;
        let joining = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        joining.await.ok();
    }
}

/// Keeps one worker running until all are to go.
fn keep(
    worker: usize,
    command: &dyn Fn() -> io::Result<Command>,
    inputs: &Mutex<Option<Vec<Option<ChildStdin>>>>,
    news: &mpsc::Sender<News>,
) {
    loop {
        let begun = begin(command).and_then(|(mut child, serves)| {
            let process = child.id();
            let input = child.stdin.take();
            match &mut *inputs.lock() {
                Some(inputs) => inputs[worker] = input,
                None => drop(input),
            }
            if serves {
                // Nobody hears it any more when all are to go.
                news.blocking_send(News::Serves { worker: worker + 1, process }).ok();
            }
            Ok((process, serves, child.wait()?))
        });
        if inputs.lock().is_none() {
            return;
        }
        let (told, goes_on) = match begun {
            // A signal ended it, or it was at work: that may not happen again.
            Ok((process, serves, status)) if serves || status.code().is_none() => {
                (News::Ended { worker: worker + 1, process, status }, true)
            }
            Ok((.., status)) => {
                let reason = format!("it ended before it served ({status}); what it wrote says why");
                (News::Failed(OrdersError::Worker(io::Error::other(reason))), false)
            }
            Err(error) => (News::Failed(OrdersError::Worker(error)), false),
        };
        if news.blocking_send(told).is_err() || !goes_on {
            return;
        }
    }
}

/// Starts a worker, and waits until it serves or has ended.
fn begin(command: &dyn Fn() -> io::Result<Command>) -> io::Result<(Child, bool)> {
    let mut child = command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok((child, line.trim_end() == READY))
}

/// Waits until the handlers, which run elsewhere, are through with everything.
pub(super) async fn idle(bus: &Bus) {
    let is_through = || {
        let known = bus.inspect().subscriptions();
        HANDLERS.iter().all(|handler| known.iter().any(|known| known.id == *handler && known.lag == 0))
    };
    while !is_through() {
        bus.clock().sleep(LOOK_EVERY).await;
    }
}

/// Runs the handlers on the events of a broker or a node, until `stop` completes or the input of the process ends.
///
/// # Errors
/// What the URL names cannot be used, or the bus failed.
pub async fn work(url: String, gateway: Gateway, stop: impl Future<Output = ()>) -> Result<(), OrdersError> {
    let clock = Clock::system();
    let transport = open(&Home::Transport(url), &clock).await?;
    let bus = start(App::with_transport(transport, clock), gateway).await?;
    let (ends, ended) = tokio::sync::oneshot::channel::<()>();
    let reading = move || {
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        drop(ends);
    };
    thread::Builder::new().name("input".to_owned()).spawn(reading).map_err(OrdersError::Worker)?;
    // If nobody reads it, its end of the input is near.
    writeln_ready().ok();
    tokio::select! {
        _ = ended => {}
        () = stop => {}
    }
    Ok(bus.shutdown_within(GRACE).await?)
}

fn writeln_ready() -> io::Result<()> {
    use io::Write as _;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{READY}")?;
    stdout.flush()
}
