//! Which of the events that wait is handled first: the one whose waiting costs most for the time that handling it takes
//! (the cµ rule: Cox and Smith, *Queues*, 1961). What it costs is said; how long it takes is learned.

mod ranker;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::ranker::Ranker;
use crate::{
    event::Envelope,
    filter::{Features, features_of, part_of_data},
};

/// Costs beyond are that.
const LARGEST_COST: f64 = 1e12;

/// Priorities that are learned, for a subscription whose order is by priority. See [`learned_priority`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedPriority {
    /// The parts of the data that say how long an event takes, as paths; empty: all that are short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    features: Vec<String>,
    #[serde(default)]
    cost: CostOf,
    /// What a second of waiting costs, of events that do not say it themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    by_type: BTreeMap<String, f64>,
}

/// What says what a second of waiting costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CostOf {
    #[default]
    Type,
    /// A part of the data.
    Data(String),
    /// An extension attribute.
    Attribute(String),
}

/// Priorities by the cµ rule: first is the event with the largest cost of waiting for the time that it is expected to take.
/// Without more, waiting costs the same for all: then short ones come first.
///
/// ```
/// use oncue::{policy, prelude::*, transport::Order};
///
/// async fn render(_event: Envelope) {}
///
/// let urgent = policy::learned_priority().cost("customer.weight").cost_of("report.asked", 0.2).features(["pages"]);
/// let render = render.named("render").types(["report.asked", "invoice.asked"]).order(Order::Priority).priority(urgent);
/// assert!(render.problems().is_empty());
/// ```
#[must_use]
pub fn learned_priority() -> LearnedPriority {
    LearnedPriority::default()
}

impl LearnedPriority {
    /// The part of the data that says what a second of waiting costs, as a path: `total_cents`, `customer.weight`. A number
    /// of 0 or more; of events that do not have one, what [`cost_of`](Self::cost_of) says counts.
    #[must_use]
    pub fn cost(mut self, path: impl Into<String>) -> Self {
        self.cost = CostOf::Data(path.into());
        self
    }

    /// The same from an extension attribute, instead of the data.
    #[must_use]
    pub fn cost_attribute(mut self, name: impl Into<String>) -> Self {
        self.cost = CostOf::Attribute(name.into());
        self
    }

    /// What a second of waiting costs for events of a type; 1 of those of which nothing is said.
    #[must_use]
    pub fn cost_of(mut self, event_type: impl Into<String>, cost: f64) -> Self {
        self.by_type.insert(event_type.into(), cost);
        self
    }

    /// The parts of the data that say how long handling takes, as paths. Without this, all numbers, truth values and short
    /// texts of JSON data. Type, source, hour and weekday are looked at anyhow.
    #[must_use]
    pub fn features<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.features = paths.into_iter().map(Into::into).collect();
        self
    }

    /// What a second of waiting of an event costs.
    #[must_use]
    pub fn cost_of_waiting(&self, event: &Envelope) -> f64 {
        let said = match &self.cost {
            CostOf::Type => None,
            CostOf::Data(path) => part_of_data(event, path).and_then(|part| part.as_f64()),
            CostOf::Attribute(name) => event.extension(name).and_then(|text| text.parse().ok()),
        };
        let said = said.filter(|cost: &f64| *cost >= 0.0);
        said.unwrap_or_else(|| self.by_type.get(event.event_type()).copied().unwrap_or(1.0)).min(LARGEST_COST)
    }

    /// What is looked at of an event.
    #[must_use]
    pub fn features_of(&self, event: &Envelope) -> Features {
        features_of(event, &self.features)
    }

    /// What was said of it, as the configuration file says it.
    pub(crate) fn settings(&self) -> Value {
        let mut settings = json!({});
        match &self.cost {
            CostOf::Type => {}
            CostOf::Data(path) => settings["cost"] = json!(path),
            CostOf::Attribute(name) => settings["cost_attribute"] = json!(name),
        }
        if !self.by_type.is_empty() {
            settings["costs"] = json!(self.by_type);
        }
        if !self.features.is_empty() {
            settings["features"] = json!(self.features);
        }
        settings
    }

    /// What is wrong with its settings, each with the fix.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let is_cost = |cost: &f64| (0.0..=LARGEST_COST).contains(cost);
        let wrong = self.by_type.iter().filter(|(_, cost)| !is_cost(cost));
        let mut problems: Vec<String> = wrong
            .map(|(event_type, cost)| format!("the cost {cost} of `{event_type}` is none: give a number of 0 or more"))
            .collect();
        let paths = self.features.iter().chain(match &self.cost {
            CostOf::Data(path) => Some(path),
            CostOf::Type | CostOf::Attribute(_) => None,
        });
        if paths.into_iter().any(|path| path.split('.').any(str::is_empty)) {
            problems
                .push("a cost or a feature is the path of a part of the data, such as \"payments.0.value\"".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Envelope {
        Envelope::builder("a").extension("weight", "7").data(data.to_owned()).build().unwrap()
    }

    #[test]
    fn a_cost_is_what_the_event_says_else_what_its_type_costs_else_one() {
        let by_data = learned_priority().cost("customer.weight");
        assert_eq!(by_data.cost_of_waiting(&event(r#"{"customer": {"weight": 2.5}}"#)), 2.5);
        for without in ["{}", "no JSON", r#"{"customer": {"weight": -1}}"#, r#"{"customer": {"weight": "2"}}"#] {
            assert_eq!(by_data.cost_of_waiting(&event(without)), 1.0, "{without}");
            assert_eq!(by_data.clone().cost_of("a", 3.0).cost_of_waiting(&event(without)), 3.0, "{without}");
        }
        assert_eq!(learned_priority().cost_attribute("weight").cost_of_waiting(&event("")), 7.0);
        assert_eq!(learned_priority().cost_attribute("other").cost_of_waiting(&event("")), 1.0);
        assert_eq!(by_data.cost_of_waiting(&event(r#"{"customer": {"weight": 1e300}}"#)), LARGEST_COST);
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        assert!(learned_priority().cost("a.b").cost_of("a", 0.0).problems().is_empty());
        for cost in [-1.0, f64::NAN, f64::INFINITY] {
            let problems = learned_priority().cost_of("a", cost).problems();
            assert_eq!(problems, [format!("the cost {cost} of `a` is none: give a number of 0 or more")]);
        }
        assert!(learned_priority().cost("").problems()[0].starts_with("a cost or a feature"));
    }
}
