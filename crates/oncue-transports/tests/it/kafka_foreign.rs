//! Other tools on Kafka: what Kafka's own publish arrives, and they read what is published here; topics that were made by
//! somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::Arc,
};

use oncue::{
    App, Clock, Envelope, handler,
    handler::{HandlerExt as _, extract::Keyed},
    transport::{Publish, PublishError, Start},
};
use tokio::{io::AsyncWriteExt as _, sync::watch};

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
    let alter = ["--alter", "--topic", &wide, "--partitions", "5"];
    let making = ["--create", "--topic", &small, "--partitions", "1", "--config", "max.message.bytes=10000"];
    tool(server, "TopicCommand", &making, "").await;
    tool(server, "TopicCommand", &["--create", "--topic", &wide, "--partitions", "3"], "").await;
    let transport = open(format!("{url}?prefix={prefix}")).await;
    let publish = |topic: &str, bytes: usize| {
        let (transport, events) = (Arc::clone(&transport), vec![event("1", vec![b'x'; bytes])]);
        let batch = Publish { topic: topic.into(), events, source: None };
        async move { transport.publish(&batch).await }
    };
    publish("wide", 1).await.unwrap();
    tool(server, "TopicCommand", &alter, "").await;
    let again = open(format!("{url}?prefix={prefix}")).await;
    let batch = Publish { topic: "wide".into(), events: vec![event("2", "")], source: None };
    let refused = again.publish(&batch).await.unwrap_err().to_string();
    assert!(refused.contains("5 partitions") && refused.contains("had 3"), "{refused}");
    let large = publish("small", 20_000).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { bytes: 20_000, limit: 10_000 }), "{large}");
    // A few bytes too many, with what stands beside the data: the broker finds that out.
    let large = publish("small", 9_990).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { limit: 10_000, .. }), "{large}");
    let large = publish("events", 8 << 20).await.unwrap_err();
    assert!(matches!(large, PublishError::TooLarge { limit: 1_048_576, .. }), "{large}");
    publish("small", 1).await.unwrap();
}

/// What its handler is given: per key, the data of its events.
type ByKey = BTreeMap<Option<String>, Vec<String>>;

fn all(numbers: std::ops::Range<usize>) -> ByKey {
    let mut all = ByKey::new();
    for number in numbers {
        // Each tenth has no key.
        let key = (!number.is_multiple_of(10)).then(|| format!("k{}", number % 7));
        all.entry(key).or_default().push(number.to_string());
    }
    all
}

