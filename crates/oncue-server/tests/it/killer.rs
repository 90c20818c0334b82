//! Kills runs of the order system at random moments, and runs them again until they end by themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use oncue::{Clock, transport};
use serde_json::Value;

/// What is run and killed.
pub(crate) struct Victim {
    /// The program, and what comes before `demo orders`.
    pub(crate) program: Vec<PathBuf>,
    /// The arguments of `demo orders`, without `--data`.
    pub(crate) arguments: Vec<String>,
}

/// How one run ended.
pub(crate) enum End {
    /// It was killed, having gone on after this line.
    Killed {
        /// The line.
        resumed_from: u64,
    },
    /// It ended by itself.
    Finished(Value),
}

impl Victim {
    /// Starts a run in `data`.
    pub(crate) fn spawn(&self, data: &Path) -> Result<Child, String> {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(["demo", "orders", "--json"]).args(&self.arguments);
        command.arg("--data").arg(data).env("RUST_LOG", "oncue_server=debug");
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().map_err(|error| format!("{}: {error}", self.program[0].display()))
    }

    /// Runs in `data`, until it has written `moment` lines of log: one for each batch it takes in and one for each event
    /// that it is through with. Then kills it, however far the rest of it is.
    pub(crate) fn run(&self, data: &Path, moment: u64) -> Result<(End, u64), String> {
        let mut child = self.spawn(data)?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        let (mut written, mut resumed_from, mut line) = (0, 0, String::new());
        while written < moment {
            line.clear();
            if stderr.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                break;
            }
            written += 1;
            if let Some((_, number)) = line.trim_end().split_once("going on after line ") {
                resumed_from = number.replace(',', "").parse().unwrap_or(0);
            }
        }
        if written == moment {
            child.kill().map_err(|error| error.to_string())?;
        }
        // What is still in the pipe.
        stderr.read_to_string(&mut line).ok();
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        match output.status.code() {
            Some(0) => {
                let report = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
                Ok((End::Finished(report), written))
            }
            // By a signal: ours.
            None => Ok((End::Killed { resumed_from }, written)),
            Some(code) => Err(format!("exit code {code}: {line}")),
        }
    }
}

/// A report without what differs from run to run: times, and where it resumed.
pub(crate) fn comparable(mut report: Value) -> Value {
    for time in ["art_ms", "throughput_per_s", "resumed_from"] {
        report.as_object_mut().map(|report| report.remove(time));
    }
    report
}

/// Events that are read from a log at once.
const READ_EVENTS: usize = 2_000;

/// What a log holds: the ids of each key's events in each topic, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account(BTreeMap<(String, String), Vec<String>>);

/// In what a log differs from that of an unbroken run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Events that are not there.
    pub(crate) lost: usize,
    /// Events that are there once more.
    pub(crate) repeated: usize,
    /// Keys whose events are all there, in another order.
    pub(crate) out_of_order: usize,
}

impl Account {
    /// Of the log in a directory.
    pub(crate) fn of(data: &Path) -> Result<Self, String> {
        let log = transport::inspect(&format!("file:{}", data.display()), &Clock::system());
        let log = log.map_err(|error| error.to_string())?;
        let mut ids: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for topic in log.topics() {
            let mut from = topic.first_offset;
            while from < topic.next_offset {
                let events = log.browse(&topic.name, from, READ_EVENTS).map_err(|error| error.to_string())?;
                let Some((last, _)) = events.last() else { break };
                from = last.offset() + 1;
                for (_, event) in events {
                    // Events without a key have no order.
                    let key = event.key().unwrap_or(event.id()).to_owned();
                    ids.entry((topic.name.clone(), key)).or_default().push(event.id().to_owned());
                }
            }
        }
        Ok(Self(ids))
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// In what it differs from that of an unbroken run.
    pub(crate) fn against(&self, whole: &Self) -> Difference {
        let mut difference = Difference::default();
        let none = Vec::new();
        for place in self.0.keys().chain(whole.0.keys()).collect::<BTreeSet<_>>() {
            let (here, there) = (self.0.get(place).unwrap_or(&none), whole.0.get(place).unwrap_or(&none));
            let (mut left, mut repeated) = (there.clone(), 0);
            for id in here {
                match left.iter().position(|other| other == id) {
                    Some(at) => drop(left.swap_remove(at)),
                    None => repeated += 1,
                }
            }
            difference.lost += left.len();
            difference.repeated += repeated;
            difference.out_of_order += usize::from(left.is_empty() && repeated == 0 && here != there);
        }
        difference
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, repeated, out_of_order } = self;
        write!(f, "{lost} lost, {repeated} twice, {out_of_order} keys out of order")
    }
}
