//! The configuration file: how handlers that the program provides are served, and what topics keep, as data.
//!
//! ```
//! use oncue::config::Config;
//!
//! let config = Config::parse(
//!     r#"
//! [policies.bank]
//! kind = "exponential"
//! initial = "200ms"
//! max_attempts = 8
//!
//! [defaults]
//! timeout = "30s"
//!
//! [handlers.charge]
//! retry = "bank"
//! concurrency = 32
//! "#,
//!     "oncue.toml",
//! )?;
//! let charge = config.handler("charge", None);
//! assert_eq!(charge.concurrency, Some(32));
//! assert_eq!(config.defaults.timeout, Some(std::time::Duration::from_secs(30)));
//! # Ok::<(), oncue::config::ConfigError>(())
//! ```
//!
//! Every key is listed in `docs/configuration.md`. All that is wrong with a file is found at once, each with its line
//! ([`ConfigError`]); what only the program can know (which handlers there are) is found by [`Config::check`].
//! [`watch`] tells when the file says something else.

mod bridge;
mod document;
mod duration;
mod handler;
mod learned;
mod policy;
mod problem;
mod reader;
mod route;
mod suggestion;
mod topic;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::Serialize;

pub use bridge::{BridgeConfig, FarUrl};
pub use handler::{HandlerConfig, RetryConfig};
pub use policy::{PolicyConfig, PolicyLimits};
pub use problem::{ConfigError, Place, Problem, Severity};
pub use route::RouteConfig;
pub use topic::TopicConfig;
pub use watch::{Watch, watch};

use document::{Document, Places};
use problem::{Finding, Findings, KeyPath};
use reader::Table;
use suggestion::suggestion;

use crate::{event::is_topic_name, handler::Location, policy::OPTIMAL};

/// The largest file that is read: 4 MiB.
pub const MAX_BYTES: u64 = 4 << 20;

/// What a configuration file says.
///
/// Two are equal if they say the same, wherever in their files.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Config {
    /// Retry policies, for `retry = "name"`. One of the same name in code gives way to it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, PolicyConfig>,
    /// For what the sections of a handler and of its group do not say.
    #[serde(skip_serializing_if = "HandlerConfig::is_empty")]
    pub defaults: HandlerConfig,
    /// For the handlers of a group, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, HandlerConfig>,
    /// For single handlers, by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Bridges, by the id of their handler.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bridges: BTreeMap<String, BridgeConfig>,
    /// For topics, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<String, TopicConfig>,
    /// Name of the file.
    #[serde(skip)]
    file: String,
    /// Where its keys are.
    #[serde(skip)]
    places: Places,
}

/// What a program provides, for [`Config::check`].
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// Names of the retry policies in code.
    pub policies: BTreeSet<&'a str>,
    /// Ids of the handlers.
    pub handlers: BTreeSet<&'a str>,
    /// Names of the groups that its handlers are in.
    pub groups: BTreeSet<&'a str>,
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.said() == other.said()
    }
}

