//! Other processes, as a case sees them.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{Bench, Failure};

/// A process, and what it says. Killed when it is dropped.
pub(crate) struct Process {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: std::process::Command) -> Result<Self, Failure> {
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn()?;
        let output = process.stdout.take().ok_or_else(|| Failure::new("a process without an output"))?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    /// The next line that it says.
    pub(crate) async fn says(&mut self, bench: &Bench) -> Result<String, Failure> {
        match bench.wait("another process to say something", self.lines.next_line()).await? {
            Some(line) => Ok(line),
            None => Err(self.ended(bench).await),
        }
    }

    /// Waits until it ends by itself, as it should.
    pub(crate) async fn ends(mut self, bench: &Bench) -> Result<(), Failure> {
        let status = bench.wait("another process to end", self.process.wait()).await?;
        if status.success() { Ok(()) } else { Err(self.ended(bench).await) }
    }

    /// It ended, and should not have.
    async fn ended(&mut self, bench: &Bench) -> Failure {
        let mut said = String::new();
        if let Some(errors) = &mut self.process.stderr {
            // What cannot be read is not told.
            let _ = bench.wait("what another process says", errors.read_to_string(&mut said)).await;
        }
        let status = bench.wait("another process to end", self.process.wait()).await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Failure::new(format!("another process ended by itself, {status}: {}", said.trim()))
    }

    /// Kills it: what it had said and nobody had heard yet.
    pub(crate) async fn kill(mut self, bench: &Bench) -> Result<Vec<String>, Failure> {
        if self.process.try_wait()?.is_some() {
            return Err(self.ended(bench).await);
        }
        bench.wait("another process to be killed", self.process.kill()).await?;
        let mut said = Vec::new();
        while let Some(line) = bench.wait("what another process said", self.lines.next_line()).await? {
            said.push(line);
        }
        Ok(said)
    }
}
