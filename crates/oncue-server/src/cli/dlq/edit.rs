//! `oncue dlq edit`.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use oncue::{
    event::{CloudEventError, MAX_DATA_BYTES},
    transport::{Position, Resolution},
};
use serde_json::json;
use thiserror::Error;

use super::{
    WRITES,
    edition::{Set, edition},
    letter,
    resolve::resolve,
};
use crate::cli::{CommandError, view::View};

/// Change a dead letter, and have it handled again when the app starts next
///
/// Id, source and key stay. What was published is not changed: the extension `oncueedition` counts the editions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue dlq edit charge 3-120@0 --set data.total_cents=4200 --data ./data\n  \
                        oncue dlq edit charge 3-120@0 --set data.address.zip='\"01234\"' --set tenant= --data ./data\n  \
                        oncue dlq show charge 3-120@0 --data ./data --json | jq .event.data > data.json\n  \
                        oncue dlq edit charge 3-120@0 --data-file data.json --data ./data\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read or written; 2 there is no such directory, \
                        log, subscription or dead letter, a process has the directory, or the change is not possible.")]
#[group(id = "change", required = true, multiple = true, args = ["data_file", "set"])]
#[command(mut_arg("data", |data| data.help(WRITES)))]
pub(super) struct Edit {
    /// The subscription (the handler's id)
    subscription: String,

    /// Where the event stands, as `oncue dlq list` prints it
    position: Position,

    /// File with the new data; `-` reads stdin
    #[arg(long, value_name = "FILE|-")]
    data_file: Option<PathBuf>,

    /// An attribute and its new value (none removes it), or `data.FIELD=VALUE` for a field of JSON data: VALUE is taken as
    /// JSON if it is, else as a text. May be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = Set::parse)]
    set: Vec<Set>,

    #[command(flatten)]
    view: View,
}

/// Why an event cannot be changed like that.
#[derive(Debug, Error)]
pub(in crate::cli) enum EditError {
    /// The new data cannot be read.
    #[error("--data-file: cannot read {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The data was JSON, and the new one is not.
    #[error(
        "--data-file: the new data is not JSON, as the old one is: {0}; mend it, or say what it is with --set \
         datacontenttype=…"
    )]
    NotJson(serde_json::Error),
    /// A field of data that has none.
    #[error("--set {field}: the data is not JSON, so it has no fields; give all of it with --data-file")]
    NoFields {
        /// The field, from `data` on.
        field: String,
    },
    /// A field in something that has none of that name.
    #[error("--set {field}: there is no object or list element at `{at}` to set it in")]
    NoField {
        /// The field, from `data` on.
        field: String,
        /// How far there is something.
        at: String,
    },
    /// The changed event breaks a rule.
    #[error(transparent)]
    Event(#[from] CloudEventError),
}

impl Edit {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let data = self.data_file.as_deref().map(read).transpose()?;
        let letter = self.view.look(|log| letter(&self.view, log, &self.subscription, self.position))?;
        let edited = edition(&letter.envelope, data, &self.set)?;
        let number = letter.envelope.edition() + 1;
        resolve(&self.view.data, &self.subscription, &[letter], |_| Resolution::Edit(edited.clone()))?;
        let (subscription, position) = (&self.subscription, self.position);
        let json = json!({"subscription": subscription, "position": position, "edition": number});
        self.view.tell(&json, || {
            format!(
                "The dead letter of `{subscription}` at {position} is edited (edition {number}): it is handled when the \
                 app starts next.\n"
            )
        })
    }
}

/// The file's content; a byte more than an event can hold if it is larger.
fn read(file: &Path) -> Result<Vec<u8>, EditError> {
    let mut bytes = Vec::new();
    let most = MAX_DATA_BYTES as u64 + 1;
    let read = if file.as_os_str() == "-" {
        io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|opened| opened.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| EditError::Read { file: file.to_owned(), error })?;
    Ok(bytes)
}
