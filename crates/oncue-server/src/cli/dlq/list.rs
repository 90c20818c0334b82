//! `oncue dlq list`.

use clap::Args;
use oncue::{filter::Filter, transport::DeadLetter};
use serde_json::{Value, json};

use super::{filter, letters};
use crate::{
    cli::{CommandError, view::View},
    columns::{Column, columns},
    number::grouped,
};

/// List dead letters, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue dlq list --data ./data\n  \
                        oncue dlq list charge --type order.created --limit 20 --data ./data\n  \
                        oncue dlq list --data ./data --json | jq 'group_by(.error) | map({error: .[0].error, n: length})'\n\n\
                        Exit codes: 0 all is done; 1 the log cannot be read; 2 there is no such directory, log or \
                        subscription, or the filter is wrong.")]
pub(super) struct List {
    /// The subscription (the handler's id). Without it, all
    subscription: Option<String>,

    /// Only those whose event matches this filter (`CloudEvents` Subscriptions), such as `{"prefix":{"subject":"o-1"}}`
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Filter>,

    /// Only those whose event has this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// At most so many, the oldest of each subscription first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    view: View,
}

impl List {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (listed, left_out) = self.view.look(|log| {
            let subscriptions = match &self.subscription {
                Some(wanted) => vec![wanted.clone()],
                None => log.subscriptions().into_iter().map(|known| known.id).collect(),
            };
            let mut listed = Vec::new();
            for subscription in subscriptions {
                let letters = letters(&self.view, log, &subscription)?.into_iter();
                let wanted = letters.filter(|letter| self.is_wanted(letter));
                listed.extend(wanted.map(|letter| (subscription.clone(), letter)));
            }
            let left_out = listed.len().saturating_sub(self.limit.unwrap_or(usize::MAX));
            listed.truncate(listed.len() - left_out);
            Ok((listed, left_out))
        })?;
        self.view.tell(&listed.iter().map(json).collect(), || text(&listed, left_out))
    }

    fn is_wanted(&self, letter: &DeadLetter) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(&letter.envelope))
            && self.event_type.as_ref().is_none_or(|wanted| wanted == letter.envelope.event_type())
    }
}

fn json((subscription, letter): &(String, DeadLetter)) -> Value {
    let last = letter.history.last();
    json!({
        "subscription": subscription,
        "position": letter.position,
        "id": letter.envelope.id(),
        "type": letter.envelope.event_type(),
        "key": letter.envelope.key(),
        "attempts": letter.history.len(),
        "class": last.map(|last| last.class),
        "error": last.map(|last| last.error.as_str()),
        "since": last.map(|last| last.ended.to_rfc3339()),
        "holds": letter.holds,
    })
}

fn text(listed: &[(String, DeadLetter)], left_out: usize) -> String {
    if listed.is_empty() && left_out == 0 {
        return "No dead letters.\n".to_owned();
    }
    let heading = [
        Column::Text("SUBSCRIPTION"),
        Column::Text("POSITION"),
        Column::Text("SINCE"),
        Column::Text("TYPE"),
        Column::Text("KEY"),
        Column::Text("ID"),
        Column::Number("ATTEMPTS"),
        Column::Text("HOLDS"),
        Column::Text("CLASS"),
        Column::Text("ERROR"),
    ];
    let mut out = columns(&heading, &listed.iter().map(row).collect::<Vec<_>>());
    if left_out > 0 {
        out += &format!("… and {} more (--limit)\n", grouped(left_out as u64));
    }
    out
}

fn row((subscription, letter): &(String, DeadLetter)) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let (event, last) = (&letter.envelope, letter.history.last());
    vec![
        subscription.clone(),
        letter.position.to_string(),
        or_dash(last.map(|last| format!("{:.6}", last.ended))),
        event.event_type().to_owned(),
        or_dash(event.key().map(str::to_owned)),
        event.id().to_owned(),
        grouped(letter.history.len() as u64),
        if letter.holds { "its key" } else { "–" }.to_owned(),
        or_dash(last.map(|last| last.class.to_string())),
        or_dash(last.map(|last| last.error.clone())),
    ]
}
