//! `oncue dlq`: dead letters, seen and resolved.

mod discard;
mod edit;
mod edition;
mod list;
mod redrive;
mod resolve;
mod show;
mod which;

use clap::{Args, Subcommand};
use oncue::{
    filter::Filter,
    transport::{DeadLetter, Inspect, InspectError, Position},
};

use super::{
    CommandError,
    view::{View, ViewError, listed},
};

pub(super) use edit::EditError;
pub(super) use resolve::ResolveError;

/// See the events that handlers gave up on, and have them handled again or dropped
///
/// An event that still fails when its retry policy gives up is kept as a dead letter of that handler, with every failed
/// attempt. It stays until it is redriven (handled again), edited (changed, and handled again) or discarded.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue dlq list --data ./data\n  \
                        oncue dlq show charge 3-120@0 --data ./data\n  \
                        oncue dlq redrive charge 3-120@0 --data ./data\n  \
                        oncue dlq edit charge 3-120@0 --set data.total_cents=4200 --data ./data\n  \
                        oncue dlq discard charge --filter '{\"prefix\":{\"subject\":\"test-\"}}' --data ./data\n\n\
                        `list` and `show` work beside the running app. The others write: no process may have the \
                        directory then, and what they take up again is handled when the app starts next. In a running \
                        app, `Bus::dead_letters` does the same.")]
pub(super) struct Dlq {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(list::List),
    Show(show::Show),
    Redrive(redrive::Redrive),
    Edit(edit::Edit),
    Discard(discard::Discard),
}

impl Dlq {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::List(list) => list.run(),
            What::Show(show) => show.run(),
            What::Redrive(redrive) => redrive.run(),
            What::Edit(edit) => edit.run(),
            What::Discard(discard) => discard.run(),
        }
    }
}

/// What is said of `--data` where the log is written.
const WRITES: &str = "Directory that an app keeps its log in. No process may have it: stop the app first";

/// Reads `--filter`.
fn filter(json: &str) -> Result<Filter, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// The dead letters of a subscription, oldest first.
fn letters(view: &View, log: &dyn Inspect, subscription: &str) -> Result<Vec<DeadLetter>, ViewError> {
    log.dead_letters(subscription).map_err(|error| match error {
        InspectError::UnknownSubscription(subscription) => {
            let known = log.subscriptions();
            let known = listed(known.iter().map(|known| known.id.as_str()));
            ViewError::UnknownSubscription { subscription, directory: view.data.clone(), known }
        }
        error => ViewError::Inspect(error),
    })
}

/// One of them.
fn letter(view: &View, log: &dyn Inspect, subscription: &str, position: Position) -> Result<DeadLetter, ViewError> {
    let found = letters(view, log, subscription)?.into_iter().find(|letter| letter.position == position);
    found.ok_or_else(|| {
        let subscription = subscription.to_owned();
        ViewError::NoDeadLetter { subscription, position, directory: view.data.clone() }
    })
}
