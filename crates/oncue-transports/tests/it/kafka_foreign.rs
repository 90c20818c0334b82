//! Other tools on Kafka: what Kafka's own publish arrives, and they read what is published here; topics that were made by
//! somebody else.

use std::{process::Stdio, sync::Arc};

use oncue::{
    Clock, Envelope,
    transport::{Publish, PublishError},
};
use tokio::io::AsyncWriteExt as _;

use super::{kafka_server::java, open};

const TOPIC: &str = "orders";

/// Runs one of Kafka's tools, with lines to read, and gives the lines that it writes.
async fn tool(server: &str, class: &str, arguments: &[&str], lines: &str) -> Vec<String> {
    let mut command = java();
    command.arg(format!("org.apache.kafka.tools.{class}")).args(["--bootstrap-server", server]).args(arguments);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let output = running.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{class}: {errors}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn event(id: &str, data: impl Into<bytes::Bytes>) -> Envelope {
    let event = Envelope::builder("order.paid").id(id).source("/s").key("a").content_type("text/plain");
    event.data(data).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_tools_arrive_and_ours_are_read_by_them() {
    let Some(url) = super::broker("kafka") else { return };
    let prefix = format!("foreign-{}", Clock::system().now().as_micros());
    let (topic, server) = (format!("{prefix}.{TOPIC}"), url.trim_start_matches("kafka://"));
    let transport = open(format!("{url}?prefix={prefix}")).await;
    let mut tail = transport.tail(TOPIC).await.unwrap();

    let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","partitionkey":"a","data":1}"#;
    let binary = "ce_specversion:1.0,ce_id:3,ce_source:/s,ce_type:order.sent,content-type:text/plain";
    let lines =
        format!("tenant:acme\tk\traw ü\ncontent-type:application/cloudevents+json\ta\t{json}\n{binary}\ta\tsent\n");
    let reading = ["--topic", &topic, "--property", "parse.headers=true", "--property", "parse.key=true"];
    tool(server, "ConsoleProducer", &reading, &lines).await;
    let batch = Publish { topic: TOPIC.into(), events: vec![event("2", "42")], source: None };
    let published = transport.publish(&batch).await.unwrap();

    let mut events = Vec::new();
    while events.len() < 4 {
        tail.next(4, &mut events).await.unwrap();
    }
    events.sort_by_key(|(position, _)| position.offset());
    let (_, raw) = &events[0];
    assert_eq!((raw.event_type(), raw.key(), &raw.data()[..]), (TOPIC, Some("k"), "raw ü".as_bytes()));
    assert_eq!((raw.is_foreign(), raw.extension("tenant")), (true, Some("acme")));
    let (created, sent, paid) = (&events[1], &events[2], &events[3]);
    assert_eq!((created.1.event_type(), created.1.key()), ("order.created", Some("a")));
    assert_eq!(
        (sent.1.event_type(), sent.1.content_type(), &sent.1.data()[..]),
        ("order.sent", Some("text/plain"), &b"sent"[..])
    );
    assert_eq!(created.0.partition(), paid.0.partition(), "one key, one partition, whoever published");
    assert_eq!(published[0].position, paid.0);

    let writing = ["--topic", &topic, "--from-beginning", "--max-messages", "4", "--timeout-ms", "60000"];
    let writing = [&writing[..], &["--property", "print.headers=true", "--property", "print.key=true"]].concat();
    let read = tool(server, "consumer.ConsoleConsumer", &writing, "").await;
    let ours = read.iter().find(|line| line.ends_with("\ta\t42")).unwrap();
    for header in ["ce_specversion:1.0", "ce_id:2", "ce_source:/s", "ce_type:order.paid", "content-type:text/plain"] {
        assert!(ours.contains(header), "{header} is not in: {ours}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_somebody_else_are_used_as_they_are_or_refused() {
    let Some(url) = super::broker("kafka") else { return };
    let prefix = format!("made-{}", Clock::system().now().as_micros());
    let server = url.trim_start_matches("kafka://");
    let (small, wide) = (format!("{prefix}.small"), format!("{prefix}.wide"));
    let making = ["--create", "--topic", &small, "--partitions", "1", "--config", "max.message.bytes=10000"];
    tool(server, "TopicCommand", &making, "").await;
    tool(server, "TopicCommand", &["--create", "--topic", &wide, "--partitions", "3"], "").await;
    let transport = open(format!("{url}?prefix={prefix}")).await;
    let publish = |topic: &str, bytes: usize| {
        let (transport, events) = (Arc::clone(&transport), vec![event("1", vec![b'x'; bytes])]);
        let batch = Publish { topic: topic.into(), events, source: None };
        async move { transport.publish(&batch).await }
    };
    let refused = publish("wide", 1).await.unwrap_err().to_string();
    assert!(refused.contains("3 partitions"), "{refused}");
    let large = publish("small", 20_000).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { bytes: 20_000, limit: 10_000 }), "{large}");
    // A few bytes too many, with what stands beside the data: the broker finds that out.
    let large = publish("small", 9_990).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { limit: 10_000, .. }), "{large}");
    let large = publish("events", 8 << 20).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { limit: 1_048_576, .. }), "{large}");
    publish("small", 1).await.unwrap();
}