impl Config {
    /// Reads TOML text. `file` is the name that problems are given under.
    ///
    /// # Errors
    /// All that is wrong with the text, each with its place. If that is the syntax, the rest is not looked at: it would be
    /// a guess.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text);
        let problem = |place, key: &str, what: String| Problem {
            severity: Severity::Error,
            file: file.to_owned(),
            place,
            key: key.to_owned(),
            what,
        };
        if !document.syntax.is_empty() {
            let mut problems: Vec<_> =
                document.syntax.into_iter().map(|(place, what)| problem(place, "", what)).collect();
            problems.sort_by_key(|problem| problem.place);
            return Err(ConfigError::Invalid { problems });
        }
        let mut findings = document.findings;
        let path = KeyPath::default();
        let mut config = Self { file: file.to_owned(), places: document.places, ..Self::default() };
        if let Some(mut table) = Table::of(&document.root, &path, &mut findings) {
            config.policies = table.named("policies", |value, path, findings| {
                let policy = PolicyConfig::read(value, path, findings)?;
                policy.examine(path, findings);
                Some(policy)
            });
            config.defaults = table.read("defaults", HandlerConfig::read).unwrap_or_default();
            if config.defaults.route.is_some() {
                let what = "a route is one handler's: say it in its section, as [handlers.charge]";
                table.findings.value(&path.child("defaults").child("route"), what);
            }
            config.groups = table.named("groups", HandlerConfig::read);
            config.handlers = table.named("handlers", HandlerConfig::read);
            config.bridges = table.named("bridges", BridgeConfig::read);
            config.topics = table.named("topics", TopicConfig::read);
            for name in config.topics.keys().filter(|name| !is_topic_name(name)) {
                let what = "no topic has such a name: it is 1 to 200 letters, digits, `.`, `_` or `-`";
                table.findings.key(path.child("topics").child(name), what);
            }
            table.finish();
        }
        let problems = config.problems(findings, Severity::Error);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { problems }) }
    }

    /// Reads a file of at most [`MAX_BYTES`]. It blocks: in async code, use `spawn_blocking`.
    ///
    /// # Errors
    /// The file cannot be read, or all that is wrong with it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let read = File::open(path).and_then(|opened| bytes_of(&opened));
        match read {
            Ok(bytes) => Self::of_bytes(&bytes, &file),
            Err(error) => Err(ConfigError::Read { path: file, error }),
        }
    }

    /// All but the names and places of where it was read.
    fn said(&self) -> impl PartialEq {
        (&self.policies, &self.defaults, &self.groups, &self.handlers, &self.bridges, &self.topics)
    }

    fn of_bytes(bytes: &[u8], file: &str) -> Result<Self, ConfigError> {
        let wrong = |place, what: String| {
            let file = file.to_owned();
            let problem = Problem { severity: Severity::Error, file, place, key: String::new(), what };
            Err(ConfigError::Invalid { problems: vec![problem] })
        };
        if bytes.len() as u64 > MAX_BYTES {
            return wrong(None, format!("the file is larger than {MAX_BYTES} bytes: is it the right one?"));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, file),
            Err(error) => {
                let before = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                let line = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
                wrong(Some(Place { line, column: 1 }), "the line is not UTF-8: save the file as UTF-8".to_owned())
            }
        }
    }

    /// What the file says of a handler: its own section, then the one of its group. The defaults are for what neither that
    /// nor the code says.
    #[must_use]
    pub fn handler(&self, id: &str, group: Option<&str>) -> HandlerConfig {
        let own = self.handlers.get(id).cloned().unwrap_or_default();
        let group = group.and_then(|group| self.groups.get(group)).cloned().unwrap_or_default();
        own.or(group)
    }

    /// What does not fit the program, in the order of the file: names of retry policies that neither the file nor the
    /// code has, bridges of the name of a handler (errors), sections for handlers and groups that are not there (warnings).
    #[must_use]
    pub fn check(&self, known: &Known<'_>) -> Vec<Problem> {
        let root = KeyPath::default();
        let (mut errors, mut warnings) = (Findings::default(), Findings::default());
        let policies: BTreeSet<&str> =
            self.policies.keys().map(String::as_str).chain(known.policies.iter().copied()).collect();
        let section = |table: &str, name: &str| root.child(table).child(name);
        let of_groups = self.groups.iter().map(|(name, config)| (section("groups", name), config));
        let of_handlers = self.handlers.iter().map(|(id, config)| (section("handlers", id), config));
        let sections = of_groups.chain(of_handlers).chain([(root.child("defaults"), &self.defaults)]);
        for (path, config) in sections {
            if let Some(RetryConfig::Named(name)) = &config.retry
                && name != OPTIMAL
                && !policies.contains(name.as_str())
            {
                let meant = suggestion(name, policies.iter().copied(), "policies");
                let what = format!("there is no retry policy {name:?}, in the file or in code: {meant}");
                errors.value(&path.child("retry"), what);
            }
        }
        for name in self.bridges.keys().filter(|name| known.handlers.contains(name.as_str())) {
            let what = format!("the program has a handler {name:?}: give the bridge another name");
            errors.key(section("bridges", name), what);
        }
        // A bridge is a handler.
        let handlers = known.handlers.iter().copied().chain(self.bridges.keys().map(String::as_str)).collect();
        for (table, what, names, known) in [
            ("groups", "group", self.groups.keys(), &known.groups),
            ("handlers", "handler", self.handlers.keys(), &handlers),
        ] {
            for name in names.filter(|name| !known.contains(name.as_str())) {
                let meant = suggestion(name, known.iter().copied(), table);
                warnings.key(section(table, name), format!("the program has no {what} {name:?}: {meant}"));
            }
        }
        let mut problems = self.problems(errors, Severity::Error);
        problems.extend(self.problems(warnings, Severity::Warning));
        problems.sort_by_key(|problem| problem.place);
        problems
    }

    /// What is wrong with the URLs of bridges, in the order of the file, as `wrong` tells: which transports there are only the
    /// program knows.
    #[must_use]
    pub fn check_bridges(&self, wrong: impl Fn(&FarUrl) -> Option<String>) -> Vec<Problem> {
        let (root, mut findings) = (KeyPath::default().child("bridges"), Findings::default());
        for (name, bridge) in &self.bridges {
            if let Some(what) = wrong(&bridge.to) {
                findings.value(&root.child(name).child("to"), what);
            }
        }
        self.problems(findings, Severity::Error)
    }

    /// Where a bridge is said.
    pub(crate) fn place_of_bridge(&self, name: &str) -> Location {
        let place = self.places.key(&KeyPath::default().child("bridges").child(name));
        Location { file: self.file.clone().into(), line: place.map_or(1, |place| place.line) }
    }

    /// The findings with their places, in the order of the file.
    fn problems(&self, findings: Findings, severity: Severity) -> Vec<Problem> {
        let problem = |Finding { key, at_key, what }: Finding| Problem {
            severity,
            file: self.file.clone(),
            place: if at_key { self.places.key(&key) } else { self.places.value(&key) },
            key: key.as_str().to_owned(),
            what,
        };
        let mut problems: Vec<_> = findings.0.into_iter().map(problem).collect();
        problems.sort_by_key(|problem| problem.place);
        problems
    }
}

/// The content of a file; one byte more than [`MAX_BYTES`] if it is larger.
fn bytes_of(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
