//! The dispatcher and its log against a model: random programs of publishing, filtering, failing, waiting, pausing,
//! beginning anew, coming and going, restarting and crashing, on virtual time. The laws are in `model/laws.rs` and `model/rests.rs`.
//!
//! Each seed is a program. `ONCUE_MODEL_SEED=N` runs the program of one and tells all that happens,
//! `ONCUE_MODEL_ROUNDS=N` as many as that, of seeds that were not used before.

mod acts;
mod ends;
mod every_write;
mod filters;
mod finish;
mod flaws;
mod handler;
mod known;
mod laws;
mod program;
mod rests;
mod watched;
mod world;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    path::Path,
};

use proptest::{
    prelude::*,
    strategy::{NewTree, ValueTree as _},
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use self::{
    flaws::{FLAWS, Flaw},
    known::Story,
    program::{Program, program},
    world::World,
};

/// Programs that every run of the tests tries.
const PROGRAMS: u64 = 100;

/// Among so many programs there must be those that find a flaw.
const SEARCHED: u64 = 400;

/// Runs a program, to its end or until a law is broken.
fn run(program: &Program, flaw: Option<Flaw>, told: bool) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(program.clone(), flaw, told);
        world.open().await;
        for operation in &program.operations {
            world.operate(operation).await;
            if world.model.lock().is_broken() {
                return world.model.lock().story();
            }
        }
        world.finish().await;
        world.model.lock().story()
    })
}

/// What comes of a program that must break no law.
fn kept(program: &Program, told: bool) -> Result<(), String> {
    let Story { broken, trace } = run(program, None, told);
    if broken.is_empty() { Ok(()) } else { Err(format!("{broken:#?}\n{trace}")) }
}

/// The program of a seed.
fn of_seed(seed: u64) -> (TestRunner, NewTree<impl Strategy<Value = Program>>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let tree = program().new_tree(&mut runner);
    (runner, tree)
}

/// What went wrong with a seed, with the smallest program of which the same can be said.
fn failed(seed: u64, told: bool) -> Option<String> {
    let (mut runner, tree) = of_seed(seed);
    match runner.run_one(tree.unwrap(), |program| kept(&program, told).map_err(TestCaseError::fail)) {
        Ok(_) => None,
        Err(TestError::Abort(reason)) => Some(format!("seed {seed}: {reason}")),
        // What is found is to be kept, as it is printed here, in `model/kept`.
        Err(TestError::Fail(reason, program)) => {
            Some(format!("seed {seed}: {reason}\n{}", serde_json::to_string(&program).unwrap()))
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

#[test]
fn the_laws_hold_whatever_happens() {
    if let Some(seed) = number("ONCUE_MODEL_SEED") {
        let program = of_seed(seed).1.unwrap().current();
        kept(&program, true).unwrap();
        return;
    }
    let rounds = number("ONCUE_MODEL_ROUNDS");
    let first = rounds.map_or(0, |_| RandomState::new().build_hasher().finish() >> 32);
    let (mut failures, count) = (Vec::new(), rounds.unwrap_or(PROGRAMS));
    for (done, seed) in (1..=count).zip(first..) {
        if let Some(failure) = failed(seed, false) {
            println!("{failure}");
            failures.push(seed);
        }
        if done % 1_000 == 0 {
            println!("{done} programs, of the seeds {first} to {seed}; failed: {failures:?}");
        }
    }
    assert!(failures.is_empty(), "of {count} programs from seed {first} on, these fail: {failures:?}");
}

#[test]
fn what_broke_a_law_once_does_not_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/model/kept");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let program: Program = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        kept(&program, false).unwrap_or_else(|broken| panic!("{}: {broken}", path.display()));
    }
}

#[test]
fn each_law_can_be_broken() {
    for (flaw, laws) in FLAWS {
        let mut unbroken = laws.to_vec();
        for seed in 0..SEARCHED {
            let program = of_seed(seed).1.unwrap().current();
            let story = run(&program, Some(flaw), false);
            unbroken.retain(|law| !story.broken.iter().any(|broken| broken.contains(law)));
            if unbroken.is_empty() {
                println!("{flaw:?} is found by the programs of the seeds up to {seed}");
                break;
            }
        }
        assert!(unbroken.is_empty(), "with {flaw:?} no law says: {unbroken:?}");
    }
}
