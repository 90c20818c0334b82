//! Kills the order system at random moments, as often as it is told to, and compares what is left with an unbroken run:
//!
//! ```text
//! cargo run --release -p oncue-server --example kill9 -- --rounds 50 --input orders.ndjson
//! ```
//!
//! `--rounds N` (50), `--kill-seed N` (1) and `--json` are its own; everything else goes to `oncue demo orders`. Exit code
//! 1 if something was lost, counted twice or out of order; 2 if it could not be tried.
//!
//! A kill comes after a random number of log lines, one for each batch and each event; the same run is started again in
//! the same directory, killed again, and so on, until it comes to its end. Then two things are compared with the unbroken
//! run: the report, which is what the handlers made of the events, and the events in the log, key by key.

#[path = "../tests/it/killer.rs"]
mod killer;

use std::{env, process::ExitCode};

use serde_json::{Value, json};

use killer::{Account, Difference, End, Victim, comparable};

/// Makes this program be `oncue`: what is killed is built from the same source.
const AS_ONCUE: &str = "--as-oncue";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == AS_ONCUE) {
        return oncue_server::cli::main(env::args_os().skip(1));
    }
    match Hunt::of(arguments).and_then(Hunt::run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill9: {error}");
            ExitCode::from(2)
        }
    }
}

/// What is asked for.
struct Hunt {
    rounds: u64,
    seed: u64,
    json: bool,
    /// For `oncue demo orders`.
    arguments: Vec<String>,
}

/// What was found.
#[derive(Default)]
struct Found {
    kills: u64,
    directories: u64,
    difference: Difference,
    other_reports: u64,
}

impl Hunt {
    fn of(mut arguments: Vec<String>) -> Result<Self, String> {
        let rounds = take(&mut arguments, "--rounds")?.unwrap_or(50);
        let seed = take(&mut arguments, "--kill-seed")?.unwrap_or(1);
        let json = arguments.iter().position(|argument| argument == "--json").map(|at| arguments.remove(at)).is_some();
        Ok(Self { rounds, seed, json, arguments })
    }

    /// Whether nothing differed from the unbroken run.
    fn run(self) -> Result<bool, String> {
        let this = env::current_exe().map_err(|error| error.to_string())?;
        let victim = Victim { program: vec![this, AS_ONCUE.into()], arguments: self.arguments.clone() };
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let unbroken = directory.path().join("unbroken");
        let (End::Finished(whole), length) = victim.run(&unbroken, u64::MAX)? else {
            return Err("the first run was killed by somebody else".to_owned());
        };
        let (whole, account) = (comparable(whole), Account::of(&unbroken)?);
        let (events, stored) = (&whole["events"], account.len());
        eprintln!("unbroken: {events} events, {stored} in the log, {length} lines told; kill seed {}\n", self.seed);
        eprintln!("  kill  directory  resumed from line  lines told until the kill");
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mut found = Found::default();
        while found.kills < self.rounds {
            found.directories += 1;
            let data = directory.path().join(found.directories.to_string());
            let report = loop {
                // After the last kill, to the end.
                let moment = if found.kills < self.rounds { rng.u64(0..=length / 2) } else { u64::MAX };
                match victim.run(&data, moment)? {
                    (End::Finished(report), _) => break comparable(report),
                    (End::Killed { resumed_from }, told) => {
                        found.kills += 1;
                        eprintln!("{:>6}  {:>9}  {resumed_from:>17}  {told:>26}", found.kills, found.directories);
                    }
                }
            };
            let difference = Account::of(&data)?.against(&account);
            let same = if report == whole { "the same report" } else { "ANOTHER REPORT" };
            eprintln!("        {:>9}  finished: {same}, {difference}", found.directories);
            if report != whole {
                found.other_reports += 1;
                eprintln!("{report:#}\ninstead of\n{whole:#}");
            }
            found.difference.lost += difference.lost;
            found.difference.repeated += difference.repeated;
            found.difference.out_of_order += difference.out_of_order;
            // They are as large as the log is long.
            std::fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        }
        self.tell(&found, &whole["events"])
    }

    fn tell(&self, found: &Found, events: &Value) -> Result<bool, String> {
        let Found { kills, directories, difference, other_reports } = found;
        let holds = *other_reports == 0 && *difference == Difference::default();
        let mut repeat = format!("cargo xtask soak kill --rounds {} --seed {}", self.rounds, self.seed);
        self.arguments.iter().for_each(|argument| repeat = format!("{repeat} {argument}"));
        if cfg!(debug_assertions) {
            repeat.push_str(" --debug");
        }
        if self.json {
            let told = json!({
                "holds": holds, "kills": kills, "runs": directories, "events": events, "seed": self.seed,
                "lost": difference.lost, "twice": difference.repeated, "keys_out_of_order": difference.out_of_order,
                "other_reports": other_reports, "repeat": repeat,
            });
            println!("{told:#}");
        } else {
            println!(
                "\n{kills} kills in {directories} runs of {events} events: {difference}; {other_reports} other reports"
            );
        }
        if !holds {
            eprintln!("repeat it with: {repeat}");
        }
        Ok(holds)
    }
}

/// Takes an option and its number out of the arguments.
fn take(arguments: &mut Vec<String>, name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| format!("{name} takes a number"))?;
    arguments.drain(at..at + 2);
    Ok(Some(number))
}
