//! What other tools write to a NATS server, and what they read there: a client that knows the protocol and nothing of ours.

use oncue::{Clock, Envelope, transport::Publish};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::open;

const TOPIC: &str = "events";

/// Speaks the client protocol of NATS.
struct Foreign {
    reading: BufReader<OwnedReadHalf>,
    writing: OwnedWriteHalf,
}

impl Foreign {
    async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap();
        let (reading, writing) = stream.into_split();
        let mut foreign = Self { reading: BufReader::new(reading), writing };
        assert!(foreign.line().await.starts_with("INFO "));
        foreign.writing.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").await.unwrap();
        foreign
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.reading.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// Returns once the server has all that was sent.
    async fn ping(&mut self) {
        self.writing.write_all(b"PING\r\n").await.unwrap();
        assert_eq!(self.line().await, "PONG");
    }

    async fn publish(&mut self, subject: &str, headers: &[(&str, &str)], data: &str) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = format!("NATS/1.0\r\n{lines}\r\n");
        let (size, all) = (headers.len(), headers.len() + data.len());
        let message = format!("HPUB {subject} {size} {all}\r\n{headers}{data}\r\n");
        self.writing.write_all(message.as_bytes()).await.unwrap();
    }

    /// The next message of a subscription, with its headers as they are written.
    async fn message(&mut self) -> String {
        let about = self.line().await;
        assert!(about.starts_with("HMSG "), "{about}");
        let all: usize = about.rsplit(' ').next().unwrap().parse().unwrap();
        let mut message = vec![0; all + 2];
        self.reading.read_exact(&mut message).await.unwrap();
        String::from_utf8(message).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_other_tools_arrive_and_ours_are_read_by_them() {
    let Some(url) = super::broker("nats") else { return };
    let prefix = format!("foreign-{}", Clock::system().now().as_micros());
    let transport = open(format!("{url}?prefix={prefix}")).await;
    let mut tail = transport.tail(TOPIC).await.unwrap();

    let mut foreign = Foreign::connect(&url).await;
    let subject = format!("{prefix}.{TOPIC}.1.raw");
    let structured = ("Content-Type", "application/cloudevents+json");
    let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","partitionkey":"a","data":1}"#;
    let binary = [("ce-specversion", "1.0"), ("ce-id", "3"), ("ce-source", "/s"), ("ce-type", "order%20sent")];
    foreign.publish(&subject, &[("tenant", "acme")], "raw ü").await;
    foreign.publish(&subject, &[structured], json).await;
    foreign.publish(&subject, &binary, "sent").await;
    // What says that it is an event, and is none, stands in nobody's way.
    foreign.publish(&subject, &[structured], "{}").await;
    foreign.publish(&subject, &binary[..2], "half").await;
    foreign.ping().await;
    foreign.writing.write_all(format!("SUB {prefix}.{TOPIC}.> 1\r\n").as_bytes()).await.unwrap();
    foreign.ping().await;
    let paid = Envelope::builder("order.paid").id("2").source("/s").key("a").content_type("text/plain").data("42");
    let batch = Publish { topic: TOPIC.into(), events: vec![paid.build().unwrap()], source: None };
    let published = transport.publish(&batch).await.unwrap();

    let mut events = Vec::new();
    while events.len() < 6 {
        tail.next(6, &mut events).await.unwrap();
    }
    events.sort_by_key(|(position, _)| position.offset());
    let told: Vec<_> =
        events.iter().map(|(_, event)| (event.event_type(), event.is_foreign(), &event.data()[..])).collect();
    let expected: [(&str, bool, &[u8]); 6] = [
        (TOPIC, true, "raw ü".as_bytes()),
        ("order.created", false, b"1"),
        ("order sent", false, b"sent"),
        (TOPIC, true, b"{}"),
        (TOPIC, true, b"half"),
        ("order.paid", false, b"42"),
    ];
    assert_eq!(told, expected);
    assert_eq!((events[0].1.extension("tenant"), events[1].1.key()), (Some("acme"), Some("a")));
    assert_eq!(published[0].position, events[5].0);

    let ours = foreign.message().await;
    for header in
        ["ce-specversion: 1.0", "ce-id: 2", "ce-source: /s", "ce-type: order.paid", "ce-datacontenttype: text/plain"]
    {
        assert!(ours.contains(&format!("{header}\r\n")), "{header} is not in: {ours}");
    }
    assert!(ours.ends_with("\r\n\r\n42\r\n"), "{ours}");
}
