//! Rows 6a and 6b: opening a large log, and the memory that a large backlog takes. Each opening is a process of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use oncue::{App, Bus, Envelope, handler::HandlerExt as _};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Runtime, sync::Notify, task::JoinSet};

use crate::{
    events, load,
    measure::{Plan, Result, Sample, Stopwatch},
    raw,
    report::{Row, Target},
};

/// What 6a opens, and the data of each of its events.
const LOG_BYTES: u64 = 10 << 30;
const LOG_EVENT_BYTES: u64 = 1024;
/// What is written between two openings after a kill: the newest segment and the newest checkpoint are others each time.
const MORE_BYTES: u64 = 100 << 20;
/// What 6b leaves unsettled.
const BACKLOG: u64 = 10_000_000;
/// Events of one batch, and batches under way.
const BATCH: u64 = 500;
const BATCHES: usize = 8;
/// The keys of the events.
const KEYS: u64 = 5_000;

/// One process of these rows.
#[derive(Args, Clone)]
pub(crate) struct Part {
    /// What the process does with the log in `--log`.
    #[arg(long, hide = true, requires = "log")]
    part: Option<Role>,
    #[arg(long, hide = true)]
    log: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    count: u64,
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: u64,
    /// The handler never ends.
    #[arg(long, hide = true)]
    stalls: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Publishes `--count` events of `--bytes`, waits for them to be handled unless it stalls, and closes.
    Fill,
    /// The same, but tells when it is done, and goes on until it is killed.
    FillUntilKilled,
    /// Opens, tells what that took, and closes.
    Open,
}

/// What an opening took.
#[derive(Serialize, Deserialize)]
struct Opening {
    millis: f64,
    resident_bytes: u64,
    lag: u64,
}

impl Part {
    /// Plays its part, if it has one; whether it had.
    pub(crate) fn play(&self, runtime: &Runtime) -> Result<bool> {
        let (Some(role), Some(log)) = (self.part, &self.log) else { return Ok(false) };
        runtime.block_on(async {
            let (watch, called) = (Stopwatch::start(), Arc::new(Notify::new()));
            let bus = open(log, self.stalls.then_some(&called)).await?;
            let millis = watch.micros() / 1e3;
            match role {
                Role::Fill => self.fill(&bus).await?,
                Role::FillUntilKilled => {
                    self.fill(&bus).await?;
                    println!("filled");
                    loop {
                        self.fill(&bus).await?;
                    }
                }
                Role::Open => {
                    if self.stalls {
                        // As many events as the window takes are in memory when the first is handled.
                        called.notified().await;
                    }
                    let lag = bus.inspect().subscriptions().first().map_or(0, |known| known.lag);
                    let opening = Opening { millis, resident_bytes: resident()?, lag };
                    println!("{}", serde_json::to_string(&opening)?);
                }
            }
            if !self.stalls {
                bus.shutdown().await?;
            }
            Result::Ok(())
        })?;
        Ok(true)
    }

    async fn fill(&self, bus: &Bus) -> Result<()> {
        let mut publishing = JoinSet::new();
        for first in (0..self.count).step_by(usize::try_from(BATCH)?) {
            let batch = (first..self.count.min(first + BATCH)).map(|number| event(number, self.bytes));
            let (batch, bus) = (batch.collect::<Result<Vec<_>>>()?, bus.clone());
            if publishing.len() == BATCHES {
                publishing.join_next().await.transpose()?.transpose()?;
            }
            publishing.spawn(async move { bus.publish_all(events::TOPIC, batch, None).await.map(|_| ()) });
        }
        while let Some(ended) = publishing.join_next().await {
            ended??;
        }
        if !self.stalls {
            let last = bus.publish_to(events::TOPIC, events::one()?).await?;
            load::acked(&last).await?;
        }
        Ok(())
    }

    fn command(&self, role: Role) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = role.to_possible_value().ok_or("a part without a name")?.get_name().to_owned();
        command.args(["--part", &name]).arg("--log").args(self.log.as_deref());
        command.args(["--count", &self.count.to_string(), "--bytes", &self.bytes.to_string()]);
        command.args(self.stalls.then_some("--stalls")).stdout(Stdio::piped());
        Ok(command)
    }

    fn run(&self, role: Role) -> Result<String> {
        let output = self.command(role)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("a process of this row ended with {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn opening(&self) -> Result<Opening> {
        Ok(serde_json::from_str(&self.run(Role::Open)?)?)
    }

    /// Writes so much more, and is killed while it goes on.
    fn killed(&self) -> Result<()> {
        let mut child: Child = self.command(Role::FillUntilKilled)?.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        child.kill()?;
        child.wait()?;
        if line.trim() != "filled" { Err("a process of this row ended before it was killed".into()) } else { Ok(()) }
    }
}

