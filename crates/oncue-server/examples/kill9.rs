//! Kills the order system at random moments, as often as it is told to, and compares each final report with that of an
//! unbroken run:
//!
//! ```text
//! cargo run --release -p oncue-server --example kill9 -- --rounds 50 --input orders.ndjson
//! ```
//!
//! What follows `--rounds N` and `--kill-seed N` goes to `oncue demo orders`. Exit code 1 if a report differs.

#[path = "../tests/it/killer.rs"]
mod killer;

use std::{env, process::ExitCode};

use killer::{End, Victim, comparable};

/// Makes this program be `oncue`: what is killed is built from the same source.
const AS_ONCUE: &str = "--as-oncue";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == AS_ONCUE) {
        return oncue_server::cli::main(env::args_os().skip(1));
    }
    match hunt(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill9: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all reports were that of an unbroken run.
fn hunt(mut arguments: Vec<String>) -> Result<bool, String> {
    let rounds = take(&mut arguments, "--rounds")?.unwrap_or(50);
    let seed = take(&mut arguments, "--kill-seed")?.unwrap_or(1);
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let victim = Victim { program: vec![this, AS_ONCUE.into()], arguments };
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (End::Finished(whole), length) = victim.run(&directory.path().join("whole"), u64::MAX)? else {
        return Err("the first run was killed by somebody else".to_owned());
    };
    let whole = comparable(whole);
    println!("unbroken: {} events, {length} lines of log; kill seed {seed}\n", whole["events"]);
    println!("  kill  directory  resumed from line  lines of log until the kill");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut kills, mut number, mut all_same) = (0, 1, true);
    while kills < rounds {
        let data = directory.path().join(number.to_string());
        let finished = loop {
            // After the last kill, to the end.
            let moment = if kills < rounds { rng.u64(0..=length / 2) } else { u64::MAX };
            match victim.run(&data, moment)? {
                (End::Finished(report), _) => break comparable(report),
                (End::Killed { resumed_from }, written) => {
                    kills += 1;
                    println!("{kills:>6}  {number:>9}  {resumed_from:>17}  {written:>27}");
                }
            }
        };
        let same = finished == whole;
        all_same &= same;
        println!("        {number:>9}  finished: {}", if same { "the same report" } else { "ANOTHER REPORT" });
        if !same {
            println!("{finished:#}\ninstead of\n{whole:#}");
        }
        number += 1;
    }
    println!(
        "\n{kills} kills, {} directories: {}",
        number - 1,
        if all_same { "all the same" } else { "NOT all the same" }
    );
    Ok(all_same)
}

/// Takes an option and its number out of the arguments.
fn take(arguments: &mut Vec<String>, name: &str) -> Result<Option<u64>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| format!("{name} takes a number"))?;
    arguments.drain(at..at + 2);
    Ok(Some(number))
}
