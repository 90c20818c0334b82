//! Processes that are killed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Bench, Failure,
    process::Process,
    worker::{self, Task},
};

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
    let rounds = bench.size(5, 200);
    let mut random = bench.random();
    let mut acknowledged: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for round in 0..rounds {
        let Some(command) = bench.worker("", Task::Tally(round * NUMBERS)) else {
            return bench.skip("no second process: nobody said how to start one (`Suite::worker`)");
        };
        let mut worker = Process::start(command)?;
        if random.u8(0..4) == 0 {
            bench.clock().sleep(MOST_TIME.mul_f64(random.f64())).await;
        } else {
            for _ in 0..random.usize(1..=MOST_LINES) {
                note(&worker.says(bench).await?, &mut acknowledged)?;
            }
        }
        let told = worker.kill(bench).await.map_err(|failure| failure.at(format!("round {round}")))?;
        told.iter().try_for_each(|line| note(line, &mut acknowledged))?;
    }
    let bus = worker::handlers(bench.app().await?).start().await?;
    bench.idle(&bus).await?;
    worker::check(&bus, &acknowledged)?;
    let total: usize = acknowledged.values().map(Vec::len).sum();
    bench.note(format!("{rounds} kills, {total} events acknowledged"));
    bench.shutdown(bus).await
}

fn note(line: &str, acknowledged: &mut BTreeMap<String, Vec<u32>>) -> Result<(), Failure> {
    let told = line.split_once(' ').and_then(|(key, number)| Some((key, number.parse().ok()?)));
    let (key, number) = told.ok_or_else(|| Failure::new(format!("a worker said `{line}`")))?;
    acknowledged.entry(key.to_owned()).or_default().push(number);
    Ok(())
}