/// With a handler that takes everything; one that never ends, and tells that it was called, if somebody waits for that.
async fn open(log: &Path, stalls: Option<&Arc<Notify>>) -> Result<Bus> {
    let app = App::open(&format!("file:{}", log.display())).await?;
    let handler = match stalls.map(Arc::clone) {
        Some(called) => {
            let stall = move |_: Envelope| {
                called.notify_one();
                std::future::pending::<()>()
            };
            stall.named(load::HANDLER)
        }
        None => (|_: &Envelope| {}).named(load::HANDLER).inline(),
    };
    Ok(app.on(handler.types([events::TYPE]).topic(events::TOPIC)).start().await?)
}

fn event(number: u64, bytes: u64) -> Result<Envelope> {
    let mut subject = String::new();
    write!(subject, "key-{}", number % KEYS)?;
    Ok(Envelope::builder(events::TYPE).subject(subject).data(vec![7; usize::try_from(bytes)?]).build()?)
}

/// The memory of this process that is in use.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// 6a: how long it takes until an app runs on a log of 10 GiB.
pub(crate) fn opening(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let at = directory.join("large");
    let fill = Part {
        part: None,
        log: Some(at.clone()),
        count: LOG_BYTES / LOG_EVENT_BYTES,
        bytes: LOG_EVENT_BYTES,
        stalls: false,
    };
    eprintln!("6a fills a log");
    fill.run(Role::Fill)?;
    let clean = plan.rounds("6a (clean)", || Ok(Sample { ours: fill.opening()?.millis, ..Sample::default() }))?;
    let more = Part { count: MORE_BYTES / LOG_EVENT_BYTES, ..fill };
    let killed = plan.rounds("6a (killed)", || {
        more.killed()?;
        Ok(Sample { ours: more.opening()?.millis, ..Sample::default() })
    })?;
    raw::remove(&at)?;
    let settings = format!(
        "A log of {} GiB, of events of {LOG_EVENT_BYTES} B of data that one subscription is through with; nothing is trimmed. \
         From `App::open` until `start` has returned, in a new process.",
        LOG_BYTES >> 30
    );
    let row = |case, target, settings, rounds| Row {
        id: "6a",
        case,
        what: "Opening a log of 10 GiB",
        against: "",
        unit: "ms",
        target: Target { less: true, ..Target::default() }.absolute(target),
        settings,
        rounds,
    };
    let again = format!(
        "{settings} Killed (SIGKILL) while it published, {} MiB and more after the opening before.",
        MORE_BYTES >> 20
    );
    Ok(vec![row("after a clean stop", 100.0, settings, clean), row("after kill -9", 500.0, again, killed)])
}

/// 6b: the memory of an app whose only subscription is ten million events behind.
pub(crate) fn backlog(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let at = directory.join("backlog");
    let (count, bytes) = (BACKLOG, events::DATA_BYTES as u64);
    let fill = Part { part: None, log: Some(at.clone()), count, bytes, stalls: true };
    eprintln!("6b fills a log");
    fill.run(Role::Fill)?;
    let rounds = plan.rounds("6b", || {
        let opening = fill.opening()?;
        if opening.lag < BACKLOG {
            return Err(format!("{} events wait, not {BACKLOG}", opening.lag).into());
        }
        Ok(Sample { ours: opening.resident_bytes as f64 / f64::from(1 << 20), ..Sample::default() })
    })?;
    raw::remove(&at)?;
    let settings = format!(
        "{}, {BACKLOG} of them published and not settled: the handler never ends. Resident memory (VmRSS) of a new process \
         once its app has started and its handler was called.",
        events::PAYLOAD
    );
    let target = Target { less: true, ..Target::default() }.absolute(48.0);
    Ok(vec![Row {
        id: "6b",
        case: "",
        what: "Memory with a backlog",
        against: "",
        unit: "MiB",
        target,
        settings,
        rounds,
    }])
}
