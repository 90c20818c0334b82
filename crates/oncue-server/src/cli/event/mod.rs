//! `oncue event`: single events.

mod lineage;
mod show;

use clap::{Args, Subcommand};

use super::CommandError;

/// Look at single events of a log
#[derive(Debug, Args)]
pub(super) struct Event {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Show(show::Show),
}

impl Event {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Show(show) => show.run(),
        }
    }
}
