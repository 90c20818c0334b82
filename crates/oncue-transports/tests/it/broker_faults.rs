//! Any broker's server that is killed, a connection that is cut, answers that are lost, and intruders.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use oncue::{
    App, Clock, Envelope,
    event::DEFAULT_TOPIC,
    handler::HandlerExt as _,
    transport::{Publish, Transport},
};
use oncue_conformance::{Disturbance, Factory, Filter, Intruder, Opened, Suite, Tier, Verdict};

use super::{
    USER,
    cutting::{Mode, Proxy},
};

/// A server that is killed twice takes half a minute to be back where a machine has much else to do.
const DEADLINE: Duration = Duration::from_secs(180);
/// Longer than everything here may hang.
const HANGS: Duration = Duration::from_secs(40);

/// A server of a test's own, behind a connection that can be cut.
pub(super) trait Server: Send + Sync + 'static {
    fn scheme(&self) -> &'static str;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    fn proxy(&self) -> &Proxy;

    /// As by `kill -9`.
    fn restart(&self) -> BoxFuture<'_, ()>;

    /// The way to a place on it that can be cut.
    fn url(&self, place: &str) -> String {
        self.url_of(USER, self.proxy().address, place)
    }

    /// The way to it that is not cut.
    fn direct(&self, place: &str) -> String {
        self.url_of(USER, self.address(), place)
    }

    fn url_of(&self, (user, password): (&str, &str), address: SocketAddr, place: &str) -> String {
        format!("{}://{user}:{password}@{address}?prefix={place}", self.scheme())
    }

    fn set(&self, mode: Mode) {
        self.proxy().mode.send_replace(mode);
    }
}

async fn open(url: String) -> Opened {
    Ok(tokio::task::spawn_blocking(move || oncue_transports::open(&url, Clock::system())).await??)
}

/// A server whose users are asked for a password.
#[derive(Clone)]
struct Disturbed(Arc<dyn Server>);

impl Factory for Disturbed {
    fn open(&self, place: &str, _: Clock) -> BoxFuture<'static, Opened> {
        open(self.0.url(place)).boxed()
    }

    fn open_as(&self, intruder: Intruder, place: &str, _: Clock) -> Result<BoxFuture<'static, Opened>, &'static str> {
        let address = self.0.proxy().address;
        let url = match intruder {
            Intruder::WrongCredentials => self.0.url_of((USER.0, "wrong"), address, place),
            Intruder::NoCredentials => format!("{}://{address}?prefix={place}", self.0.scheme()),
            Intruder::NoTls => return Err("this server asks for no TLS"),
        };
        Ok(open(url).boxed())
    }

    fn disturb(&self, disturbance: Disturbance, _: &str) -> Result<BoxFuture<'static, ()>, &'static str> {
        let server = Arc::clone(&self.0);
        Ok(async move {
            match disturbance {
                Disturbance::Restart => server.restart().await,
                Disturbance::Cut => server.proxy().cut().await,
            }
        }
        .boxed())
    }
}

pub(super) async fn nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut(server: Arc<dyn Server>) {
    let suite = Suite::new(server.scheme(), Disturbed(server)).instances(true).deadline(DEADLINE);
    let report = suite.run(&Filter::only([17, 30]), Tier::Fast).await;
    for number in [17, 30] {
        let entry = &report.entries[number - 1];
        assert_eq!(entry.verdict, Verdict::Passed, "case {number}: {}", entry.reason);
        println!("{number}: {}", entry.reason);
    }
    let asked = &report.entries[16].reason;
    assert!(asked.contains("broker restart") && asked.contains("connection cut"), "{asked}");
}

pub(super) async fn refused_credentials_are_an_error_without_them(server: Arc<dyn Server>) {
    let address = server.proxy().address;
    let url = server.url_of((USER.0, "wrong-secret"), address, "refused");
    let error = open(url).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("`{}://{address}?prefix=refused`: ", server.scheme())), "{error}");
    assert!(error.contains("refuses these credentials") && !error.contains("secret"), "{error}");
}

