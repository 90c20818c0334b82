//! Other tools on `RabbitMQ`: what they publish arrives, and they read what is published here.

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use oncue::{Clock, Envelope, transport::Publish};

const TOPIC: &str = "orders";

/// Publishes as any other program would: to the default exchange, with the queue's name as the routing key.
async fn publish(channel: &Channel, queue: &str, data: &[u8], properties: BasicProperties) {
    let sending = channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), data, properties);
    assert!(sending.await.unwrap().await.unwrap().is_ack());
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_other_tools_arrive_and_ours_are_read_by_them() {
    let Some(url) = super::broker("rabbitmq") else { return };
    let prefix = format!("foreign-{}", Clock::system().now().as_micros());
    let queue = format!("{prefix}.{TOPIC}");
    let transport = super::open(format!("{url}?prefix={prefix}")).await;
    let mut tail = transport.tail(TOPIC).await.unwrap();
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();

    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), text("acme"));
    publish(&channel, &queue, b"\x00raw\xff", BasicProperties::default().with_headers(headers)).await;
    let json = br#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","partitionkey":"a","data":1}"#;
    let structured = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    publish(&channel, &queue, json, structured).await;
    let event = Envelope::builder("order.paid").id("2").source("/s").key("a").content_type("text/plain").data("42");
    let batch = Publish { topic: TOPIC.into(), events: vec![event.build().unwrap()], source: None };
    let published = transport.publish(&batch).await.unwrap();

    let mut events = Vec::new();
    while events.len() < 3 {
        tail.next(3, &mut events).await.unwrap();
    }
    events.sort_by_key(|(position, _)| position.offset());
    let (_, raw) = &events[0];
    assert_eq!((raw.event_type(), &raw.data()[..]), (TOPIC, &b"\x00raw\xff"[..]));
    assert!(raw.is_foreign());
    assert_eq!(raw.extension("tenant"), Some("acme"));
    let (created, paid) = (&events[1], &events[2]);
    assert_eq!((created.1.event_type(), created.1.key()), ("order.created", Some("a")));
    assert_eq!(created.0.partition(), paid.0.partition(), "one key, one partition, whoever published");
    assert_eq!(published[0].position, paid.0);

    channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
    let mut first = FieldTable::default();
    first.insert("x-stream-offset".into(), AMQPValue::LongLongInt(2));
    let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), first);
    let read = consuming.await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(read.data, b"42");
    assert_eq!(read.properties.content_type().as_ref().map(ShortString::as_str), Some("text/plain"));
    let headers = read.properties.headers().as_ref().unwrap().inner();
    for (name, value) in [("specversion", "1.0"), ("id", "2"), ("type", "order.paid"), ("partitionkey", "a")] {
        assert_eq!(headers.get(format!("cloudEvents_{name}").as_str()), Some(&text(value)), "{name}");
    }
    transport.close().await.unwrap();
}
