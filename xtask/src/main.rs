//! The repository's task runner: what `cargo xtask` does.

mod brokers;
mod rules;
mod soak;
mod step;
mod tasks;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, tests and benchmarks of this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change is merged: format, house rules, lints, tests, documentation, examples,
    /// instructions.
    Ci,
    /// All tests of the workspace; arguments go to `cargo test`.
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The hand-over between publishers, the log's writer and those who wait, in many orders of their threads.
    Interleavings,
    /// The house rules alone: sizes, dependencies, clocks, queues, names, documents.
    Rules,
    /// The benchmarks, in release: all, or those named (`1a 2c`), with `--json` for programs; arguments go on to them.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Instructions and allocations of an event on our own ways, against benches/counts.json: two percent more, or one
    /// allocation, fails. `--renew` writes the file anew. Needs valgrind.
    Counts {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The examples: each is run and must succeed.
    Examples,
    /// Real brokers on this machine, for the tests of transports.
    #[command(subcommand)]
    Brokers(brokers::Brokers),
    /// What takes minutes: the conformance suite in full sizes again and again, kills, memory under a backlog.
    #[command(subcommand)]
    Soak(soak::Soak),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Ci => tasks::ci(),
        Task::Test { arguments } => tasks::test(&arguments),
        Task::Interleavings => tasks::interleavings(),
        Task::Rules => tasks::rules(),
        Task::Bench { arguments } => tasks::bench(&arguments),
        Task::Counts { arguments } => tasks::counts(&arguments),
        Task::Examples => tasks::examples(),
        Task::Brokers(brokers) => brokers.run(),
        Task::Soak(soak) => soak.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("\n{failed}");
            ExitCode::FAILURE
        }
    }
}
