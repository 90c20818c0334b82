//! What peers may do to a node over `ZeroMQ`, and what a client may meet instead of one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use oncue::{
    App, Clock, Envelope,
    event::MAX_DATA_BYTES,
    source::Source as _,
    transport::{Publish, PublishError, Tail},
};
use oncue_transports::{
    wire::message::{self, MAX_MESSAGE_BYTES, Refusal, Reply, Request, VERSION},
    zmq::{self, Endpoint, PATH, Sink, Source},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{node::Running, open};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

fn greeting(version: u8, mechanism: &[u8]) -> Vec<u8> {
    let mut greeting = [&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, version, 0], mechanism].concat();
    greeting.resize(64, 0);
    greeting
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags | LONG];
    frame.extend((body.len() as u64).to_be_bytes());
    frame.extend(body);
    frame
}

fn ready(socket: &[u8]) -> Vec<u8> {
    let length = u8::try_from(socket.len()).unwrap();
    frame(COMMAND, &[b"\x05READY\x0bSocket-Type\0\0\0", &[length][..], socket].concat())
}

fn message(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    parts.iter().enumerate().flat_map(|(index, part)| frame(if index < last { MORE } else { 0 }, part)).collect()
}

/// A peer that writes each byte itself.
struct Peer(TcpStream);

impl Peer {
    async fn greet(address: SocketAddr, socket: &[u8]) -> Self {
        Self::greet_over(TcpStream::connect(address).await.unwrap(), socket).await
    }

    async fn greet_over(stream: TcpStream, socket: &[u8]) -> Self {
        let mut peer = Self(stream);
        peer.send(&greeting(3, b"NULL")).await;
        peer.0.read_exact(&mut [0; 64]).await.unwrap();
        peer.send(&ready(socket)).await;
        peer.frame().await;
        peer
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let flags = self.0.read_u8().await.unwrap();
        let bytes =
            if flags & LONG == 0 { self.0.read_u8().await.unwrap().into() } else { self.0.read_u64().await.unwrap() };
        let mut body = vec![0; usize::try_from(bytes).unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        (flags, body)
    }

    async fn message(&mut self) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        loop {
            let (flags, part) = self.frame().await;
            parts.push(part);
            if flags & MORE == 0 {
                return parts;
            }
        }
    }

    /// Sends parts, and reads what comes back before the answer, and the answer.
    async fn ask(&mut self, parts: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Reply, Refusal>) {
        self.send(&message(parts)).await;
        self.answer().await
    }

    async fn answer(&mut self) -> (Vec<Vec<u8>>, Result<Reply, Refusal>) {
        let mut parts = self.message().await;
        let answer = message::decode(&parts.pop().unwrap()).unwrap();
        assert_eq!(parts.pop().unwrap(), PATH.as_bytes());
        (parts, answer)
    }

    /// What comes until the other side closes.
    async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A connection that is reset is closed too.
        let _ = self.0.read_to_end(&mut rest).await;
        rest
    }
}

