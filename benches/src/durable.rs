//! Rows 2a to 2e: durable publishing through the log, against the file system alone.

use std::path::Path;

use oncue_log::Batch;

use crate::{
    events,
    measure::{Plan, Result, Sample, Stopwatch, quantile},
    producers::{BATCH, PAYLOAD, RECORD_BYTES, Target},
    raw::{self, Raw},
    report::{Row, Target as Goal},
};

/// What a frame adds.
const FRAME_BYTES: usize = 104;
/// How much of a file is written over and over by the best raw writer.
const ZEROED_BYTES: u64 = 256 << 20;

/// 2a and 2b: one producer with a window, against the file system with chunks of that size.
pub(crate) fn windows(plan: &Plan, directory: &Path, id: &'static str) -> Result<Vec<Row>> {
    if id == "2a" {
        return Ok(vec![window(plan, directory, Window { id, mebibytes: 1, target: Some(1.3), retained: false })?]);
    }
    let cases = [(1, Some(0.85), true), (4, Some(0.95), true), (1, None, false)];
    let row = |(mebibytes, target, retained)| window(plan, directory, Window { id, mebibytes, target, retained });
    cases.into_iter().map(row).collect()
}

#[derive(Clone, Copy)]
struct Window {
    id: &'static str,
    mebibytes: usize,
    target: Option<f64>,
    /// Old segments are trimmed, and used again.
    retained: bool,
}

fn window(plan: &Plan, directory: &Path, case: Window) -> Result<Row> {
    let Window { id, mebibytes, target, retained } = case;
    let (bytes, growing) = (mebibytes << 20, id == "2a");
    let chunk = vec![3; bytes];
    let path = directory.join("raw");
    let at = directory.join("log");
    let mut zeroed = if growing { None } else { Some(Raw::zeroed(path.clone(), ZEROED_BYTES)?) };
    let mut kept = if retained { Some(Target::open(&at, 1, true)?) } else { None };
    let rounds = plan.rounds(&format!("{id} ({mebibytes} MiB)"), || {
        let (ours, p99) = match &mut kept {
            Some(kept) => kept.publish(1, bytes, plan.seconds)?,
            None => fresh(&at, bytes, plan.seconds)?,
        };
        let chunks = match &mut zeroed {
            Some(raw) => raw.rate(&chunk, plan.seconds)?,
            None => Raw::growing(path.clone())?.rate(&chunk, plan.seconds)?,
        };
        raw::settle(directory)?;
        let against = chunks * (bytes - FRAME_BYTES) as f64 / RECORD_BYTES as f64;
        Ok(Sample { p99: Some(p99), ..Sample::of(ours, against) })
    })?;
    if kept.take().is_some() {
        raw::remove(&at)?;
    }
    let segments = if retained {
        "One log for all rounds; its owner trims it to the newest 64 MiB or so while it is written, as a log with retention \
         is, and its segments of 64 MiB are used again."
    } else {
        "A new log each round, of which nothing is trimmed: the zeros ahead of it are written meanwhile."
    };
    let settings = format!(
        "{}, one producer, {BATCH} events an append, window {mebibytes} MiB (most bytes unacknowledged); synced before each \
         acknowledgement. {segments} Ours fills each batch anew and checksums it; the other side checksums and writes a chunk \
         of {mebibytes} MiB that is there already (the same bytes an event, headers included), and syncs before the next.",
        events::PAYLOAD
    );
    Ok(Row {
        id,
        case: match (mebibytes, target) {
            (1, Some(_)) => "1 MiB",
            (1, None) => "1 MiB, nothing trimmed",
            _ => "4 MiB",
        },
        what: "Durable publish",
        against: if growing { "append to a fresh file + fdatasync" } else { "pwrite into written blocks + fdatasync" },
        unit: "events/s",
        target: target.map_or_else(Goal::default, Goal::at_least),
        settings,
        rounds,
    })
}

/// Into a log that is made for it, and removed.
fn fresh(at: &Path, window: usize, seconds: f64) -> Result<(f64, f64)> {
    let log = Target::open(at, 1, false)?;
    let measured = log.publish(1, window, seconds)?;
    drop(log);
    raw::remove(at)?;
    Ok(measured)
}

/// What 2c tries: producers, and bytes that they may have unacknowledged together.
const LOADS: [(usize, usize); 8] = [
    (2, 256 << 10),
    (2, 320 << 10),
    (2, 384 << 10),
    (2, 512 << 10),
    (4, 256 << 10),
    (4, 320 << 10),
    (4, 384 << 10),
    (4, 512 << 10),
];
const P99_MICROS: f64 = 1000.0;
const ENOUGH: f64 = 3_000_000.0;

