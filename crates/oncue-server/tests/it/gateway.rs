//! A payment gateway that fails.

use serde_json::Value;

use crate::program::{lives, run, run_on, timeless};

fn charge(report: &Value) -> [u64; 3] {
    ["acked", "retried", "dead"].map(|count| report["handlers"]["charge"][count].as_u64().unwrap())
}

#[test]
fn failures_are_retried_or_dead_and_none_is_lost() {
    let input = lives(0..400);
    let report = run_on(&input, &["--gateway-failures", "0.2"]).report();
    let [acked, retried, dead] = charge(&report);
    assert!(retried > 0 && dead > 0, "{report}");
    assert_eq!(acked + dead, 400);
    assert_eq!(report["handlers"]["track_order"]["acked"], 1_600, "the other handlers do not suffer");
    assert_eq!(
        timeless(run_on(&input, &["--gateway-failures", "0.2"]).report()),
        timeless(report),
        "the same for a seed"
    );
}

#[test]
fn one_that_always_fails_takes_no_payment_and_the_run_ends() {
    let report = run(&["--events", "100", "--gateway-failures", "1"]).report();
    let [acked, retried, dead] = charge(&report);
    assert!(acked == 0 && dead > 0 && retried >= dead, "{report}");
}

#[test]
fn a_share_is_between_0_and_1() {
    for share in ["1.5", "-0.1", "NaN", "inf", "many", ""] {
        run(&[&format!("--gateway-failures={share}")]).refused(&["--gateway-failures", "0 (never) to 1 (always)"]);
    }
}
