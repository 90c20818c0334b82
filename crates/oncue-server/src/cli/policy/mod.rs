//! `oncue policy`: retry policies.

mod explain;

use clap::{Args, Subcommand};

use super::CommandError;

pub(super) use explain::ExplainError;

/// Understand retry policies before they are needed
#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Explain(explain::Explain),
}

impl Policy {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Explain(explain) => explain.run(),
        }
    }
}
