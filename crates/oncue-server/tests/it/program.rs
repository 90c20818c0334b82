//! Runs the binary, and makes input for it.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The binary under test.
pub(crate) const ONCUE: &str = env!("CARGO_BIN_EXE_oncue");

/// `oncue demo orders`, with nothing logged but warnings.
pub(crate) fn orders() -> Command {
    let mut command = Command::new(ONCUE);
    command.args(["demo", "orders"]).env_remove("RUST_LOG");
    command
}

/// `oncue` with these arguments.
pub(crate) fn oncue(arguments: &[&str]) -> Ended {
    let command = &mut Command::new(ONCUE);
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap().into()
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    /// Its report, which is all that it printed.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it was refused: exit code 2, nothing on stdout, and each of `words` on stderr.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        self.says(words);
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {:?}", self.stderr);
        }
    }
}

/// `oncue demo orders --json` with these arguments.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    orders().arg("--json").args(arguments).stdin(Stdio::null()).output().unwrap().into()
}

/// The same, reading `input`.
pub(crate) fn run_on(input: &str, arguments: &[&str]) -> Ended {
    let command = &mut orders();
    command.args(["--json", "--input", "-"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A run that stops early closes its end.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap().into()
}

/// A report without what differs from run to run: times, and where it resumed.
pub(crate) fn timeless(mut report: Value) -> Value {
    for time in ["art_ms", "throughput_per_s", "resumed_from"] {
        report.as_object_mut().unwrap().remove(time).unwrap();
    }
    report
}

/// A directory for one test, removed at its end.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as an argument.
    pub(crate) fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.argument(name)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        Path::exists(&self.path(name))
    }
}

/// One line: something that happened to an order.
pub(crate) fn line(order: u32, what: &str) -> String {
    let cents = if what == "created" { r#","total_cents":100"# } else { "" };
    format!(
        r#"{{"specversion":"1.0","id":"{order}-{what}","source":"/test","type":"order.{what}","subject":"o-{order}","data":{{"order_id":"o-{order}"{cents}}}}}"#
    )
}

/// Four lines for each of these orders, from created to completed.
pub(crate) fn lives(orders: std::ops::Range<u32>) -> String {
    let mut text = String::new();
    for order in orders {
        for what in ["created", "paid", "shipped", "completed"] {
            writeln!(text, "{}", line(order, what)).unwrap();
        }
    }
    text
}
