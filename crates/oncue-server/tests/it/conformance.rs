//! `oncue conformance`.

use std::fs;

use serde_json::Value;

use crate::program::{Scratch, oncue};

/// The numbers of the cases that were run.
fn run(report: &Value) -> Vec<u64> {
    let cases = report.as_object().unwrap().iter();
    cases.filter(|(_, case)| case["reason"] != "not asked for").map(|(number, _)| number.parse().unwrap()).collect()
}

#[test]
fn json_has_every_case_of_each_transport() {
    let ended = oncue(&["conformance", "--json", "--case", "2,7", "--case", "9-11"]);
    let report = ended.report();
    assert_eq!(ended.stderr, "", "not even the panics of case 10");
    let transports: Vec<_> = report.as_object().unwrap().keys().collect();
    assert_eq!(transports, ["file:", "memory:"]);
    for (transport, cases) in report.as_object().unwrap() {
        assert_eq!(cases.as_object().unwrap().len(), 46, "{transport}");
        let mut numbers = run(cases);
        numbers.sort_unstable();
        assert_eq!(numbers, [2, 7, 9, 10, 11], "{transport}");
        for case in cases.as_object().unwrap().values() {
            assert_eq!(case.as_object().unwrap().keys().collect::<Vec<_>>(), ["reason", "result", "seconds"]);
            assert!(case["seconds"].is_number() && case["reason"].is_string());
        }
        assert_eq!((&cases["9"]["result"], &cases["12"]["result"]), (&"passed".into(), &"skipped".into()));
    }
}

#[test]
fn the_table_has_what_was_asked_for_and_the_directory_is_empty_afterwards() {
    let scratch = Scratch::new();
    let url = format!("file:{}", scratch.argument("data"));
    let ended = oncue(&["conformance", &url, "--case", "2", "--case", "30"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], url);
    assert!(lines[1].contains("2  passed") && lines[1].ends_with("round trip of payload and headers"), "{lines:?}");
    assert!(lines[2].contains("30  skipped") && lines[3].trim().starts_with("it has no connection"), "{lines:?}");
    assert_eq!(lines[4], "1 passed, 0 failed, 1 skipped");
    assert_eq!(fs::read_dir(scratch.path("data")).unwrap().count(), 0);
}

#[test]
fn a_log_is_also_tested_by_instances_and_by_processes_that_are_killed() {
    let ended = oncue(&["conformance", "--json", "--case", "14,33"]);
    let report = ended.report();
    let result = |transport: &str, case: &str| report[transport][case]["result"].as_str().unwrap().to_owned();
    assert_eq!((result("file:", "14"), result("file:", "33")), ("passed".into(), "passed".into()), "{report:#}");
    assert_eq!((result("memory:", "14"), result("memory:", "33")), ("passed".into(), "skipped".into()), "{report:#}");
    let help = oncue(&["--help"]).stdout;
    assert!(help.contains("conformance") && !help.contains("conformance-worker"), "{help}");
}

#[test]
fn a_transport_that_fails_is_exit_code_1_and_leaves_its_directory() {
    let scratch = Scratch::new();
    // A log that is full before the first event is no transport that keeps its promises.
    let url = format!("file:{}?max_bytes=1", scratch.argument("data"));
    let ended = oncue(&["conformance", &url, "--case", "2", "--json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report[&url]["2"]["result"], "failed");
    assert!(report[&url]["2"]["reason"].as_str().unwrap().contains("max_bytes"), "{report:#}");
    ended.says(&["1 of the cases failed", "what they left is in", &scratch.argument("data")]);
    assert_eq!(fs::read_dir(scratch.path("data")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_tested_is_refused() {
    oncue(&["conformance", "pulsar://broker"]).refused(&["no transport `pulsar` in this build", "file:PATH"]);
    oncue(&["conformance", "memory:", "file:?colour=red"]).refused(&["unknown option `colour`"]);
    for url in ["http://127.0.0.1:9", "nats://127.0.0.1:9"] {
        // Nothing is tested, and nothing printed, before all can be reached.
        oncue(&["conformance", "memory:", url, "--case", "2"]).refused(&[url]);
    }
    oncue(&["conformance", "--case", "47"]).refused(&["47", "from 1 to 46"]);
    let scratch = Scratch::new();
    let file = scratch.write("file", "");
    oncue(&["conformance", &format!("file:{file}")]).refused(&[&file, "name another with `file:DIR`"]);
}
