//! `oncue conformance`: whether transports keep the delivery contract.

#[cfg(feature = "wire")]
mod node;

#[cfg(feature = "wire")]
use std::sync::Arc;
use std::{
    collections::HashSet,
    env, fs,
    io::{self, IsTerminal as _},
    ops::RangeInclusive,
    panic,
    path::PathBuf,
    process, thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use oncue::{
    Clock,
    transport::{LogUrl, OpenError},
};
use oncue_conformance::{
    CATALOGUE, CATALOGUE_LEN, Entry, Failure, Filter, Opened, Report, Reports, Suite, Urls, Verdict,
    worker::{self, Task},
};
#[cfg(feature = "wire")]
use parking_lot::Mutex;
use tempfile::TempDir;
use thiserror::Error;
use tokio::task::JoinError;

use crate::cli::{CommandError, interrupt::interrupted, print};

/// What is tested if nothing is named.
const DEFAULT_URLS: [&str; 2] = ["memory:", "file:"];
/// How long a case may take on a broker: one that syncs each message takes a thousand in half a second.
const BROKER_DEADLINE: Duration = Duration::from_secs(60);
/// The thread that runs no case.
const MAIN_THREAD: &str = "main";
/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Test whether transports keep the delivery contract, case by case
///
/// Each case is a promise of docs/delivery.md put to the test: order per key, nothing lost in a crash, retries on schedule,
/// and so on. A case that a transport cannot meet is skipped with the reason; nothing passes by not being tested.
///
/// The table is printed as the cases end: number, result, time, the clauses of the contract, what the case is about.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue conformance\n  \
                        oncue conformance file: --case 15 --case 43\n  \
                        oncue conformance memory: --case 9,13,36-38 --tier full\n  \
                        oncue conformance file:/mnt/disk --json > report.json\n  \
                        oncue conformance http: zmq:\n\n\
                        Exit codes: 0 no case failed; 1 one failed, or the run was interrupted; 2 a URL or a case is \
                        unknown, the directory cannot be used, or what a URL names cannot be reached.")]
pub(super) struct Conformance {
    /// Transports: `memory:`, `file:` (a temporary directory), `file:DIR` (subdirectories of DIR, removed afterwards unless
    /// a case failed), `http:` and `zmq:` (a node that is started, killed and started again), `http://HOST:PORT`, `https://HOST:PORT`
    /// and `zmq://HOST:PORT` (a node that runs, with `oncue serve --logs`; logs whose names begin with `conformance-`, which stay
    /// there), `amqp://HOST:PORT`, `kafka://HOST:PORT` and `nats://HOST:PORT` (streams whose names begin with `conf-`). Options go
    /// behind a `?`, as in `file:?durability=os`. Without any: `memory:` and `file:`
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// Sizes: `fast` takes seconds, `full` those of the catalogue, minutes
    #[arg(long, value_enum, default_value_t = Tier::Fast)]
    tier: Tier,

    /// Cases to run, such as `3`, `3,7` or `10-20`; may be given several times. Without it, all
    #[arg(long = "case", value_name = "N", value_delimiter = ',', value_parser = cases)]
    cases: Vec<Cases>,

    /// What random choices follow from, to repeat a run whose report names it. Without it, a new one each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print one JSON object: `{"file:": {"1": {"result": "passed", "reason": "", "seconds": 0.012}, …}}`
    #[arg(long)]
    json: bool,
}

/// What `oncue conformance` starts as another process
#[derive(Debug, Args)]
pub(super) struct Worker {
    /// Where it publishes and handles
    url: String,

    /// What it does there
    #[arg(value_parser = task)]
    task: Task,
}

fn task(text: &str) -> Result<Task, String> {
    text.parse().map_err(|failure: Failure| failure.to_string())
}

/// The name of the subcommand that is a [`Worker`].
pub(super) const WORKER: &str = "conformance-worker";

impl Worker {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let runtime = tokio::runtime::Runtime::new().map_err(CommandError::Runtime)?;
        let (url, clock) = (self.url, Clock::system());
        let opening = clock.clone();
        let ended = runtime.block_on(async {
            let opened = tokio::task::spawn_blocking(move || oncue_transports::open(&url, opening)).await??;
            worker::run(opened, clock, self.task).await
        });
        ended.map_err(|failure| ConformanceError::Worker(failure).into())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tier {
    Fast,
    Full,
}

/// Numbers of cases in a row.
#[derive(Clone, Debug)]
struct Cases(RangeInclusive<u8>);

fn cases(text: &str) -> Result<Cases, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.trim().parse::<u8>().ok().filter(|number| (1..=CATALOGUE_LEN).contains(&(*number).into()));
    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    let range = range.map(|(first, last)| Cases(first..=last));
    range.ok_or_else(|| format!("cases are numbers from 1 to {CATALOGUE_LEN}, such as `3`, `3,7` or `10-20`"))
}

/// Why the suite came to no good end.
#[derive(Debug, Error)]
pub(super) enum ConformanceError {
    /// A URL names no transport.
    #[error(transparent)]
    Url(#[from] OpenError),
    /// There is no directory to work in.
    #[error("cannot make a directory in {}: {source}; name another with `file:DIR`", directory.display())]
    Directory {
        /// Where.
        directory: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// No node to test.
    #[cfg(feature = "wire")]
    #[error("cannot start a node: {0}")]
    Node(io::Error),
    /// Cases failed.
    #[error("{count} of the cases failed{kept}")]
    Failed {
        /// How many.
        count: usize,
        /// What was left to look at, in words.
        kept: String,
    },
    /// Another process failed.
    #[error("{0}")]
    Worker(Failure),
    /// The program stops.
    #[error("cannot wait for an answer: {0}")]
    Stopped(JoinError),
    /// This program is not found, so that it cannot be started again as a second process.
    #[error("cannot find the program that runs this, which cases 33 and 40 start again: {0}")]
    Program(io::Error),
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl ConformanceError {
    /// Whether the cause is what was asked for.
    pub(super) fn is_callers(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Directory { .. })
    }
}

impl Conformance {
    pub(super) fn run(self) -> Result<(), CommandError> {
        quiet_panics();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)?;
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = self.run_all() => ended,
                () = interrupted() => Err(ConformanceError::Interrupted.into()),
            }
        });
        // Not dropped: that would wait for what an interrupted case does.
        runtime.shutdown_background();
        ended
    }

    async fn run_all(self) -> Result<(), CommandError> {
        let mut urls = if self.urls.is_empty() { DEFAULT_URLS.map(str::to_owned).to_vec() } else { self.urls };
        // Reports go by URL.
        let mut known = HashSet::new();
        urls.retain(|url| known.insert(url.clone()));
        // All of them, before the first is tested.
        let places = urls.iter().map(|url| Place::of(url)).collect::<Result<Vec<_>, _>>()?;
        for place in &places {
            place.reach().await?;
        }
        let numbers = self.cases.iter().flat_map(|cases| cases.0.clone());
        let filter = if self.cases.is_empty() { Filter::all() } else { Filter::only(numbers) };
        let tier = match self.tier {
            Tier::Fast => oncue_conformance::Tier::Fast,
            Tier::Full => oncue_conformance::Tier::Full,
        };
        let mut reports = Vec::new();
        let mut kept = String::new();
        for (url, place) in urls.iter().zip(places) {
            let teller =
                Teller { filter: filter.clone(), bar: bar(&oncue_transports::without_secrets(url)), table: !self.json };
            teller.say(&oncue_transports::without_secrets(url));
            let observer = teller.clone();
            let mut suite = place.suite(url)?.observe(move |entry| observer.ended(entry));
            if let Some(seed) = self.seed {
                suite = suite.seed(seed);
            }
            let report = suite.run(&filter, tier).await;
            teller.finish(&report);
            kept += &place.leave(report.failures().count() > 0);
            reports.push(report);
        }
        if self.json {
            print(&(Reports(&reports).to_json() + "\n"))?;
        }
        match reports.iter().map(|report| report.failures().count()).sum() {
            0 => Ok(()),
            count => Err(ConformanceError::Failed { count, kept }.into()),
        }
    }
}