fn noise() -> Vec<u8> {
    (0..64 << 10).map(|number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn hello(version: u32) -> Vec<u8> {
    message::encode(&Request::Hello { version }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_of_this_version_is_refused_over_zeromq_too() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let mut peer = Peer::greet(node.zmq.address(), b"DEALER").await;
    let (envelope, answer) = peer.ask(&[b"a", b"b", PATH.as_bytes(), &hello(VERSION)]).await;
    assert!(envelope == [b"a", b"b"] && matches!(answer, Ok(Reply::Hello { .. })), "{envelope:?} {answer:?}");
    let (_, answer) = peer.ask(&[b"a", PATH.as_bytes(), &hello(7)]).await;
    assert!(matches!(answer, Err(Refusal::Version { node: 1, client: 7 })), "{answer:?}");
    let (_, answer) = peer.ask(&[b"a", b"wire/v9", b"who knows"]).await;
    assert!(matches!(answer, Err(Refusal::Version { node: 1, client: 9 })), "{answer:?}");
    let (_, answer) = peer.ask(&[b"a", b"wire/v1/.hidden", &hello(VERSION)]).await;
    assert!(matches!(answer, Err(Refusal::Log { .. })), "{answer:?}");
    let dance = message::encode(&"Dance").unwrap();
    let (_, answer) = peer.ask(&[PATH.as_bytes(), &dance]).await;
    assert!(matches!(&answer, Err(Refusal::Unknown(name)) if name == "Dance"), "{answer:?}");
    for garbage in
        [&[&b"hello"[..]][..], &[b"id", b"", b"hello"], &[b"id", b"\xff\xfe", b""], &[b"a", b"wire/v1", b"\xc1"]]
    {
        let (envelope, answer) = peer.ask(garbage).await;
        assert!(matches!(answer, Err(Refusal::Malformed(_))), "{answer:?}");
        assert_eq!(envelope, garbage[..garbage.len().saturating_sub(2)]);
    }
    peer.send(&frame(COMMAND, b"\x04PING\0\x01still there")).await;
    assert_eq!(peer.frame().await.1, b"\x04PONGstill there");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_whatever_peers_send() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let address = node.zmq.address();
    // A length that is only said costs nothing, and is refused: the peer learns why.
    for bytes in [MAX_MESSAGE_BYTES as u64 + 8_192, 1 << 62, u64::MAX] {
        let mut peer = Peer::greet(address, b"DEALER").await;
        let said = [&frame(MORE, b"id")[..], &frame(MORE, PATH.as_bytes()), &[LONG], &bytes.to_be_bytes()].concat();
        peer.send(&said).await;
        let (envelope, answer) = peer.answer().await;
        assert!(matches!(answer, Err(Refusal::TooLarge { limit: MAX_MESSAGE_BYTES, .. })), "{answer:?}");
        assert_eq!((envelope, peer.rest().await), (vec![b"id".to_vec()], Vec::new()), "and it is sent away");
    }
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut peer = Peer::greet(address, b"DEALER").await;
        peer.send(&[&[LONG][..], &(MAX_MESSAGE_BYTES as u64).to_be_bytes(), b"a few bytes"].concat()).await;
        waiting.push(peer);
    }
    let noise = noise();
    let parts: Vec<u8> = std::iter::repeat_n(frame(MORE, b""), 100).flatten().collect();
    for garbage in [&b"\x08 unknown flags"[..], &frame(COMMAND | MORE, b"\x04PING"), &noise[1..], &parts] {
        let mut peer = Peer::greet(address, b"DEALER").await;
        peer.send(garbage).await;
        assert_eq!(peer.rest().await, b"", "{garbage:02x?}");
    }
    for stranger in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), greeting(1, b""), greeting(3, b"CURVE"), noise] {
        let mut peer = Peer(TcpStream::connect(address).await.unwrap());
        // It may be sent away before it is through.
        let _ = peer.0.write_all(&stranger).await;
        assert!(peer.rest().await.len() <= 64);
    }
    let peer = Peer::greet(address, b"SUB").await;
    drop(peer);
    let transport = open(node.zmq.url()).await;
    assert!(transport.inspect().topics().is_empty());
    transport.close().await.unwrap();
    drop(waiting);
    node.stop().await;
}

