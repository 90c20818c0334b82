//! `oncue ls handlers`.

use clap::Args;
use serde_json::json;

use super::{Which, types};
use crate::{
    cli::{CommandError, view::View},
    columns::{Column, columns},
};

/// List the handlers that the log knows, and the event types each takes
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
        let json = known.iter().map(|known| json!({"id": known.id, "topic": known.topic, "types": known.types}));
        self.view.tell(&json.collect(), || {
            let rows: Vec<_> =
                known.iter().map(|known| vec![known.id.clone(), known.topic.clone(), types(known)]).collect();
            columns(&[Column::Text("HANDLER"), Column::Text("TOPIC"), Column::Text("TYPES")], &rows)
        })
    }
}
