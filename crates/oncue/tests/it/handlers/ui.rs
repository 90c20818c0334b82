//! What the compiler says to a slip: short, and naming what is wrong.

use std::{fs, path::Path};

/// Longest that an answer may be.
const MAX_LINES: usize = 25;

#[test]
fn a_slip_gets_a_short_answer_that_names_it() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/fail/*.rs");
    cases.pass("tests/ui/pass/*.rs");
}

#[test]
fn every_answer_is_short() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/fail");
    let mut answers = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stderr") {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= MAX_LINES, "{}: {lines} lines, and {MAX_LINES} are allowed", path.display());
            answers += 1;
        }
    }
    assert!(answers > 0);
}
