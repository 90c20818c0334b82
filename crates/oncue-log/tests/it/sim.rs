//! Lives of a log, each from a seed: it works on a disk that fails, is killed or loses power, and is opened again, several
//! times over. The oracle is the model.
//!
//! `ONCUE_SIM_SEED=N` lives the life of one seed, `ONCUE_SIM_ROUNDS=N` as many as that, new ones.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use oncue_log::storage::{Call, FaultyStorage};
use oncue_log::{Durability, Log, OpenError, Options};

use crate::model::Model;
use crate::support::{Random, replayed, small};

/// Lives that every run of the tests tries.
const LIVES: u64 = 2_000;

struct Life {
    /// Tells what happens.
    told: bool,
    random: Random,
    disk: FaultyStorage,
    model: Model,
    options: Options,
}

/// What happens to the process in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It opens the log again itself.
    GoesOn,
    Killed,
    PowerLost,
}

impl Life {
    fn new(seed: u64, told: bool) -> Self {
        let mut random = Random(seed);
        let segment_bytes = [4 << 10, 6_000, 6_000, 16 << 10, 16 << 10, 64 << 10][random.below(6) as usize];
        let retains = random.below(3) == 0;
        // What is in memory is not rewritten.
        let tail_bytes = [0, 2 << 10, 1 << 20][random.below(if retains { 2 } else { 3 }) as usize];
        let segment_bytes = if random.below(20) == 0 { 4 << 20 } else { segment_bytes };
        let durability = if random.below(6) == 0 { Durability::Os } else { Durability::Disk };
        let options = Options { segment_bytes, tail_bytes, durability, ..small() };
        let mut model = Model::default();
        (model.context, model.sample) = (format!("seed {seed}"), 9);
        model.retains = retains;
        let life = Self { told, disk: FaultyStorage::new(seed), random, model, options };
        life.tell(|| format!("{:?}", life.options));
        life
    }

    fn tell(&self, what: impl Fn() -> String) {
        if self.told {
            println!("{}, durable {}: {}", self.model.context, self.model.durable(), what());
        }
    }

    fn live(&mut self) {
        for _ in 0..=self.random.below(6) {
            self.arm();
            let log = self.work();
            let end = [End::GoesOn, End::Killed, End::PowerLost][self.random.below(3) as usize];
            self.end(end, log);
        }
        // All is well again.
        self.disk.heal();
        let log = self.open().expect("nothing fails");
        for _ in 0..5 {
            self.model.step(&log, &mut self.random).unwrap();
        }
        log.close(1).unwrap();
        self.model.acknowledged(self.model.next_lsn());
        drop(log);
        let (opened, ..) = replayed(self.disk.clone(), self.options.clone()).unwrap();
        assert!(opened.report.clean, "{}: {:?}", self.model.context, opened.report);
        self.end(End::PowerLost, Some(opened.log));
        self.open().expect("nothing fails");
    }

    /// Decides what goes wrong, and when.
    fn arm(&mut self) {
        let Self { random, disk, .. } = self;
        let when = if random.below(3) == 0 { 12 } else { 150 };
        let nth = random.below(when);
        // Where nobody waits for syncs, one that fails may lose what was acknowledged.
        let os = self.options.durability == Durability::Os;
        let call = Call::ALL[random.below(Call::ALL.len() as u64) as usize];
        let call = if os && call == Call::Sync { Call::Write } else { call };
        let what = random.below(12);
        match what {
            0..=2 => disk.power_off_at(nth),
            3 | 4 => disk.kill_at(nth),
            5 | 6 => disk.fail(call, nth, ErrorKind::Other),
            7 => disk.fail_from(call, nth, ErrorKind::Other),
            8 if !os => disk.fail(Call::Sync, random.below(20), ErrorKind::Other),
            9 => disk.limit(Some(disk.bytes() + random.below(30_000))),
            _ => {}
        }
        if random.below(4) == 0 {
            disk.stutter();
        }
        self.tell(|| format!("armed {what}, {call:?} {nth}"));
    }

