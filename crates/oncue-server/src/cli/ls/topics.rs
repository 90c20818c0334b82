//! `oncue ls topics`.

use clap::Args;
use oncue::transport::TopicInfo;
use serde_json::json;

use crate::{
    cli::{CommandError, view::View},
    columns::{Column, columns},
    number::grouped,
};

/// List the topics: partitions, the offsets that are kept, how many events that is, and what is kept
#[derive(Debug, Args)]
pub(super) struct Topics {
    #[command(flatten)]
    view: View,

    /// Only this one
    #[arg(long)]
    topic: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Topics {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut topics = self.view.look(|log| self.view.topics(log, self.topic.as_deref()))?;
        topics.truncate(self.limit.unwrap_or(usize::MAX));
        let json = |topic: &TopicInfo| {
            json!({
                "name": topic.name,
                "partitions": topic.partitions,
                "first_offset": topic.first_offset,
                "next_offset": topic.next_offset,
                "events": topic.events(),
                "retention": topic.retention,
                "retention_from": topic.retention_from,
            })
        };
        self.view.tell(&topics.iter().map(json).collect(), || {
            let heading = [
                Column::Text("TOPIC"),
                Column::Number("PARTITIONS"),
                Column::Number("FIRST OFFSET"),
                Column::Number("NEXT OFFSET"),
                Column::Number("EVENTS"),
                Column::Text("KEEPS"),
                Column::Text("BY"),
            ];
            let row = |topic: &TopicInfo| {
                let numbers = [topic.partitions.into(), topic.first_offset, topic.next_offset, topic.events()];
                let kept = [topic.retention.to_string(), topic.retention_from.to_string()];
                std::iter::once(topic.name.clone()).chain(numbers.map(grouped)).chain(kept).collect()
            };
            columns(&heading, &topics.iter().map(row).collect::<Vec<_>>())
        })
    }
}
