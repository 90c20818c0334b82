//! Documents that others rely on have what they rely on.

use super::{Breach, Repository};

/// What a decision record has, each as a heading or (status) as `Status: …` below the title.
const PARTS: &[&str] = &["Status", "Context", "Decision", "Consequences"];
/// What the README says to run, and CI runs.
const TEST_COMMAND: &str = "cargo xtask ci";

/// Decision records that lack a part, or are not named `NNNN-title.md`.
pub(super) fn decisions(repository: &Repository) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in repository.files() {
        let Some(name) = file.path.strip_prefix("docs/decisions/") else { continue };
        let (number, title) = name.split_once('-').unwrap_or_default();
        let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
        if name == "README.md" {
            continue;
        }
        if !is_number || title.len() <= ".md".len() || !super::repository::has_extension(name, "md") {
            breaches.push(Breach::new(
                &file.path,
                1,
                "no name of a decision record",
                "name it NNNN-what-was-decided.md",
            ));
            continue;
        }
        for part in PARTS {
            let heading = |line: &str| {
                line.strip_prefix('#').is_some_and(|line| line.trim_start_matches('#').trim() == *part)
                    || line.trim_start_matches(['*', '-', ' ']).starts_with(&format!("{part}:"))
            };
            if !file.text.lines().any(heading) {
                let what = format!("no heading `{part}`");
                breaches.push(Breach::new(&file.path, 1, what, "say it: Status, Context, Decision, Consequences"));
            }
        }
    }
    breaches
}

/// Examples that no list names.
pub(super) fn examples(repository: &Repository) -> Vec<Breach> {
    let lists: String = ["README.md", "examples/README.md"]
        .iter()
        .filter_map(|path| Some(repository.file(path)?.text.as_str()))
        .collect();
    repository
        .files()
        .iter()
        .filter_map(|file| {
            let name = file.path.strip_prefix("examples/src/bin/")?.strip_suffix(".rs")?;
            let is_listed = super::source::has_word(&lists, name);
            let mend = "say in examples/README.md (or README.md) what it shows";
            (!is_listed).then(|| Breach::new(&file.path, 1, format!("example `{name}` is listed nowhere"), mend))
        })
        .collect()
}

/// The README's test command is the one that CI runs.
pub(super) fn test_command(repository: &Repository) -> Vec<Breach> {
    let runs = |line: &str| !line.trim_start().starts_with('#') && line.contains(TEST_COMMAND);
    [("README.md", "name the command that tests everything"), (".ci/run", "run the README's test command")]
        .into_iter()
        .filter_map(|(path, mend)| {
            let missing = !repository.file(path)?.text.lines().any(runs);
            missing.then(|| Breach::new(path, 1, format!("`{TEST_COMMAND}` is missing"), mend))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&Repository) -> Vec<Breach>, files: &[(&str, &str)]) -> Vec<String> {
        rule(&Repository::of(files)).into_iter().map(|breach| format!("{} {}", breach.file, breach.what)).collect()
    }

    #[test]
    fn a_decision_record_has_all_its_parts() {
        let whole = "# 1. Frames\nStatus: accepted\n## Context\n## Decision\n## Consequences\n";
        assert_eq!(found(decisions, &[("docs/decisions/0001-frames.md", whole)]), [""; 0]);
        let cut = whole.replace("## Consequences\n", "The Consequences\n");
        assert_eq!(
            found(decisions, &[("docs/decisions/0001-frames.md", &cut), ("docs/decisions/1-x.md", whole)]),
            [
                "docs/decisions/0001-frames.md no heading `Consequences`",
                "docs/decisions/1-x.md no name of a decision record"
            ]
        );
    }

    #[test]
    fn every_example_is_listed() {
        let files = [
            ("examples/README.md", "`01_hello` says hello"),
            ("examples/src/bin/01_hello.rs", ""),
            ("examples/src/bin/02_state.rs", ""),
        ];
        assert_eq!(found(examples, &files), ["examples/src/bin/02_state.rs example `02_state` is listed nowhere"]);
    }

    #[test]
    fn ci_runs_what_the_readme_says() {
        assert_eq!(
            found(test_command, &[("README.md", "    cargo xtask ci\n"), (".ci/run", "cargo xtask ci\n")]),
            [""; 0]
        );
        assert_eq!(found(test_command, &[(".ci/run", "# cargo xtask ci\n")]), [".ci/run `cargo xtask ci` is missing"]);
    }
}
