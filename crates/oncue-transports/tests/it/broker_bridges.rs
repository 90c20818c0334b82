//! Bridges to real brokers: the connection is cut in the middle, and the process that bridges is killed.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope,
    handler::HandlerExt as _,
    transport::{self, Transport},
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    sync::watch,
};

use super::{broker_faults::Server, cutting::Mode};

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often something goes wrong while events are on their way.
const TIMES: usize = 5;
/// Those that are published before each of these times.
const EVENTS: usize = 300;
const KEYS: usize = 7;
/// Large enough for a batch to take a while.
const BYTES: usize = 2_000;
/// Those that the process that is killed publishes at once.
const CHUNK: usize = 30;
/// What that process is told: where its log is, where to forward to, and how many events there are to be.
const LOG: &str = "ONCUE_BRIDGES_LOG";
const FAR: &str = "ONCUE_BRIDGES_FAR";
const UNTIL: &str = "ONCUE_BRIDGES_UNTIL";
/// What it says when all of them are there.
const FORWARDED: &str = "all is forwarded";

pub(super) fn events(numbers: std::ops::Range<usize>) -> Vec<Envelope> {
    let event = |number: usize| {
        let event = Envelope::builder("step").id(number.to_string()).source("/bridges");
        event.key(format!("k-{}", number % KEYS)).data(vec![b'x'; BYTES]).build().unwrap()
    };
    numbers.map(event).collect()
}

/// The numbers of events in their order, by their key.
pub(super) type ByKey = BTreeMap<String, Vec<usize>>;

/// Each event once, in the order of its key.
pub(super) fn all(count: usize) -> ByKey {
    let of_key = |key| (format!("k-{key}"), (0..count).filter(|number| number % KEYS == key).collect());
    (0..KEYS).map(of_key).collect()
}

/// A handler at the far side, which notes all that it is given.
struct Consumer {
    bus: Bus,
    seen: watch::Receiver<ByKey>,
}

/// Whatever hangs is named.
async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn count(seen: &ByKey) -> usize {
    seen.values().map(Vec::len).sum()
}

impl Consumer {
    async fn start(url: String) -> Self {
        let (noting, seen) = watch::channel(ByKey::new());
        let notes = move |event: Envelope| {
            noting.send_modify(|seen| {
                let key = event.key().unwrap().to_owned();
                seen.entry(key).or_default().push(event.id().parse().unwrap());
            });
            std::future::ready(())
        };
        let app = App::with_transport(super::open(url).await, Clock::system());
        let bus = app.on(notes.named("notes").types(["step"]).topic("orders")).start().await.unwrap();
        Self { bus, seen }
    }

    /// Waits until so many have come, and gives how many that are.
    async fn has_seen(&self, at_least: usize) -> usize {
        let mut seen = self.seen.clone();
        let seeing = tokio::time::timeout(DEADLINE, seen.wait_for(|seen| count(seen) >= at_least)).await;
        // What it gives is a lock: nothing else is asked under it.
        let seeing = seeing.map(|seen| count(&seen.unwrap()));
        seeing.unwrap_or_else(|_| panic!("{} of {at_least} events came", count(&self.seen.borrow())))
    }

    /// It is given nothing else than each event once, in the order of its key; and that is what stands there.
    async fn was_given_all(self, count: usize) {
        self.has_seen(count).await;
        within("the consumer settles", self.bus.idle()).await.unwrap();
        assert_eq!(*self.seen.borrow(), all(count), "what the consumer was given");
        assert_eq!(standing(self.bus.transport()), all(count), "what stands there");
        within("the consumer ends", self.bus.shutdown()).await.unwrap();
    }
}

pub(super) fn standing(far: &dyn Transport) -> ByKey {
    let mut standing = ByKey::new();
    for (_, event) in far.inspect().browse("orders", 0, usize::MAX).unwrap() {
        standing.entry(event.key().unwrap().to_owned()).or_default().push(event.id().parse().unwrap());
    }
    standing
}

/// An app on a log, with a bridge to a URL.
async fn start(near: &Path, far: &str) -> Bus {
    let near = transport::open(&format!("file:{}", near.display()), Clock::system()).unwrap();
    let there = oncue_transports::bridge(far, Clock::system()).topic("orders").named("there");
    App::with_transport(near, Clock::system()).on(there).start().await.unwrap()
}

/// How many wait for the bridge.
fn lag(bus: &Bus) -> u64 {
    bus.inspect().subscriptions().iter().filter(|known| known.id == "there").map(|known| known.lag).sum()
}

