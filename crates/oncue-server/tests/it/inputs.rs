//! Inputs that are not as they should be, and inputs that are read in parts.

use crate::program::{Scratch, line, lives, run, run_on, timeless};

#[test]
fn garbage_is_reported_by_line_and_the_rest_goes_on() {
    let order = lives(0..1);
    let unfit = line(7, "created").replace("total_cents", "total");
    let input = format!("\u{feff}garbage\n{order}\n{{\"a\":\n{unfit}\n[]\n");
    let ended = run_on(&input, &[]);
    ended.says(&[
        "line 1: not a CloudEvents JSON object",
        "line 7: ",
        "line 8: data of order.created",
        "total_cents",
        "line 9: ",
    ]);
    assert!(!ended.stderr.contains("line 6: "), "an empty line is nothing: {}", ended.stderr);
    let report = ended.report();
    assert_eq!((&report["events"], &report["malformed"], &report["orders"]), (&4.into(), &4.into(), &1.into()));
}

#[test]
fn a_file_of_nothing_but_garbage_gives_an_empty_report() {
    let scratch = Scratch::new();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut bytes: Vec<u8> = (0..200_000).map(|_| rng.u8(..)).collect();
    bytes.push(b'\n');
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    let garbage = scratch.write("garbage", &bytes);
    let ended = run(&["--input", &garbage]);
    ended.says(&["line 1: ", "counted only", &format!("and {} more malformed lines", lines - 20)]);
    assert!(ended.stderr.lines().count() < 30, "not a line for each: {}", ended.stderr);
    let report = ended.report();
    assert_eq!((&report["events"], &report["malformed"]), (&0.into(), &lines.into()));
    assert_eq!(report["art_ms"]["mean"], serde_json::Value::Null);
}

#[test]
fn an_empty_file_is_no_error() {
    let scratch = Scratch::new();
    assert_eq!(run(&["--input", &scratch.write("empty", "")]).report()["events"], 0);
}

#[test]
fn strict_stops_at_the_first_malformed_line_and_keeps_what_was_before() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let good = lives(0..2);
    let input = scratch.write("orders", format!("{good}oops\n{}", lives(2..4)));
    let arguments = ["--input", &input, "--data", &data, "--strict"];
    for _ in 0..2 {
        run(&arguments).refused(&["line 9: ", "--strict", "taken in and kept"]);
    }
    let lenient = run(&arguments[..4]).report();
    assert_eq!(
        (&lenient["events"], &lenient["malformed"], &lenient["resumed_from"], &lenient["duplicates"]),
        (&16.into(), &1.into(), &8.into(), &0.into())
    );
    let mended = scratch.write("mended", lives(0..4));
    assert_eq!(run(&["--input", &mended, "--strict"]).report()["events"], 16);
}

#[test]
fn a_line_that_comes_again_is_a_duplicate_however_the_run_is_parted() {
    let scratch = Scratch::new();
    let twice = format!("{}{}", lives(0..50), lives(20..70));
    let whole = run_on(&twice, &[]).report();
    assert_eq!((&whole["events"], &whole["duplicates"]), (&280.into(), &120.into()));
    let data = scratch.argument("data");
    let input = scratch.write("orders", lives(0..50));
    run(&["--input", &input, "--data", &data]).report();
    scratch.write("orders", &twice);
    let resumed = run(&["--input", &input, "--data", &data]).report();
    assert_eq!(resumed["resumed_from"], 200);
    assert_eq!(timeless(resumed), timeless(whole));
}

#[test]
fn running_again_changes_nothing() {
    let scratch = Scratch::new();
    let (data, input) = (scratch.argument("data"), scratch.write("orders", lives(0..300) + "oops\n"));
    let arguments = ["--input", &input, "--data", &data, "--gateway-failures", "0.3"];
    let first = run(&arguments).report();
    let again = run(&arguments);
    again.says(&["going on after line 1,201"]);
    let again = again.report();
    assert_eq!((&first["resumed_from"], &again["resumed_from"]), (&0.into(), &1_201.into()));
    assert_eq!(timeless(again), timeless(first));
}

#[test]
fn stdin_is_resumed_by_passing_over_what_was_read() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    run_on(&lives(0..30), &["--data", &data]).report();
    let resumed = run_on(&lives(0..40), &["--data", &data]).report();
    assert_eq!((&resumed["events"], &resumed["resumed_from"]), (&160.into(), &120.into()));
    run_on(&lives(1..50), &["--data", &data]).refused(&["stdin has changed", "160 lines", "--data a new directory"]);
    run_on(&lives(0..10), &["--data", &data]).refused(&["stdin has changed"]);
}

#[test]
fn another_file_under_the_same_name_is_refused_and_another_file_is_added() {
    let scratch = Scratch::new();
    let (data, input) = (scratch.argument("data"), scratch.write("orders", lives(0..10)));
    run(&["--input", &input, "--data", &data]).report();
    scratch.write("orders", lives(5..20));
    run(&["--input", &input, "--data", &data]).refused(&["has changed", "first 40 lines", "--data a new directory"]);
    let other = scratch.write("other", lives(100..110));
    let both = run(&["--input", &other, "--data", &data]);
    both.says(&["are added"]);
    assert_eq!(both.report()["events"], 80);
}

#[test]
fn an_input_that_cannot_be_read_leaves_no_trace() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    run(&["--input", &scratch.argument("none"), "--data", &data]).refused(&["there is no file", "none", "--input"]);
    run(&["--input", &scratch.argument("."), "--data", &data]).refused(&["is a directory", "--input a file"]);
    assert!(!scratch.exists("data"));
}

#[test]
fn a_line_longer_than_the_limit_is_malformed_and_never_an_event() {
    let scratch = Scratch::new();
    let long = line(1, "created").replace("/test", &"x".repeat(9 * 1024 * 1024));
    let input = scratch.write("orders", format!("{long}\n{}", lives(2..3)));
    let ended = run(&["--input", &input]);
    ended.says(&["line 1: ", "bytes long: the limit is 8388608"]);
    assert_eq!(ended.report()["events"], 4);
}

#[test]
fn types_that_no_handler_knows_are_events_that_touch_nothing() {
    let other = line(1, "created").replace("order.created", "order.weighed");
    let report = run_on(&format!("{other}\n"), &[]).report();
    assert_eq!((&report["events"], &report["orders"], &report["malformed"]), (&1.into(), &0.into(), &0.into()));
}
