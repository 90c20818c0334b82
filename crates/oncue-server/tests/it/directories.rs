//! Directories that cannot be used.

use crate::{
    interrupts::Waiting,
    program::{Scratch, lives, run},
};

#[test]
fn a_busy_directory_names_the_process_that_has_it() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let waiting = Waiting::on(&data, &lives(0..1));
    run(&["--events", "10", "--data", &data]).refused(&["--data", "in use by process", &waiting.pid()]);
    waiting.interrupt();
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let scratch = Scratch::new();
    scratch.write("notes.txt", "mine");
    let data = scratch.argument("");
    run(&["--events", "10", "--data", &data]).refused(&["notes.txt", "choose an empty or new directory"]);
    let names: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["notes.txt"]);
}

#[tokio::test]
async fn the_log_of_another_app_is_left_alone() {
    use oncue::prelude::*;

    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let app = App::open(&format!("file:{data}")).await.unwrap();
    let bus = app.on((|_: &Envelope| {}).named("mail").types(["mail.sent"])).start().await.unwrap();
    bus.shutdown().await.unwrap();
    // The lock goes with the last handle.
    drop(bus);
    run(&["--events", "10", "--data", &data]).refused(&["not a directory of the order system", "`mail`"]);
}

#[test]
fn a_file_is_no_directory() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "");
    run(&["--events", "10", "--data", &file]).refused(&["--data", &file, "choose a directory"]);
}
