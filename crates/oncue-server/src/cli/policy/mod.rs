//! `oncue policy`: retry policies, and policies that are computed.

mod explain;
mod learned;
mod plot;
mod queue;
mod report;
mod routes;
mod simulate;
mod solve;

use clap::{Args, Subcommand};

use super::CommandError;

pub(super) use explain::ExplainError;
pub(super) use simulate::{LifeError, TooFew};
pub(super) use solve::ModelFileError;

/// Understand policies before they are needed, and compute them
#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Explain(Box<explain::Explain>),
    Report(report::Report),
    Solve(solve::Solve),
    Simulate(simulate::Simulate),
}

impl Policy {
    /// Whether apps are run in which things are to fail.
    pub(super) fn simulates(&self) -> bool {
        matches!(self.what, What::Simulate(_))
    }

    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Explain(explain) => explain.run(),
            What::Report(report) => report.run(),
            What::Solve(solve) => solve.run(),
            What::Simulate(simulate) => simulate.run(),
        }
    }
}
