//! Text that must not stay in the repository.

use super::{Breach, Repository, repository::File, source};

/// Paths of the machines that this is developed on. (In two parts: this file is looked at too.)
const MACHINE: &[&str] = &[concat!("/wo", "rk/"), concat!("../sha", "red")];

/// The one file that may name optional data from outside of the repository. There is none.
const MAY_NAME_OUTSIDE_DATA: &[&str] = &[];

/// Marks of work that was put off.
const LATER: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Paths of one machine.
pub(super) fn of_one_machine(repository: &Repository) -> Vec<Breach> {
    let files = repository.files().iter().filter(|file| !MAY_NAME_OUTSIDE_DATA.contains(&file.path.as_str()));
    let mend = "take the path as an argument or an environment variable, and do without it where it is not given";
    lines_with(files, MACHINE, begins_path, mend)
}

/// Notes to do something later.
pub(super) fn left_for_later(repository: &Repository) -> Vec<Breach> {
    let is_source = |file: &&File| {
        let extension = file.path.rsplit('.').next().unwrap_or_default();
        matches!(extension, "rs" | "toml" | "sh" | "yml" | "yaml" | "md") || file.path.starts_with(".ci/")
    };
    let files = repository.files().iter().filter(is_source);
    lines_with(files, LATER, source::has_word, "do it, or open an issue: nobody finds it here")
}

/// Whether `path` stands in `line` as the beginning of a path, not as a part of a longer one.
fn begins_path(line: &str, path: &str) -> bool {
    let part_of_path = |char: char| char.is_alphanumeric() || "_-./".contains(char);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(part_of_path))
}

fn lines_with<'a>(
    files: impl Iterator<Item = &'a File>,
    texts: &[&str],
    is_in: fn(&str, &str) -> bool,
    mend: &'static str,
) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files {
        for (number, line) in file.lines() {
            let found = texts.iter().filter(|text| is_in(line, text));
            breaches.extend(found.map(|text| Breach::new(&file.path, number, format!("`{text}`"), mend)));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_machine_and_notes_for_later_are_found() {
        let text = format!("fine\nread {}x\n// {}: later\n", MACHINE[0], LATER[0]);
        let repository = Repository::of(&[("a/b.rs", &text), ("a/data.bin", &text)]);
        let lines =
            |breaches: Vec<Breach>| breaches.into_iter().map(|breach| (breach.file, breach.line)).collect::<Vec<_>>();
        assert_eq!(lines(of_one_machine(&repository)), [("a/b.rs".to_owned(), 2), ("a/data.bin".to_owned(), 2)]);
        assert_eq!(lines(left_for_later(&repository)), [("a/b.rs".to_owned(), 3)]);
    }
}
