//! `oncue dlq redrive`.

use clap::Args;
use oncue::transport::Resolution;
use serde_json::json;

use super::{WRITES, resolve::resolve, which::Which};
use crate::{
    cli::{CommandError, view::View},
    number::grouped,
};

/// Have dead letters handled again, when the app starts next
///
/// Each is handled by this subscription alone, from the first attempt on; the order of its key is kept.
#[derive(Debug, Args)]
#[command(override_usage = "oncue dlq redrive [OPTIONS] --data <DIR> <SUBSCRIPTION> <POSITION…|--all|--filter <JSON>>")]
#[command(after_help = "Examples:\n  \
                        oncue dlq redrive charge 3-120@0 5-98@0 --data ./data\n  \
                        oncue dlq redrive charge --all --data ./data\n  \
                        oncue dlq redrive charge --filter '{\"exact\":{\"type\":\"order.created\"}}' --data ./data\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read or written; 2 there is no such directory, \
                        log, subscription or dead letter, or a process has the directory.")]
#[command(mut_arg("data", |data| data.help(WRITES)))]
pub(super) struct Redrive {
    /// The subscription (the handler's id)
    subscription: String,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    view: View,
}

impl Redrive {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let letters = self.which.of(&self.view, &self.subscription)?;
        resolve(&self.view.data, &self.subscription, &letters, |_| Resolution::Redrive)?;
        let positions: Vec<_> = letters.iter().map(|letter| letter.position).collect();
        let json = json!({"subscription": self.subscription, "redriven": positions.len(), "positions": positions});
        self.view.tell(&json, || text(&self.subscription, letters.len()))
    }
}

fn text(subscription: &str, count: usize) -> String {
    match count {
        0 => format!("No dead letter of `{subscription}` is meant: nothing is redriven.\n"),
        1 => format!("1 dead letter of `{subscription}` is redriven: it is handled when the app starts next.\n"),
        _ => {
            let count = grouped(count as u64);
            format!(
                "{count} dead letters of `{subscription}` are redriven: they are handled when the app starts next.\n"
            )
        }
    }
}
