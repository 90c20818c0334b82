//! The command line. One subcommand is one file; the exit code is decided here and nowhere else.

mod config;
mod conformance;
mod demo;
mod dlq;
mod envelope;
mod event;
mod graph;
mod interrupt;
mod log;
mod ls;
mod mirror;
mod policy;
#[cfg(feature = "wire")]
mod serve;
mod stats;
mod view;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// All is done.
const DONE: u8 = 0;
/// Something failed on the way, or the run was interrupted.
const FAILED: u8 = 1;
/// What was asked for cannot be done: the arguments, the input or the directory.
const REFUSED: u8 = 2;

/// An event-driven backend: handlers are plain functions, events are durable, failures follow a policy.
#[derive(Debug, Parser)]
#[command(name = "oncue", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 all is done; 1 something failed, or the run was interrupted; 2 the arguments, the \
                        input or the directory cannot be used.\n\
                        RUST_LOG says what is logged to stderr: `info`, `oncue=debug`, … (default `warn`)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See Oncue at work, on whole systems that come with it
    Demo(demo::Demo),
    Conformance(conformance::Conformance),
    #[command(name = conformance::WORKER, hide = true)]
    ConformanceWorker(conformance::Worker),
    #[cfg(feature = "wire")]
    Serve(serve::Serve),
    Mirror(mirror::MirrorTopics),
    Ls(ls::Ls),
    Stats(stats::Stats),
    Event(event::Event),
    Log(log::Log),
    Dlq(dlq::Dlq),
    Graph(graph::ShowGraph),
    Policy(policy::Policy),
    Config(config::Config),
}

impl Command {
    /// What is logged unless `RUST_LOG` says otherwise.
    fn logged(&self) -> &'static str {
        match self {
            // Its dead letters are wanted, and its report counts them.
            Self::Demo(_) => "warn,oncue::dispatch=error",
            // Its cases make things fail.
            Self::Conformance(_) | Self::ConformanceWorker(_) => "off",
            Self::Policy(policy) if policy.simulates() => "off",
            _ => "warn",
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The order system stopped.
    #[error(transparent)]
    Orders(#[from] crate::orders::OrdersError),
    /// A case of the suite failed, or it did not come to run.
    #[error(transparent)]
    Conformance(#[from] conformance::ConformanceError),
    /// A node does not serve.
    #[cfg(feature = "wire")]
    #[error(transparent)]
    Serve(#[from] serve::NodeError),
    /// Topics are not moved.
    #[error(transparent)]
    Mirror(#[from] crate::mirror::MirrorError),
    /// A log was not there, or not readable.
    #[error(transparent)]
    View(#[from] view::ViewError),
    /// Dead letters were not resolved.
    #[error(transparent)]
    Resolve(#[from] dlq::ResolveError),
    /// A log is damaged, or was not copied, filled or looked at.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// An event cannot be changed as it was asked to.
    #[error(transparent)]
    Edit(#[from] dlq::EditError),
    /// The handlers in a log are no graph.
    #[error("the handlers in the log are no graph: {0}")]
    Graph(#[from] oncue::graph::GraphError),
    /// There is no policy to explain.
    #[error(transparent)]
    Explain(#[from] policy::ExplainError),
    /// A model was not solved.
    #[error(transparent)]
    Solve(#[from] policy::ModelFileError),
    /// A simulated app failed.
    #[error(transparent)]
    Simulate(#[from] policy::LifeError),
    /// A log tells too little to simulate from.
    #[error(transparent)]
    TooFew(#[from] policy::TooFew),
    /// A configuration file is not right.
    #[error(transparent)]
    Check(#[from] config::CheckError),
    /// The runtime could not be made.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// What was found out could not be written.
    #[error("cannot write the report: {0}")]
    Output(io::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        let is_callers = match self {
            Self::Orders(error) => error.is_callers(),
            Self::Conformance(error) => error.is_callers(),
            #[cfg(feature = "wire")]
            Self::Serve(error) => error.is_callers(),
            Self::Mirror(error) => error.is_callers(),
            Self::View(error) => error.is_callers(),
            Self::Log(error) => error.is_callers(),
            Self::Resolve(error) => error.is_callers(),
            Self::Solve(error) => error.is_callers(),
            Self::Edit(_) | Self::Explain(_) | Self::Check(_) | Self::TooFew(_) => true,
            Self::Graph(_) | Self::Simulate(_) | Self::Runtime(_) | Self::Output(_) => false,
        };
        if is_callers { REFUSED } else { FAILED }
    }
}

/// Runs the command that the arguments name; the first one is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            // `--help` and `--version` come this way too. With stdout or stderr closed there is nobody to tell.
            usage.print().ok();
            return ExitCode::from(if usage.use_stderr() { REFUSED } else { DONE });
        }
    };
    log_to_stderr(cli.command.logged());
    let done = match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::Conformance(conformance) => conformance.run(),
        Command::ConformanceWorker(worker) => worker.run(),
        #[cfg(feature = "wire")]
        Command::Serve(serve) => serve.run(),
        Command::Mirror(mirror) => mirror.run(),
        Command::Ls(ls) => ls.run(),
        Command::Stats(stats) => stats.run(),
        Command::Event(event) => event.run(),
        Command::Log(log) => log.run(),
        Command::Dlq(dlq) => dlq.run(),
        Command::Graph(graph) => graph.run(),
        Command::Policy(policy) => policy.run(),
        Command::Config(config) => config.run(),
    };
    match done {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => {
            writeln!(io::stderr(), "oncue: {error}").ok();
            ExitCode::from(error.exit_code())
        }
    }
}

fn log_to_stderr(default: &str) {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wanted) if !wanted.is_empty() => builder.parse_lossy(wanted),
        _ => builder.parse_lossy(default),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only where a logger is set already: a program that calls this as a library.
    subscriber.with_ansi(io::stderr().is_terminal()).try_init().ok();
}

/// Writes to stdout. A reader that has read enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), CommandError> {
    print_on(text).map(|_| ())
}

/// As [`print`]; false if nobody reads on.
fn print_on(text: &str) -> Result<bool, CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::Output(error)),
        Ok(()) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
