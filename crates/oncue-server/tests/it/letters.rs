//! `oncue dlq`, on what the order system gave up on.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    interrupts::Waiting,
    looking::{array, by, text, told},
    program::{Ended, ONCUE, Scratch, lives, oncue, run},
};

/// Runs the order system on a directory: the same events each time, and a gateway that fails as often as this.
fn run_with(failures: &str, data: &str) -> Value {
    run(&["--events", "2000", "--gateway-failures", failures, "--data", data]).report()
}

/// A directory with dead letters of `charge`, and what the run says of that handler.
fn written(scratch: &Scratch) -> (String, Value) {
    let data = scratch.argument("data");
    let report = run_with("0.3", &data);
    (data, report["handlers"]["charge"].clone())
}

fn list(data: &str) -> Value {
    told(data, &["dlq", "list"])
}

fn positions(letters: &Value) -> Vec<String> {
    array(letters).iter().map(|letter| text(&letter["position"]).to_owned()).collect()
}

/// `oncue dlq` on a directory.
fn dlq(data: &str, arguments: &[&str]) -> Ended {
    oncue(&[&["dlq"], arguments, &["--data", data]].concat())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn every_dead_letter_is_listed_and_shown_as_its_event_tells_it() {
    let scratch = Scratch::new();
    let (data, charge) = written(&scratch);
    let all = list(&data);
    assert!(!array(&all).is_empty());
    assert_eq!(array(&all).len() as u64, number(&charge["dead"]));
    assert_eq!(told(&data, &["dlq", "list", "charge"]), all);
    assert_eq!(told(&data, &["dlq", "list", "daily_sales"]), Value::Array(Vec::new()));
    assert_eq!(told(&data, &["dlq", "list", "--limit", "3"]).as_array().unwrap()[..], array(&all)[..3]);
    let table = dlq(&data, &["list", "--limit", "3"]).stdout;
    assert_eq!(table.lines().count(), 5, "a heading, three, and how many more: {table}");
    assert!(table.ends_with(&format!("… and {} more (--limit)\n", array(&all).len() - 3)), "{table}");

    for letter in &array(&all)[..5] {
        let shown = told(&data, &["dlq", "show", "charge", text(&letter["position"])]);
        let event = &told(&data, &["event", "show", text(&letter["id"])])["events"][0];
        assert_eq!((&shown["event"], &shown["position"]), (&event["event"], &event["position"]));
        let handling = by(&event["subscriptions"], "subscription")["charge"];
        assert_eq!((&handling["stage"], &handling["failed"]), (&"dead".into(), &shown["failed"]));
        let last = array(&shown["failed"]).last().unwrap();
        assert_eq!(
            (&letter["error"], &letter["class"], &letter["since"]),
            (&last["error"], &last["class"], &last["ended"])
        );
        assert_eq!(number(&letter["attempts"]), number(&handling["attempts"]));
        let human = dlq(&data, &["show", "charge", text(&letter["position"])]).stdout;
        assert!(human.contains(text(&letter["id"])) && human.contains("total_cents"), "{human}");
    }
}

#[test]
fn filters_choose_by_what_the_events_say() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let all = list(&data);
    let begins = &text(&all[0]["key"])[..1];
    let expected = array(&all).iter().filter(|letter| text(&letter["key"]).starts_with(begins));
    let expected: Vec<_> = expected.cloned().collect();
    assert!(expected.len() < array(&all).len());
    let filter = format!(r#"{{"prefix":{{"subject":"{begins}"}}}}"#);
    assert_eq!(told(&data, &["dlq", "list", "--filter", &filter]), Value::Array(expected.clone()));
    assert_eq!(told(&data, &["dlq", "list", "--type", "order.created"]), all);
    assert_eq!(told(&data, &["dlq", "list", "--type", "order.paid"]), Value::Array(Vec::new()));
    let redriven = told(&data, &["dlq", "redrive", "charge", "--filter", &filter]);
    assert_eq!(positions(&Value::Array(expected)), array(&redriven["positions"]).iter().map(text).collect::<Vec<_>>());
    assert_eq!(told(&data, &["dlq", "list", "--filter", &filter]), Value::Array(Vec::new()));
    assert_eq!(told(&data, &["dlq", "redrive", "charge", "--filter", &filter])["redriven"], 0);
}

#[test]
fn what_is_redriven_is_handled_by_the_next_run_and_what_is_discarded_is_not() {
    let scratch = Scratch::new();
    let (data, before) = written(&scratch);
    let all = positions(&list(&data));
    let one = dlq(&data, &["redrive", "charge", &all[0]]);
    assert_eq!(
        one.stdout, "1 dead letter of `charge` is redriven: it is handled when the app starts next.\n",
        "{one:?}"
    );
    let discarded = told(&data, &["dlq", "discard", "charge", &all[1], &all[2], "--yes"]);
    assert_eq!((number(&discarded["discarded"]), &discarded["positions"][1]), (2, &all[2].as_str().into()));
    assert_eq!(positions(&list(&data)), all[3..]);
    let rest = told(&data, &["dlq", "redrive", "charge", "--all"]);
    assert_eq!(number(&rest["redriven"]) as usize, all.len() - 3);
    assert_eq!(list(&data), Value::Array(Vec::new()));
    let waiting = told(&data, &["ls", "subscriptions"]);
    assert_eq!(number(&by(&waiting, "id")["charge"]["lag"]) as usize, all.len() - 2, "they wait for the next run");

    let after = &run_with("0", &data)["handlers"]["charge"];
    assert_eq!(number(&after["acked"]), number(&before["acked"]) + all.len() as u64 - 2);
    assert_eq!(list(&data), Value::Array(Vec::new()));
    let subscriptions = told(&data, &["ls", "subscriptions"]);
    let charge = by(&subscriptions, "id")["charge"];
    assert_eq!((&charge["dead"], &charge["lag"], &charge["retrying"]), (&0.into(), &0.into(), &0.into()));
}

#[test]
fn an_edited_event_is_handled_as_it_is_now() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let all = list(&data);
    let [one, other, third] = [0, 1, 2].map(|index| text(&all[index]["position"]));
    let edited = told(&data, &["dlq", "edit", "charge", one, "--set", "data.total_cents=4242", "--set", "tenant=t1"]);
    assert_eq!(edited["edition"], 1);
    let json = r#"{"order_id":"x","customer_id":"c","total_cents":7}"#;
    let file = scratch.write("data.json", json);
    dlq(&data, &["edit", "charge", other, "--data-file", &file, "--json"]).report();
    let mut child = Command::new(ONCUE)
        .args(["dlq", "edit", "charge", third, "--data-file", "-", "--data", &data])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(json.as_bytes()).unwrap();
    let piped = Ended::from(child.wait_with_output().unwrap());
    assert!(piped.stdout.contains("(edition 1): it is handled when the app starts next"), "{piped:?}");

    // A gateway that never answers: they are dead letters again, of what they are now.
    run_with("1", &data);
    let shown = told(&data, &["dlq", "show", "charge", one]);
    assert_eq!((&shown["event"]["data"]["total_cents"], &shown["event"]["tenant"]), (&4242.into(), &"t1".into()));
    assert_eq!((&shown["edition"], &shown["event"]["id"]), (&1.into(), &all[0]["id"]));
    assert!(array(&shown["failed"]).len() as u64 > number(&all[0]["attempts"]), "{shown:#}");
    for position in [other, third] {
        let event = &told(&data, &["dlq", "show", "charge", position])["event"];
        assert_eq!(event["data"], serde_json::from_str::<Value>(json).unwrap());
    }
    let published = &told(&data, &["event", "show", text(&all[0]["id"])])["events"][0];
    assert_ne!(published["event"]["data"]["total_cents"], 4242, "what was published stays");
}

