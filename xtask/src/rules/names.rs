//! A file's name says what is in it.

use super::{Breach, Repository};

/// Names that say nothing.
const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "stuff"];

/// Files and folders with vague names.
pub(super) fn vague(repository: &Repository) -> Vec<Breach> {
    let says_nothing = |path: &str| path.split(['/', '_', '-', '.']).any(|word| VAGUE.contains(&word));
    repository
        .rust()
        .filter(|file| says_nothing(&file.path))
        .map(|file| Breach::new(&file.path, 1, "a name that says nothing", "name it after what it is about"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vague_names_are_found_in_files_and_folders() {
        let files = ["a/util.rs", "a/common/b.rs", "a/segment_manager.rs", "a/commonly.rs", "a/b.rs"];
        let repository = Repository::of(&files.map(|path| (path, "")));
        let found: Vec<_> = vague(&repository).into_iter().map(|breach| breach.file).collect();
        assert_eq!(found, files[..3]);
    }
}