    fn work(&mut self) -> Option<Log> {
        let log = self.open()?;
        for _ in 0..self.random.below(60) {
            if let Err(error) = self.model.step(&log, &mut self.random) {
                self.tell(|| error.clone());
                if log.fenced().is_some() {
                    break;
                }
            }
        }
        if log.fenced().is_some() && self.model.retains {
            // As on a full disk.
            let freed = self.model.keep(&log, &mut self.random);
            self.tell(|| format!("{freed:?}"));
        }
        if self.disk.is_on() {
            self.model.check_reading_that_may_fail(&log);
            self.disk.heal();
            self.model.check_reading(&log);
        }
        if self.random.below(2) == 0 && log.close(1).is_ok() {
            self.model.acknowledged(self.model.next_lsn());
        }
        Some(log)
    }

    /// `None` if something failed that was to fail, again and again.
    fn open(&mut self) -> Option<Log> {
        for _ in 0..3 {
            match replayed(self.disk.clone(), self.options.clone()) {
                Ok((opened, checkpoint, records)) => {
                    self.model.check_replay(&opened, checkpoint.as_deref(), &records);
                    self.model.check_reading_that_may_fail(&opened.log);
                    return Some(opened.log);
                }
                Err(OpenError::Storage(error)) => self.tell(|| error.to_string()),
                Err(error) => panic!("{}: {error}", self.model.context),
            }
        }
        None
    }

    /// A log that goes before the process ends closes; later, it is too late.
    fn end(&mut self, end: End, log: Option<Log>) {
        self.tell(|| format!("{end:?}, disk {}", self.disk.is_on()));
        let log = log.filter(|_| end != End::GoesOn);
        // Until it is known what is left.
        self.model.synced &= self.options.durability == Durability::Disk || end != End::PowerLost;
        let after = match end {
            End::GoesOn if self.disk.is_on() => self.disk.clone(),
            End::GoesOn | End::Killed => self.disk.restart(),
            End::PowerLost => self.disk.crash(),
        };
        drop(log);
        after.heal();
        self.disk = after;
    }
}

/// False: something does not hold.
fn live(seed: u64, told: bool) -> bool {
    let lived = catch_unwind(AssertUnwindSafe(|| Life::new(seed, told).live()));
    if lived.is_err() {
        eprintln!("repeat it with: cargo xtask soak sim --seed {seed}");
    }
    lived.is_ok()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_comes_back() {
    if let Some(seed) = number("ONCUE_SIM_SEED") {
        return assert!(live(seed, true));
    }
    let rounds = number("ONCUE_SIM_ROUNDS");
    let first = if rounds.is_some() { new_seed() } else { 0 };
    let (next, end) = (AtomicU64::new(first), first + rounds.unwrap_or(LIVES));
    println!("{} lives, from seed {first} on", end - first);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    if !live(seed, false) {
                        next.store(end, Ordering::Relaxed);
                        panic!("a life did not hold, see above");
                    }
                }
            });
        }
    });
}

/// One that was not used before.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 16
}

/// A life that did not hold: a segment was rewritten without events whose drop was not durable, and a crash took it back.
#[test]
fn a_rewritten_segment_keeps_what_was_not_dropped_durably() {
    assert!(live(265_827_786_155_128, false));
}

/// A life that did not hold: the first segment, without records, was trimmed before there was any checkpoint, and the log
/// refused to open.
#[test]
fn what_no_checkpoint_stands_for_is_not_trimmed() {
    assert!(live(179_904_471_641_846, false));
}

/// A life that did not hold: a write was torn behind a frame's magic, and what stood there was taken for a newer version.
#[test]
fn a_frame_torn_behind_its_magic_is_no_newer_version() {
    assert!(live(140_843_624_093_322, false));
}
