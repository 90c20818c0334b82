//! Processes that are killed.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{Bench, Failure, worker};

/// Numbers that one worker may use of a key.
const NUMBERS: u32 = 1_000_000;
/// Acknowledged events after which a worker is killed, at most.
const MOST_LINES: usize = 150;
/// How long a worker has until it is killed, whatever it is at, where that is not counted in events; at most.
const MOST_TIME: Duration = Duration::from_millis(30);

/// Case 33. A process that publishes, handles, keeps state and emits is killed again and again, at a random moment, also
/// while it opens what the last one left: nothing acknowledged is lost, nothing is there half or twice, and each key's
/// state is as if nothing had happened.
///
/// # Errors
/// It is not so.
pub async fn kill(bench: &Bench) -> Result<(), Failure> {
    if bench.worker().is_none() {
        return bench.skip("no second process: nobody said how to start one (`Suite::worker`)");
    }
    let rounds = bench.size(5, 200);
    let seed = bench.clock().now().as_micros().unsigned_abs();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut acknowledged: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    bench.note(format!("seed {seed}"));
    for round in 0..rounds {
        let Some(command) = bench.worker() else { break };
        let mut worker = Worker::start(command, round * NUMBERS)?;
        if random.u8(0..4) == 0 {
            bench.clock().sleep(MOST_TIME.mul_f64(random.f64())).await;
        } else {
            worker.acknowledges(bench, random.usize(1..=MOST_LINES), &mut acknowledged).await?;
        }
        worker.kill(bench, &mut acknowledged).await.map_err(|failure| failure.at(format!("round {round}")))?;
    }
    let bus = worker::handlers(bench.app().await?).start().await?;
    bench.idle(&bus).await?;
    worker::check(&bus, &acknowledged)?;
    let total: usize = acknowledged.values().map(Vec::len).sum();
    bench.note(format!("{rounds} kills, {total} events acknowledged"));
    bench.shutdown(bus).await
}

/// A process, and what it says.
struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(command: std::process::Command, from: u32) -> Result<Self, Failure> {
        let mut command = Command::from(command);
        command.arg(from.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn()?;
        let output = process.stdout.take().ok_or_else(|| Failure::new("a worker without an output"))?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    /// Waits until it has told of this many events.
    async fn acknowledges(
        &mut self,
        bench: &Bench,
        count: usize,
        acknowledged: &mut BTreeMap<String, Vec<u32>>,
    ) -> Result<(), Failure> {
        for _ in 0..count {
            match bench.wait("a worker to publish", self.lines.next_line()).await? {
                Some(line) => note(&line, acknowledged)?,
                None => return Err(self.ended(bench).await),
            }
        }
        Ok(())
    }

    /// It ended, and nobody had killed it.
    async fn ended(&mut self, bench: &Bench) -> Failure {
        let mut said = String::new();
        if let Some(errors) = &mut self.process.stderr {
            // What cannot be read is not told.
            let _ = bench.wait("what a worker says", errors.read_to_string(&mut said)).await;
        }
        let status = bench.wait("a worker to end", self.process.wait()).await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Failure::new(format!("a worker ended by itself, {status}: {}", said.trim()))
    }

    /// Kills it, and takes note of what it had told of.
    async fn kill(mut self, bench: &Bench, acknowledged: &mut BTreeMap<String, Vec<u32>>) -> Result<(), Failure> {
        if self.process.try_wait()?.is_some() {
            return Err(self.ended(bench).await);
        }
        bench.wait("a worker to be killed", self.process.kill()).await?;
        while let Some(line) = bench.wait("what a worker told of", self.lines.next_line()).await? {
            note(&line, acknowledged)?;
        }
        Ok(())
    }
}

fn note(line: &str, acknowledged: &mut BTreeMap<String, Vec<u32>>) -> Result<(), Failure> {
    let told = line.split_once(' ').and_then(|(key, number)| Some((key, number.parse().ok()?)));
    let (key, number) = told.ok_or_else(|| Failure::new(format!("a worker said `{line}`")))?;
    acknowledged.entry(key.to_owned()).or_default().push(number);
    Ok(())
}