#[test]
fn a_change_that_is_not_possible_is_refused_and_nothing_is_changed() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let all = list(&data);
    let position = text(&all[0]["position"]);
    let malformed = scratch.write("malformed", "{");
    for (change, words) in [
        (["--set", "id=other"], &["keeps its id"][..]),
        (["--set", "subject=other"], &["keeps its key"]),
        (["--set", "data.order_id.x=1"], &["--set data.order_id.x", "`data.order_id`"]),
        (["--set", "nothing"], &["NAME=VALUE"]),
        (["--data-file", &malformed], &["is not JSON", "datacontenttype"]),
        (["--data-file", "/nowhere/at/all"], &["cannot read /nowhere/at/all"]),
    ] {
        dlq(&data, &[&["edit", "charge", position][..], &change].concat()).refused(words);
    }
    dlq(&data, &["edit", "charge", position]).refused(&["--data-file", "--set"]);
    assert_eq!(list(&data), all);
}

#[test]
fn what_is_not_there_is_refused_and_nothing_is_resolved() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let all = list(&data);
    let position = text(&all[0]["position"]);
    for command in [&["show"][..], &["redrive"], &["discard", "--yes"], &["edit", "--set", "tenant=t"]] {
        let on = |subscription, position| dlq(&data, &[command, &[subscription, position]].concat());
        on("charge", "somewhere").refused(&["`somewhere` is no position", "3-120@0"]);
        on("charge", "9999-1@0").refused(&["no dead letter at 9999-1@0", "oncue dlq list charge"]);
        on("chrge", position).refused(&["no subscription `chrge`", "`charge`"]);
        on("daily_sales", position).refused(&["`daily_sales` has no dead letter at"]);
    }
    // One that is not there keeps the others from being resolved.
    dlq(&data, &["redrive", "charge", position, "9999-1@0"]).refused(&["9999-1@0"]);
    dlq(&data, &["redrive", "charge"]).refused(&["--all", "--filter"]);
    dlq(&data, &["redrive", "charge", position, "--all"]).refused(&["--all", "cannot be used with"]);
    let wrong = r#"{"all":[{"exact":{"type":"a"}},{"not":{"prefx":{"subject":"b"}}}]}"#;
    for command in [&["list"][..], &["redrive", "charge"], &["discard", "charge", "--yes"]] {
        let refused = dlq(&data, &[command, &["--filter", wrong]].concat());
        refused.refused(&["--filter", "at all[1].not", "`prefx`"]);
        dlq(&data, &[command, &["--filter", "subject=b"]].concat()).refused(&["--filter", "line 1"]);
    }
    dlq(&data, &["discard", "charge", "--all"]).refused(&["--yes", "for good"]);
    assert_eq!(list(&data), all);
    for command in [&["list"][..], &["redrive", "charge", "--all"]] {
        let missing = scratch.argument("missing");
        dlq(&missing, command).refused(&["--data", "no directory"]);
        assert!(!scratch.exists("missing"));
    }
}

#[test]
fn a_running_app_is_looked_at_and_not_written_beside() {
    let scratch = Scratch::new();
    let (data, _) = written(&scratch);
    let all = list(&data);
    let position = text(&all[0]["position"]);
    let waiting = Waiting::on(&data, &lives(0..5));
    assert_eq!(list(&data), all);
    told(&data, &["dlq", "show", "charge", position]);
    for command in [
        &["redrive", "charge", "--all"][..],
        &["redrive", "charge", position],
        &["discard", "charge", position, "--yes"],
        &["edit", "charge", position, "--set", "tenant=t"],
    ] {
        let refused = dlq(&data, command);
        refused.refused(&["in use by process", &waiting.pid(), "stop it first", "Bus::dead_letters"]);
    }
    assert_eq!(list(&data), all);
    waiting.interrupt();
    assert_eq!(told(&data, &["dlq", "redrive", "charge", position])["redriven"], 1);
}
