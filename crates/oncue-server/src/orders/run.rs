//! A run of the order system, from its settings to its report.

use std::{error::Error as _, path::PathBuf, process::Command, sync::Arc, time::Duration};

use oncue::{
    App, Bus, Clock,
    event::DEFAULT_TOPIC,
    handler::HandlerExt as _,
    transport::{LogTransport, LogUrl, OpenError, SourceMark, Transport},
};
use tempfile::TempDir;
use thiserror::Error;

use crate::number::grouped;

use super::{
    HANDLERS,
    batch::{self, Batch},
    gateway::Gateway,
    handlers::{charge, daily_sales, detect_anomaly, notify_customer, track_order},
    input::{Input, InputError},
    place::{Place, Places, SOURCE},
    progress::Progress,
    report::Report,
    workers::{self, Workers},
};

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where events come from.
    pub input: Input,
    /// Where everything is kept; none is a temporary directory, removed at the end.
    pub data: Option<PathBuf>,
    /// The URL of what carries the events, instead of a log in a directory.
    pub transport: Option<String>,
    /// Processes of their own that run the handlers, over the transport; with none, this one does.
    pub workers: usize,
    /// The share of calls to the payment gateway that fail, 0 to 1.
    pub gateway_failures: f64,
    /// What these failures are drawn from.
    pub seed: u64,
    /// Whether a malformed line ends the run.
    pub strict: bool,
}

/// Why a run came to no report.
#[derive(Debug, Error)]
pub enum OrdersError {
    /// The input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The directory is in use, or somebody else's.
    #[error("--data: {0}")]
    Data(OpenError),
    /// What the URL names cannot be used.
    #[error("--transport: {0}")]
    Transport(OpenError),
    /// It holds something else than the order system.
    #[error("--transport: {url} is not one of the order system: {what}; choose an empty one")]
    ForeignTransport {
        /// The URL, without secrets.
        url: String,
        /// What it holds.
        what: String,
    },
    /// The directory cannot be made, read or written.
    #[error("--data: {0}; choose a directory that you may write to")]
    Denied(OpenError),
    /// The directory holds something else than the order system.
    #[error(
        "--data: {} is not a directory of the order system: {what}; choose an empty or new directory", directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// What it holds.
        what: String,
    },
    /// No temporary directory could be made.
    #[error("cannot make a temporary directory: {0}; name one with --data")]
    Temporary(std::io::Error),
    /// A malformed line in a strict run.
    #[error(
        "{malformed}; stopped there, because of --strict ({before}). Mend the line, or run without --strict to pass it by"
    )]
    Strict {
        /// Which line, and what is wrong with it.
        malformed: String,
        /// What became of the lines before.
        before: &'static str,
    },
    /// Interrupted, and shut down in good order.
    #[error("interrupted; {0}")]
    Interrupted(&'static str),
    /// Interrupted a second time, and stopped at once.
    #[error("interrupted again: stopped at once; what was acknowledged is safe")]
    Killed,
    /// A worker cannot be had.
    #[error("a worker process cannot be started: {0}")]
    Worker(std::io::Error),
    /// The bus failed.
    #[error(transparent)]
    Oncue(#[from] oncue::Error),
}

impl OrdersError {
    /// Whether the cause is what was asked for, not what happened on the way.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        match self {
            Self::Input(_)
            | Self::Data(_)
            | Self::Denied(_)
            | Self::Foreign { .. }
            | Self::Transport(_)
            | Self::ForeignTransport { .. }
            | Self::Strict { .. } => true,
            Self::Temporary(_) | Self::Interrupted(_) | Self::Killed | Self::Worker(_) | Self::Oncue(_) => false,
        }
    }
}

/// Where a run keeps its events.
pub(super) enum Home {
    Directory(PathBuf),
    /// Removed at the end.
    Temporary(TempDir),
    /// Somewhere else.
    Transport(String),
}

impl Home {
    fn of(settings: &Settings) -> Result<Self, OrdersError> {
        if let Some(url) = &settings.transport {
            return Ok(Self::Transport(url.clone()));
        }
        if let Some(directory) = &settings.data {
            return Ok(Self::Directory(directory.clone()));
        }
        let made = tempfile::Builder::new().prefix("oncue-orders-").tempdir().map_err(OrdersError::Temporary)?;
        Ok(Self::Temporary(made))
    }

