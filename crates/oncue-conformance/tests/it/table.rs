//! `docs/delivery.md` says what the suite declares and finds.

use std::collections::{BTreeMap, BTreeSet};

use oncue_conformance::{CATALOGUE, Report, Verdict};

const DOCUMENT: &str = include_str!("../../../../docs/delivery.md");

/// The column of `file:` in the table of cases.
pub(crate) const FILE: usize = 3;
/// That of `memory:`.
pub(crate) const MEMORY: usize = 4;

/// The rows of all tables, cell by cell.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = DOCUMENT.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.map(|line| line.split('|').map(str::trim).collect())
}

/// The table of cases, by number.
fn cases() -> BTreeMap<u8, Vec<&'static str>> {
    rows().filter_map(|row| Some((row[0].parse().ok()?, row))).collect()
}

/// The tables of clauses.
fn clauses() -> Vec<Vec<&'static str>> {
    let is_clause = |cell: &str| {
        cell.strip_prefix(['P', 'D', 'S']).is_some_and(|number| number.parse::<u8>().is_ok() && !number.is_empty())
    };
    rows().filter(|row| is_clause(row[0])).collect()
}

/// The cases that a clause is said to be checked by: numbers outside of parentheses (`kill -9` is none).
fn named(cell: &str) -> BTreeSet<u8> {
    let mut depth = 0;
    let outside: String = cell
        .chars()
        .filter(|char| {
            depth += i32::from(*char == '(');
            let outside = depth == 0;
            depth -= i32::from(*char == ')');
            outside
        })
        .collect();
    let words = outside.split(|char: char| !char.is_alphanumeric() && char != '-');
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The table of cases tells what came of a run.
pub(crate) fn assert_tells(report: &Report, column: usize) {
    let cases = cases();
    for entry in &report.entries {
        let found = match entry.verdict {
            Verdict::Skipped => format!("skipped: {}", entry.reason),
            verdict => verdict.as_str().to_owned(),
        };
        let number = entry.case.number;
        assert_eq!(cases[&number][column], found, "docs/delivery.md, case {number}, {}", report.transport);
    }
}

#[test]
fn every_case_is_in_the_table_with_its_name_and_clauses() {
    let declared: Vec<_> =
        CATALOGUE.iter().map(|case| (case.number, case.name.to_owned(), case.clauses.join(" "))).collect();
    let told: Vec<_> =
        cases().into_iter().map(|(number, row)| (number, row[1].to_owned(), row[2].to_owned())).collect();
    assert_eq!(told, declared);
}

#[test]
fn every_clause_is_there_once_and_names_the_cases_that_test_it() {
    let expected = |letter: char, last: u8| (1..=last).map(move |number| format!("{letter}{number}"));
    let all: Vec<_> = expected('P', 7).chain(expected('D', 19)).chain(expected('S', 4)).collect();
    let rows = clauses();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), all);
    for row in &rows {
        let [clause, promise, file, memory, checked] = row[..] else { panic!("{row:?}") };
        assert!([promise, file, memory, checked].iter().all(|cell| !cell.is_empty()), "{row:?}");
        let declare = CATALOGUE.iter().filter(|case| case.clauses.contains(&clause)).map(|case| case.number);
        assert_eq!(named(checked), declare.collect(), "{clause}");
    }
}

#[test]
fn cases_are_numbers_that_stand_alone() {
    assert_eq!(named("cases 1, 4; 43 (`file:`, 7 times); kill -9; `x2.rs`"), BTreeSet::from([1, 4, 43]));
}
