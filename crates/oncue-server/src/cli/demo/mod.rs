//! `oncue demo`: whole systems to look at.

mod orders;

use clap::{Args, Subcommand};

use super::CommandError;

/// The arguments of `oncue demo`.
#[derive(Debug, Args)]
pub(super) struct Demo {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    Orders(orders::Orders),
}

impl Demo {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.which {
            Which::Orders(orders) => orders.run(),
        }
    }
}
