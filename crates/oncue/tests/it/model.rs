//! The dispatcher and its log against a model: random programs of publishing, failing, waiting, pausing, beginning anew,
//! coming and going, restarting and crashing, on virtual time. The laws are in `model/laws.rs`.

mod acts;
mod ends;
mod handler;
mod laws;
mod program;
mod watched;
mod world;

use proptest::prelude::*;

use self::{
    program::{Program, program},
    world::World,
};

/// Runs a program; what went wrong, with all that happened.
fn run(program: &Program) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(program.clone());
        world.open().await;
        for operation in &program.operations {
            world.operate(operation).await;
            world.model.lock().verdict()?;
        }
        world.finish().await;
        world.model.lock().verdict()
    })
}

fn config() -> ProptestConfig {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 150_000,
        ..ProptestConfig::default()
    };
    // As many as the environment says (PROPTEST_CASES), else a few seconds.
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 200, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_laws_hold_whatever_happens(program in program()) {
        // What is found is kept, as it is printed here, in `model/kept`.
        let json = || serde_json::to_string(&program).unwrap();
        run(&program).map_err(|broken| TestCaseError::fail(format!("{broken}\n{}", json())))?;
    }
}

#[test]
fn what_broke_a_law_once_does_not_again() {
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/model/kept");
    for file in std::fs::read_dir(kept).unwrap() {
        let path = file.unwrap().path();
        let program: Program = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        run(&program).unwrap_or_else(|broken| panic!("{}: {broken}", path.display()));
    }
}