/// Handlers of the suite panic on purpose, and what a panic breaks is in the report: nothing to print a backtrace for.
fn quiet_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name() == Some(MAIN_THREAD) {
            usual(panic);
        }
    }));
}

fn directory_in(directory: PathBuf) -> Result<TempDir, ConformanceError> {
    let made = fs::create_dir_all(&directory);
    let made = made.and_then(|()| tempfile::Builder::new().prefix("oncue-conformance-").tempdir_in(&directory));
    made.map_err(|source| ConformanceError::Directory { directory, source })
}

/// Where a transport is tested.
enum Place {
    /// In memory, with the options of the URL.
    Memory(String),
    /// On a node: one of its own, or the one at a URL.
    #[cfg(feature = "wire")]
    Node { beginning: String, options: String, served: Option<Arc<Mutex<node::Served>>> },
    /// On a broker, under this beginning of names, which differs from run to run.
    Broker { url: String, prefix: String },
    /// In a directory of its own, removed with this; with the options of the URL.
    Directory { directory: TempDir, options: String, is_callers: bool },
}

impl Place {
    fn of(url: &str) -> Result<Self, ConformanceError> {
        let run = Clock::system().now().as_micros();
        #[cfg(feature = "wire")]
        if ["http:", "zmq:"].contains(&url) {
            let directory = directory_in(env::temp_dir())?;
            let program = env::current_exe().map_err(ConformanceError::Program)?;
            let listen = format!("{url}//127.0.0.1:0");
            let served = node::Served::start(program, directory, &listen).map_err(ConformanceError::Node)?;
            let beginning = format!("{}/", served.url());
            return Ok(Self::Node { beginning, options: String::new(), served: Some(Arc::new(Mutex::new(served))) });
        }
        #[cfg(feature = "wire")]
        if ["http://", "https://", "zmq://"].iter().any(|scheme| url.starts_with(scheme)) {
            let (node, options) = url.split_at(url.find('?').unwrap_or(url.len()));
            let beginning = format!("{}/conformance-{run}-", node.trim_end_matches('/'));
            return Ok(Self::Node { beginning, options: options.to_owned(), served: None });
        }
        if oncue_transports::is_broker(url) {
            // Brokers' names are short.
            let prefix = format!("conf-{run:x}");
            return Ok(Self::Broker { url: url.to_owned(), prefix });
        }
        let (path, options) = url.split_at(url.find('?').unwrap_or(url.len()));
        let parent = match path.strip_prefix("file:") {
            Some("") => None,
            Some(path) => Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
            None => {
                // An unknown scheme is refused here, and so are the options of a known one.
                url.parse::<LogUrl>()?;
                return Ok(Self::Memory(options.to_owned()));
            }
        };
        format!("file:x{options}").parse::<LogUrl>()?;
        let is_callers = parent.is_some();
        let directory = directory_in(parent.unwrap_or_else(env::temp_dir))?;
        Ok(Self::Directory { directory, options: options.to_owned(), is_callers })
    }

