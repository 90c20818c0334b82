//! `oncue ls subscriptions`.

use clap::Args;
use oncue::{
    Clock, Timestamp,
    transport::{Inspect, InspectError, SubscriptionInfo},
};
use serde_json::{Value, json};

use super::{Which, types};
use crate::{
    cli::{CommandError, view::View},
    columns::{Column, columns},
    number::{grouped, time},
};

/// List the subscriptions: what each takes, how far behind it is, what it retries and what it gave up on
#[derive(Debug, Args)]
pub(super) struct Subscriptions {
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    which: Which,
}

/// The oldest event that a subscription is not through with.
struct Oldest {
    id: String,
    published: Timestamp,
    age: std::time::Duration,
}

impl Subscriptions {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let known = self.view.look(|log| {
            let known = self.which.of(&self.view, log)?;
            Ok(known.into_iter().map(|known| with_oldest(log, known)).collect::<Result<Vec<_>, _>>()?)
        })?;
        let json = |(known, oldest): &(SubscriptionInfo, Option<Oldest>)| {
            json!({
                "id": known.id,
                "topic": known.topic,
                "types": known.types,
                "lag": known.lag,
                "retrying": known.retrying,
                "dead": known.dead,
                "oldest_unsettled": oldest.as_ref().map_or(Value::Null, |oldest| json!({
                    "id": oldest.id,
                    "published": oldest.published.to_rfc3339(),
                    "age_s": oldest.age.as_secs_f64(),
                })),
            })
        };
        self.view.tell(&known.iter().map(json).collect(), || {
            let heading = [
                Column::Text("SUBSCRIPTION"),
                Column::Text("TOPIC"),
                Column::Number("LAG"),
                Column::Number("RETRYING"),
                Column::Number("DEAD"),
                Column::Number("OLDEST UNSETTLED"),
                Column::Text("TYPES"),
            ];
            let row = |(known, oldest): &(SubscriptionInfo, Option<Oldest>)| {
                vec![
                    known.id.clone(),
                    known.topic.clone(),
                    grouped(known.lag),
                    grouped(known.retrying),
                    grouped(known.dead),
                    oldest.as_ref().map_or("–".to_owned(), |oldest| time(oldest.age)),
                    types(known),
                ]
            };
            columns(&heading, &known.iter().map(row).collect::<Vec<_>>())
        })
    }
}

fn with_oldest(log: &dyn Inspect, known: SubscriptionInfo) -> Result<(SubscriptionInfo, Option<Oldest>), InspectError> {
    let oldest = log.oldest_unsettled(&known.id)?.map(|(_, event)| {
        let (id, published) = (event.id().to_owned(), event.published());
        Oldest { id, published, age: Clock::system().now().since(published) }
    });
    Ok((known, oldest))
}
