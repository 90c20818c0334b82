//! Ctrl-C.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use crate::program::{Ended, Scratch, lives, orders, run_on, timeless};

/// A run that has taken in some lines of stdin and waits for more.
pub(crate) struct Waiting {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    pub(crate) fn on(data: &str, input: &str) -> Self {
        let command = &mut orders();
        command.args(["--json", "--input", "-", "--data", data]).env("RUST_LOG", "oncue_server=debug");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        let last = format!("line={}", input.lines().count());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !(line.contains("published") && line.contains(&last)) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
        }
        Self { child, stderr }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends Ctrl-C and waits for the end.
    pub(crate) fn interrupt(mut self) -> Ended {
        let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", self.pid())]).status().unwrap();
        assert!(sent.success());
        // Its stdin stays open: it must not wait for that.
        let stdin = self.child.stdin.take();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.stderr, &mut stderr).unwrap();
        let mut ended = Ended::from(self.child.wait_with_output().unwrap());
        drop(stdin);
        ended.stderr = stderr;
        ended
    }
}

#[test]
fn ctrl_c_ends_a_run_in_good_order_and_running_again_resumes() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let ended = Waiting::on(&data, &lives(0..25)).interrupt();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    ended.says(&["interrupted", "run the same command again"]);
    let resumed = run_on(&lives(0..30), &["--data", &data]).report();
    assert_eq!(resumed["resumed_from"], 100);
    assert_eq!(timeless(resumed), timeless(run_on(&lives(0..30), &[]).report()));
}
