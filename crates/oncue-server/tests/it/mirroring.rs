//! `oncue mirror`: topics move from one transport to another.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    sync::Arc,
};

use oncue::{
    App, Clock, Envelope,
    testing::MemoryBroker,
    transport::{LogTransport, LogUrl, Transport, broker::BrokerTransport},
};
use oncue_server::mirror::{Mirror, Moved};
use serde_json::Value;

use crate::program::{ONCUE, Scratch, lives, oncue, run_on};

/// The ids of each key's events of a directory, in their order.
fn by_key(data: &str) -> BTreeMap<String, Vec<String>> {
    let exported = oncue(&["log", "export", "--topic", "events", "--data", data]);
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in exported.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        keys.entry(text("subject")).or_default().push(text("id"));
    }
    keys
}

#[test]
fn a_mirror_that_is_killed_moves_each_event_once_in_the_order_of_its_key() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.argument("from"), scratch.argument("to"));
    run_on(&lives(0..1_000), &["--data", &from]).report();
    let urls = [&from, &to].map(|data| format!("file:{data}"));
    let mirror = ["mirror", &urls[0], &urls[1], "--once", "--json"];
    let mut killed = 0;
    let report = loop {
        let mut command = Command::new(ONCUE);
        let command = command.args(mirror).env("RUST_LOG", "oncue_server::mirror=debug");
        let mut run = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(run.stderr.take().unwrap());
        // Each run gets a batch further than the one before.
        let mut line = String::new();
        if killed < 5 && told.read_line(&mut line).unwrap() > 0 {
            assert!(line.contains("carried"), "{line}");
            run.kill().unwrap();
            killed += 1;
        }
        told.read_to_string(&mut line).unwrap();
        let output = run.wait_with_output().unwrap();
        if output.status.code().is_some() {
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
    };
    assert!(killed > 0);
    assert_eq!(report["topics"]["events"]["refused"], 0);
    assert_eq!(by_key(&from), by_key(&to));
    let again = oncue(&mirror).report();
    assert_eq!(again["topics"]["events"]["events"], 0, "its place is kept");
}

#[test]
fn what_cannot_be_mirrored_says_why_and_makes_nothing() {
    let scratch = Scratch::new();
    let (data, missing) = (scratch.argument("data"), scratch.argument("missing"));
    run_on(&lives(0..2), &["--data", &data]).report();
    let url = format!("file:{data}");
    oncue(&["mirror", &url, &url]).refused(&["the same"]);
    oncue(&["mirror", &format!("file:{missing}"), "memory:"]).refused(&["nothing at", "missing"]);
    assert!(!scratch.exists("missing"));
    oncue(&["mirror", &url, "memory:", "--topic", "parcels"]).refused(&["no topic `parcels`", "`events`"]);
    oncue(&["mirror", &url, "smoke:signals"]).refused(&["TO", "smoke"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_side_never_takes_is_a_dead_letter_and_the_rest_moves() {
    let clock = Clock::system();
    let from: Arc<dyn Transport> = Arc::new(LogTransport::open(&LogUrl::memory(), clock.clone()).unwrap());
    let broker = MemoryBroker::new(clock.clone()).unwrap();
    let connection = broker.connect();
    let to: Arc<dyn Transport> = Arc::new(BrokerTransport::new(Arc::clone(&connection) as _, clock.clone()));
    let bus = App::with_transport(Arc::clone(&from), clock.clone()).start().await.unwrap();
    for number in 0..20 {
        let bytes = if number == 7 { 1_000_000 } else { 10 };
        let event = Envelope::builder("parcel").subject("p-1").id(number.to_string()).data(vec![b'x'; bytes]);
        bus.publish(event.build().unwrap()).await.unwrap();
    }
    // It cannot be reached at first: that is waited for.
    connection.cut_after(0);
    let mirror = Mirror::new(Arc::clone(&from), Arc::clone(&to), clock, "mirror".to_owned());
    let topics = mirror.topics(&[]).unwrap();
    assert_eq!(topics, ["events"]);
    let (moved, ()) = tokio::join!(mirror.run(&topics, true), async {
        tokio::task::yield_now().await;
        connection.mend();
    });
    moved.unwrap();
    let expected = Moved { events: 19, duplicates: 0, refused: 1, bytes: mirror.moved()["events"].bytes };
    assert_eq!(mirror.moved()["events"], expected);
    let letters = from.inspect().dead_letters("mirror.events").unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].history[0].error.contains("1000000 bytes"), "{letters:?}");
    let there = to.inspect().browse("events", 0, 100).unwrap();
    let ids: Vec<_> = there.iter().map(|(_, event)| event.id().to_owned()).collect();
    assert_eq!(ids, (0..20).filter(|number| *number != 7).map(|number: u32| number.to_string()).collect::<Vec<_>>());
}