    /// Opens what somebody else runs, once: one refusal says more than every case failing for it.
    async fn reach(&self) -> Result<(), ConformanceError> {
        let url = match self {
            #[cfg(feature = "wire")]
            Self::Node { beginning, options, served: None } => format!("{beginning}reach{options}"),
            Self::Broker { url, prefix } => place_on_broker(url, prefix, "reach"),
            _ => return Ok(()),
        };
        let opening = tokio::task::spawn_blocking(move || oncue_transports::open(&url, Clock::system()));
        let opened = opening.await.map_err(ConformanceError::Stopped)??;
        // It was only to answer.
        opened.close().await.ok();
        Ok(())
    }

    /// Tests this, with instances that share subscriptions; in a directory also with other processes.
    fn suite(&self, name: &str) -> Result<Suite, ConformanceError> {
        let url_of = match self {
            Self::Memory(options) => return Ok(Suite::new(name, Urls::memory().options(options)).instances(true)),
            Self::Directory { directory, options, .. } => {
                let urls = Urls::file(directory.path()).options(options);
                return Self::with_worker(Suite::new(name, urls.clone()), move |place| urls.of(place));
            }
            #[cfg(feature = "wire")]
            Self::Node { beginning, options, served } => {
                let urls =
                    node::Logs { beginning: beginning.clone(), options: options.clone(), served: served.clone() };
                let name = oncue_transports::without_secrets(name);
                let suite = Suite::new(name, urls.clone()).deadline(BROKER_DEADLINE);
                return Self::with_worker(suite, move |place| urls.of(place));
            }
            Self::Broker { url, prefix } => {
                let (url, prefix) = (url.clone(), prefix.clone());
                move |place: &str| place_on_broker(&url, &prefix, place)
            }
        };
        let opening = url_of.clone();
        let opened = move |place: String, clock| {
            let url = opening(&place);
            async move { open(url, clock).await }
        };
        let suite = Suite::new(oncue_transports::without_secrets(name), opened).deadline(BROKER_DEADLINE);
        Self::with_worker(suite, url_of)
    }

