//! kill -9 at random moments: nothing is lost, nothing is counted twice.

use crate::{
    killer::{Account, Difference, End, Victim, comparable},
    program::{ONCUE, Scratch},
};

const ROUNDS: u64 = 10;
const SEED: u64 = 20_160_904;

fn victim(events: &str) -> Victim {
    let arguments = ["--events", events, "--gateway-failures", "0.2"].map(str::to_owned).to_vec();
    Victim { program: vec![ONCUE.into()], arguments }
}

#[test]
fn a_run_that_is_killed_while_its_log_is_made_begins_again() {
    let (victim, scratch) = (victim("300"), Scratch::new());
    let finish = |name: &str| match victim.run(&scratch.path(name), u64::MAX).unwrap() {
        (End::Finished(report), _) => comparable(report),
        (End::Killed { .. }, _) => panic!("nobody killed it"),
    };
    let whole = finish("whole");
    for round in 0..12 {
        let data = scratch.path(&round.to_string());
        let mut child = victim.spawn(&data).unwrap();
        // As soon as the directory holds nothing, the lock, and the first segment.
        let wanted = round % 3;
        while std::fs::read_dir(&data).map_or(-1, |entries| i32::try_from(entries.count()).unwrap()) < wanted {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before the directory had {wanted} files");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(finish(&round.to_string()), whole, "killed with {wanted} files in the directory");
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_one_that_is_not() {
    let (victim, scratch) = (victim("4000"), Scratch::new());
    let (End::Finished(whole), length) = victim.run(&scratch.path("whole"), u64::MAX).unwrap() else {
        panic!("nobody killed it");
    };
    let whole = comparable(whole);
    let account = Account::of(&scratch.path("whole")).unwrap();
    assert!(whole["events"] == 4_000 && account.len() >= 4_000, "{}", account.len());
    for round in 0..ROUNDS {
        let mut rng = fastrand::Rng::with_seed(SEED + round);
        let data = scratch.path(&round.to_string());
        let (mut moments, mut places) = (Vec::new(), Vec::new());
        let report = loop {
            // The first is before the end, so that each round has a kill.
            moments.push(rng.u64(0..length * 2 / 3));
            match victim.run(&data, moments[moments.len() - 1]).unwrap() {
                (End::Killed { resumed_from }, _) => places.push(resumed_from),
                (End::Finished(report), _) => break report,
            }
        };
        assert_eq!(comparable(report), whole, "seed {}, killed at {moments:?} of {length}", SEED + round);
        let difference = Account::of(&data).unwrap().against(&account);
        assert_eq!(difference, Difference::default(), "seed {}, killed at {moments:?} of {length}", SEED + round);
        assert!(!places.is_empty(), "seed {}: not killed at {moments:?} of {length}", SEED + round);
        assert!(places.is_sorted(), "seed {}: it went on after lines {places:?}", SEED + round);
    }
}

#[test]
fn logs_are_told_apart_by_what_is_lost_repeated_and_out_of_order() {
    let scratch = Scratch::new();
    let run = |name: &str, seed: &str| {
        let arguments = ["--events", "200", "--seed", seed].map(str::to_owned).to_vec();
        Victim { program: vec![ONCUE.into()], arguments }.run(&scratch.path(name), u64::MAX).unwrap();
        Account::of(&scratch.path(name)).unwrap()
    };
    let (one, same, other) = (run("one", "1"), run("same", "1"), run("other", "2"));
    assert_eq!(same.against(&one), Difference::default());
    let difference = other.against(&one);
    assert_eq!((difference.lost, difference.repeated), (one.len(), other.len()), "{difference}");
}
