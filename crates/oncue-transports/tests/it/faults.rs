//! What goes wrong between a client and a node, one by one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oncue::{
    Clock, Envelope,
    handler::{HandlerExt as _, extract::Context},
    transport::{Action, Attempt, Limit, MemberSpec, Publish, PublishError, Settlement, Start, SubscriptionSpec},
};
use oncue_transports::{
    http::{HttpServer, MEDIA_TYPE},
    wire::message::{self, MAX_MESSAGE_BYTES, Refusal, Reply, Request, VERSION},
};
use parking_lot::Mutex;
use reqwest::StatusCode;
use tokio::sync::watch;

use crate::{
    node::{Carrier, Running, app},
    open,
    proxy::Proxy,
};

fn events(numbers: std::ops::Range<u32>) -> Vec<Envelope> {
    let event = |number: u32| Envelope::builder("step").id(format!("e-{number}")).source("/faults").key("k");
    numbers.map(|number| event(number).data(number.to_string()).build().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_was_lost_stands_once() {
    for carrier in Carrier::ALL {
        append_and_lose_answers(carrier).await;
    }
}

async fn append_and_lose_answers(carrier: Carrier) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let proxy = Proxy::start(node.address(carrier)).await;
    let transport = open(carrier.url(proxy.address())).await;
    proxy.lose(3);
    let batch = Publish { topic: "events".into(), events: events(0..5), source: None };
    let published = transport.publish(&batch).await.unwrap();
    assert_eq!(proxy.lost(), 3);
    assert!(published.iter().all(|published| published.duplicate), "the first one's answer was lost");
    let stood = transport.inspect().browse("events", 0, 100).unwrap();
    assert_eq!(stood.iter().map(|(_, event)| event.id()).collect::<Vec<_>>(), ["e-0", "e-1", "e-2", "e-3", "e-4"]);
    transport.close().await.unwrap();
    node.stop().await;
}

/// A handler that notes what it is given, and waits at event 0 until the gate is open.
fn gated(seen: &Arc<Mutex<Vec<(String, u32)>>>, gate: &watch::Sender<bool>) -> oncue::handler::Registration {
    let (seen, gate) = (Arc::clone(seen), gate.subscribe());
    let handle = move |event: &Envelope, context: Context| {
        let mut gate = gate.clone();
        seen.lock().push((event.id().to_owned(), context.attempt()));
        let waits = event.id() == "e-0";
        async move {
            if waits {
                let _ = gate.wait_for(|open| *open).await;
            }
        }
    };
    handle.named("gated").types(["step"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_is_at_outlives_the_node_and_is_not_repeated() {
    for carrier in Carrier::ALL {
        restart_while_a_handler_is_at_it(carrier).await;
    }
}

async fn restart_while_a_handler_is_at_it(carrier: Carrier) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let proxy = Proxy::start(node.address(carrier)).await;
    let (seen, gate) = (Arc::default(), watch::Sender::new(false));
    let bus = app(carrier.url(proxy.address())).await.on(gated(&seen, &gate)).start().await.unwrap();
    bus.publish_all("events", events(0..3), None).await.unwrap();
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    proxy.lead_to(node.address(carrier));
    // The new node has the client's new session once it has given out what was not settled.
    gate.send_replace(true);
    bus.idle().await.unwrap();
    assert_eq!(*seen.lock(), [("e-0".to_owned(), 1), ("e-1".to_owned(), 1), ("e-2".to_owned(), 1)]);
    bus.shutdown().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_longer_than_a_lease_keeps_its_event() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let (seen, gate) = (Arc::default(), watch::Sender::new(false));
    let bus = app(node.server.url()).await.on(gated(&seen, &gate).concurrency(1)).start().await.unwrap();
    bus.publish_all("events", events(0..2), None).await.unwrap();
    let clock = Clock::system();
    clock.sleep(Duration::from_secs(5)).await;
    gate.send_replace(true);
    bus.idle().await.unwrap();
    assert_eq!(*seen.lock(), [("e-0".to_owned(), 1), ("e-1".to_owned(), 1)]);
    bus.shutdown().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_dropped_takes_no_more_events_for_an_outcome_that_came_late() {
    for carrier in Carrier::ALL {
        drop_with_an_outcome_on_its_way(carrier).await;
    }
}

async fn drop_with_an_outcome_on_its_way(carrier: Carrier) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let proxy = Proxy::start(node.address(carrier)).await;
    let transport = open(carrier.url(proxy.address())).await;
    let member = MemberSpec { id: "shared".into(), start: Start::Earliest, ..MemberSpec::default() };
    let spec = SubscriptionSpec { topic: "events".into(), members: vec![member], ..SubscriptionSpec::default() };
    let mut dropped = transport.subscribe(spec.clone()).await.unwrap().consumer;
    transport.publish(&Publish { topic: "events".into(), events: events(0..3), source: None }).await.unwrap();
    let mut taken = Vec::new();
    dropped.next(Limit { events: 1, bytes: 1 << 20 }, &mut taken).await.unwrap();
    node.stop().await;
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    proxy.lead_to(node.address(carrier));
    let now = Clock::system().now();
    let attempt = Attempt { number: 1, class: None, read: now, ended: now };
    let (position, action) = (taken[0].position, Action::Ack);
    let settled = dropped.settle(vec![Settlement { position, member: 0, action, attempt, error: None, written: None }]);
    drop(dropped);
    settled.await.unwrap();
    let mut other = transport.subscribe(spec).await.unwrap().consumer;
    let mut taken = Vec::new();
    while taken.len() < 3 {
        let next = other.next(Limit { events: 3, bytes: 1 << 20 }, &mut taken);
        tokio::time::timeout(Duration::from_secs(30), next).await.expect("somebody else has them").unwrap();
    }
    assert_eq!(taken.iter().map(|taken| taken.envelope.id()).collect::<Vec<_>>(), ["e-0", "e-1", "e-2"]);
    drop(other);
    transport.close().await.unwrap();
    node.stop().await;
}

/// Posts bytes to a node, and reads its answer.
async fn post(server: &HttpServer, path: &str, body: impl Into<Bytes>) -> (StatusCode, Result<Reply, Refusal>) {
    let request = reqwest::Client::new().post(format!("{}{path}", server.url())).header("content-type", MEDIA_TYPE);
    let response = request.body(body.into()).send().await.unwrap();
    let status = response.status();
    (status, message::decode(&response.bytes().await.unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_of_this_version_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let hello = |version| message::encode(&Request::Hello { version }).unwrap();
    let (status, answer) = post(&node.server, "/wire/v1", hello(VERSION)).await;
    assert!(status == StatusCode::OK && matches!(answer, Ok(Reply::Hello { .. })), "{answer:?}");
    let (_, answer) = post(&node.server, "/wire/v1", hello(7)).await;
    assert!(matches!(answer, Err(Refusal::Version { node: 1, client: 7 })), "{answer:?}");
    let (status, answer) = post(&node.server, "/wire/v9", hello(9)).await;
    assert!(matches!(answer, Err(Refusal::Version { node: 1, client: 9 })), "{answer:?}");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, answer) = post(&node.server, "/wire/v1", message::encode(&"Dance").unwrap()).await;
    assert!(matches!(&answer, Err(Refusal::Unknown(name)) if name == "Dance"), "{answer:?}");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, answer) = post(&node.server, "/wire/v1", "nonsense").await;
    assert!(status == StatusCode::BAD_REQUEST && matches!(answer, Err(Refusal::Malformed(_))), "{answer:?}");
    let (status, answer) = post(&node.server, "/wire/v1", vec![0; MAX_MESSAGE_BYTES + 1]).await;
    assert!(matches!(answer, Err(Refusal::TooLarge { limit: MAX_MESSAGE_BYTES, .. })), "{answer:?}");
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (_, answer) = post(&node.server, "/wire/v1/.hidden", hello(VERSION)).await;
    assert!(matches!(answer, Err(Refusal::Log { .. })), "{answer:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_a_message_is_refused_before_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let transport = open(node.server.url()).await;
    let large = |_| Envelope::builder("large").data(vec![0; 8 << 20]).build().unwrap();
    let batch = Publish { topic: "events".into(), events: (0..5).map(large).collect(), source: None };
    let refused = transport.publish(&batch).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { limit: MAX_MESSAGE_BYTES, .. })), "{refused:?}");
    transport.close().await.unwrap();
    node.stop().await;
}

#[test]
fn a_node_that_is_not_there_is_an_error_that_says_how_to_start_one() {
    let refused = oncue_transports::open("http://127.0.0.1:1", Clock::system()).err().unwrap().to_string();
    assert!(refused.contains("oncue serve") && refused.contains("127.0.0.1:1"), "{refused}");
    let refused = oncue_transports::open("http://127.0.0.1:1/a/b", Clock::system()).err().unwrap().to_string();
    assert!(refused.contains("http://HOST:PORT/LOG"), "{refused}");
}