/// 2c: of several loads that are large enough, the one whose acknowledgements come soonest.
pub(crate) fn in_time(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let at = directory.join("log");
    let log = Target::open(&at, 1, true)?;
    log.publish(2, 1 << 20, plan.seconds)?;
    let mut tried = Vec::new();
    for (producers, window) in LOADS {
        let (rate, p99) = log.publish(producers, window, plan.seconds / 2.0)?;
        eprintln!("2c tries {producers} producers, {} KiB: {rate:.0} events/s, p99 {p99:.0} µs", window >> 10);
        tried.push((rate, p99, producers, window));
    }
    let soonest = tried.iter().filter(|(rate, ..)| *rate >= ENOUGH).min_by(|one, other| one.1.total_cmp(&other.1));
    let fastest = tried.iter().max_by(|one, other| one.0.total_cmp(&other.0));
    let (_, _, producers, window) = *soonest.or(fastest).ok_or("no load was tried")?;
    let rounds = plan.rounds("2c", || {
        let (ours, p99) = log.publish(producers, window, plan.seconds)?;
        Ok(Sample { ours, against: None, p99: Some(p99) })
    })?;
    drop(log);
    raw::remove(&at)?;
    let settings = format!(
        "{}, {producers} producers, {BATCH} events an append, {} KiB unacknowledged at most, all producers together; synced \
         before each acknowledgement; the log is trimmed meanwhile, as in 2b. Closed loop: a producer whose window is full \
         waits. p99: from before a batch is filled until its producer sees the acknowledgement. Of {} loads tried, \
         it is the one with the least p99 that reached the target's rate, or the fastest if none did.",
        events::PAYLOAD,
        window >> 10,
        LOADS.len(),
    );
    let target = Goal { p99: Some(P99_MICROS), ..Goal::default() }.absolute(ENOUGH);
    let what = "Durable publish with acknowledgements in time";
    Ok(vec![Row { id: "2c", case: "", what, against: "", unit: "events/s", target, settings, rounds }])
}

/// 2e: the same bytes over a thousand topics, and in one.
pub(crate) fn topics(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    const TOPICS: usize = 1000;
    let (many_at, one_at) = (directory.join("many"), directory.join("one"));
    let (many, one) = (Target::open(&many_at, TOPICS, true)?, Target::open(&one_at, 1, true)?);
    let rounds = plan.rounds("2e", || {
        let (ours, p99) = many.publish(1, 1 << 20, plan.seconds)?;
        let (against, _) = one.publish(1, 1 << 20, plan.seconds)?;
        Ok(Sample { p99: Some(p99), ..Sample::of(ours, against) })
    })?;
    drop((many, one));
    raw::remove(&many_at)?;
    raw::remove(&one_at)?;
    let settings = format!(
        "{}, one producer, {BATCH} events an append, each of the next of {TOPICS} topics; window 1 MiB; synced before each \
         acknowledgement; both logs are trimmed meanwhile, as in 2b.",
        events::PAYLOAD
    );
    let (what, against) = ("Durable publish to a thousand topics", "the same bytes to one topic");
    Ok(vec![Row { id: "2e", case: "", what, against, unit: "events/s", target: Goal::at_least(0.9), settings, rounds }])
}

/// How many of one side come in a row: few, so that both see the same disk.
const IN_A_ROW: usize = 25;

/// Measures two waits in turns; the medians, and the 99th percentile of the first.
pub(crate) fn in_turns(
    seconds: f64,
    mut ours: impl FnMut() -> Result<f64>,
    mut against: impl FnMut() -> Result<f64>,
) -> Result<Sample> {
    let (mut our_times, mut other_times, watch) = (Vec::new(), Vec::new(), Stopwatch::start());
    while watch.seconds() < 2.0 * seconds {
        for _ in 0..IN_A_ROW {
            our_times.push(ours()?);
        }
        for _ in 0..IN_A_ROW {
            other_times.push(against()?);
        }
    }
    let sample = Sample::of(quantile(&mut our_times, 0.5), quantile(&mut other_times, 0.5));
    Ok(Sample { p99: Some(quantile(&mut our_times, 0.99)), ..sample })
}

/// 2d: one event at a time.
pub(crate) fn one_at_a_time(plan: &Plan, directory: &Path) -> Result<Vec<Row>> {
    let mut raw = Raw::zeroed(directory.join("raw"), 64 << 20)?;
    let bytes = [3; FRAME_BYTES + RECORD_BYTES];
    let at = directory.join("log");
    let target = Target::open(&at, 1, false)?;
    let (log, topic) = (&target.log, target.topics[0]);
    let mut batch = Batch::new();
    let rounds = plan.rounds("2d", || {
        let ours = || {
            let watch = Stopwatch::start();
            batch.clear();
            batch.event(topic, 0, &[&PAYLOAD]);
            log.append_durable(&batch, 1)?;
            Ok(watch.micros())
        };
        in_turns(plan.seconds, ours, || raw.timed(&bytes))
    })?;
    drop(target);
    raw::remove(&at)?;
    let settings = format!(
        "{}, one event in flight, p50 of each round; fdatasync for each event. Ours by `Log::append_durable`, on the thread that appends; \
         the other side checksums, writes and syncs {} bytes where it is. In turns of {IN_A_ROW}.",
        events::PAYLOAD,
        bytes.len()
    );
    Ok(vec![Row {
        id: "2d",
        case: "",
        what: "One event in flight, p50",
        against: "one pwrite + fdatasync of the same bytes in a file of zeros, p50",
        unit: "µs",
        target: Goal::at_most(1.15),
        settings,
        rounds,
    }])
}
