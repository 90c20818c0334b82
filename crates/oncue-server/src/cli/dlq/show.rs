//! `oncue dlq show`.

use clap::Args;
use oncue::transport::{DeadLetter, FailedAttempt, Position};
use serde_json::{Value, json};

use super::letter;
use crate::{
    cli::{CommandError, envelope, view::View},
    columns::{Column, columns},
    number::time,
};

/// Show a dead letter: its event with all attributes and data, and every failed attempt
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue dlq show charge 3-120@0 --data ./data\n  \
                        oncue dlq show charge 3-120@0 --data ./data --json | jq .event.data\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory, log, \
                        subscription or dead letter.")]
pub(super) struct Show {
    /// The subscription (the handler's id)
    subscription: String,

    /// Where the event stands, as `oncue dlq list` prints it
    position: Position,

    #[command(flatten)]
    view: View,
}

impl Show {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let letter = self.view.look(|log| letter(&self.view, log, &self.subscription, self.position))?;
        self.view.tell(&self.json(&letter), || self.text(&letter))
    }

    fn json(&self, letter: &DeadLetter) -> Value {
        json!({
            "subscription": self.subscription,
            "position": letter.position,
            "holds": letter.holds,
            "published": letter.envelope.published().to_rfc3339(),
            "edition": letter.envelope.edition(),
            "event": envelope::json(&letter.envelope),
            "data_bytes": letter.envelope.data().len(),
            "failed": letter.history.iter().map(envelope::failed).collect::<Value>(),
        })
    }

    fn text(&self, letter: &DeadLetter) -> String {
        let waits = if letter.holds { "yes: later events of its key wait" } else { "no: its key went on" };
        let said = [
            ("dead letter of", self.subscription.clone()),
            ("position", letter.position.to_string()),
            ("holds", waits.to_owned()),
        ];
        let said = said.map(|(name, value)| vec![name.to_owned(), value]).to_vec();
        let heading = [
            Column::Number("ATTEMPT"),
            Column::Text("BEGAN"),
            Column::Number("TOOK"),
            Column::Text("CLASS"),
            Column::Text("ERROR"),
        ];
        let row = |attempt: &FailedAttempt| {
            let FailedAttempt { number, class, read, ended, error } = attempt;
            vec![number.to_string(), format!("{read:.6}"), time(ended.since(*read)), class.to_string(), error.clone()]
        };
        let failed: Vec<_> = letter.history.iter().map(row).collect();
        format!("{}\n{}", envelope::text(said, &letter.envelope), columns(&heading, &failed))
    }
}
