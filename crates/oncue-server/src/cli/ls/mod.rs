//! `oncue ls`: what is in a log.

mod events;
mod handlers;
mod subscriptions;
mod topics;

use clap::{Args, Subcommand};
use oncue::transport::{Inspect, SubscriptionInfo};

use super::{
    CommandError,
    view::{View, ViewError},
};

/// List what is in the log of an app, whether it runs or not
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue ls topics --data ./data\n  \
                        oncue ls subscriptions --data ./data\n  \
                        oncue ls events --data ./data --type order.created --limit 5\n  \
                        oncue ls events --data ./data --json | jq -r '.[].id'\n\n\
                        Nothing is locked and nothing is written: it works beside the running app.\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory, log or topic.")]
pub(super) struct Ls {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Events(events::Events),
    Handlers(handlers::Handlers),
    Subscriptions(subscriptions::Subscriptions),
    Topics(topics::Topics),
}

impl Ls {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.what {
            What::Events(events) => events.run(),
            What::Handlers(handlers) => handlers.run(),
            What::Subscriptions(subscriptions) => subscriptions.run(),
            What::Topics(topics) => topics.run(),
        }
    }
}

/// Which subscriptions.
#[derive(Debug, Args)]
struct Which {
    /// Only those that take events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Only those of this topic
    #[arg(long)]
    topic: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Which {
    /// Those, in the order they were made.
    fn of(&self, view: &View, log: &dyn Inspect) -> Result<Vec<SubscriptionInfo>, ViewError> {
        view.topics(log, self.topic.as_deref())?;
        let is_wanted = |known: &SubscriptionInfo| {
            let is_taken = |wanted: &String| known.types.is_empty() || known.types.contains(wanted);
            self.topic.as_ref().is_none_or(|topic| *topic == known.topic)
                && self.event_type.as_ref().is_none_or(is_taken)
        };
        let all = log.subscriptions().into_iter();
        Ok(all.filter(is_wanted).take(self.limit.unwrap_or(usize::MAX)).collect())
    }
}

/// Event types as people read them.
fn types(known: &SubscriptionInfo) -> String {
    if known.types.is_empty() { "every type".to_owned() } else { known.types.join(", ") }
}
