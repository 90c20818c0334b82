//! `oncue dlq discard`.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use oncue::transport::Resolution;
use serde_json::json;

use super::{
    WRITES,
    resolve::{ResolveError, resolve},
    which::Which,
};
use crate::{
    cli::{CommandError, view::View},
    number::grouped,
};

/// Give dead letters up for good
///
/// Their events stay in the log; that they failed is forgotten. A key that one of them held goes on.
#[derive(Debug, Args)]
#[command(override_usage = "oncue dlq discard [OPTIONS] --data <DIR> <SUBSCRIPTION> <POSITION…|--all|--filter <JSON>>")]
#[command(after_help = "Examples:\n  \
                        oncue dlq discard charge 3-120@0 --data ./data\n  \
                        oncue dlq discard charge --all --yes --data ./data\n  \
                        oncue dlq discard charge --filter '{\"prefix\":{\"subject\":\"test-\"}}' --yes --data ./data\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read or written, or you said no; 2 there is no \
                        such directory, log, subscription or dead letter, a process has the directory, or --yes is missing.")]
#[command(mut_arg("data", |data| data.help(WRITES)))]
pub(super) struct Discard {
    /// The subscription (the handler's id)
    subscription: String,

    #[command(flatten)]
    which: Which,

    /// Do not ask. Needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    view: View,
}

impl Discard {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let can_be_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !self.yes && !can_be_asked {
            return Err(ResolveError::Unconfirmed.into());
        }
        let letters = self.which.of(&self.view, &self.subscription)?;
        if !(self.yes || letters.is_empty() || self.is_agreed(letters.len())?) {
            return Err(ResolveError::Declined.into());
        }
        resolve(&self.view.data, &self.subscription, &letters, |_| Resolution::Discard)?;
        let positions: Vec<_> = letters.iter().map(|letter| letter.position).collect();
        let json = json!({"subscription": self.subscription, "discarded": positions.len(), "positions": positions});
        self.view.tell(&json, || match letters.len() {
            0 => format!("No dead letter of `{}` is meant: nothing is discarded.\n", self.subscription),
            count => format!("{} discarded.\n", self.those(count)),
        })
    }

    fn those(&self, count: usize) -> String {
        let letters = if count == 1 { "dead letter" } else { "dead letters" };
        format!("{} {letters} of `{}`", grouped(count as u64), self.subscription)
    }

    fn is_agreed(&self, count: usize) -> Result<bool, CommandError> {
        let mut answer = String::new();
        let asked = write!(io::stderr(), "Discard {} for good? [y/N] ", self.those(count));
        asked.and_then(|()| io::stdin().read_line(&mut answer)).map_err(CommandError::Output)?;
        Ok(is_yes(&answer))
    }
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(["y\n", "YES\r\n", " y "].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "yesterday\n"].into_iter().any(is_yes));
    }
}
