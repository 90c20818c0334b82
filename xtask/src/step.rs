//! One step of a task: announced, timed, and on failure told how to repeat it.

use std::{
    fmt::{self, Write as _},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    what: String,
    repeat: String,
}

impl Failed {
    pub(crate) fn new(what: impl Into<String>, repeat: impl Into<String>) -> Self {
        Self { what: what.into(), repeat: repeat.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}\nrepeat it with: {}", self.what, self.repeat)
    }
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// What `work` does, announced before and timed after.
pub(crate) fn timed<T>(name: &str, work: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    println!("── {name}");
    #[expect(clippy::disallowed_methods, reason = "how long a step takes is measured on the machine's clock")]
    let start = Instant::now();
    let result = work();
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    println!("── {name}: {word} after {:.1} s\n", start.elapsed().as_secs_f64());
    result
}

/// Asks again and again whether something is so, for at most `limit`; whether it came to be.
pub(crate) fn poll(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    const PAUSE: Duration = Duration::from_millis(50);
    #[expect(clippy::disallowed_methods, reason = "another program is waited for, which keeps the machine's time")]
    let deadline = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        #[expect(clippy::disallowed_methods, reason = "another program is waited for, which keeps the machine's time")]
        if Instant::now() > deadline {
            return false;
        }
        thread::park_timeout(PAUSE);
    }
}

/// Runs cargo with these arguments, its output shown as it comes.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), Failed> {
    timed(&shown(arguments, environment), || run(arguments, environment))
}

/// As [`cargo`], and nothing is said about it.
pub(crate) fn quiet_cargo(arguments: &[&str]) -> Result<(), Failed> {
    run(arguments, &[])
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), Failed> {
    let repeat = shown(arguments, environment);
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(arguments).envs(environment.iter().copied()).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed::new(format!("{repeat} ({status})"), &repeat)),
        Err(error) => Err(Failed::new(format!("{repeat}: cannot be started: {error}"), &repeat)),
    }
}

/// The command as somebody would type it.
fn shown(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = String::new();
    for (name, value) in environment {
        let _ = write!(command, "{name}={} ", quoted(value));
    }
    command.push_str("cargo");
    for argument in arguments {
        let _ = write!(command, " {}", quoted(argument));
    }
    command
}

fn quoted(argument: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_=./:,".contains(char);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// Where cargo put the programs of the profile that this one was built in.
pub(crate) fn built(program: &str) -> Result<PathBuf, Failed> {
    let here = std::env::current_exe().map_err(|error| Failed::new(format!("own path: {error}"), "cargo xtask ci"))?;
    Ok(here.with_file_name(format!("{program}{}", std::env::consts::EXE_SUFFIX)))
}

/// Runs a program that must succeed within `limit`. Its output is shown if it does not.
pub(crate) fn program(path: &Path, limit: Duration, repeat: &str) -> Result<(), Failed> {
    let failed = |what: String| Failed::new(what, repeat);
    let mut child = Command::new(path)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("{}: cannot be started: {error}", path.display())))?;
    // Each stream ends when the program does. Reading them is the wait, and it can be given up.
    let (ended, all_read) = mpsc::sync_channel(2);
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    for mut stream in streams.into_iter().flatten() {
        let ended = ended.clone();
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let _ = ended.send(text);
        });
    }
    let mut output = Vec::new();
    for _ in 0..2 {
        if let Ok(text) = all_read.recv_timeout(limit) {
            output.extend(text);
        } else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("{} did not end within {} s", path.display(), limit.as_secs())));
        }
    }
    let status = child.wait().map_err(|error| failed(format!("{}: {error}", path.display())))?;
    if status.success() {
        return Ok(());
    }
    eprintln!("{}", String::from_utf8_lossy(&output));
    Err(failed(format!("{} ({status})", path.display())))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn run(program_path: &str, limit: Duration) -> Result<(), String> {
        program(Path::new(program_path), limit, "again").map_err(|failed| failed.to_string())
    }

    #[test]
    fn a_program_must_exist_end_and_succeed() {
        let minute = Duration::from_secs(60);
        assert_eq!(run("/bin/true", minute), Ok(()));
        assert!(
            run("/bin/false", minute).is_err_and(|text| text.contains("exit status: 1") && text.ends_with("again"))
        );
        assert!(run("/bin/no-such-program", minute).is_err_and(|text| text.contains("cannot be started")));
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        assert!(run("/usr/bin/yes", Duration::from_millis(50)).is_err_and(|text| text.contains("did not end")));
    }

    #[test]
    fn commands_are_shown_as_a_shell_reads_them() {
        assert_eq!(quoted("--all-targets"), "--all-targets");
        assert_eq!(quoted("-D warnings"), "'-D warnings'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
