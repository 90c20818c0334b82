//! `oncue graph`, `oncue ls handlers` and `oncue stats --by-type`.

use std::collections::BTreeSet;

use oncue::{
    Clock,
    filter::Filter,
    prelude::*,
    transport::{self, Control},
};
use serde_json::Value;

use crate::{
    looking::{array, by, text, told},
    program::{Scratch, oncue, run},
};

fn texts(value: &Value) -> Vec<&str> {
    array(value).iter().map(text).collect()
}

/// Every edge as (from, to, label), from what is listed of the handlers.
fn edges_of(handlers: &Value) -> BTreeSet<(String, String, String)> {
    let mut edges = BTreeSet::new();
    let mut edge = |from: &str, to: &str, label: &str| edges.insert((from.into(), to.into(), label.into()));
    for to in array(handlers) {
        for first in texts(&to["after"]) {
            edge(first, text(&to["id"]), "after");
        }
        for from in array(handlers) {
            for event_type in texts(&from["emits"]) {
                if array(&to["types"]).is_empty() || texts(&to["types"]).contains(&event_type) {
                    edge(text(&from["id"]), text(&to["id"]), event_type);
                }
            }
        }
    }
    edges
}

/// The edges of a drawn graph.
fn edges_in(graph: &Value) -> BTreeSet<(String, String, String)> {
    let label = |edge: &Value| edge["event"].as_str().unwrap_or("after").to_owned();
    let edge = |edge: &Value| (text(&edge["from"]).to_owned(), text(&edge["to"]).to_owned(), label(edge));
    array(&graph["edges"]).iter().map(edge).collect()
}

#[test]
fn the_graph_is_that_of_the_order_system() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    run(&["--events", "200", "--data", &data]).report();
    let handlers = told(&data, &["ls", "handlers"]);
    let known = by(&handlers, "id");
    assert_eq!(texts(&known["notify_customer"]["after"]), ["track_order", "detect_anomaly"]);
    assert_eq!(texts(&known["detect_anomaly"]["emits"]), ["order.anomaly"]);
    assert_eq!((&known["charge"]["filter"], &known["charge"]["topic"]), (&Value::Null, &"events".into()));

    let graph = told(&data, &["graph"]);
    assert_eq!((&graph["vertex_count"], &graph["edge_count"]), (&5.into(), &2.into()));
    assert_eq!(edges_in(&graph), edges_of(&handlers));
    let dot = oncue(&["graph", "--data", &data]).stdout;
    assert!(dot.starts_with("digraph oncue {") && dot.matches(" -> ").count() == 2, "{dot}");
    let human = oncue(&["graph", "--data", &data, "--format", "text"]).stdout;
    assert!(human.starts_with("|V| = 5, |E| = 2\n"), "{human}");
    oncue(&["graph", "--data", &data, "--json", "--format", "dot"]).refused(&["--json", "cannot be used with"]);
    oncue(&["graph", "--data", &data, "--format", "svg"]).refused(&["dot", "json", "text"]);
    oncue(&["graph", "--data", &scratch.argument("none")]).refused(&["--data", "no directory"]);
}

#[tokio::test]
async fn the_graph_has_no_edge_to_a_handler_that_was_removed() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    let url = format!("file:{data}");
    let wanted = Filter::prefix("subject", "o-");
    let first = (|_: &Envelope| {}).named("first").types(["x"]).inline();
    let second = (|_: &Envelope| {}).named("second").types(["x"]).inline();
    let app = App::open(&url).await.unwrap().on(first).on(second.after_id("first").filter(wanted.clone()));
    let bus = app.start().await.unwrap();
    bus.shutdown().await.unwrap();
    drop(bus);
    assert_eq!(edges_in(&told(&data, &["graph"])).len(), 1);

    let log = transport::open(&url, Clock::system()).unwrap();
    log.control("first", Control::Remove).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let graph = told(&data, &["graph"]);
    assert_eq!((&graph["vertex_count"], &graph["edge_count"]), (&1.into(), &0.into()));
    assert_eq!((&graph["left_out"][0]["from"], &graph["left_out"][0]["to"]), (&"first".into(), &"second".into()));
    for format in ["dot", "text"] {
        let drawn = oncue(&["graph", "--data", &data, "--format", format]).stdout;
        assert!(drawn.contains("left out: `second` after `first`"), "{drawn}");
    }
    let handlers = told(&data, &["ls", "handlers"]);
    let filter: Filter = serde_json::from_value(handlers[0]["filter"].clone()).unwrap();
    assert_eq!(filter, wanted);
    assert!(oncue(&["ls", "handlers", "--data", &data]).stdout.contains(r#"subject prefix "o-""#));
}

#[test]
fn the_numbers_of_the_types_add_up_to_those_of_the_subscription() {
    let scratch = Scratch::new();
    let data = scratch.argument("data");
    run(&["--events", "500", "--gateway-failures", "0.3", "--data", &data]).report();
    let events = told(&data, &["ls", "events", "--topic", "events", "--limit", "10000"]);
    let stats = told(&data, &["stats", "--by-type"]);
    for known in array(&stats["subscriptions"]) {
        let by_type = by(&known["by_type"], "type");
        for count in ["n", "acked", "retried", "dead", "expired", "total_us_sum"] {
            let sum: u64 = by_type.values().map(|of_type| of_type["stats"][count].as_u64().unwrap()).sum();
            assert_eq!(known["stats"][count], sum, "{count} of {}", known["id"]);
        }
        for (event_type, of_type) in by_type {
            let published = array(&events).iter().filter(|event| event["type"] == event_type).count();
            assert_eq!(of_type["stats"]["n"], published, "{event_type}");
        }
        // Nothing waits, and whether anything is in flight only a running app could tell.
        assert_eq!((&known["oldest"], &known["in_flight"], &known["lag"]), (&Value::Null, &Value::Null, &0.into()));
    }
    let table = oncue(&["stats", "--by-type", "--data", &data]).stdout;
    assert!(table.contains("\n  order.created ") && table.contains("EXPIRED"), "{table}");
    assert_eq!(told(&data, &["stats"])["subscriptions"][0].get("by_type"), None);
}
