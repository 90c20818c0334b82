//! Publishes many events to subscriptions one of which stalls, and measures what that costs the others and the memory:
//!
//! ```text
//! cargo run --release -p oncue-server --example stalled -- memory: file: --events 1000000
//! ```
//!
//! Each measurement is a process of its own: a run without the stalled subscription and one with it, in turn. It fails
//! (exit code 1) where
//!
//! - the resident memory grows with the backlog, between the middle and the end of a run, by more than it grows without
//!   one: on `file:` by more than a tenth of the bytes published meanwhile, or 4 MiB if that is more; on `memory:`, where
//!   the backlog itself is in memory, by more than three times those bytes;
//! - the healthy subscriptions handle less than `--ratio` (0.8) of what they handle alone, by the medians.
//!
//! Options: `--events N` (1,000,000), `--bytes N` of payload (256), `--healthy N` subscriptions (2), `--rounds N` (3),
//! `--ratio R`, `--json`. Linux only: memory is read from `/proc`.

use std::{
    env,
    error::Error,
    fs,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncue::{App, Clock, Envelope, event::DEFAULT_TOPIC, handler::HandlerExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Makes this program be what is measured.
const AS_RUN: &str = "--as-run";
/// Events that are published at once, and batches that are under way at once.
const BATCH: u64 = 500;
const BATCHES: usize = 8;
/// The type of the events, and how many keys they have.
const TYPE: &str = "tick";
const KEYS: u64 = 5_000;
/// How often memory is looked at in a run.
const SAMPLES: u64 = 40;
/// Growth that says nothing: caches that fill, and the allocator.
const NOISE_BYTES: u64 = 4 << 20;

/// What is asked for.
#[derive(Serialize, Deserialize, Clone)]
struct Load {
    urls: Vec<String>,
    events: u64,
    bytes: u64,
    healthy: u32,
    rounds: u32,
    ratio: f64,
    json: bool,
    /// Whether one more subscription stalls: for one run.
    stalled: bool,
}

/// What one run measured.
#[derive(Serialize, Deserialize, Clone)]
struct Measured {
    /// From the first publishing until the last healthy subscription was through.
    seconds: f64,
    /// Resident memory, the highest so far, when half and when all was published and handled.
    middle_bytes: u64,
    peak_bytes: u64,
    /// What the stalled subscription has not settled at the end.
    backlog: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [first, load] if first == AS_RUN => as_run(load).map(|()| true),
        _ => Load::of(&arguments).and_then(|load| compare(&load)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stalled: {error}");
            ExitCode::from(2)
        }
    }
}

impl Load {
    fn of(arguments: &[String]) -> Result<Self> {
        let (urls, events, bytes, healthy) = (Vec::new(), 1_000_000, 256, 2);
        let mut load = Self { urls, events, bytes, healthy, rounds: 3, ratio: 0.8, json: false, stalled: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a number"));
            match argument.as_str() {
                "--events" => load.events = value()?.parse()?,
                "--bytes" => load.bytes = value()?.parse()?,
                "--healthy" => load.healthy = value()?.parse()?,
                "--rounds" => load.rounds = value()?.parse()?,
                "--ratio" => load.ratio = value()?.parse()?,
                "--json" => load.json = true,
                option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
                url => load.urls.push(url.to_owned()),
            }
        }
        if load.urls.is_empty() {
            load.urls = vec!["memory:".to_owned(), "file:".to_owned()];
        }
        if load.events < 2 * BATCH || load.healthy == 0 || load.rounds == 0 {
            return Err(format!("at least {} events, one healthy subscription and one round", 2 * BATCH).into());
        }
        Ok(load)
    }

    /// The command that asks for the same.
    fn repeat(&self) -> String {
        let Self { urls, events, bytes, healthy, rounds, ratio, .. } = self;
        let urls = urls.join(" ");
        format!(
            "cargo xtask soak memory {urls} --events {events} --bytes {bytes} --healthy {healthy} --rounds {rounds} \
             --ratio {ratio}"
        )
    }
}

/// Whether everything is within its bounds.
fn compare(load: &Load) -> Result<bool> {
    let mut told = serde_json::Map::new();
    let mut problems = Vec::new();
    for url in &load.urls {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for round in 1..=load.rounds {
            for (stalled, runs) in [(false, &mut alone), (true, &mut beside)] {
                let measured = in_a_process(url, load, stalled)?;
                let (rate, peak) = (load.events as f64 / measured.seconds, mebibytes(measured.peak_bytes));
                let how = if stalled { "beside a stalled one" } else { "alone" };
                eprintln!("{url} round {round} of {}, {how}: {rate:.0} events/s, peak {peak:.1} MiB", load.rounds);
                runs.push(measured);
            }
        }
        let (alone_rate, beside_rate) = (median_rate(load, &alone), median_rate(load, &beside));
        let ratio = beside_rate / alone_rate;
        let peak = beside.iter().map(|run| run.peak_bytes).max().unwrap_or_default();
        // What grows without a backlog as well is not the backlog: caches, and buffers that are not full at first.
        let grown =
            |runs: &[Measured]| runs.iter().map(|run| run.peak_bytes - run.middle_bytes).min().unwrap_or_default();
        let growth = grown(&beside).saturating_sub(grown(&alone));
        let published = load.events * load.bytes / 2;
        let allowed = if url.starts_with("memory:") { published * 3 } else { (published / 10).max(NOISE_BYTES) };
        let backlog = beside.iter().map(|run| run.backlog).min().unwrap_or_default();
        if ratio < load.ratio {
            problems.push(format!("{url}: {ratio:.2} of the events a second, {} is the least", load.ratio));
        }
        if growth > allowed {
            let (growth, allowed) = (mebibytes(growth), mebibytes(allowed));
            problems
                .push(format!("{url}: the backlog took {growth:.1} MiB in the second half, {allowed:.1} is the most"));
        }
        let about = json!({
            "events": load.events, "bytes": load.bytes, "healthy": load.healthy, "rounds": load.rounds,
            "backlog": backlog, "peak_bytes": peak, "growth_bytes": growth, "allowed_growth_bytes": allowed,
            "alone_per_s": alone_rate, "beside_per_s": beside_rate, "ratio": ratio, "least_ratio": load.ratio,
        });
        told.insert(url.clone(), about);
        if !load.json {
            println!(
                "{url:8} {} events of {} B, {backlog} of them waiting for the stalled subscription: peak {:.1} MiB resident \
                 ({:.1} MiB more in the second half, {:.1} allowed); {} healthy: {beside_rate:.0} events/s beside it, \
                 {alone_rate:.0} without it, ratio {ratio:.2}",
                load.events,
                load.bytes,
                mebibytes(peak),
                mebibytes(growth),
                mebibytes(allowed),
                load.healthy
            );
        }
    }
    if load.json {
        println!("{:#}", json!({ "holds": problems.is_empty(), "problems": problems, "transports": told }));
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        eprintln!("repeat it with: {}", load.repeat());
    }
    Ok(problems.is_empty())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn median_rate(load: &Load, runs: &[Measured]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| load.events as f64 / run.seconds).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn in_a_process(url: &str, load: &Load, stalled: bool) -> Result<Measured> {
    let directory = tempfile::tempdir()?;
    // `file:` is a directory that goes with this; with options as they are.
    let url = match url.strip_prefix("file:") {
        Some(rest) if rest.is_empty() || rest.starts_with('?') => format!("file:{}{rest}", directory.path().display()),
        _ => url.to_owned(),
    };
    let load = Load { urls: vec![url], stalled, ..load.clone() };
    let output = Command::new(env::current_exe()?).arg(AS_RUN).arg(serde_json::to_string(&load)?).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One run, in this process.
fn as_run(load: &str) -> Result<()> {
    let load: Load = serde_json::from_str(load)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(run(&load))?;
    println!("{}", serde_json::to_string(&measured)?);
    // The stalled handler never ends.
    runtime.shutdown_background();
    Ok(())
}

async fn run(load: &Load) -> Result<Measured> {
    let mut app = App::open(&load.urls[0]).await?;
    let (all, handled) = (load.events * u64::from(load.healthy), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(Notify::new());
    for number in 0..load.healthy {
        let (handled, done) = (Arc::clone(&handled), Arc::clone(&done));
        let handle = move |_: &Envelope| {
            if handled.fetch_add(1, Ordering::Relaxed) + 1 == all {
                done.notify_one();
            }
        };
        app = app.on(handle.named(format!("healthy-{number}")).types([TYPE]).inline());
    }
    if load.stalled {
        let stalls = (|_: Envelope| std::future::pending::<()>()).named("stalled");
        app = app.on(stalls.types([TYPE]).concurrency(4));
    }
    let bus = app.start().await?;
    let clock = Clock::system();
    let begun = clock.monotonic();
    let (mut middle_bytes, mut peak_bytes) = (0, 0);
    let every = load.events.div_ceil(SAMPLES).max(BATCH);
    let mut publishing = tokio::task::JoinSet::new();
    for first in (0..load.events).step_by(usize::try_from(BATCH)?) {
        let batch = (first..load.events.min(first + BATCH)).map(|number| event(number, load.bytes));
        let (batch, bus) = (batch.collect::<Result<Vec<_>>>()?, bus.clone());
        if publishing.len() == BATCHES {
            publishing.join_next().await.transpose()?.transpose()?;
        }
        publishing.spawn(async move { bus.publish_all(DEFAULT_TOPIC, batch, None).await.map(|_| ()) });
        if first % every < BATCH {
            peak_bytes = peak_bytes.max(resident()?);
            if first < load.events / 2 {
                middle_bytes = peak_bytes;
            }
        }
    }
    while let Some(ended) = publishing.join_next().await {
        ended??;
    }
    loop {
        tokio::select! {
            () = done.notified() => break,
            // A handler that stopped would leave this waiting for ever.
            () = clock.sleep(Duration::from_millis(100)) => bus.check()?,
        }
    }
    let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
    peak_bytes = peak_bytes.max(resident()?);
    let backlog = bus.inspect().subscriptions().iter().find(|known| known.id == "stalled").map_or(0, |known| known.lag);
    Ok(Measured { seconds, middle_bytes, peak_bytes, backlog })
}

fn event(number: u64, bytes: u64) -> Result<Envelope> {
    let data = vec![b'x'; usize::try_from(bytes)?];
    Ok(Envelope::builder(TYPE).subject(format!("key-{}", number % KEYS)).data(data).build()?)
}

/// The memory of this process that is in use.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