/// A listener that says something to whoever comes, and reads on.
async fn stranger(says: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, says) = (listener.local_addr().unwrap(), Arc::new(says));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let says = Arc::clone(&says);
            tokio::spawn(async move {
                // The client leaves when it has heard enough.
                let _ = stream.write_all(&says).await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_node_is_an_error_that_says_what_it_is() {
    let hello = |socket: &[u8], then: &[u8]| [&greeting(3, b"NULL")[..], &ready(socket), then].concat();
    let strange = message(&[b"\0\0\0\0\0\0\0\x01", b"hello"]);
    let refused = message::encode(&Err::<Reply, _>(Refusal::Version { node: 2, client: 1 })).unwrap();
    let newer = message(&[b"\0\0\0\0\0\0\0\x01", b"wire/v2", &refused]);
    let mut opening = Vec::new();
    for (says, reason) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak ZeroMQ"),
        (greeting(1, b""), "version 1 of ZeroMQ's protocol"),
        (greeting(3, b"CURVE"), "the mechanism CURVE"),
        (hello(b"PUB", b""), "a PUB socket, to which a DEALER does not talk"),
        (hello(b"ROUTER", &strange), "no Oncue node: its answer is not `wire/v1`"),
        (hello(b"ROUTER", &newer), "version 2"),
        (Vec::new(), "no greeting within"),
    ] {
        let url = format!("zmq://{}", stranger(says).await);
        let opened = url.clone();
        let open = move || oncue_transports::open(&opened, Clock::system()).err();
        opening.push((url, reason, tokio::task::spawn_blocking(open)));
    }
    for (url, reason, opened) in opening {
        let error = opened.await.unwrap().expect("it is no node").to_string();
        let mended = error.contains("oncue serve") || error.contains("use one version of Oncue at both ends");
        assert!(error.contains(reason) && error.contains(&url) && mended, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_a_message_is_refused_before_it_is_sent_over_zeromq_too() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let transport = open(node.zmq.url()).await;
    let large = |_| Envelope::builder("large").data(vec![7; (8 << 20) - 1_024]).build().unwrap();
    let batch = |events| Publish { topic: "events".into(), events: (0..events).map(large).collect(), source: None };
    let refused = transport.publish(&batch(5)).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { limit: MAX_MESSAGE_BYTES, .. })), "{refused:?}");
    let published = transport.publish(&batch(1)).await.unwrap();
    assert_eq!(published.len(), 1, "as large as an event may be");
    transport.close().await.unwrap();
    node.stop().await;
}

/// Where peers come, and its address.
fn bound() -> (Endpoint, SocketAddr) {
    let endpoint = zmq::bind("tcp://127.0.0.1:0").unwrap();
    let address = endpoint.url().strip_prefix("tcp://").unwrap().parse().unwrap();
    (endpoint, address)
}

