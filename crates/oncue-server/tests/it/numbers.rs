//! What the order system finds: on the real orders, and on simulated ones.

use std::path::PathBuf;

use serde_json::json;

use crate::program::{Scratch, run, timeless};

/// The file of real orders, if this machine has it.
fn real_orders() -> Option<String> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/orders.ndjson");
    let path = std::env::var_os("ONCUE_ORDERS").map_or_else(beside, PathBuf::from);
    path.is_file().then(|| path.to_str().unwrap().to_owned())
}

#[test]
fn the_real_orders_give_the_numbers_that_were_counted_by_other_means() {
    let Some(input) = real_orders() else {
        println!("skipped: no file of real orders; name one with ONCUE_ORDERS");
        return;
    };
    let counts = |acked: u32| json!({ "acked": acked, "retried": 0, "dead": 0 });
    let report = run(&["--input", &input]).report();
    assert_eq!(report["resumed_from"], 0);
    for share in ["mean", "p50", "p99"] {
        let millis = report["art_ms"][share].as_f64().unwrap();
        assert!((0.0..600_000.0).contains(&millis), "since publishing, not since 2017: {report}");
    }
    assert!(report["throughput_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(
        timeless(report),
        json!({
            "events": 28_881, "orders": 8_135, "malformed": 0, "duplicates": 0,
            "states": {
                "completed": 5_164, "shipped": 1_177, "paid": 630, "unavailable": 609, "canceled": 550, "created": 5
            },
            "anomalies": {
                "total": 300, "orders": 155,
                "by_step": {
                    "canceled→shipped": 75, "created→shipped": 74, "shipped→paid": 71, "paid→completed": 68,
                    "completed→shipped": 3, "none→shipped": 3, "shipped→created": 3, "completed→paid": 3
                }
            },
            "handlers": {
                "track_order": counts(28_881), "detect_anomaly": counts(28_881), "charge": counts(8_135),
                "notify_customer": counts(28_881), "daily_sales": counts(8_135)
            }
        })
    );
}

#[test]
fn a_simulation_says_that_it_is_one_and_is_the_same_for_a_seed() {
    let first = run(&["--events", "2000"]);
    first.says(&["simulating 2,000 events (seed 1)", "no --data", "removed at the end"]);
    let report = timeless(first.report());
    assert_eq!(report["events"], 2_000);
    assert!(report["orders"].as_u64().unwrap() > 100 && report["anomalies"]["total"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(timeless(run(&["--events", "2000"]).report()), report);
    assert_ne!(timeless(run(&["--events", "2000", "--seed", "2"]).report()), report);
}

#[test]
fn a_temporary_directory_is_removed_at_the_end() {
    let scratch = Scratch::new();
    let mut command = crate::program::orders();
    let output = command.args(["--events", "10"]).env("TMPDIR", scratch.path("")).output().unwrap();
    assert!(output.status.success());
    assert_eq!(std::fs::read_dir(scratch.path("")).unwrap().count(), 0);
}

#[test]
fn the_report_for_people_names_everything_and_says_how_times_are_measured() {
    let mut command = crate::program::orders();
    let output = command.args(["--events", "2000", "--gateway-failures", "0.5"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "2,000 events",
        "completed",
        "Anomalies: ",
        "→",
        "track_order",
        "notify_customer",
        "retried",
        "ΣTᵢ",
        "ART",
        "p99",
        "Throughput",
        "measured from publish, as the times of these events are simulated",
        "Dead letters: ",
        "the card is refused",
        "Sales: ",
    ] {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    let scratch = Scratch::new();
    let input = scratch.write("orders", crate::program::lives(0..2));
    let output = crate::program::orders().args(["--input", &input]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("measured from publish, as these events are years old"), "{text}");
}
