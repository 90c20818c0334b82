//! `oncue config`: configuration files.

mod check;

use clap::{Args, Subcommand};

use super::CommandError;

pub(super) use check::CheckError;

/// Look at configuration files
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Check(check::Check),
}

impl Config {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Check(check) => check.run(),
        }
    }
}
