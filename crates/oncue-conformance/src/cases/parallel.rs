//! The suite beside itself.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{Bench, CATALOGUE, Case, Failure};

/// What the fast tier runs: cases that take little time, and together use most of what there is.
const FAST: &[u8] = &[2, 7, 9, 20, 22, 26, 36, 46];
/// What the full tier does not run: this one, and the one that starts processes.
const NEVER: &[u8] = &[32, 33];
/// Cases at once: each has clients of its own, of which a broker's have several threads and connections.
const AT_ONCE: usize = 40;

/// Case 32. Many cases at once, each several times and at places of its own, all hold: none disturbs another.
///
/// # Errors
/// One does not: which, in which round, and why.
pub async fn in_parallel(bench: &Bench) -> Result<(), Failure> {
    let all: Vec<u8> = CATALOGUE.iter().map(|case| case.number).filter(|number| !NEVER.contains(number)).collect();
    let (wanted, rounds) = if bench.is_full() { (all.as_slice(), 10) } else { (FAST, 2) };
    let asked = |case: &&Case| wanted.contains(&case.number) && (case.needs)(&bench.capabilities()).is_none();
    let (mut running, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    for round in 1..=rounds {
        for case in CATALOGUE.iter().filter(asked) {
            let Some(run) = case.run else { continue };
            let (inner, number) = (bench.inner(&format!("{round}-{}", case.number)), case.number);
            let places = Arc::clone(&places);
            running.spawn(async move {
                // It is never closed.
                let _place = places.acquire_owned().await;
                let held = run(&inner).await;
                held.map_err(|failure| failure.at(format!("round {round}, case {number}")))
            });
        }
    }
    let count = running.len();
    while let Some(ended) = bench.wait(format!("{} of {count} cases", running.len()), running.join_next()).await {
        // The first failure ends it: what else goes wrong may follow from it.
        ended.map_err(|panic| Failure::new(format!("a case broke: {panic}")))??;
    }
    bench.note(format!("{count} cases, {} at once", count.min(AT_ONCE)));
    Ok(())
}