    /// The directory, if it is still there afterwards.
    fn kept(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(directory) => Some(directory.clone()),
            Self::Temporary(_) | Self::Transport(_) => None,
        }
    }

    fn foreign(&self, what: String) -> OrdersError {
        match self {
            Self::Directory(directory) => OrdersError::Foreign { directory: directory.clone(), what },
            Self::Temporary(directory) => OrdersError::Foreign { directory: directory.path().to_owned(), what },
            Self::Transport(url) => OrdersError::ForeignTransport { url: oncue_transports::without_secrets(url), what },
        }
    }

    /// What interrupting means here.
    fn after_interrupt(&self) -> &'static str {
        match self {
            Self::Directory(_) | Self::Transport(_) => "run the same command again, and it goes on from there",
            Self::Temporary(_) => "nothing is kept, as there was no --data",
        }
    }

    fn after_stop(&self) -> &'static str {
        match self {
            Self::Directory(_) | Self::Transport(_) => "the lines before it are taken in and kept",
            Self::Temporary(_) => "nothing is kept, as there was no --data",
        }
    }
}

/// Runs the order system until its input is at its end and everything is handled, or until `interrupt` completes.
///
/// # Errors
/// See [`OrdersError`].
pub async fn run(settings: Settings, interrupt: impl Future<Output = ()>) -> Result<Report, OrdersError> {
    let input = settings.input.open()?;
    let home = Home::of(&settings)?;
    let clock = Clock::system();
    let transport = open(&home, &clock).await?;
    let mut places = known(&*transport, &home)?;
    let begin = places.of(&input.name);
    let (name, size) = (input.name.clone(), input.size);
    let lines = input.from(&begin)?;
    let progress = Progress::new(size, begin.bytes);
    let gateway = Gateway::new(settings.gateway_failures, settings.seed);
    tell(&settings, &home, &name, &places, &progress);
    if let Some(earlier) = places.gateway.replace(gateway).filter(|earlier| *earlier != gateway) {
        progress.say(&format!("an earlier run here had {earlier}: payments that it made stay as they are"));
    }
    let batches = batch::read(lines, begin, settings.strict);
    let batches = batches.map_err(|source| InputError::Read { input: name.clone(), source })?;
    let app = App::with_transport(transport, clock);
    let (bus, mut workers) = match &settings.transport {
        Some(url) if settings.workers > 0 => {
            let (url, failures, seed) = (url.clone(), settings.gateway_failures, settings.seed);
            let workers = Workers::start(settings.workers, move || worker(&url, failures, seed), &progress).await?;
            (app.start().await?, Some(workers))
        }
        _ => (start(app, gateway).await?, None),
    };
    let ended = {
        let elsewhere = workers.is_some();
        let feed = async {
            let feed = Feed { bus: &bus, progress: &progress, name, places };
            feed.run(batches, &home).await?;
            progress.read_all();
            if elsewhere {
                workers::idle(&bus).await;
                return Ok(());
            }
            Ok(bus.idle().await?)
        };
        let watching = async {
            match &mut workers {
                Some(workers) => workers.watch(&progress).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            fed = feed => fed,
            () = interrupt => Err(OrdersError::Interrupted(home.after_interrupt())),
            failed = watching => Err(failed),
            () = progress.watch(&bus) => Ok(()),
        }
    };
    progress.finish();
    let report =
        ended.and_then(|()| Ok(Report::read(bus.inspect(), begin.line, home.kept()).map_err(oncue::Error::from)?));
    if let Some(workers) = workers {
        workers.stop().await;
    }
    bus.shutdown_within(GRACE).await?;
    report
}

/// What starts a worker: this program, which knows by that that it is one.
fn worker(url: &str, failures: f64, seed: u64) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["demo", "orders", "--worker", "--transport", url]);
    command.args(["--gateway-failures", &failures.to_string(), "--seed", &seed.to_string()]);
    Ok(command)
}

/// How long handlers may go on after an interrupt.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How far back a line that comes again is a duplicate: as far as anybody interrupts and resumes a run.
const DUPLICATE_AGE: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
/// Most events for which that is so.
const DUPLICATE_IDS: usize = 1_000_000;