    fn with_worker(
        suite: Suite,
        url_of: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Suite, ConformanceError> {
        let program = env::current_exe().map_err(ConformanceError::Program)?;
        Ok(suite.instances(true).worker(move |place| {
            let mut command = process::Command::new(&program);
            command.arg(WORKER).arg(url_of(place));
            command
        }))
    }

    /// Removes what was written, or says where it is: what a failed case left in the caller's directory is worth a look.
    fn leave(self, has_failed: bool) -> String {
        match self {
            Self::Directory { directory, is_callers: true, .. } if has_failed => {
                format!("; what they left is in {}", directory.keep().display())
            }
            _ => String::new(),
        }
    }
}

fn place_on_broker(url: &str, prefix: &str, place: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}prefix={prefix}-{place}")
}

/// Connecting waits for answers: off the runtime's threads.
async fn open(url: String, clock: Clock) -> Opened {
    Ok(tokio::task::spawn_blocking(move || oncue_transports::open(&url, clock)).await??)
}

/// Tells how far a suite is: the table on stdout, a bar on stderr if that is a terminal.
#[derive(Clone)]
struct Teller {
    filter: Filter,
    bar: Option<ProgressBar>,
    table: bool,
}

impl Teller {
    fn say(&self, line: &str) {
        let say = || {
            // Whoever reads this may have left; what follows says so where it matters.
            print(&format!("{line}\n")).ok();
        };
        match &self.bar {
            _ if !self.table => {}
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn ended(&self, entry: &Entry) {
        if self.filter.takes(entry.case) {
            self.say(&entry.to_string());
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
            let next = CATALOGUE[usize::from(entry.case.number)..].iter().find(|case| self.filter.takes(case));
            bar.set_message(next.map_or(String::new(), |case| format!("case {}: {}", case.number, case.name)));
        }
    }

    fn finish(&self, report: &Report) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let asked: Vec<_> = report.entries.iter().filter(|entry| self.filter.takes(entry.case)).collect();
        let count = |verdict| asked.iter().filter(|entry| entry.verdict == verdict).count();
        let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
        self.say(&format!("{passed} passed, {failed} failed, {skipped} skipped\n"));
    }
}

fn bar(url: &str) -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {prefix} {pos}/{len}  {msg}  {elapsed}");
        let bar = ProgressBar::new(CATALOGUE_LEN as u64).with_prefix(url.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(BAR_EVERY);
        bar
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_single_numbers_and_ranges() {
        let numbers = |text: &str| cases(text).ok().map(|cases| cases.0.collect::<Vec<_>>());
        assert_eq!(numbers("3"), Some(vec![3]));
        assert_eq!(numbers("10-12"), Some(vec![10, 11, 12]));
        for wrong in ["0", "47", "5-3", "3-", "x", "", "1-99", "300"] {
            assert_eq!(numbers(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls_are_checked_before_anything_runs() {
        let refused = |url: &str| Place::of(url).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused("carrier://pigeon").contains("no transport `carrier`"), "{}", refused("carrier://pigeon"));
        assert!(refused("file:?colour=red").contains("unknown option `colour`"));
        assert!(refused("nonsense").contains("no scheme"));
        assert!(matches!(Place::of("memory:"), Ok(Place::Memory(_))));
        assert!(matches!(Place::of("file:?durability=os"), Ok(Place::Directory { is_callers: false, .. })));
    }
}
