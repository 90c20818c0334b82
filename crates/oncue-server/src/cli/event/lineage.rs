//! Which events led to one, and which it led to.

use std::collections::{HashMap, HashSet};

use oncue::{
    Envelope,
    transport::{Inspect, InspectError, Position, TopicInfo},
};
use serde_json::{Value, json};

use crate::{cli::view::each_event, columns::plain};

/// Most events of one correlation that are kept while looking.
const MAX_FAMILY: usize = 100_000;
/// Most events that are told of.
const MAX_SHOWN: usize = 200;

/// An event in a chain of causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    id: String,
    event_type: String,
    topic: String,
    position: Position,
    causation: Option<String>,
    /// How many causes it is below the event that is asked for.
    depth: usize,
}

/// Where an event comes from and what it led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The chain of causes, the first of all first.
    pub(super) ancestors: Vec<Link>,
    /// What it caused, each followed by what that caused.
    pub(super) descendants: Vec<Link>,
    /// Whether that is all: not if there are too many.
    pub(super) is_complete: bool,
}

/// Events with something in common: one correlation, that of the first event of them all.
#[derive(Default)]
pub(super) struct Family {
    links: Vec<Link>,
    is_complete: bool,
}

/// What the events that an event led to, and that led to it, carry as their correlation; or as their id, the first one.
pub(super) fn correlation_of(event: &Envelope) -> &str {
    event.correlation_id().unwrap_or_else(|| event.id())
}

impl Family {
    /// Reads the families of these correlations.
    pub(super) fn read(
        log: &dyn Inspect,
        topics: &[TopicInfo],
        correlations: &HashSet<String>,
    ) -> Result<HashMap<String, Self>, InspectError> {
        let mut families: HashMap<String, Self> = HashMap::new();
        each_event(log, topics, |topic, position, event| {
            let correlation = correlation_of(event);
            if correlations.contains(correlation) {
                let family = families
                    .entry(correlation.to_owned())
                    .or_insert_with(|| Self { is_complete: true, ..Self::default() });
                family.add(topic, position, event);
            }
        })?;
        Ok(families)
    }

    fn add(&mut self, topic: &str, position: Position, event: &Envelope) {
        if self.links.len() == MAX_FAMILY {
            self.is_complete = false;
            return;
        }
        self.links.push(Link {
            id: event.id().to_owned(),
            event_type: event.event_type().to_owned(),
            topic: topic.to_owned(),
            position,
            causation: event.causation_id().map(str::to_owned),
            depth: 0,
        });
    }

    /// The lineage of one of them.
    pub(super) fn lineage(&self, event: &Envelope) -> Lineage {
        let mut by_id = HashMap::new();
        let mut caused: HashMap<&str, Vec<&Link>> = HashMap::new();
        for link in &self.links {
            by_id.entry(link.id.as_str()).or_insert(link);
            if let Some(causation) = &link.causation {
                caused.entry(causation).or_default().push(link);
            }
        }
        let mut lineage = Lineage { is_complete: self.is_complete, ..Lineage::default() };
        // Publishers choose ids and causes: they may go round in circles.
        let mut seen = HashSet::from([event.id()]);
        let mut cause = event.causation_id();
        while let Some(link) = cause.and_then(|id| by_id.get(id)).filter(|link| seen.insert(&link.id)) {
            lineage.ancestors.push((*link).clone());
            cause = link.causation.as_deref();
        }
        lineage.ancestors.reverse();
        let of = |id: &str, depth: usize| {
            let effects = caused.get(id).map(Vec::as_slice).unwrap_or_default();
            effects.iter().rev().map(|link| (*link, depth)).collect::<Vec<_>>()
        };
        let mut to_tell = of(event.id(), 1);
        while let Some((link, depth)) = to_tell.pop() {
            if !seen.insert(&link.id) {
                continue;
            }
            if lineage.descendants.len() == MAX_SHOWN {
                lineage.is_complete = false;
                break;
            }
            lineage.descendants.push(Link { depth, ..link.clone() });
            to_tell.extend(of(&link.id, depth + 1));
        }
        lineage
    }
}

