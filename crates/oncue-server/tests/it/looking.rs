//! `oncue ls`, `oncue stats` and `oncue event show`, against what the order system says of the same directory.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use oncue::Timestamp;
use serde_json::Value;

use crate::{
    interrupts::Waiting,
    program::{ONCUE, Scratch, lives, oncue, run, run_on},
};

/// What a command says of a directory, as JSON.
pub(crate) fn told(data: &str, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json", "--data", data]].concat();
    oncue(&arguments).report()
}

pub(crate) fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}"))
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The entries of an array by a field.
pub(crate) fn by<'a>(entries: &'a Value, field: &str) -> BTreeMap<&'a str, &'a Value> {
    array(entries).iter().map(|entry| (text(&entry[field]), entry)).collect()
}

/// A directory that the demo has written, and its report.
fn written(scratch: &Scratch) -> (String, Value) {
    let data = scratch.argument("data");
    let report = run(&["--events", "500", "--gateway-failures", "0.3", "--data", &data]).report();
    (data, report)
}

#[test]
fn lists_count_what_the_report_counts() {
    let scratch = Scratch::new();
    let (data, report) = written(&scratch);
    let anomalies = report["anomalies"]["total"].as_u64().unwrap();
    assert!(anomalies > 0 && report["handlers"]["charge"]["dead"].as_u64().unwrap() > 0, "{report:#}");

    let topics = told(&data, &["ls", "topics"]);
    let topics = by(&topics, "name");
    assert_eq!(topics.keys().collect::<Vec<_>>(), [&"anomalies", &"events"]);
    assert_eq!((&topics["events"]["events"], &topics["anomalies"]["next_offset"]), (&500.into(), &anomalies.into()));

    let all = told(&data, &["ls", "events", "--limit", "10000"]);
    assert_eq!(array(&all).len() as u64, 500 + anomalies);
    let published: Vec<_> =
        array(&all).iter().map(|event| Timestamp::parse_rfc3339(text(&event["published"])).unwrap()).collect();
    assert!(published.is_sorted());
    let created = told(&data, &["ls", "events", "--type", "order.created", "--limit", "10000"]);
    let charge = &report["handlers"]["charge"];
    assert_eq!(array(&created).len() as u64, charge["acked"].as_u64().unwrap() + charge["dead"].as_u64().unwrap());
    assert!(array(&created).iter().all(|event| event["type"] == "order.created" && event["topic"] == "events"));
    let last = told(&data, &["ls", "events", "--topic", "events"]);
    let of_events: Vec<_> = array(&all).iter().filter(|event| event["topic"] == "events").collect();
    assert_eq!(array(&last).iter().collect::<Vec<_>>(), of_events[480..], "the last 20, newest last");

    let subscriptions = told(&data, &["ls", "subscriptions"]);
    let subscriptions = by(&subscriptions, "id");
    assert_eq!(subscriptions.len(), 5);
    for (id, counts) in report["handlers"].as_object().unwrap() {
        let known = subscriptions[id.as_str()];
        assert_eq!(
            (&known["dead"], &known["lag"], &known["retrying"]),
            (&counts["dead"], &0.into(), &0.into()),
            "{id}"
        );
        assert_eq!((&known["topic"], &known["oldest_unsettled"]), (&"events".into(), &Value::Null));
    }
    let handlers = told(&data, &["ls", "handlers", "--type", "order.paid"]);
    let ids: Vec<_> = by(&handlers, "id").into_keys().collect();
    assert_eq!(ids, ["detect_anomaly", "notify_customer", "track_order"]);
}

#[test]
fn stats_count_what_the_report_counts() {
    let scratch = Scratch::new();
    let (data, report) = written(&scratch);
    let stats = told(&data, &["stats"]);
    let known = by(&stats["subscriptions"], "id");
    for (id, counts) in report["handlers"].as_object().unwrap() {
        let of_handler = &known[id.as_str()]["stats"];
        for count in ["acked", "retried", "dead"] {
            assert_eq!(of_handler[count], counts[count], "{id}");
        }
        assert_eq!(known[id.as_str()]["dead"], counts["dead"]);
    }
    let millis = |value: &Value| (value.as_f64().unwrap() * 1e3).round() / 1e3;
    assert_eq!(millis(&stats["all"]["art_since_published_ms"]), report["art_ms"]["mean"]);
    assert_eq!(millis(&stats["all"]["p99_ms"]), report["art_ms"]["p99"]);
    let table = oncue(&["stats", "--data", &data]);
    assert!(table.stdout.contains("notify_customer") && !table.stdout.contains('\x1b'), "{table:?}");
}