pub(super) async fn an_event_whose_confirmation_is_lost_stands_there_once(server: Arc<dyn Server>) {
    let watching = open(server.direct("confirmed")).await.unwrap();
    let mut tail = watching.tail(DEFAULT_TOPIC).await.unwrap();
    let transport = open(server.url("confirmed")).await.unwrap();
    let event = |id: &str| Envelope::builder("t").id(id).source("/s").build().unwrap();
    let publish = |id: &str| Publish { topic: DEFAULT_TOPIC.into(), events: vec![event(id)], source: None };
    transport.publish(&publish("first")).await.unwrap();
    tail.next(1, &mut Vec::new()).await.unwrap();
    server.set(Mode::Mute);
    let publishing = tokio::spawn({
        let (transport, second) = (Arc::clone(&transport), publish("second"));
        async move { transport.publish(&second).await }
    });
    // It is there; that it is, gets lost.
    let mut seen = Vec::new();
    tail.next(1, &mut seen).await.unwrap();
    server.proxy().cut().await;
    let published = tokio::time::timeout(HANGS, publishing).await.unwrap().unwrap().unwrap();
    assert_eq!(published[0].position, seen[0].0, "it is told where the first one stands");
    let kept = watching.inspect().browse(DEFAULT_TOPIC, 0, 10).unwrap();
    assert_eq!(kept.iter().map(|(_, event)| event.id()).collect::<Vec<_>>(), ["first", "second"]);
}

/// Whatever of a batch got lost comes again before what stands behind it.
pub(super) async fn a_batch_that_is_cut_in_the_middle_stands_there_in_order(server: Arc<dyn Server>) {
    const EVENTS: usize = 3_000;
    let watching = open(server.direct("batch")).await.unwrap();
    let mut tail = watching.tail(DEFAULT_TOPIC).await.unwrap();
    let transport = open(server.url("batch")).await.unwrap();
    let event = |number: usize| {
        let event = Envelope::builder("t").id(number.to_string()).source("/s").key("k");
        event.data(vec![b'x'; 2_000]).build().unwrap()
    };
    let batch = Publish { topic: DEFAULT_TOPIC.into(), events: (0..EVENTS).map(event).collect(), source: None };
    let publishing = tokio::spawn(async move { transport.publish(&batch).await });
    tail.next(1, &mut Vec::new()).await.unwrap();
    server.proxy().cut().await;
    assert!(!publishing.is_finished(), "it was not cut in the middle");
    let published = tokio::time::timeout(HANGS, publishing).await.unwrap().unwrap().unwrap();
    let kept = watching.inspect().browse(DEFAULT_TOPIC, 0, usize::MAX).unwrap();
    let expected: Vec<_> = (0..EVENTS).map(|number| number.to_string()).collect();
    assert_eq!(kept.iter().map(|(_, event)| event.id().to_owned()).collect::<Vec<_>>(), expected);
    assert!(published.iter().map(|one| one.position).eq(kept.iter().map(|(position, _)| *position)));
}

pub(super) async fn an_app_whose_server_is_gone_shuts_down_and_another_goes_on(server: Arc<dyn Server>) {
    let transport: Arc<dyn Transport> = open(server.url("gone")).await.unwrap();
    let (begun, mut beginning) = tokio::sync::watch::channel(0);
    let counts = move |_: Envelope| {
        begun.send_modify(|count| *count += 1);
        std::future::ready(())
    };
    let bus =
        App::with_transport(transport, Clock::system()).on(counts.named("counts").types(["t"])).start().await.unwrap();
    let event = |id: &str| Envelope::builder("t").id(id).source("/s").build().unwrap();
    bus.publish(event("first")).await.unwrap();
    beginning.wait_for(|count| *count == 1).await.unwrap();
    bus.idle().await.unwrap();
    server.set(Mode::Cut);
    // Closing is all that is left to do, and it may fail; but it ends.
    let ended = tokio::time::timeout(HANGS, bus.shutdown_within(Duration::from_secs(1))).await;
    assert!(ended.is_ok(), "the shutdown hangs");
    let another = open(server.direct("gone")).await.unwrap();
    let (begun, mut beginning) = tokio::sync::watch::channel(Vec::new());
    let notes = move |event: Envelope| {
        begun.send_modify(|ids| ids.push(event.id().to_owned()));
        std::future::ready(())
    };
    let bus =
        App::with_transport(another, Clock::system()).on(notes.named("counts").types(["t"])).start().await.unwrap();
    bus.publish(event("second")).await.unwrap();
    tokio::time::timeout(HANGS, beginning.wait_for(|ids| !ids.is_empty())).await.unwrap().unwrap();
    bus.shutdown().await.unwrap();
    assert_eq!(*beginning.borrow(), ["second"], "what was settled is not handled again");
    server.set(Mode::Through);
}

/// All of that on one server, where one takes seconds to start.
#[cfg(any(feature = "amqp", feature = "kafka"))]
pub(super) async fn whatever_goes_wrong_loses_nothing(server: Arc<dyn Server>) {
    refused_credentials_are_an_error_without_them(Arc::clone(&server)).await;
    an_event_whose_confirmation_is_lost_stands_there_once(Arc::clone(&server)).await;
    a_batch_that_is_cut_in_the_middle_stands_there_in_order(Arc::clone(&server)).await;
    an_app_whose_server_is_gone_shuts_down_and_another_goes_on(Arc::clone(&server)).await;
    nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut(server).await;
}
