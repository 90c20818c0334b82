//! Real brokers on this machine, for tests: installed, started on loopback, and stopped again. No containers.
//!
//! Everything is in `target/brokers`: `install/` what registries gave, a folder per broker with its data, its log
//! (`out.log`) and its processes (`pids`), and `urls.json`, where tests find what runs.

mod install;
mod kafka;
mod nats;
mod process;
mod rabbitmq;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};

use self::process::Running;
use crate::step::{Failed, poll, root, timed};

/// Longest time that a broker may take from its start until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What runs, for tests: names to URLs.
const URLS: &str = "urls.json";

/// Start and stop the brokers that the transports are tested against.
#[derive(Subcommand)]
pub(crate) enum Brokers {
    /// Install what is missing, start, wait until they answer, print their URLs
    ///
    /// One that runs already is left alone. Needs python3 with venv (NATS), java and mvn (Kafka), apt-get and its rights
    /// (`RabbitMQ`). Tests read the URLs from target/brokers/urls.json.
    Up(Up),
    /// Stop what `up` started in this folder, by process id
    Down,
}

#[derive(Args)]
pub(crate) struct Up {
    /// Which; all without any
    #[arg(value_enum)]
    brokers: Vec<Broker>,

    /// Go on with the data of the last time
    #[arg(long)]
    keep: bool,
}

/// A broker that we know how to get and start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broker {
    Kafka,
    Rabbitmq,
    Nats,
}

/// What starting a broker gives: what was started, and whether it answers.
struct Started {
    processes: Vec<Running>,
    url: String,
    answers: Box<dyn Fn() -> bool>,
}

impl Brokers {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self {
            Self::Down => down(),
            Self::Up(Up { brokers, keep }) => {
                let wanted = if brokers.is_empty() { Broker::value_variants() } else { &brokers };
                for broker in wanted {
                    println!("{} {}", broker.name(), broker.up(keep)?);
                }
                Ok(())
            }
        }
    }
}

/// Features of what is tested that the default build leaves out: they need more than a C compiler, and are left out here,
/// too, where that is missing, with the reason printed; where `CI=true`, that is a failure.
pub(crate) fn features() -> Result<&'static [&'static str], Failed> {
    if let Some(program) = missing_for_kafka() {
        let reason = format!("no `{program}` to build its client by (Debian: apt-get install build-essential)");
        return left_out(Broker::Kafka.name(), failed(reason)).map(|()| -> &[&str] { &[] });
    }
    let found = Command::new("pkg-config").args(["--exists", "openssl"]).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(&["--features", "oncue-server/kafka-tls"]);
    }
    let reason = "no development files of OpenSSL, or no pkg-config (Debian: apt-get install libssl-dev pkg-config)";
    let without: &[&str] = &["--features", "oncue-server/kafka"];
    left_out("encryption for kafka", failed(reason)).map(|()| without)
}

/// What the client of Kafka is built by and is not here.
pub(crate) fn missing_for_kafka() -> Option<&'static str> {
    ["make", "c++"].into_iter().find(|program| !install::is_there(program))
}

/// What is left out is said; where `CI=true`, it is a failure.
fn left_out(what: &str, failed: Failed) -> Result<(), Failed> {
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(failed);
    }
    println!("skipped: what needs {what}: {failed}");
    Ok(())
}

/// Starts brokers for a run of tests; one that cannot be had is left out with the reason printed, or is a failure where
/// `CI=true`. Gives those that were started here, to be stopped again.
pub(crate) fn for_tests(wanted: &[Broker]) -> Result<Vec<Broker>, Failed> {
    let mut started = Vec::new();
    for broker in wanted.iter().filter(|broker| !broker.is_up()) {
        match broker.up(false) {
            Ok(_) => started.push(*broker),
            Err(failed) => left_out(broker.name(), failed)?,
        }
    }
    Ok(started)
}

