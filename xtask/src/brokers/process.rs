//! Processes that outlive the command that started them: each in its own group, found again by its id.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::failed;
use crate::step::{Failed, poll};

/// How long a broker may take to end when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// How long a broker may take to answer one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A process that was started: its id, and when the system says that it began, so that another one of the same id is
/// not taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pid: u32,
    began: String,
}

impl Running {
    /// Starts a program in a process group of its own; what it writes goes to `out.log` in the folder.
    pub(super) fn start(command: &mut Command, folder: &Path) -> Result<Self, Failed> {
        let path = folder.join("out.log");
        let log = File::options().create(true).append(true).open(&path);
        let streams = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = streams.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let pid = child.map_err(|error| failed(format!("{program}: cannot be started: {error}")))?.id();
        let began = began(pid).ok_or_else(|| failed(format!("{program}: ended at once")))?;
        Ok(Self { pid, began })
    }

    pub(super) fn is_alive(&self) -> bool {
        began(self.pid).is_some_and(|began| began == self.began)
    }

    /// Asks the group to end, and insists if it does not.
    pub(super) fn stop(&self) -> Result<(), Failed> {
        for signal in ["-TERM", "-KILL"] {
            if !self.is_alive() {
                return Ok(());
            }
            let group = format!("-{}", self.pid);
            // One that has ended meanwhile is no failure: whether it lives is looked at below.
            let _ = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
            if poll(STOP_WITHIN, || !self.is_alive()) {
                return Ok(());
            }
        }
        Err(failed(format!("process {} does not end", self.pid)))
    }

    pub(super) fn written(processes: &[Self]) -> String {
        processes.iter().fold(String::new(), |mut text, Self { pid, began }| {
            let _ = writeln!(text, "{pid} {began}");
            text
        })
    }

    pub(super) fn read(path: &Path) -> Vec<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let process = |line: &str| {
            let (pid, began) = line.split_once(' ')?;
            Some(Self { pid: pid.parse().ok()?, began: began.to_owned() })
        };
        text.lines().filter_map(process).collect()
    }
}

/// When a process began, in the system's ticks; nothing if it has ended.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; after it come the state and 18 more fields.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|began| (*began).to_owned())).flatten()
}

/// Ports of the loopback that nobody listens on.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], Failed> {
    // All are held until the last is known, so that they differ.
    let listeners: Vec<TcpListener> = (0..N).map_while(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
    let ports = listeners.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port()));
    ports.collect::<Vec<_>>().try_into().map_err(|_| failed("no free port on 127.0.0.1"))
}

/// What a server answers to a request, as far as one read tells; nothing if it does not.
pub(super) fn ask(port: u16, request: &[u8]) -> Option<Vec<u8>> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).ok().filter(|length| *length > 0)?;
    answer.truncate(length);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_stopped_and_no_other_of_its_id() {
        let folder = std::env::temp_dir().join(format!("oncue-brokers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let started = Running::start(Command::new("tail").args(["-f", "/dev/null"]), &folder).unwrap();
        assert!(started.is_alive());
        started.stop().unwrap();
        assert!(!started.is_alive());
        let path = folder.join("pids");
        fs::write(&path, Running::written(std::slice::from_ref(&started))).unwrap();
        assert_eq!(Running::read(&path), [started]);
        let own = Running { pid: std::process::id(), began: "1".to_owned() };
        assert!(!own.is_alive(), "another process of that id");
        own.stop().unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