impl Link {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "type": self.event_type,
            "topic": self.topic,
            "position": self.position.to_string(),
            "causationid": self.causation,
            "depth": self.depth,
        })
    }

    fn line(&self, indent: usize) -> String {
        let Self { id, event_type, topic, position, .. } = self;
        format!("{:indent$}{}  {}  ({topic} {position})\n", "", plain(event_type), plain(id))
    }
}

impl Lineage {
    pub(super) fn json(&self) -> Value {
        json!({
            "ancestors": self.ancestors.iter().map(Link::json).collect::<Value>(),
            "descendants": self.descendants.iter().map(Link::json).collect::<Value>(),
            "complete": self.is_complete,
        })
    }

    /// A line for each event, indented by one step for each cause.
    pub(super) fn text(&self, event: &Envelope) -> String {
        const STEP: usize = 2;
        let mut out = String::new();
        for (depth, link) in self.ancestors.iter().enumerate() {
            out += &link.line(STEP * (depth + 1));
        }
        let own = self.ancestors.len() + 1;
        out += &format!(
            "{:indent$}{}  {}  (this event)\n",
            "",
            plain(event.event_type()),
            plain(event.id()),
            indent = STEP * own
        );
        for link in &self.descendants {
            out += &link.line(STEP * (own + link.depth));
        }
        if !self.is_complete {
            out += "  … and more: not all are shown\n";
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, causation: Option<&str>) -> Envelope {
        let builder = Envelope::builder("t").id(id).correlation_id("a");
        causation.into_iter().fold(builder, |builder, causation| builder.causation_id(causation)).build().unwrap()
    }

    fn family(links: &[(&str, Option<&str>)]) -> Family {
        let mut family = Family { is_complete: true, ..Family::default() };
        for (offset, (id, causation)) in (0..).zip(links) {
            family.add("events", Position::new(0, offset, 0), &event(id, *causation));
        }
        family
    }

    fn told(family: &Family, of: &Envelope) -> (Vec<String>, Vec<(String, usize)>) {
        let Lineage { ancestors, descendants, .. } = family.lineage(of);
        let ids = ancestors.into_iter().map(|link| link.id).collect();
        (ids, descendants.into_iter().map(|link| (link.id, link.depth)).collect())
    }

    #[test]
    fn causes_and_effects_are_followed() {
        let family = family(&[
            ("a", None),
            ("b", Some("a")),
            ("c", Some("b")),
            ("d", Some("c")),
            ("e", Some("b")),
            ("x", Some("a")),
        ]);
        let (ancestors, descendants) = told(&family, &event("b", Some("a")));
        assert_eq!(ancestors, ["a"]);
        assert_eq!(descendants, [("c".into(), 1), ("d".into(), 2), ("e".into(), 1)]);
        let (ancestors, descendants) = told(&family, &event("d", Some("c")));
        assert_eq!((ancestors.join(""), descendants), ("abc".to_owned(), vec![]));
        let text = family.lineage(&event("b", Some("a"))).text(&event("b", Some("a")));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..3], ["  t  a  (events 0-0@0)", "    t  b  (this event)", "      t  c  (events 0-2@0)"]);
    }

    #[test]
    fn circles_end_and_too_many_are_cut() {
        let round = family(&[("a", Some("b")), ("b", Some("a"))]);
        assert_eq!(told(&round, &event("a", Some("b"))), (vec!["b".to_owned()], vec![]));
        let ids: Vec<String> = (0..MAX_SHOWN + 10).map(|number| number.to_string()).collect();
        let links: Vec<_> = ids.iter().map(|id| (id.as_str(), Some("a"))).collect();
        let lineage = family(&links).lineage(&event("a", None));
        assert_eq!((lineage.descendants.len(), lineage.is_complete), (MAX_SHOWN, false));
    }
}
