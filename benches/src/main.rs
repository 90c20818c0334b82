//! Both sides of every performance claim, in one run: `cargo xtask bench [IDS…]`.

#[cfg(feature = "brokers")]
mod brokers;
mod callgrind;
mod counts;
mod dispatch;
mod durable;
mod events;
mod fanout;
mod filters;
mod handoff;
mod load;
mod machine;
mod measure;
mod pipeline;
mod producers;
mod raw;
mod report;
#[cfg(feature = "rivals")]
mod rivals;
mod running;
mod solver;
mod space;
mod walk;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    machine::Machine,
    measure::{Plan, Result},
    report::Row,
};

/// Every row that this build has, in order.
fn ids() -> Vec<&'static str> {
    let mut ids = vec!["1a", "1b", "1c", "2a", "2b", "2c", "2d", "2e", "3a", "3b", "3c"];
    if cfg!(feature = "brokers") {
        ids.extend(["5", "5s"]);
    }
    ids.extend(["6a", "6b", "7a", "7b", "7c", "9"]);
    if cfg!(feature = "rivals") {
        ids.extend(["10a", "10b", "10c", "11"]);
    }
    if cfg!(feature = "broker-rivals") {
        ids.push("12");
    }
    ids
}

#[derive(Parser)]
#[command(name = "oncue-benches", about = "Both sides of every performance claim, in one run")]
struct Arguments {
    /// The rows to measure; all without.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(ids()))]
    ids: Vec<String>,
    /// One JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Rounds that count, each one side and then the other.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one side of a round is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where the durable rows write: on a real disk. Without, a directory beside what cargo builds.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also writes the table, with machine, date and commit, to this file.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Counts rounds in which other programs had more than 5 % of the machine: to try things out.
    #[arg(long)]
    allow_noise: bool,
    /// Walks one way by so many `--events`, for somebody who counts.
    #[arg(long, hide = true, requires = "events")]
    walk: Option<String>,
    #[arg(long, hide = true)]
    events: Option<u64>,
    #[command(flatten)]
    part: space::Part,
    /// Of the rows that are measured on brokers, those of this one: nats, rabbitmq, kafka or zeromq.
    #[cfg(feature = "brokers")]
    #[arg(long)]
    broker: Option<String>,
    #[cfg(feature = "brokers")]
    #[command(flatten)]
    worker: brokers::scaling::Worker,
    /// Counts the instructions and allocations of our own ways, and fails if there are more than this file says.
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
    /// Writes the file of `--counts` anew.
    #[arg(long, requires = "counts")]
    renew: bool,
}

/// What rows run with.
struct Bench {
    plan: Plan,
    runtime: Runtime,
    directory: TempDir,
}

impl Bench {
    fn row(&self, id: &str) -> Result<Vec<Row>> {
        let Self { plan, runtime, directory } = self;
        let directory = directory.path();
        match id {
            "1a" => dispatch::plain(plan),
            "1b" => dispatch::asynchronous(plan),
            "1c" => handoff::queued(plan, runtime),
            "2a" => durable::windows(plan, directory, "2a"),
            "2b" => durable::windows(plan, directory, "2b"),
            "2c" => durable::in_time(plan, directory),
            "2d" => durable::one_at_a_time(plan, directory),
            "2e" => durable::topics(plan, directory),
            "3a" => pipeline::batched(plan, runtime, directory),
            "3b" => pipeline::each(plan, runtime, directory),
            "3c" => pipeline::one(plan, runtime, directory),
            #[cfg(feature = "brokers")]
            "5" => brokers::against_clients(plan, runtime, directory),
            #[cfg(feature = "brokers")]
            "5s" => brokers::scaling::processes(plan, runtime),
            "6a" => space::opening(plan, directory),
            "6b" => space::backlog(plan, directory),
            "7a" => fanout::many(plan, runtime),
            "7b" => filters::matching(plan),
            "7c" => filters::rules(plan),
            "9" => solver::solving(plan, directory),
            #[cfg(feature = "rivals")]
            "10a" | "10b" | "10c" => rivals::counted(plan, directory, id),
            #[cfg(feature = "rivals")]
            "11" => rivals::durable::pipelines(plan, runtime, directory),
            #[cfg(feature = "broker-rivals")]
            "12" => brokers::against_rivals(plan, runtime, directory),
            other => Err(format!("no row `{other}`; there are {}", ids().join(" ")).into()),
        }
    }
}

/// A directory of its own, which goes with it: below `chosen`, or where this program was built.
fn directory(chosen: Option<&Path>) -> Result<TempDir> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(Path::parent).ok_or("this program lies in no directory")?;
    let parent = chosen.unwrap_or(built);
    fs::create_dir_all(parent)?;
    Ok(tempfile::Builder::new().prefix("oncue-bench-").tempdir_in(parent)?)
}

fn run(arguments: &Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        return Err("measure a release build: `cargo xtask bench`".into());
    }
    if let (Some(way), Some(events)) = (&arguments.walk, arguments.events) {
        return walk::Way::named(way)?.walk_and_exit(events);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.part.play(&runtime)? {
        // A handler that stalls never ends.
        runtime.shutdown_background();
        return Ok(());
    }
    #[cfg(feature = "brokers")]
    if arguments.worker.work(&runtime)? {
        return Ok(());
    }
    let directory = directory(arguments.dir.as_deref())?;
    if let Some(file) = &arguments.counts {
        return if arguments.renew {
            counts::renew(file, directory.path())
        } else {
            counts::check(file, directory.path())
        };
    }
    let machine = Machine::look(directory.path())?;
    eprintln!("{machine}");
    let &Arguments { rounds, seconds, allow_noise, .. } = arguments;
    let plan = Plan {
        rounds,
        seconds,
        allow_noise,
        measured: running::groups(),
        #[cfg(feature = "brokers")]
        broker: arguments.broker.clone(),
    };
    let bench = Bench { plan, runtime, directory };
    let all: Vec<String> = ids().into_iter().map(str::to_owned).collect();
    let ids = if arguments.ids.is_empty() { &all } else { &arguments.ids };
    let mut rows = Vec::new();
    for id in ids {
        let more = bench.row(id).map_err(|error| format!("row {id}: {error}"))?;
        if arguments.json {
            more.iter().for_each(|row| println!("{}", row.json()));
        }
        rows.extend(more);
    }
    if !arguments.json {
        print!("{}", report::table(&rows));
    }
    if let Some(results) = &arguments.results {
        fs::write(results, report::markdown(&rows, &machine))?;
        eprintln!("written to {}", results.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
