//! What is wrong with a configuration: where it is, and what would be right.

use std::{fmt, io};

use thiserror::Error;

/// A configuration cannot be had.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file `{path}` cannot be read: {error}; check its path and its permissions")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What it says is wrong: everything that was found, in the order of the file.
    #[error("{}", lines(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Something that is wrong with a configuration. Its text is `file:line:column: key: what, and what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named to the reader; empty for a configuration that was not read from text.
    pub file: String,
    /// Where in the file.
    pub place: Option<Place>,
    /// The key, from the outermost: `handlers.charge.timeout`. Empty for an error of the syntax.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and a part of it does nothing.
    Warning,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, 1 is the first.
    pub line: u32,
    /// The character in the line, 1 is the first.
    pub column: u32,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if let Some(Place { line, column }) = self.place {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// What was found wrong while reading values, by key. Where each key stands is known by who parsed the text.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

#[derive(Debug)]
pub(super) struct Finding {
    pub(super) key: KeyPath,
    /// Whether the key itself is wrong, not its value.
    pub(super) at_key: bool,
    pub(super) what: String,
}

impl Findings {
    /// The value of `key` is wrong.
    pub(super) fn value(&mut self, key: &KeyPath, what: impl Into<String>) {
        self.0.push(Finding { key: key.clone(), at_key: false, what: what.into() });
    }

    /// `key` should not be there.
    pub(super) fn key(&mut self, key: KeyPath, what: impl Into<String>) {
        self.0.push(Finding { key, at_key: true, what: what.into() });
    }

    /// What was found, one text each.
    pub(super) fn texts(&self) -> Vec<String> {
        let text = |finding: &Finding| match finding.key.as_str() {
            "" => finding.what.clone(),
            key => format!("{key}: {}", finding.what),
        };
        self.0.iter().map(text).collect()
    }
}

/// A key from the outermost, as TOML writes it: `handlers."order.mail".retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(String);

impl KeyPath {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn child(&self, key: &str) -> Self {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let quoted = if !key.is_empty() && key.chars().all(is_bare) { key.to_owned() } else { format!("{key:?}") };
        Self(if self.0.is_empty() { quoted } else { format!("{}.{quoted}", self.0) })
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_it_is() {
        let problem = Problem {
            severity: Severity::Error,
            file: "oncue.toml".to_owned(),
            place: Some(Place { line: 3, column: 7 }),
            key: "defaults.retry".to_owned(),
            what: "is wrong".to_owned(),
        };
        assert_eq!(problem.to_string(), "oncue.toml:3:7: defaults.retry: is wrong");
        let warning = Problem { severity: Severity::Warning, place: None, ..problem.clone() };
        assert_eq!(warning.to_string(), "oncue.toml: warning: defaults.retry: is wrong");
        let bare = Problem { file: String::new(), key: String::new(), ..problem };
        assert_eq!(bare.to_string(), "is wrong");
    }

    #[test]
    fn keys_that_need_quotes_have_them() {
        let path = KeyPath::default().child("handlers").child("order.mail").child("delays").item(2);
        assert_eq!(path.as_str(), r#"handlers."order.mail".delays[2]"#);
        assert_eq!(KeyPath::default().child("").as_str(), r#""""#);
    }
}