/// Waits until so many were handled, and gives them; those without a key have no order.
async fn handled(seen: &mut watch::Receiver<ByKey>, count: usize) -> ByKey {
    let mut seen = seen.wait_for(|seen| seen.values().map(Vec::len).sum::<usize>() >= count).await.unwrap().clone();
    seen.entry(None).or_default().sort_by_key(|number| number.parse::<usize>().unwrap());
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_partitions_of_somebody_elses_topic_are_handled_each_key_in_order_and_ours_go_where_its_key_goes() {
    let Some(url) = super::broker("kafka") else { return };
    let prefix = format!("divided-{}", Clock::system().now().as_micros());
    let (topic, server) = (format!("{prefix}.{TOPIC}"), url.trim_start_matches("kafka://"));
    tool(server, "TopicCommand", &["--create", "--topic", &topic, "--partitions", "5"], "").await;
    let produce = async |numbers: std::ops::Range<usize>| {
        let line = |number: usize| match number % 10 {
            0 => format!("NO\t{number}\n"),
            _ => format!("k{}\t{number}\n", number % 7),
        };
        let lines: String = numbers.map(line).collect();
        let options = ["--topic", &topic, "--property", "parse.key=true", "--property", "null.marker=NO"];
        tool(server, "ConsoleProducer", &options, &lines).await;
    };
    // They wait before anything of ours has seen the topic.
    produce(0..300).await;

    let url = format!("{url}?prefix={prefix}&partitions=2");
    let (noting, mut seen) = watch::channel(ByKey::new());
    let notes = move |event: Envelope| {
        let data = String::from_utf8_lossy(event.data()).into_owned();
        noting.send_modify(|seen| seen.entry(event.key().map(str::to_owned)).or_default().push(data));
        std::future::ready(())
    };
    let app = App::with_transport(open(url.clone()).await, Clock::system());
    let notes = notes.named("notes").types([TOPIC]).topic(TOPIC).start(Start::Earliest);
    let bus = app.on(notes).start().await.unwrap();
    assert_eq!(handled(&mut seen, 300).await, all(0..300), "what was there");

    produce(300..400).await;
    let stood = bus.inspect().browse(TOPIC, 0, usize::MAX).unwrap();
    let partition = |key: &str| {
        let mut found = stood.iter().filter(|(_, event)| event.key() == Some(key)).map(|(at, _)| at.partition());
        let first = found.next().unwrap();
        assert!(found.all(|partition| partition == first));
        first
    };
    let ours = |number: usize| {
        let event = Envelope::builder(TOPIC).key(format!("k{}", number % 7)).data(number.to_string());
        event.build().unwrap()
    };
    let batch = Publish { topic: TOPIC.into(), events: (400..407).map(ours).collect(), source: None };
    let published = bus.transport().publish(&batch).await.unwrap();
    for (number, published) in (400..).zip(&published) {
        assert_eq!(published.position.partition(), partition(&format!("k{}", number % 7)), "one key, one partition");
    }
    let mut expected = all(0..400);
    (400..407).for_each(|n| expected.get_mut(&Some(format!("k{}", n % 7))).unwrap().push(n.to_string()));
    assert_eq!(handled(&mut seen, 407).await, expected, "what came, and ours");

    bus.idle().await.unwrap();
    let stood = bus.inspect().browse(TOPIC, 0, usize::MAX).unwrap();
    let partitions: BTreeSet<u16> = stood.iter().map(|(position, _)| position.partition()).collect();
    let offsets: BTreeSet<u64> = stood.iter().map(|(position, _)| position.offset()).collect();
    assert_eq!((partitions.len(), offsets.len()), (5, 407), "all partitions, and no two events at the same offset");
    let (mut pages, mut from) = (Vec::new(), 0);
    while let page = bus.inspect().browse(TOPIC, from, 50).unwrap()
        && let Some((last, _)) = page.last()
    {
        from = last.offset() + 1;
        pages.extend(page);
    }
    assert_eq!(pages, stood, "page by page");
    bus.shutdown().await.unwrap();
}

#[handler(on = "orders", topic = "orders", start = "earliest")]
async fn tally(_: Envelope, mut events: Keyed<u32>) {
    *events += 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_state_is_kept_wherever_somebody_else_puts_a_key() {
    let Some(url) = super::broker("kafka") else { return };
    let prefix = format!("strewn-{}", Clock::system().now().as_micros());
    let (topic, server) = (format!("{prefix}.{TOPIC}"), url.trim_start_matches("kafka://"));
    tool(server, "TopicCommand", &["--create", "--topic", &topic, "--partitions", "3"], "").await;
    let partitioner = "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner";
    let options = ["--topic", &topic, "--property", "parse.key=true", "--producer-property", partitioner];
    tool(server, "ConsoleProducer", &options, &"k\tx\n".repeat(60)).await;

    let app = App::with_transport(open(format!("{url}?prefix={prefix}")).await, Clock::system());
    let bus = app.on(tally).start().await.unwrap();
    bus.idle().await.unwrap();
    let mut expected = BTreeMap::<u16, u32>::new();
    for (at, _) in bus.inspect().browse(TOPIC, 0, usize::MAX).unwrap() {
        *expected.entry(at.partition()).or_default() += 1;
    }
    assert_eq!((expected.len(), expected.values().sum::<u32>()), (3, 60));
    let mut expected: Vec<u32> = expected.into_values().collect();
    let states = bus.inspect().states("tally").unwrap();
    let mut counted: Vec<u32> = states.iter().map(|(_, value)| serde_json::from_slice(value).unwrap()).collect();
    expected.sort_unstable();
    counted.sort_unstable();
    assert_eq!(counted, expected, "a key that is in several partitions has a state in each");
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_a_topic_was_read_in_parts_is_read_too() {
    let Some(url) = super::broker("kafka") else { return };
    let url = format!("{url}?prefix=whole-{}", Clock::system().now().as_micros());
    let (publishing, reading) = (open(url.clone()).await, open(url).await);
    let event = |number: usize| {
        let event = Envelope::builder("e").id(number.to_string()).key("k").data(vec![b'x'; 400]);
        event.build().unwrap()
    };
    let publish = async |topic: &str, numbers: std::ops::Range<usize>| {
        let batch = Publish { topic: topic.into(), events: numbers.map(event).collect(), source: None };
        publishing.publish(&batch).await.unwrap();
    };
    let mut count = 0;
    for _ in 0..5 {
        // More than is read at once: the rest is fetched meanwhile, to what is the end then.
        publish(TOPIC, count..count + 2_000).await;
        count += 2_000;
        assert_eq!(reading.inspect().browse(TOPIC, 0, 100).unwrap().len(), 100);
        for number in 0..100 {
            // Until that is told.
            publish("elsewhere", number..number + 1).await;
        }
        publish(TOPIC, count..count + 2_000).await;
        count += 2_000;
        let found = reading.inspect().browse(TOPIC, 0, usize::MAX).unwrap();
        assert!(found.iter().map(|(_, event)| event.id().parse::<usize>().unwrap()).eq(0..count));
    }
}
