//! `oncue ls handlers`.

use clap::Args;
use oncue::transport::SubscriptionInfo;
use serde_json::{Value, json};

use super::{Which, types};
use crate::{
    cli::{CommandError, view::View},
    columns::{Column, columns},
};

/// List the handlers that the log knows: what each takes, what it may emit, and which it comes after
#[derive(Debug, Args)]
pub(super) struct Handlers {
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    which: Which,
}

impl Handlers {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let known = self.view.look(|log| self.which.of(&self.view, log))?;
        self.view.tell(&known.iter().map(json).collect(), || {
            let heading = [
                Column::Text("HANDLER"),
                Column::Text("TOPIC"),
                Column::Text("TYPES"),
                Column::Text("FILTER"),
                Column::Text("EMITS"),
                Column::Text("AFTER"),
            ];
            columns(&heading, &known.iter().map(row).collect::<Vec<_>>())
        })
    }
}

fn json(known: &SubscriptionInfo) -> Value {
    json!({
        "id": known.id,
        "topic": known.topic,
        "types": known.types,
        "filter": known.filter,
        "emits": known.emits,
        "after": known.after,
    })
}

fn row(known: &SubscriptionInfo) -> Vec<String> {
    let or_dash = |names: &[String]| if names.is_empty() { "–".to_owned() } else { names.join(", ") };
    vec![
        known.id.clone(),
        known.topic.clone(),
        types(known),
        known.filter.as_ref().map_or("–".to_owned(), ToString::to_string),
        or_dash(&known.emits),
        or_dash(&known.after),
    ]
}
