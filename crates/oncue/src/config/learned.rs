//! Learned filters and learned priorities as data.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    duration,
    problem::{Findings, KeyPath},
    reader::{self, Table},
};
use crate::{
    filter::{self, DEFAULT_EXPLORE, Feedback, Label, LearnedFilter},
    policy::{self, LearnedPriority},
};

/// How long feedback may take if a table does not say it.
const DEFAULT_WITHIN: Duration = Duration::from_secs(3_600);

/// Reads a table, and looks at its values.
pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<LearnedFilter> {
    let mut table = Table::of(value, path, findings)?;
    let mut filter = filter::learned();
    if let Some(paths) = table.read("features", reader::texts) {
        filter = filter.features(paths);
    }
    if let Some(label) = table.read("label", label) {
        filter = filter.label(label);
    }
    if let Some(threshold) = table.read("threshold", reader::number) {
        filter = filter.threshold(threshold);
    }
    if let Some(explore) = table.read("explore", reader::number) {
        filter = filter.explore(explore);
    }
    table.finish();
    examine(&filter, path, findings);
    Some(filter)
}

/// Finds values that would not do what they say.
pub(super) fn examine(filter: &LearnedFilter, path: &KeyPath, findings: &mut Findings) {
    filter.problems().into_iter().for_each(|what| findings.value(path, what));
}

fn label(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Label> {
    match value {
        Value::Object(_) => feedback(value, path, findings).map(Label::Feedback),
        Value::String(_) => reader::choice(value, path, findings, &["dead", "failed"])
            .map(|label| if label == "dead" { Label::Dead } else { Label::Failed }),
        other => {
            let what = "is neither \"dead\" nor \"failed\" nor a table such as { feedback = [\"order.canceled\"] }";
            findings.value(path, format!("{} {what}", reader::shown(other)));
            None
        }
    }
}

fn feedback(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Feedback> {
    let mut table = Table::of(value, path, findings)?;
    let types = table.required("feedback", "[\"order.canceled\"]", reader::texts);
    let within = table.read("within", reader::duration);
    let expected = table.read("expected", reader::boolean);
    table.finish();
    Some(told_by(types?, within, expected))
}

/// Feedback of these types, as a table says of it.
pub(super) fn told_by(types: Vec<String>, within: Option<Duration>, expected: Option<bool>) -> Feedback {
    let feedback = filter::feedback(types, within.unwrap_or(DEFAULT_WITHIN));
    if expected == Some(true) { feedback.expected() } else { feedback }
}

/// Says the same of feedback in a table.
pub(super) fn tell(feedback: &Feedback, table: &mut Value) {
    table["feedback"] = json!(feedback.types());
    table["within"] = json!(duration::text(feedback.within()));
    if feedback.is_expected() {
        table["expected"] = json!(true);
    }
}

/// As it is read.
pub(super) fn serialize<S: Serializer>(filter: &Option<LearnedFilter>, serializer: S) -> Result<S::Ok, S::Error> {
    filter.as_ref().map(value).serialize(serializer)
}

fn value(filter: &LearnedFilter) -> Value {
    let mut value = json!({});
    let lessons = filter.lessons();
    if !lessons.features.is_empty() {
        value["features"] = json!(lessons.features);
    }
    match &lessons.label {
        Label::Dead => {}
        Label::Failed => value["label"] = json!("failed"),
        Label::Feedback(feedback) => tell(feedback, &mut value["label"]),
    }
    if let Some(threshold) = filter.holds_back_from() {
        value["threshold"] = json!(threshold);
    }
    if filter.explored() != DEFAULT_EXPLORE {
        value["explore"] = json!(filter.explored());
    }
    value
}

/// Reads a table of learned priorities, and looks at its values.
pub(super) fn read_priority(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<LearnedPriority> {
    let mut table = Table::of(value, path, findings)?;
    let (cost, attribute) = (table.read("cost", reader::text), table.read("cost_attribute", reader::text));
    let costs = table.named("costs", reader::number);
    let features = table.read("features", reader::texts);
    table.finish();
    if cost.is_some() && attribute.is_some() {
        findings.value(path, "`cost` and `cost_attribute` say the same of two places: choose one");
    }
    let mut priority = policy::learned_priority().features(features.unwrap_or_default());
    if let Some(path) = cost {
        priority = priority.cost(path);
    }
    if let Some(name) = attribute {
        priority = priority.cost_attribute(name);
    }
    let priority = costs.into_iter().fold(priority, |priority, (event_type, cost)| priority.cost_of(event_type, cost));
    examine_priority(&priority, path, findings);
    Some(priority)
}

/// Finds values that would not do what they say.
pub(super) fn examine_priority(priority: &LearnedPriority, path: &KeyPath, findings: &mut Findings) {
    priority.problems().into_iter().for_each(|what| findings.value(path, what));
}

/// As it is read.
pub(super) fn serialize_priority<S: Serializer>(
    priority: &Option<LearnedPriority>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    priority.as_ref().map(LearnedPriority::settings).serialize(serializer)
}
