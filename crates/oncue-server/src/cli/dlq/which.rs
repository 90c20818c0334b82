//! Which dead letters of a subscription are meant.

use clap::Args;
use oncue::{
    filter::Filter,
    transport::{DeadLetter, Position},
};

use super::{filter, letters};
use crate::cli::view::{View, ViewError};

/// By position, all, or by what their events say.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Where the events stand, as `oncue dlq list` prints it
    #[arg(value_name = "POSITION")]
    positions: Vec<Position>,

    /// All dead letters of the subscription
    #[arg(long)]
    all: bool,

    /// Those whose event matches this filter (`CloudEvents` Subscriptions), such as `{"prefix":{"subject":"o-1"}}`
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Filter>,
}

impl Which {
    /// Those, oldest first, as they are in the log now.
    pub(super) fn of(&self, view: &View, subscription: &str) -> Result<Vec<DeadLetter>, ViewError> {
        let letters = view.look(|log| letters(view, log, subscription))?;
        let missing = |position: &&Position| !letters.iter().any(|letter| letter.position == **position);
        if let Some(&position) = self.positions.iter().find(missing) {
            let subscription = subscription.to_owned();
            return Err(ViewError::NoDeadLetter { subscription, position, directory: view.data.clone() });
        }
        let is_meant = |letter: &DeadLetter| match &self.filter {
            Some(filter) => filter.matches(&letter.envelope),
            None => self.all || self.positions.contains(&letter.position),
        };
        Ok(letters.into_iter().filter(is_meant).collect())
    }
}
