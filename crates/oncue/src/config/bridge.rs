//! What a file says of a bridge.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{
    problem::{Findings, KeyPath},
    reader::{self, Table},
};
use crate::{event::is_topic_name, filter::Filter, transport::without_secrets};

/// A [bridge](crate::bridge): the events of a topic go to another transport, too. It is a handler, of the id that is its
/// section's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BridgeConfig {
    /// The topic whose events are forwarded.
    pub from: String,
    /// Where to.
    pub to: FarUrl,
    /// The topic there; nothing: one of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into_topic: Option<String>,
    /// The types that are forwarded; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Which of their events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// The URL of a transport, which may hold a password. It is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct FarUrl(String);

impl FarUrl {
    /// With all that it holds: not to be shown.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FarUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

impl fmt::Debug for FarUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", without_secrets(&self.0))
    }
}

impl Serialize for FarUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl BridgeConfig {
    pub(super) fn read(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<Self> {
        let mut table = Table::of(value, path, findings)?;
        let from = table.required("from", "\"orders\"", topic);
        let to = table
            .required("to", "\"file:./far\"", |value, path, findings| reader::text(value, path, findings).map(FarUrl));
        let into_topic = table.read("into_topic", topic);
        let types = table.read("types", reader::texts);
        let filter = table.read("filter", reader::any);
        if types.as_ref().is_some_and(Vec::is_empty) {
            let what = "an empty list would forward nothing: name types, or leave it out for all";
            table.findings.value(&path.child("types"), what);
        }
        table.finish();
        Some(Self { from: from?, to: to?, into_topic, types: types.unwrap_or_default(), filter })
    }
}

/// The name of a topic.
fn topic(value: &Value, path: &KeyPath, findings: &mut Findings) -> Option<String> {
    let name = reader::text(value, path, findings)?;
    if !is_topic_name(&name) {
        findings.value(path, format!("{name:?} is no topic: a name is 1 to 200 letters, digits, `.`, `_` or `-`"));
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Known};

    #[test]
    fn a_bridge_is_read_and_its_secrets_are_not_shown() {
        let text = r#"
[bridges.orders-to-far]
from = "orders"
to = "nats://me:very-secret@host:4222"
into_topic = "shop.orders"
types = ["order.paid"]
filter = { prefix = { subject = "eu/" } }

[handlers.orders-to-far]
concurrency = 4
"#;
        let config = Config::parse(text, "oncue.toml").unwrap();
        let bridge = &config.bridges["orders-to-far"];
        assert_eq!(
            (&*bridge.from, bridge.into_topic.as_deref(), &*bridge.types),
            ("orders", Some("shop.orders"), &["order.paid".to_owned()][..])
        );
        assert_eq!(
            (bridge.to.secret(), &*bridge.to.to_string()),
            ("nats://me:very-secret@host:4222", "nats://host:4222")
        );
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(shown.contains("nats://host:4222") && !shown.contains("secret"), "{shown}");
        assert!(config.check(&Known::default()).is_empty(), "a bridge is a handler");
        assert_ne!(config, Config::parse(&text.replace("very", "other"), "oncue.toml").unwrap(), "another password");
    }

    #[test]
    fn what_is_wrong_with_a_bridge_is_said_with_its_table_and_key() {
        let problems = |text: &str| Config::parse(text, "a.toml").unwrap_err().to_string();
        let all = problems(
            "[bridges.far]\nform = \"orders\"\nto = \"nats://me:very-secret@host\"\ntypes = []\ninto_topic = \"no name\"\n",
        );
        for wrong in [
            "a.toml:1:1: bridges.far: `from` is missing: add from = \"orders\"",
            "a.toml:2:1: bridges.far.form: unknown key `form`: did you mean `from`?",
            "a.toml:4:9: bridges.far.types: an empty list would forward nothing",
            "a.toml:5:14: bridges.far.into_topic: \"no name\" is no topic",
        ] {
            assert!(all.contains(wrong), "{wrong}\n{all}");
        }
        assert!(!all.contains("secret"), "{all}");
        let broken = problems("[bridges.far]\nfrom = \"orders\"\nto = \"nats://me:very-secret@host\n");
        assert!(broken.contains("a.toml:3:") && !broken.contains("secret"), "{broken}");
        let twice =
            problems("[bridges.far]\nto = \"nats://me:very-secret@host\"\nto = \"nats://me:very-secret@host\"\n");
        assert!(twice.contains("a.toml:3:") && !twice.contains("secret"), "{twice}");
    }

    #[test]
    fn what_the_program_knows_is_checked_by_it() {
        let config = Config::parse("[bridges.far]\nfrom = \"orders\"\nto = \"nats://host\"\n", "a.toml").unwrap();
        let known = Known { handlers: ["far"].into(), ..Known::default() };
        let problem = config.check(&known).remove(0).to_string();
        assert!(problem.starts_with("a.toml:1:10: bridges.far: the program has a handler \"far\""), "{problem}");
        let problem = config.check_bridges(|url| Some(format!("`{url}`: no"))).remove(0).to_string();
        assert_eq!(problem, "a.toml:3:6: bridges.far.to: `nats://host`: no");
    }
}
