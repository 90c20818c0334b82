//! Sources and sinks over `ZeroMQ`, and sockets of libzmq that know nothing of events; each of those goes once, and another
//! comes.

use std::{collections::VecDeque, time::Duration};

use oncue::{App, Bus, Envelope, handler::HandlerExt as _, transport::Tail};
use oncue_transports::zmq::{self, Sink, SinkCounts, Source};
use tokio::time::timeout;

use crate::{
    proxy::Proxy,
    pyzmq::{Program, python},
};

const TOPIC: &str = "weather";
/// Messages before the other side goes, and again after.
const MESSAGES: usize = 100;
/// What may get lost is sent again after so long.
const AGAIN: Duration = Duration::from_millis(50);
/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(120);
/// What is sent until it arrives.
const MARKER: &str = "marker";

/// What a source publishes.
struct Published {
    bus: Bus,
    tail: Box<dyn Tail>,
    events: VecDeque<Envelope>,
}

impl Published {
    async fn by(source: Source) -> Self {
        let bus = App::open("memory:").await.unwrap().source(source.topic(TOPIC)).start().await.unwrap();
        let tail = bus.transport().tail(TOPIC).await.unwrap();
        Self { bus, tail, events: VecDeque::new() }
    }

    async fn within(&mut self, wait: Duration) -> Option<Envelope> {
        if self.events.is_empty() {
            let mut events = Vec::new();
            // A wait that is over leaves what is published where it is.
            let _ = timeout(wait, self.tail.next(512, &mut events)).await;
            self.events.extend(events.into_iter().map(|(_, event)| event));
        }
        self.events.pop_front()
    }

    /// The next event that is no marker.
    async fn next(&mut self) -> Envelope {
        loop {
            let event = self.within(DEADLINE).await.expect("an event comes");
            if event.data() != MARKER {
                return event;
            }
        }
    }
}

