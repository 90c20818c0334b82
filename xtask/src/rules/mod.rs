//! House rules: what the compiler and clippy do not check. Each rule is data and a function that finds its breaches;
//! each has a test that it can find one. `cargo test -p xtask` checks the repository too.

mod dependencies;
mod documents;
mod modules;
mod names;
mod places;
mod repository;
mod sizes;
mod source;
mod words;

use std::fmt;

pub(crate) use repository::Repository;

/// Something that breaks a rule, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    file: String,
    line: usize,
    what: String,
    mend: &'static str,
}

impl Breach {
    fn new(file: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Self {
        Self { file: file.to_owned(), line, what: what.into(), mend }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    {}", self.file, self.line, self.what, self.mend)
    }
}

/// What all rules found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What must be mended.
    pub(crate) violations: Vec<Breach>,
    /// What should be thought about.
    pub(crate) warnings: Vec<Breach>,
}

/// A rule: finds its breaches.
type Rule = fn(&Repository) -> Vec<Breach>;

/// Rules that must hold.
const RULES: &[Rule] = &[
    sizes::too_long,
    dependencies::wrong,
    modules::wrong,
    words::forbidden,
    names::vague,
    places::of_one_machine,
    places::left_for_later,
    documents::decisions,
    documents::examples,
    documents::test_command,
];

/// Checks all rules.
pub(crate) fn check(repository: &Repository) -> Report {
    Report { violations: RULES.iter().flat_map(|rule| rule(repository)).collect(), warnings: sizes::long(repository) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_rules() {
        let repository = Repository::read(crate::step::root()).unwrap();
        assert!(repository.files().len() > 30, "the files of the repository were not found");
        let breaches: Vec<_> = check(&repository).violations.iter().map(ToString::to_string).collect();
        assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
    }

    #[test]
    fn a_breach_is_shown_with_its_place_and_its_remedy() {
        assert_eq!(Breach::new("a/b.rs", 7, "too long", "split it").to_string(), "a/b.rs:7: too long\n    split it");
    }
}
