//! No file of Rust is too long to read. (Functions: clippy's `too_many_lines`.)

use super::{Breach, Repository};

/// More lines than this are a breach.
const MOST_LINES: usize = 1_000;
/// More lines than this are a warning.
const MANY_LINES: usize = 500;

/// Files that are too long.
pub(super) fn too_long(repository: &Repository) -> Vec<Breach> {
    longer(repository, MOST_LINES, usize::MAX, "split it by what its parts are for; the limit is 1,000 lines")
}

/// Files that are long.
pub(super) fn long(repository: &Repository) -> Vec<Breach> {
    longer(repository, MANY_LINES, MOST_LINES, "think about splitting it; 100 to 300 lines are usual here")
}

fn longer(repository: &Repository, than: usize, up_to: usize, mend: &'static str) -> Vec<Breach> {
    let sizes = repository.rust().map(|file| (file, file.text.lines().count()));
    let long = sizes.filter(|(_, lines)| (than + 1..=up_to).contains(lines));
    long.map(|(file, lines)| Breach::new(&file.path, lines, format!("{lines} lines"), mend)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_warned_about_and_longer_ones_refused() {
        let lines = |count: usize| "x\n".repeat(count);
        let files = [lines(500), lines(501), lines(1_000), lines(1_001)];
        let repository =
            Repository::of(&[("a.rs", &files[0]), ("b.rs", &files[1]), ("c.rs", &files[2]), ("d.rs", &files[3])]);
        let paths = |breaches: Vec<Breach>| breaches.into_iter().map(|breach| breach.file).collect::<Vec<_>>();
        assert_eq!(
            (paths(long(&repository)), paths(too_long(&repository))),
            (vec!["b.rs".into(), "c.rs".into()], vec!["d.rs".into()])
        );
    }
}