/// The next event of a topic.
async fn next(tail: &mut dyn Tail) -> Envelope {
    let mut events = Vec::new();
    tail.next(1, &mut events).await.unwrap();
    events.remove(0).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_goes_on_whatever_peers_send() {
    let (endpoint, address) = bound();
    let source = Source::pull(endpoint).max_bytes(1 << 20);
    let bus = App::open("memory:").await.unwrap().source(source).start().await.unwrap();
    let mut tail = bus.transport().tail("events").await.unwrap();
    let parts: Vec<u8> = std::iter::repeat_n(frame(MORE, b""), 100).flatten().collect();
    let too_large = [&[LONG][..], &(1_u64 << 40).to_be_bytes()].concat();
    for garbage in [&b"\x08 unknown flags"[..], &frame(COMMAND | MORE, b"\x04PING"), &noise()[1..], &parts, &too_large]
    {
        let mut peer = Peer::greet(address, b"PUSH").await;
        // It may be sent away before it is through.
        let _ = peer.0.write_all(garbage).await;
        assert_eq!(peer.rest().await, b"");
    }
    for stranger in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), greeting(2, b""), greeting(3, b"CURVE"), noise()] {
        let mut peer = Peer(TcpStream::connect(address).await.unwrap());
        let _ = peer.0.write_all(&stranger).await;
        assert!(peer.rest().await.len() <= 64);
    }
    let mut wrong = Peer(TcpStream::connect(address).await.unwrap());
    wrong.send(&[greeting(3, b"NULL"), ready(b"SUB")].concat()).await;
    let told = String::from_utf8_lossy(&wrong.rest().await).into_owned();
    assert!(told.contains("ERROR") && told.contains("it is a SUB socket, to which a PULL does not talk"), "{told}");
    let mut peer = Peer::greet(address, b"PUSH").await;
    let large = vec![b'x'; (1 << 20) - 10];
    peer.send(&message(&[b"subject", b"body"])).await;
    peer.send(&frame(COMMAND, b"\x04PING\0\x01still there")).await;
    assert_eq!(peer.frame().await.1, b"\x04PONGstill there");
    peer.send(&message(&[b"", &large])).await;
    let event = next(&mut *tail).await;
    assert_eq!((event.subject(), &event.data()[..]), (Some("subject"), &b"body"[..]));
    let event = next(&mut *tail).await;
    assert_eq!((event.subject(), &event.data()[..]), (None, &large[..]));
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_publisher_is_an_error_that_says_where_and_what_it_is() {
    let hello = |socket: &[u8]| [&greeting(3, b"NULL")[..], &ready(socket)].concat();
    for (says, reason) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak ZeroMQ"),
        (greeting(1, b""), "version 1 of ZeroMQ's protocol"),
        (greeting(3, b"CURVE"), "the mechanism CURVE"),
        (hello(b"PUSH"), "a PUSH socket, to which a SUB does not talk"),
        ([hello(b"PUB"), b"\x08".to_vec()].concat(), "unknown flags"),
    ] {
        let url = format!("tcp://{}", stranger(says).await);
        let mut source = Source::subscribe(zmq::connect(&url).unwrap(), [""]);
        let error = source.generate(None, &Clock::system()).await.unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains(reason), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_being_written_to_a_peer_that_went_was_not_sent() {
    let (endpoint, address) = bound();
    let sink = Sink::push(endpoint).unwrap();
    // More than the buffers between take: it is still being written when the peer goes.
    let event = Envelope::builder("large").content_type("text/plain").data(vec![7; 8 << 20]).build().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut peer = Peer::greet_over(socket.connect(address).await.unwrap(), b"PULL").await;
    let sending = tokio::spawn({
        let (sink, event) = (sink.clone(), event.clone());
        async move { sink.send(&event).await }
    });
    assert_eq!(peer.frame().await.1, b"large");
    drop(peer);
    let lost = sending.await.unwrap();
    assert_eq!(lost, Err(zmq::SinkError::Lost));
    let mut peer = Peer::greet(address, b"PULL").await;
    let (sent, parts) = tokio::join!(sink.send(&event), peer.message());
    sent.unwrap();
    let arrived = Envelope::from_json(&parts[1]).unwrap();
    assert_eq!((arrived.id(), arrived.data()), (event.id(), event.data()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_nobody_waits_for_any_more_is_not_sent() {
    let (endpoint, address) = bound();
    let sink = Sink::push(endpoint).unwrap();
    let event = |kind: &str| Envelope::builder(kind).build().unwrap();
    let given_up = timeout(Duration::ZERO, sink.send(&event("first"))).await;
    assert!(given_up.is_err(), "nobody is there");
    let mut peer = Peer::greet(address, b"PULL").await;
    let second = event("second");
    let (sent, parts) = tokio::join!(sink.send(&second), peer.message());
    sent.unwrap();
    assert_eq!((&parts[0][..], sink.counts().sent), (&b"second"[..], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_event_goes_from_a_sink_to_a_source() {
    let here = zmq::bind("tcp://127.0.0.1:0").unwrap();
    let sink = Sink::publish(zmq::connect(&here.url()).unwrap()).unwrap();
    // Bound or connected makes no difference.
    let bus = App::open("memory:").await.unwrap().source(Source::subscribe(here, ["large"])).start().await.unwrap();
    let mut tail = bus.transport().tail("events").await.unwrap();
    // Until the subscription has come, nobody wants anything; with the same id, it counts once.
    let small = Envelope::builder("large.marker").id("1").build().unwrap();
    loop {
        sink.send(&small).await.unwrap();
        if timeout(Duration::from_millis(50), next(&mut *tail)).await.is_ok() {
            break;
        }
    }
    let event = Envelope::builder("large").content_type("text/plain").data(vec![7; MAX_DATA_BYTES]).build().unwrap();
    sink.send(&event).await.unwrap();
    let arrived = next(&mut *tail).await;
    assert_eq!((arrived.id(), arrived.data()), (event.id(), event.data()));
    bus.shutdown().await.unwrap();
}
