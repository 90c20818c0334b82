//! `oncue config check`: all that is wrong with a configuration file.

use std::path::PathBuf;

use clap::Args;
use oncue::config::{Config, ConfigError, FarUrl, Known, Problem, Severity};
use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::{CommandError, print};

/// Read a configuration file, and list all that is wrong with it
///
/// Each problem is a line: file, line, column, key, what is wrong and what would be right. Which handlers and groups there
/// are only the program knows, so sections for others are not found here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        oncue config check oncue.toml\n  \
                        oncue config check oncue.toml --policy bank --policy mail\n  \
                        oncue config check oncue.toml --json | jq -r '.problems[].key'\n\n\
                        Exit codes: 0 nothing is wrong; 2 something is, or the file cannot be read.")]
pub(super) struct Check {
    /// The configuration file
    file: PathBuf,

    /// A retry policy that the program has in code, so that `retry = "NAME"` is right; may be given several times
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a configuration file is not right.
#[derive(Debug, Error)]
pub(in crate::cli) enum CheckError {
    /// It cannot be read.
    #[error(transparent)]
    Read(ConfigError),
    /// What is wrong has been printed.
    #[error("{} {what}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// How much, in words.
        what: String,
    },
}

impl Check {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let problems = self.problems()?;
        let json =
            json!({"file": self.file.display().to_string(), "problems": problems.iter().map(json).collect::<Value>()});
        print(&if self.json { format!("{json:#}\n") } else { self.text(&problems) })?;
        let what = match problems.len() {
            0 => return Ok(()),
            1 => "has 1 problem".to_owned(),
            count => format!("has {count} problems"),
        };
        Err(CheckError::Wrong { file: self.file, what }.into())
    }

    fn problems(&self) -> Result<Vec<Problem>, CheckError> {
        match Config::read(&self.file) {
            Ok(config) => {
                let policies = self.policy.iter().map(String::as_str).collect();
                let bridges = &config.bridges;
                let handlers = config.handlers.keys().filter(|id| !bridges.contains_key(*id)).map(String::as_str);
                let groups = config.groups.keys().map(String::as_str).collect();
                let mut problems = config.check(&Known { policies, handlers: handlers.collect(), groups });
                let wrong = |url: &FarUrl| oncue_transports::check(url.secret()).err().map(|error| error.to_string());
                problems.extend(config.check_bridges(wrong));
                problems.sort_by_key(|problem| problem.place);
                Ok(problems)
            }
            Err(ConfigError::Invalid { problems }) => Ok(problems),
            Err(error) => Err(CheckError::Read(error)),
        }
    }

    fn text(&self, problems: &[Problem]) -> String {
        if problems.is_empty() {
            return format!("{}: nothing is wrong\n", self.file.display());
        }
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }
}

fn json(problem: &Problem) -> Value {
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "line": problem.place.map(|place| place.line),
        "column": problem.place.map(|place| place.column),
        "key": problem.key,
        "what": problem.what,
    })
}