/// Stops everything that `up` started.
fn down() -> Result<(), Failed> {
    for broker in Broker::value_variants() {
        broker.down()?;
    }
    Ok(())
}

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
            Self::Nats => "nats",
        }
    }

    /// Where its data, its log and the ids of its processes are.
    fn folder(self) -> PathBuf {
        folder().join(self.name())
    }

    fn pids(self) -> PathBuf {
        self.folder().join("pids")
    }

    fn is_up(self) -> bool {
        let processes = Running::read(&self.pids());
        !processes.is_empty() && processes.iter().all(Running::is_alive)
    }

    /// Its URL, once it answers.
    fn up(self, keep: bool) -> Result<String, Failed> {
        if self.is_up()
            && let Some(url) = urls().remove(self.name())
        {
            return Ok(url);
        }
        self.down()?;
        timed(&format!("{}: install", self.name()), || self.install())?;
        timed(&format!("{}: start", self.name()), || self.start_afresh(keep))
    }

    fn install(self) -> Result<(), Failed> {
        match self {
            Self::Kafka => kafka::install(),
            Self::Rabbitmq => rabbitmq::install(),
            Self::Nats => nats::install(),
        }
    }

    fn start_afresh(self, keep: bool) -> Result<String, Failed> {
        let (folder, data) = (self.folder(), self.folder().join("data"));
        if !keep && data.exists() {
            fs::remove_dir_all(&data).map_err(|error| failed(format!("{}: {error}", data.display())))?;
        }
        fs::create_dir_all(&data).map_err(|error| failed(format!("{}: {error}", data.display())))?;
        let Started { processes, url, answers } = match self {
            Self::Kafka => kafka::start(&folder, &data)?,
            Self::Rabbitmq => rabbitmq::start(&folder, &data)?,
            Self::Nats => nats::start(&folder, &data)?,
        };
        // Written before it is waited for: what does not get ready is stopped all the same.
        write(&self.pids(), &Running::written(&processes))?;
        let mut ended = false;
        let ready = poll(READY_WITHIN, || {
            ended = !processes.iter().all(Running::is_alive);
            ended || answers()
        });
        if ended || !ready {
            self.down()?;
            let what = if ended { "ended by itself" } else { "did not answer in time" };
            return Err(failed(format!("{} {what}; the end of its log:\n{}", self.name(), tail(&folder))));
        }
        remember(self, Some(&url))?;
        Ok(url)
    }

    pub(crate) fn down(self) -> Result<(), Failed> {
        for process in Running::read(&self.pids()).iter().rev() {
            process.stop()?;
        }
        if self.pids().exists() {
            fs::remove_file(self.pids()).map_err(|error| failed(format!("{}: {error}", self.pids().display())))?;
        }
        remember(self, None)
    }
}

/// Where everything about brokers is.
fn folder() -> PathBuf {
    root().join("target/brokers")
}

fn failed(what: impl Into<String>) -> Failed {
    Failed::new(what, "cargo xtask brokers up")
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|error| failed(format!("{}: {error}", path.display())))
}

/// What runs, by name.
fn urls() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join(URLS)).unwrap_or_default();
    let known: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let pairs = known.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
    pairs.filter_map(|(name, url)| Some((name.clone(), url.as_str()?.to_owned()))).collect()
}

fn remember(broker: Broker, url: Option<&str>) -> Result<(), Failed> {
    let mut known = urls();
    match url {
        Some(url) => drop(known.insert(broker.name().to_owned(), url.to_owned())),
        None if known.remove(broker.name()).is_none() => return Ok(()),
        None => {}
    }
    let map = known.into_iter().map(|(name, url)| (name, url.into())).collect::<serde_json::Map<_, _>>();
    write(&folder().join(URLS), &format!("{:#}\n", serde_json::Value::Object(map)))
}

/// The last lines that a broker wrote.
fn tail(folder: &Path) -> String {
    let text = fs::read(folder.join("out.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