async fn all_arrives_though_the_connection_is_cut(server: &dyn Server) {
    let directory = tempfile::tempdir().unwrap();
    let consumer = Consumer::start(server.direct("cut")).await;
    let bus = start(directory.path(), &server.url("cut")).await;
    let (mut published, mut in_the_middle) = (0, 0);
    // A machine that forwards all of it before it is cut has to be asked again.
    for round in 0..10 * TIMES {
        let before = published;
        published += EVENTS;
        within("publishing", bus.publish_all("orders", events(before..published), None)).await.unwrap();
        let forwarding = async {
            while lag(&bus) == EVENTS as u64 {
                tokio::task::yield_now().await;
            }
        };
        within("forwarding", forwarding).await;
        if round % 2 == 1 {
            // What is confirmed from now on is not told.
            server.set(Mode::Mute);
            tokio::task::yield_now().await;
        }
        within("cutting", server.proxy().cut()).await;
        in_the_middle += usize::from(lag(&bus) > 0);
        consumer.has_seen(published).await;
        if in_the_middle == TIMES {
            break;
        }
    }
    assert_eq!(in_the_middle, TIMES, "it was not cut while events were on their way");
    within("acknowledging", bus.idle()).await.unwrap();
    assert!(bus.inspect().dead_letters("there").unwrap().is_empty());
    within("the app ends", bus.shutdown()).await.unwrap();
    consumer.was_given_all(published).await;
}

/// What the process does that is killed: it publishes on from where its log ends, and says when all of it was forwarded.
async fn bridge_in_another_process(near: &Path, far: &str, until: usize) {
    let bus = start(near, far).await;
    let begun = bus.inspect().browse("orders", 0, usize::MAX).map_or(0, |known| known.len());
    for from in (begun..until).step_by(CHUNK) {
        bus.publish_all("orders", events(from..until.min(from + CHUNK)), None).await.unwrap();
    }
    bus.idle().await.unwrap();
    println!("{FORWARDED}");
    bus.shutdown().await.unwrap();
}

/// That process: it runs nothing else of this program than `test`, which is to begin with [`other_process`].
fn spawn(test: &str, near: &Path, far: &str, until: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(LOG, near).env(FAR, far).env(UNTIL, until.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Whether this is that process; then it has done what it is for.
async fn other_process() -> bool {
    let variable = |name| std::env::var(name).ok();
    let (Some(near), Some(far), Some(until)) = (variable(LOG), variable(FAR), variable(UNTIL)) else { return false };
    bridge_in_another_process(Path::new(&near), &far, until.parse().unwrap()).await;
    true
}

/// Whether it says so before its output ends.
async fn forwards(child: &mut Child) -> bool {
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    output.lines().any(|line| line == FORWARDED)
}

async fn all_arrives_though_the_process_is_killed(server: &dyn Server, test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let far = server.direct("killed");
    let consumer = Consumer::start(far.clone()).await;
    let (mut until, mut in_the_middle) = (0, 0);
    // A machine that forwards all of it before it is killed has to be asked again.
    for _ in 0..10 * TIMES {
        until += EVENTS;
        let mut child = spawn(test, directory.path(), &far, until);
        let before = count(&consumer.seen.borrow());
        consumer.has_seen(before + 1).await;
        child.kill().await.unwrap();
        in_the_middle += usize::from(!within("reading of a killed process", forwards(&mut child)).await);
        if in_the_middle == TIMES {
            break;
        }
    }
    assert_eq!(in_the_middle, TIMES, "it was not killed while events were on their way");
    let mut child = spawn(test, directory.path(), &far, until);
    assert!(within("forwarding the rest", forwards(&mut child)).await && child.wait().await.unwrap().success());
    consumer.was_given_all(until).await;
}

#[cfg(feature = "nats")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_the_way_to_nats() {
    if other_process().await {
        return;
    }
    let Some(server) = super::nats_server::Nats::start().await else { return };
    all_arrives_though_the_connection_is_cut(&server).await;
    all_arrives_though_the_process_is_killed(&server, "broker_bridges::nothing_is_lost_on_the_way_to_nats").await;
}

#[cfg(feature = "amqp")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_the_way_to_rabbitmq() {
    if other_process().await {
        return;
    }
    let Some(server) = super::rabbitmq_server::RabbitMq::start().await else { return };
    all_arrives_though_the_connection_is_cut(&server).await;
    all_arrives_though_the_process_is_killed(&server, "broker_bridges::nothing_is_lost_on_the_way_to_rabbitmq").await;
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_the_way_to_kafka() {
    if other_process().await {
        return;
    }
    let Some(server) = super::kafka_server::Kafka::start().await else { return };
    all_arrives_though_the_connection_is_cut(&server).await;
    all_arrives_though_the_process_is_killed(&server, "broker_bridges::nothing_is_lost_on_the_way_to_kafka").await;
}
