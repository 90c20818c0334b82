//! Programs without a client of ours: they publish and read by the `CloudEvents` HTTP binding.

use std::sync::Arc;

use oncue::{Envelope, handler::HandlerExt as _};
use parking_lot::Mutex;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::node::{Running, app};

/// A node, and what posts to it.
struct Peer {
    node: Running,
    client: reqwest::Client,
    _directory: tempfile::TempDir,
}

impl Peer {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Running::start("127.0.0.1:0", directory.path()).await;
        Self { node, client: reqwest::Client::new(), _directory: directory }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let request = self.client.post(format!("{}{path}", self.node.server.url())).body(body.to_owned());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    /// Status and body.
    async fn posted(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
        let response = self.post(path, headers, body).await;
        (response.status(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    /// Status, where to go on, and the events.
    async fn read(&self, path: &str) -> (StatusCode, Option<String>, Value) {
        let response = self.client.get(format!("{}{path}", self.node.server.url())).send().await.unwrap();
        let next = response.headers().get("oncue-next").map(|next| next.to_str().unwrap().to_owned());
        (response.status(), next, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }
}

const BINARY: &[(&str, &str)] = &[
    ("Content-Type", "application/json"),
    ("ce-specversion", "1.0"),
    ("CE-Type", "order.created"),
    ("ce-source", "/shop"),
    ("ce-id", "1"),
    ("ce-subject", "Euro%20%E2%82%AC"),
    ("ce-partitionkey", "\"k 1\""),
    ("ce-region", "north"),
];
const STRUCTURED: &[(&str, &str)] = &[("Content-Type", "application/cloudevents+json; charset=UTF-8")];
const BATCH: &[(&str, &str)] = &[("Content-Type", "application/cloudevents-batch+json")];

fn accepted(offset: u64, duplicate: bool) -> (StatusCode, Value) {
    let place = json!({ "offset": offset, "duplicate": duplicate });
    (StatusCode::ACCEPTED, json!({ "published": [place] }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_publish_to_handlers_by_the_cloudevents_binding() {
    let peer = Peer::new().await;
    let seen: Arc<Mutex<Vec<Envelope>>> = Arc::default();
    let noting = Arc::clone(&seen);
    let handler = move |event: &Envelope| noting.lock().push(event.clone());
    let types = ["order.created", "order.paid", "t", "orders"];
    let handler = handler.named("all").topic("orders").types(types);
    let bus = app(peer.node.server.url()).await.on(handler).start().await.unwrap();
    assert_eq!(peer.posted("/topics/orders", BINARY, r#"{"total":5}"#).await, accepted(0, false));
    assert_eq!(peer.posted("/topics/orders", BINARY, r#"{"total":5}"#).await, accepted(0, true), "it counts once");
    let one = r#"{"specversion":"1.0","id":"2","source":"/shop","type":"order.paid","data":{"total":5},"n":7}"#;
    assert_eq!(peer.posted("/topics/orders", STRUCTURED, one).await, accepted(1, false));
    let two = r#"[{"specversion":"1.0","id":"3","source":"/shop","type":"t","data_base64":"AP8="},
                  {"specversion":"1.0","id":"4","source":"/shop","type":"t"}]"#;
    let (status, answer) = peer.posted("/topics/orders", BATCH, two).await;
    assert_eq!((status, answer["published"].as_array().unwrap().len()), (StatusCode::ACCEPTED, 2), "{answer}");
    assert_eq!(peer.posted("/topics/orders", &[("Content-Type", "text/plain")], "hello").await, accepted(4, false));
    bus.idle().await.unwrap();
    bus.shutdown().await.unwrap();
    let mut seen = std::mem::take(&mut *seen.lock());
    seen.sort_by_key(|event| event.id().to_owned());
    let of = |id: &str| seen.iter().find(|event| event.id() == id).unwrap();
    assert_eq!(seen.len(), 5);
    assert_eq!(
        (of("1").subject(), of("1").key(), of("1").extension("region")),
        (Some("Euro €"), Some("k 1"), Some("north"))
    );
    assert_eq!((of("1").content_type(), &of("1").data()[..]), (Some("application/json"), &br#"{"total":5}"#[..]));
    assert_eq!(
        (of("2").event_type(), of("2").extension("n"), &of("2").data()[..]),
        ("order.paid", Some("7"), &br#"{"total":5}"#[..])
    );
    assert_eq!((&of("3").data()[..], of("4").data().len()), (&[0, 255][..], 0));
    let foreign = seen.iter().find(|event| event.is_foreign()).unwrap();
    assert_eq!(
        (foreign.event_type(), foreign.content_type(), &foreign.data()[..]),
        ("orders", Some("text/plain"), &b"hello"[..])
    );
    peer.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_read_a_topic_page_by_page() {
    let peer = Peer::new().await;
    let bus = app(peer.node.server.url()).await.start().await.unwrap();
    for number in 0..5 {
        let event = Envelope::builder("step").id(format!("e{number}")).source("/s").data(number.to_string());
        bus.publish_to("steps", event.build().unwrap()).await.unwrap();
    }
    bus.shutdown().await.unwrap();
    let (mut from, mut ids) = ("0".to_owned(), Vec::new());
    loop {
        let (status, next, events) = peer.read(&format!("/topics/steps?from={from}&limit=2")).await;
        assert_eq!(status, StatusCode::OK);
        let events = events.as_array().unwrap().clone();
        if events.is_empty() {
            assert_eq!(next, Some(from), "there it goes on");
            break;
        }
        for event in events {
            let event = Envelope::from_json(event.to_string().as_bytes()).unwrap();
            ids.push((event.id().to_owned(), event.data().clone()));
        }
        from = next.unwrap();
    }
    let promised: Vec<_> = (0..5).map(|number| (format!("e{number}"), number.to_string().into())).collect();
    assert_eq!(ids, promised);
    assert_eq!(peer.read("/topics/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(peer.read("/topics/steps?since=3").await.0, StatusCode::BAD_REQUEST);
    peer.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_is_refused_with_the_reason_and_nothing_of_it_is_published() {
    let peer = Peer::new().await;
    let refused = |path: &'static str, headers: &'static [(&'static str, &'static str)], body: &'static str| {
        let posting = peer.posted(path, headers, body);
        async move {
            let (status, answer) = posting.await;
            (status, answer["error"].as_str().unwrap().to_owned())
        }
    };
    let (status, error) = refused("/topics/orders", &[("ce-id", "1"), ("ce-source", "/s")], "").await;
    assert!(status == StatusCode::BAD_REQUEST && error.contains("type"), "{status} {error}");
    let (status, error) = refused("/topics/orders", STRUCTURED, r#"{"id":"1"}"#).await;
    assert!(status == StatusCode::BAD_REQUEST && error.contains("specversion"), "{status} {error}");
    let half = r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"1.0","id":"2"}]"#;
    let (status, error) = refused("/topics/orders", BATCH, half).await;
    assert!(status == StatusCode::BAD_REQUEST && error.contains("event 1 of the batch"), "{status} {error}");
    let (status, error) = refused("/topics/orders", &[("content-type", "application/cloudevents+avro")], "").await;
    assert!(status == StatusCode::BAD_REQUEST && error.contains("avro"), "{status} {error}");
    let (status, error) = refused("/topics/a%20b", BINARY, "").await;
    assert!(status == StatusCode::BAD_REQUEST && error.contains("topic"), "{status} {error}");
    let (status, error) = refused("/logs/.x/topics/orders", BINARY, "").await;
    assert!(status == StatusCode::NOT_FOUND && error.contains(".x"), "{status} {error}");
    let large = peer.post("/topics/orders", BINARY, &"x".repeat(33 << 20)).await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(large.headers()["connection"], "close", "its rest cannot be told from the next request");
    assert_eq!(peer.read("/topics/orders").await.0, StatusCode::NOT_FOUND, "no event was published");
    peer.node.stop().await;
}
