//! Transports against real brokers: those of `cargo xtask brokers up`; and a node, over real connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(all(feature = "http", feature = "zmq"))]
mod access;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod bridge_rights;
#[cfg(all(feature = "http", feature = "zmq"))]
mod bridges;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod broker_bridges;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod broker_faults;
#[cfg(any(feature = "amqp", feature = "http", feature = "kafka-tls", feature = "nats"))]
mod certificates;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod cutting;
#[cfg(any(feature = "amqp", feature = "http", feature = "kafka-tls", feature = "nats"))]
mod encryption;
#[cfg(all(feature = "http", feature = "zmq"))]
mod faults;
#[cfg(all(feature = "http", feature = "zmq"))]
mod foreign;
#[cfg(feature = "kafka")]
mod kafka_cluster;
#[cfg(feature = "kafka")]
mod kafka_faults;
#[cfg(feature = "kafka")]
mod kafka_foreign;
#[cfg(feature = "kafka")]
mod kafka_server;
#[cfg(feature = "nats")]
mod nats_faults;
#[cfg(feature = "nats")]
mod nats_foreign;
#[cfg(feature = "nats")]
mod nats_operator;
#[cfg(feature = "nats")]
mod nats_server;
#[cfg(all(feature = "http", feature = "zmq"))]
mod node;
#[cfg(all(feature = "http", feature = "zmq"))]
mod proxy;
#[cfg(all(feature = "http", feature = "zmq"))]
mod pyzmq;
#[cfg(feature = "amqp")]
mod rabbitmq_faults;
#[cfg(feature = "amqp")]
mod rabbitmq_foreign;
#[cfg(feature = "amqp")]
mod rabbitmq_server;
#[cfg(all(feature = "http", feature = "zmq"))]
mod zmq_faults;
#[cfg(all(feature = "http", feature = "zmq"))]
mod zmq_foreign;
#[cfg(all(feature = "http", feature = "zmq"))]
mod zmq_sockets;

use std::{fs, path::Path, sync::Arc, time::Duration};

use oncue::{Clock, transport::Transport};
use oncue_conformance::{CATALOGUE, Filter, Suite, Tier, Verdict};

/// Cases that publish thousands of events, each of which a broker syncs, or that need what is not there: not run with each
/// test. All of them are run by `oncue conformance URL`.
const LEFT_OUT: [u8; 8] = [4, 14, 30, 32, 33, 35, 37, 40];
/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// The URL of a broker that runs; without one, the reason is printed, and where `CI=true` that is a failure.
fn broker(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/brokers/urls.json");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let urls: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let url = urls[name].as_str().map(str::to_owned);
    if url.is_none() {
        let reason = format!("no {name} in {}: cargo xtask brokers up {name}", path.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        println!("skipped: {reason}");
    }
    url
}

/// Who may come, where somebody asks, and the password.
const USER: (&str, &str) = ("oncue", "very-secret");

/// Opens off the threads of a runtime: connecting stands still.
async fn open(url: String) -> Arc<dyn Transport> {
    tokio::task::spawn_blocking(move || oncue_transports::open(&url, Clock::system())).await.unwrap().unwrap()
}

/// Why nobody may come, or nobody is there.
async fn refused(url: String) -> String {
    let opening = tokio::task::spawn_blocking(move || oncue_transports::open(&url, Clock::system()).err());
    opening.await.unwrap().expect("it let somebody in").to_string()
}

#[cfg(feature = "nats")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_contract() {
    let Some(url) = broker("nats") else { return };
    keeps_the_contract("nats:", url).await;
}

#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
async fn keeps_the_contract(name: &str, url: String) {
    let run = Clock::system().now().as_micros();
    let open = move |place: String, clock| {
        let url = format!("{url}?prefix=test-{run}-{place}");
        async move { Ok(tokio::task::spawn_blocking(move || oncue_transports::open(&url, clock)).await??) }
    };
    let suite = Suite::new(name, open).instances(true).deadline(DEADLINE);
    let cases = || CATALOGUE.iter().map(|case| case.number).filter(|number| !LEFT_OUT.contains(number));
    let report = suite.run(&Filter::only(cases()), Tier::Fast).await;
    println!("{report}");
    let asked = report.entries.iter().filter(|entry| !LEFT_OUT.contains(&entry.case.number));
    let missed: Vec<_> = asked.filter(|entry| entry.verdict != Verdict::Passed).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[cfg(feature = "amqp")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_contract() {
    let Some(url) = broker("rabbitmq") else { return };
    keeps_the_contract("amqp:", url).await;
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    let Some(url) = broker("kafka") else { return };
    keeps_the_contract("kafka:", url).await;
}

#[test]
fn a_broker_that_is_not_there_is_named_without_its_secrets() {
    let refused = |url: &str| oncue_transports::open(url, Clock::system()).err().map(|error| error.to_string());
    let error = refused("nats://me:secret@127.0.0.1:1").unwrap_or_default();
    #[cfg(feature = "nats")]
    assert!(error.starts_with("`nats://127.0.0.1:1`: ") && error.contains("is a server there"), "{error}");
    #[cfg(not(feature = "nats"))]
    assert!(error.contains("build it with `--features nats`"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let error = refused("kafka://me:secret@127.0.0.1:1").unwrap_or_default();
    #[cfg(feature = "kafka")]
    assert!(error.starts_with("`kafka://127.0.0.1:1`: ") && error.contains("is a broker there"), "{error}");
    #[cfg(not(feature = "kafka"))]
    assert!(error.contains("build it with `--features kafka`") && error.contains("build-essential"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