fn tcp(proxy: &Proxy) -> String {
    format!("tcp://{}", proxy.address())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_subscribes_to_what_others_publish() {
    let Some(python) = python() else { return };
    let mut publisher = Program::bind(&python, "PUB", &[]).await;
    let proxy = Proxy::start(publisher.address()).await;
    let source = Source::subscribe(zmq::connect(&tcp(&proxy)).unwrap(), ["berlin", "oslo"]);
    let mut published = Published::by(source).await;
    for restarted in [false, true] {
        if restarted {
            publisher.end().await;
            publisher = Program::bind(&python, "PUB", &[]).await;
            proxy.lead_to(publisher.address());
        }
        // What is published before the subscription has come is lost.
        loop {
            publisher.send(&[b"oslo", MARKER.as_bytes()]).await;
            if published.within(AGAIN).await.is_some() {
                break;
            }
        }
        for number in 0..MESSAGES {
            publisher.send(&[b"paris", b"not subscribed to"]).await;
            publisher.send(&[b"berlin.mitte", number.to_string().as_bytes()]).await;
        }
        for number in 0..MESSAGES {
            let event = published.next().await;
            assert_eq!((event.subject(), &event.data()[..]), (Some("berlin.mitte"), number.to_string().as_bytes()));
            assert_eq!((event.event_type(), event.source(), event.is_foreign()), (TOPIC, "zmq", true));
        }
    }
    published.bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_pulls_what_others_push() {
    let Some(python) = python() else { return };
    let endpoint = zmq::bind("tcp://127.0.0.1:0").unwrap();
    let url = endpoint.url();
    let mut published = Published::by(Source::pull(endpoint)).await;
    for run in ["first", "second"] {
        let mut pusher = Program::connect(&python, "PUSH", &url, &[]).await;
        for number in 0..MESSAGES {
            let event = Envelope::builder("order.paid").source(run).id(number.to_string()).key("a").data("5");
            let json = event.build().unwrap().to_json();
            pusher.send(&[json.as_bytes()]).await;
            // With an id of its own, it counts once.
            pusher.send(&[b"again", json.as_bytes()]).await;
        }
        pusher.send(&[b"", b"\x00raw"]).await;
        // It waits until all of it is taken.
        pusher.end().await;
        for number in 0..MESSAGES {
            let event = published.next().await;
            assert_eq!((event.source(), event.id(), event.key()), (run, &*number.to_string(), Some("a")));
            assert_eq!((event.event_type(), event.is_foreign(), &event.data()[..]), ("order.paid", false, &b"5"[..]));
        }
        let raw = published.next().await;
        assert_eq!((raw.is_foreign(), raw.subject(), &raw.data()[..]), (true, None, &b"\x00raw"[..]));
    }
    published.bus.shutdown().await.unwrap();
}

/// An app whose handler is a sink.
async fn serving(sink: &Sink) -> Bus {
    let handler = sink.clone().named("sink").types(["order.paid", "stock.low", MARKER]);
    App::open("memory:").await.unwrap().on(handler).start().await.unwrap()
}

/// Publishes what is lost as long as nobody is there, until somebody is.
async fn until_heard(bus: &Bus, by: &mut Program) {
    loop {
        bus.publish(Envelope::builder(MARKER).build().unwrap()).await.unwrap();
        if by.received_within(AGAIN).await.is_some() {
            return;
        }
    }
}

/// Publishes events of one key, which others take as they are, in their order.
async fn are_heard(bus: &Bus, by: &mut Program) {
    for number in 0..MESSAGES {
        let event = |kind: &str| Envelope::builder(kind).key("a").data(number.to_string()).build().unwrap();
        let (paid, low) = (event("order.paid"), event("stock.low"));
        bus.publish(low).await.unwrap();
        bus.publish(paid.clone()).await.unwrap();
        let parts = loop {
            let parts = by.received().await;
            if parts[0] == b"order.paid" {
                break parts;
            }
        };
        assert_eq!(parts.len(), 2);
        let event = Envelope::from_json(&parts[1]).unwrap();
        assert_eq!((event.id(), event.key(), event.data()), (paid.id(), Some("a"), paid.data()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_publishes_to_those_who_subscribe() {
    let Some(python) = python() else { return };
    let endpoint = zmq::bind("tcp://127.0.0.1:0").unwrap();
    let url = endpoint.url();
    let sink = Sink::publish(endpoint).unwrap();
    sink.send(&Envelope::builder("order.paid").build().unwrap()).await.unwrap();
    assert_eq!(sink.counts(), SinkCounts { unheard: 1, ..SinkCounts::default() });
    let bus = serving(&sink).await;
    for _ in 0..2 {
        let mut subscriber = Program::connect(&python, "SUB", &url, &["order.", MARKER]).await;
        until_heard(&bus, &mut subscriber).await;
        are_heard(&bus, &mut subscriber).await;
        subscriber.end().await;
    }
    assert_eq!(sink.counts().dropped, 0);
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_pushes_to_one_who_pulls_and_waits_for_one() {
    let Some(python) = python() else { return };
    let mut puller = Program::bind(&python, "PULL", &[]).await;
    let proxy = Proxy::start(puller.address()).await;
    let bus = serving(&Sink::push(zmq::connect(&tcp(&proxy)).unwrap()).unwrap()).await;
    are_heard(&bus, &mut puller).await;
    puller.end().await;
    puller = Program::bind(&python, "PULL", &[]).await;
    proxy.lead_to(puller.address());
    until_heard(&bus, &mut puller).await;
    are_heard(&bus, &mut puller).await;
    bus.shutdown().await.unwrap();

    // Nobody is there yet.
    let endpoint = zmq::bind("tcp://127.0.0.1:0").unwrap();
    let url = endpoint.url();
    let sink = Sink::push(endpoint).unwrap();
    let bus = serving(&sink).await;
    bus.publish(Envelope::builder("order.paid").build().unwrap()).await.unwrap();
    assert_eq!(sink.counts().sent, 0);
    let mut puller = Program::connect(&python, "PULL", &url, &[]).await;
    assert_eq!(puller.received().await[0], b"order.paid");
    bus.idle().await.unwrap();
    assert_eq!(sink.counts(), SinkCounts { sent: 1, ..SinkCounts::default() });
    bus.shutdown().await.unwrap();
}