pub(super) async fn open(home: &Home, clock: &Clock) -> Result<Arc<dyn Transport>, OrdersError> {
    let directory = match home {
        Home::Directory(directory) => directory.as_path(),
        Home::Temporary(directory) => directory.path(),
        Home::Transport(url) => {
            let (url, clock) = (url.clone(), clock.clone());
            let opening = tokio::task::spawn_blocking(move || oncue_transports::open(&url, clock)).await;
            return opening.map_err(|_| OrdersError::Killed)?.map_err(OrdersError::Transport);
        }
    };
    let url = LogUrl::file(directory).dedup_window(DUPLICATE_AGE, DUPLICATE_IDS);
    let clock = clock.clone();
    let opening = tokio::task::spawn_blocking(move || LogTransport::open(&url, clock));
    match opening.await {
        Ok(Ok(transport)) => Ok(Arc::new(transport)),
        // With a cause, it is the operating system that refused.
        Ok(Err(error @ OpenError::Directory(_))) if error.source().is_some() => Err(OrdersError::Denied(error)),
        Ok(Err(error @ OpenError::Directory(_))) => Err(OrdersError::Data(error)),
        Ok(Err(error)) => Err(OrdersError::Oncue(error.into())),
        Err(_) => Err(OrdersError::Killed),
    }
}

/// How far earlier runs in this directory came. Refuses a log that is not of the order system, before anything is
/// written to it.
fn known(transport: &dyn Transport, home: &Home) -> Result<Places, OrdersError> {
    let foreign = |what: String| home.foreign(what);
    let subscriptions = transport.inspect().subscriptions();
    if let Some(other) = subscriptions.iter().find(|known| !HANDLERS.contains(&known.id.as_str())) {
        return Err(foreign(format!("its log has a handler `{}`", other.id)));
    }
    let places = transport.inspect().source(SOURCE).place;
    Places::parse(&places).map_err(|error| foreign(format!("its log says {places:?} of its input ({error})")))
}

fn tell(settings: &Settings, home: &Home, name: &str, places: &Places, progress: &Progress) {
    if let Input::Simulated { seed, events } = settings.input {
        progress.say(&format!("no --input: simulating {} events (seed {seed})", grouped(events)));
    }
    let place = match home {
        Home::Temporary(directory) => {
            let directory = directory.path().display();
            progress.say(&format!("no --data: running in {directory}, which is removed at the end"));
            return;
        }
        Home::Directory(directory) => directory.display().to_string(),
        Home::Transport(url) => oncue_transports::without_secrets(url),
    };
    match places.of(name) {
        Place { line: 0, .. } if places.inputs().next().is_some() => {
            let others: Vec<_> = places.inputs().collect();
            progress.say(&format!("{place} holds the events of {}; these are added to them", others.join(", ")));
        }
        Place { line: 0, .. } => {}
        Place { line, .. } => progress.say(&format!("{place}: going on after line {}", grouped(line))),
    }
}

pub(super) async fn start(app: App, gateway: Gateway) -> Result<Bus, oncue::Error> {
    app.state(gateway)
        .on(track_order)
        .on(detect_anomaly)
        .on(charge)
        .on(notify_customer.after(track_order).after(detect_anomaly))
        .on(daily_sales)
        .start()
        .await
}

/// Publishes what is read.
struct Feed<'a> {
    bus: &'a Bus,
    progress: &'a Progress,
    name: String,
    places: Places,
}

impl Feed<'_> {
    async fn run(
        mut self,
        mut batches: tokio::sync::mpsc::Receiver<std::io::Result<Batch>>,
        home: &Home,
    ) -> Result<(), OrdersError> {
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(|source| InputError::Read { input: self.name.clone(), source })?;
            let Batch { events, malformed, place, stopped_by } = batch;
            // Told before it is written: after a crash, twice rather than never.
            self.progress.malformed(&malformed);
            self.places.set(&self.name, place);
            let mark = SourceMark { id: SOURCE.to_owned(), place: self.places.to_text() };
            self.bus.publish_all(DEFAULT_TOPIC, events, Some(mark)).await?;
            tracing::debug!(line = place.line, "published");
            self.progress.published(place.line, place.bytes);
            if let Some(stopped_by) = stopped_by {
                return Err(OrdersError::Strict { malformed: stopped_by.to_string(), before: home.after_stop() });
            }
        }
        Ok(())
    }
}