#[test]
fn the_times_of_single_events_add_up_to_the_statistics() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    run_on(&lives(0..2), &["--data", &data]).report();
    let mut sums = BTreeMap::<String, (u64, u64)>::new();
    for event in array(&told(&data, &["ls", "events"])) {
        let shown = told(&data, &["event", "show", text(&event["id"])]);
        assert_eq!(array(&shown["events"]).len(), 1);
        for handling in array(&shown["events"][0]["subscriptions"]) {
            assert_eq!((&handling["stage"], &handling["attempts"]), (&"settled".into(), &1.into()));
            let micros = (handling["since_published_ms"].as_f64().unwrap() * 1e3).round() as u64;
            let sum = sums.entry(text(&handling["subscription"]).to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1 + micros);
        }
    }
    let stats = told(&data, &["stats"]);
    for (id, known) in by(&stats["subscriptions"], "id") {
        let (n, sum) = sums[id];
        assert_eq!((&known["stats"]["n"], &known["stats"]["system_us_sum"]), (&n.into(), &sum.into()), "{id}");
    }
}

#[test]
fn an_event_tells_its_failures_and_its_lineage() {
    let scratch = Scratch::new();
    let (data, report) = written(&scratch);
    let anomaly = &told(&data, &["ls", "events", "--topic", "anomalies", "--limit", "1"])[0];
    let child = &told(&data, &["event", "show", text(&anomaly["id"])])["events"][0];
    let cause = text(&child["event"]["causationid"]);
    assert_eq!(array(&child["subscriptions"]).len(), 0);
    let ancestors: Vec<_> = array(&child["lineage"]["ancestors"]).iter().map(|link| text(&link["id"])).collect();
    assert_eq!(ancestors, [cause]);
    let parent = &told(&data, &["event", "show", cause])["events"][0];
    let descendants = array(&parent["lineage"]["descendants"]);
    assert!(descendants.iter().any(|link| link["id"] == anomaly["id"] && link["depth"] == 1), "{descendants:?}");
    assert_eq!(parent["event"]["data"]["order_id"], child["event"]["data"]["order_id"]);

    // Every dead letter is found at its event, with its attempts.
    let created = told(&data, &["ls", "events", "--type", "order.created", "--limit", "10000"]);
    let (mut dead, mut retried) = (0, 0);
    for event in array(&created) {
        let shown = &told(&data, &["event", "show", text(&event["id"])])["events"][0];
        let charge = by(&shown["subscriptions"], "subscription")["charge"];
        let (failed, attempts) = (array(&charge["failed"]), charge["attempts"].as_u64().unwrap());
        let is_dead = charge["stage"] == "dead";
        dead += u64::from(is_dead);
        retried += attempts - 1;
        assert_eq!(failed.len() as u64, attempts - u64::from(!is_dead), "{charge:#}");
        assert!(failed.iter().all(|attempt| !text(&attempt["error"]).is_empty()));
    }
    assert_eq!(
        (&report["handlers"]["charge"]["dead"], &report["handlers"]["charge"]["retried"]),
        (&dead.into(), &retried.into())
    );
}

#[test]
fn a_running_app_can_be_looked_at_and_does_not_notice() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let waiting = Waiting::on(&data, &lives(0..25));
    let topics = told(&data, &["ls", "topics"]);
    assert_eq!((&topics[0]["name"], &topics[0]["events"]), (&"events".into(), &100.into()));
    assert_eq!(array(&told(&data, &["ls", "events", "--type", "order.paid", "--limit", "99"])).len(), 25);
    let shown = told(&data, &["event", "show", "7-created"]);
    assert_eq!(array(&shown["events"][0]["subscriptions"]).len(), 5);
    assert_eq!(array(&told(&data, &["stats"])["subscriptions"]).len(), 5);
    waiting.interrupt().says(&["interrupted"]);
    assert_eq!(run_on(&lives(0..30), &["--data", &data]).report()["events"], 120);
}

#[test]
fn a_watch_tells_a_line_a_second_until_ctrl_c() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let waiting = Waiting::on(&data, &lives(0..5));
    let mut watch = Command::new(ONCUE)
        .args(["stats", "--watch", "--data", &data])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(array(&line["subscriptions"]).len(), 5);
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", watch.id())]).status().unwrap();
    assert!(sent.success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    waiting.interrupt();
}

#[test]
fn what_is_not_there_is_refused() {
    let scratch = Scratch::new();
    let missing = scratch.argument("missing");
    for command in
        [&["ls", "events"][..], &["ls", "topics"], &["stats"], &["stats", "--watch"], &["event", "show", "x"]]
    {
        let refused = oncue(&[command, &["--data", &missing]].concat());
        refused.refused(&["--data", &missing, "no directory"]);
    }
    assert!(!scratch.exists("missing"));
    scratch.write("notes.txt", "mine");
    let foreign = scratch.argument("");
    oncue(&["stats", "--data", &foreign]).refused(&["notes.txt", "no log"]);
    let data = scratch.argument("data");
    run_on(&lives(0..1), &["--data", &data]).report();
    oncue(&["event", "show", "nobody", "--data", &data]).refused(&["`nobody`", "oncue ls events --data"]);
    oncue(&["ls", "events", "--topic", "nothing", "--data", &data]).refused(&["`nothing`", "there is `events`"]);
    assert_eq!(told(&data, &["ls", "events", "--type", "nothing"]), Value::Array(Vec::new()));
}
