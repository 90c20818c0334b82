//! `oncue ls events`.

use std::num::NonZeroUsize;

use clap::Args;
use oncue::{
    Envelope,
    transport::{Inspect, InspectError, Position, TopicInfo},
};
use serde_json::json;

use crate::{
    cli::{
        CommandError,
        view::{Block, View},
    },
    columns::{Column, columns},
    number::grouped,
};

/// List the latest events, newest last
#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    view: View,

    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// Only events of this topic
    #[arg(long)]
    topic: Option<String>,

    /// At most so many, counted from the end
    #[arg(long, value_name = "N", default_value = "20")]
    limit: NonZeroUsize,
}

/// An event where it stands.
struct Listed {
    topic: String,
    position: Position,
    event: Envelope,
}

impl Events {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (listed, kept) = self.view.look(|log| {
            let (mut listed, mut kept) = (Vec::new(), 0);
            for topic in self.view.topics(log, self.topic.as_deref())? {
                listed.extend(self.latest(log, &topic)?);
                kept += topic.events();
            }
            // Stable: within a topic the order of offsets stays.
            listed.sort_by_key(|listed| listed.event.published());
            let too_many = listed.len().saturating_sub(self.limit.get());
            listed.drain(..too_many);
            Ok((listed, kept))
        })?;
        self.view.tell(&listed.iter().map(json).collect(), || {
            let heading = [
                Column::Text("PUBLISHED"),
                Column::Text("TOPIC"),
                Column::Text("POSITION"),
                Column::Text("TYPE"),
                Column::Text("KEY"),
                Column::Text("ID"),
            ];
            let table = columns(&heading, &listed.iter().map(row).collect::<Vec<_>>());
            if listed.len() < self.limit.get() || kept <= listed.len() as u64 {
                return table;
            }
            format!("{table}The latest {}, of {} events in all; --limit N shows more.\n", listed.len(), grouped(kept))
        })
    }

    /// The latest events of a topic that are asked for, oldest first: read backwards, block by block.
    fn latest(&self, log: &dyn Inspect, topic: &TopicInfo) -> Result<Vec<Listed>, InspectError> {
        let (mut end, mut block) = (topic.next_offset, Block::first());
        let mut listed = Vec::new();
        while end > topic.first_offset && listed.len() < self.limit.get() {
            let from = end.saturating_sub(block.events()).max(topic.first_offset);
            let events = log.browse(&topic.name, from, usize::try_from(end - from).unwrap_or(usize::MAX))?;
            block = block.after(&events);
            end = from;
            let wanted = events
                .into_iter()
                .rev()
                .filter(|(_, event)| self.event_type.as_ref().is_none_or(|wanted| wanted == event.event_type()));
            listed.extend(wanted.map(|(position, event)| Listed { topic: topic.name.clone(), position, event }));
        }
        listed.truncate(self.limit.get());
        listed.reverse();
        Ok(listed)
    }
}

fn json(Listed { topic, position, event }: &Listed) -> serde_json::Value {
    json!({
        "topic": topic,
        "position": position.to_string(),
        "offset": position.offset(),
        "published": event.published().to_rfc3339(),
        "type": event.event_type(),
        "key": event.key(),
        "id": event.id(),
        "source": event.source(),
    })
}

fn row(Listed { topic, position, event }: &Listed) -> Vec<String> {
    let key = event.key().unwrap_or("–");
    let texts = [topic.as_str(), event.event_type(), key, event.id()].map(str::to_owned);
    let [topic, event_type, key, id] = texts;
    vec![format!("{:.6}", event.published()), topic, position.to_string(), event_type, key, id]
}
