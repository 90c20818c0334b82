//! What takes too long for each change: the full tier again and again, kills, a million events, a million lives of a log,
//! random programs for the dispatcher, any bytes for every decoder.

mod conformance;
mod fuzz;

use std::{
    collections::hash_map::RandomState,
    ffi::OsStr,
    hash::{BuildHasher as _, Hasher as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::{Args, Subcommand};

use crate::step::{Failed, built, cargo, root};

/// Kills and full sizes take minutes: what they try is in `--help` of each.
#[derive(Subcommand)]
pub(crate) enum Soak {
    Bits(Bits),
    Conformance(conformance::Conformance),
    Fuzz(fuzz::Fuzz),
    Kill(Kill),
    Memory(Memory),
    Model(Model),
    Sim(Sim),
}

/// Kills the order system (kill -9) at random moments until it has been killed N times
///
/// A run of `oncue demo orders` is killed, started again in the same directory, killed again, and so on until it comes to
/// its end; then the next one. What each leaves is compared with a run that nobody disturbed: the report (what the
/// handlers made of the events: states, sales, anomalies, dead letters, counts) and the log (each key's events, in order).
/// Nothing may be lost, counted twice or out of order. How far each run was when it was killed is told as it goes.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak kill --rounds 2000\n  \
                        cargo xtask soak kill --input orders.ndjson --gateway-failures 0.2\n  \
                        cargo xtask soak kill --rounds 20 --events 2000 --debug --json")]
pub(crate) struct Kill {
    /// How many kills
    #[arg(long, value_name = "N", default_value_t = 200)]
    rounds: u64,

    /// What the moments of the kills follow from; a new one each time without it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// `CloudEvents` to take in, one JSON object a line; without it, generated orders
    #[arg(long, value_name = "FILE", conflicts_with = "events")]
    input: Option<PathBuf>,

    /// How many events are generated
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    events: u64,

    /// The part of the payments that fail at first: retries and dead letters
    #[arg(long, value_name = "P", default_value_t = 0.2)]
    gateway_failures: f64,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,

    /// Without optimization, as `cargo test` builds it
    #[arg(long)]
    debug: bool,
}

/// Publishes a million events to subscriptions one of which stalls: what that costs the others, and the memory
///
/// For each transport, runs with the stalled subscription and without it alternate, each in a process of its own. It fails
/// where memory on `file:` grows with the backlog (between the middle and the end of a run, by a tenth of the bytes
/// published meanwhile, at least 4 MiB, more than without one), where memory on `memory:` grows by more than three times
/// these bytes (the backlog is there), or where the healthy subscriptions handle less than `--ratio` of what they handle alone (medians).
/// Nothing in it is random. Linux only.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak memory\n  \
                        cargo xtask soak memory file: --events 10000000 --rounds 1\n  \
                        cargo xtask soak memory 'file:?durability=os' --healthy 10 --json")]
pub(crate) struct Memory {
    /// Transports: `memory:` and `file:`, with options as in `file:?durability=os`. Without any: both
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    events: u64,

    /// Bytes of payload of each
    #[arg(long, value_name = "N", default_value_t = 256)]
    bytes: u64,

    /// How many subscriptions are healthy
    #[arg(long, value_name = "N", default_value_t = 2)]
    healthy: u32,

    /// How many runs of each kind
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,

    /// The least part of their throughput alone that the healthy ones must keep
    #[arg(long, value_name = "R", default_value_t = 0.8)]
    ratio: f64,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Lives of a log, each from a seed: it works on a disk that fails, is killed, loses power, and is opened again
///
/// What a life is and what must hold is in `crates/oncue-log/tests/it/sim.rs`, whose first 2,000 seeds every run of the
/// tests tries. A failure says its seed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak sim --rounds 1000000\n  \
                        cargo xtask soak sim --seed 1695")]
pub(crate) struct Sim {
    /// How many lives, from seeds that were not used before
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "seed")]
    rounds: u64,

    /// The one life of this seed, told step by step
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Random programs for the dispatcher and its log, each from a seed: handlers that fail and hang, pauses, other orders,
/// new beginnings, dead letters resolved, several apps, restarts, and power lost at any write, on virtual time
///
/// At every call and whenever nothing moves, the laws in `crates/oncue/tests/it/model/` are asked; every run of the tests
/// tries the first 100 seeds. A failure says its seed, and the smallest program of which the same can be said.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
                        cargo xtask soak model --rounds 100000\n  \
                        cargo xtask soak model --seed 1695")]
pub(crate) struct Model {
    /// How many programs, from seeds that were not used before
    #[arg(long, value_name = "N", default_value_t = 10_000, conflicts_with = "seed")]
    rounds: u64,

    /// The one program of this seed, told step by step
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Flips every single bit of every file of a log of 64 KiB, closed and not, and opens and reads it each time
///
/// Each must be told of, or do no harm. Nothing in it is random. (Each run of the tests does it to a smaller log.)
#[derive(Args)]
pub(crate) struct Bits {
    /// How many events of 150 bytes the log has
    #[arg(long, value_name = "N", default_value_t = 230)]
    events: u8,
}

impl Bits {
    fn run(self) -> Result<(), Failed> {
        own_test("oncue-log", "corruption::every_bit", "ONCUE_BITS_EVENTS", self.events.into())
    }
}

impl Sim {
    fn run(self) -> Result<(), Failed> {
        let (variable, number) = self.seed.map_or(("ONCUE_SIM_ROUNDS", self.rounds), |seed| ("ONCUE_SIM_SEED", seed));
        own_test("oncue-log", "sim::", variable, number)
    }
}

impl Model {
    fn run(self) -> Result<(), Failed> {
        let (variable, number) =
            self.seed.map_or(("ONCUE_MODEL_ROUNDS", self.rounds), |seed| ("ONCUE_MODEL_SEED", seed));
        own_test("oncue", "model::the_laws", variable, number)
    }
}

/// Runs a test of a crate in release, as a variable of its asks for.
fn own_test(package: &str, test: &str, variable: &str, number: u64) -> Result<(), Failed> {
    let command = ["test", "--release", "--locked", "--package", package, "--test", "it", "--", test, "--nocapture"];
    cargo(&command, &[(variable, &number.to_string())])
}

impl Soak {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self {
            Self::Bits(bits) => bits.run(),
            Self::Conformance(conformance) => conformance.run(),
            Self::Fuzz(fuzz) => fuzz.run(),
            Self::Model(model) => model.run(),
            Self::Sim(sim) => sim.run(),
            Self::Kill(kill) => kill.run(),
            Self::Memory(memory) => memory.run(),
        }
    }
}

impl Kill {
    /// What continuous integration runs, with what its tests have built.
    pub(crate) fn in_ci() -> Self {
        let (input, gateway_failures, json) = (None, 0.2, false);
        Self { rounds: 200, seed: None, input, events: 2_000, gateway_failures, json, debug: true }
    }

    pub(crate) fn run(self) -> Result<(), Failed> {
        let program = example("kill9", self.debug)?;
        let (rounds, seed) = (self.rounds.to_string(), self.seed.unwrap_or_else(new_seed).to_string());
        let mut arguments = vec!["--rounds".to_owned(), rounds, "--kill-seed".to_owned(), seed];
        arguments.extend(["--gateway-failures".to_owned(), self.gateway_failures.to_string()]);
        match self.input {
            Some(input) => arguments.extend(["--input".to_owned(), input.display().to_string()]),
            None => arguments.extend(["--events".to_owned(), self.events.to_string()]),
        }
        if self.json {
            arguments.push("--json".to_owned());
        }
        // Whatever fails, it says how to repeat it.
        passes_through(&program, &arguments)
    }
}

impl Memory {
    fn run(self) -> Result<(), Failed> {
        let program = example("stalled", false)?;
        let mut arguments = self.urls;
        let options = [
            ("--events", self.events.to_string()),
            ("--bytes", self.bytes.to_string()),
            ("--healthy", self.healthy.to_string()),
            ("--rounds", self.rounds.to_string()),
            ("--ratio", self.ratio.to_string()),
        ];
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        if self.json {
            arguments.push("--json".to_owned());
        }
        passes_through(&program, &arguments)
    }
}

/// A seed that was not used before.
fn new_seed() -> u64 {
    // Short enough to be typed.
    RandomState::new().build_hasher().finish() >> 32
}

/// Builds a program of `oncue-server`: where it is. Cargo tells how far it is on stderr.
fn build(kind: &str, name: &str, debug: bool) -> Result<PathBuf, Failed> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--package", "oncue-server", kind, name]).current_dir(root());
    if !debug {
        command.arg("--release");
    }
    let status = command.stdout(Stdio::null()).status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        let profile = if debug { "" } else { " --release" };
        let repeat = format!("cargo build --locked --package oncue-server {kind} {name}{profile}");
        return Err(Failed::new(format!("{name} cannot be built: {status:?}"), repeat));
    }
    // This program was built in the profile `dev`.
    let beside = built(name)?;
    let folder = beside.parent().and_then(|debug| debug.parent()).unwrap_or(root());
    let folder = folder.join(if debug { "debug" } else { "release" });
    let file = beside.file_name().unwrap_or(OsStr::new(name));
    Ok(if kind == "--example" { folder.join("examples").join(file) } else { folder.join(file) })
}

fn example(name: &str, debug: bool) -> Result<PathBuf, Failed> {
    build("--example", name, debug)
}

/// Runs a program whose output is ours.
fn passes_through(program: &PathBuf, arguments: &[String]) -> Result<(), Failed> {
    let repeat = format!("{} {}", program.display(), arguments.join(" "));
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed::new(format!("it does not hold ({status}), see above"), repeat)),
        Err(error) => Err(Failed::new(format!("cannot be started: {error}"), repeat)),
    }
}
