//! The files that rules look at.

use std::{fs, path::Path, process::Command};

use super::source;

/// A text file of the repository.
pub(crate) struct File {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Of Rust: its text with comments and literals blanked out, line by line the same.
    pub(crate) code: String,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if has_extension(path, "rs") { source::code_only(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Whether it is Rust.
    pub(super) fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// The lines of its code, numbered from 1.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines of its text, numbered from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The files of a repository: those that git tracks or would track.
pub(crate) struct Repository {
    files: Vec<File>,
}

impl Repository {
    /// Reads the repository at `root`. Files that are not text are left out.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let paths = tracked(root).or_else(|_| walked(root))?;
        let text = |path: String| Some(File::new(&path, &String::from_utf8(fs::read(root.join(&path)).ok()?).ok()?));
        Ok(Self { files: paths.into_iter().filter_map(text).collect() })
    }

    /// A repository made up for a test.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
    }

    /// All files.
    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// One file.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

pub(super) fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn tracked(root: &Path) -> Result<Vec<String>, String> {
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !list.status.success() {
        return Err(String::from_utf8_lossy(&list.stderr).into_owned());
    }
    let mut paths: Vec<_> = String::from_utf8_lossy(&list.stdout).split_terminator('\0').map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// Without git, as in an unpacked archive: everything but build output and hidden folders other than those of CI.
fn walked(root: &Path) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
            if path.is_dir() && !skipped {
                folders.push(path);
            } else if path.is_file()
                && let Ok(inside) = path.strip_prefix(root)
            {
                paths.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_same_sources_are_found() {
        let root = crate::step::root();
        let sources = |paths: Vec<String>| -> Vec<String> {
            paths.into_iter().filter(|path| path.starts_with("xtask/") && path.ends_with(".rs")).collect()
        };
        let walked = sources(walked(root).unwrap());
        assert!(walked.contains(&"xtask/src/main.rs".to_owned()));
        if let Ok(tracked) = tracked(root) {
            assert_eq!(sources(tracked), walked);
        }
    }
}
