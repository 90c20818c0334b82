//! What is published to a topic goes to another transport, too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, Clock, Envelope, bridge,
    config::Config,
    handler::{HandlerExt as _, OnDeadLetter, Registration},
    testing::MemoryBroker,
    transport::{self, OpenError, Transport, broker::BrokerTransport},
};

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

fn event(number: usize, bytes: usize) -> Envelope {
    let event = Envelope::builder("step").id(number.to_string()).source("/bridges").key(format!("k-{}", number % 5));
    event.data(vec![b'x'; bytes]).build().unwrap()
}

async fn publish(bus: &Bus, numbers: std::ops::Range<usize>) {
    bus.publish_all("orders", numbers.map(|number| event(number, 10)).collect(), None).await.unwrap();
}

async fn start(near: Arc<dyn Transport>, bridge: Registration) -> Bus {
    App::with_transport(near, Clock::system()).on(bridge).start().await.unwrap()
}

async fn idle(bus: &Bus) {
    tokio::time::timeout(DEADLINE, bus.idle()).await.expect("all has arrived").unwrap();
}

/// Waits until so many events are there.
async fn arrived(far: &dyn Transport, topic: &str, count: usize) {
    let arrived = async {
        while far.inspect().browse(topic, 0, 10_000).map_or(0, |events| events.len()) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, arrived).await.expect("they arrive");
}

/// The events of each key, in their order.
fn by_key(far: &dyn Transport, topic: &str) -> BTreeMap<String, Vec<usize>> {
    let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (_, event) in far.inspect().browse(topic, 0, 10_000).unwrap() {
        keys.entry(event.key().unwrap().to_owned()).or_default().push(event.id().parse().unwrap());
    }
    keys
}

/// Each event once, in the order of its key.
fn all(count: usize) -> BTreeMap<String, Vec<usize>> {
    (0..5).map(|key| (format!("k-{key}"), (0..count).filter(|number| number % 5 == key).collect())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_arrives_once_over_restarts_of_the_app() {
    let directory = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("file:{}", directory.path().join(name).display());
    let far = transport::open(&url("far"), Clock::system()).unwrap();
    for round in 0..4 {
        let near = transport::open(&url("near"), Clock::system()).unwrap();
        let there = bridge::to(Arc::clone(&far)).into_topic("mirrored").topic("orders").named("there");
        let bus = start(near, there.batch(7)).await;
        publish(&bus, round * 250..(round + 1) * 250).await;
        // In the middle of it.
        arrived(&*far, "mirrored", round * 250 + 50).await;
        bus.shutdown_within(Duration::ZERO).await.unwrap();
    }
    let near = transport::open(&url("near"), Clock::system()).unwrap();
    let bus = start(near, bridge::to(Arc::clone(&far)).into_topic("mirrored").topic("orders").named("there")).await;
    idle(&bus).await;
    assert_eq!(by_key(&*far, "mirrored"), all(1_000));
    let known = bus.inspect().subscriptions().into_iter().find(|known| known.id == "there").unwrap();
    assert_eq!((known.lag, bus.inspect().dead_letters("there").unwrap().len()), (0, 0));
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_for_a_far_side_that_is_gone_and_none_of_them_is_at_fault() {
    let broker = MemoryBroker::new(Clock::system()).unwrap();
    let connection = broker.connect();
    let far: Arc<dyn Transport> = Arc::new(BrokerTransport::new(Arc::clone(&connection) as _, Clock::system()));
    let opened = Arc::new(AtomicUsize::new(0));
    let open = {
        let (far, opened) = (Arc::clone(&far), Arc::clone(&opened));
        // At first it cannot even be opened.
        move || match opened.fetch_add(1, Ordering::SeqCst) {
            0..2 => Err(OpenError::Broker { url: "far".to_owned(), reason: "nobody answers".to_owned() }),
            _ => Ok(Arc::clone(&far)),
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let near = transport::open(&url, Clock::system()).unwrap();
    let bus = start(near, bridge::opening(open).topic("orders").named("there")).await;
    publish(&bus, 0..100).await;
    idle(&bus).await;
    assert_eq!(opened.load(Ordering::SeqCst), 3);
    connection.cut_after(0);
    publish(&bus, 100..300).await;
    // Stopped while it waits, the app leaves all to its next run.
    tokio::time::timeout(DEADLINE, bus.shutdown()).await.expect("it stops").unwrap();
    drop(bus);
    let near = transport::open(&url, Clock::system()).unwrap();
    let bus = start(near, bridge::to(Arc::clone(&far)).topic("orders").named("there")).await;
    publish(&bus, 300..400).await;
    connection.mend();
    idle(&bus).await;
    assert_eq!(by_key(&*far, "orders"), all(400));
    assert!(bus.inspect().dead_letters("there").unwrap().is_empty());
    bus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_far_side_never_takes_is_a_dead_letter_and_holds_its_key_if_it_is_to() {
    for (on_dead_letter, missing) in [(OnDeadLetter::Continue, vec![7]), (OnDeadLetter::Hold, vec![7, 12, 17])] {
        let broker = MemoryBroker::new(Clock::system()).unwrap();
        let far: Arc<dyn Transport> = Arc::new(BrokerTransport::new(broker.connect() as _, Clock::system()));
        let near = transport::open("memory:", Clock::system()).unwrap();
        let there = bridge::to(Arc::clone(&far)).topic("orders").named("there").on_dead_letter(on_dead_letter);
        let bus = start(near, there).await;
        let events = (0..20).map(|number| event(number, if number == 7 { 1_000_000 } else { 10 })).collect();
        bus.publish_all("orders", events, None).await.unwrap();
        arrived(&*far, "orders", 20 - missing.len()).await;
        let letters = async {
            while bus.inspect().dead_letters("there").unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, letters).await.expect("there is a dead letter");
        let letters = bus.inspect().dead_letters("there").unwrap();
        assert!(letters.len() == 1 && letters[0].history[0].error.contains("1000000 bytes"), "{letters:?}");
        bus.shutdown().await.unwrap();
        let mut expected = all(20);
        expected.values_mut().for_each(|numbers| numbers.retain(|number| !missing.contains(number)));
        assert_eq!(by_key(&*far, "orders"), expected, "{on_dead_letter:?}");
    }
}

#[tokio::test]
async fn a_bridge_without_a_name_or_to_a_topic_that_cannot_be_is_refused_at_the_start() {
    let far = transport::open("memory:", Clock::system()).unwrap();
    let app = App::open("memory:").await.unwrap().on(bridge::to(far).into_topic("no such name").topic("orders"));
    let error = app.start().await.err().unwrap().to_string();
    assert!(error.contains("without a name") && error.contains("far side"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_says_bridges_and_may_change_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let config = |bridges: &str| Config::parse(bridges, "oncue.toml").unwrap();
    let to = |name: &str, from: &str, topic: &str| {
        format!("[bridges.{name}]\nfrom = \"{from}\"\nto = \"file:{}\"\ninto_topic = \"{topic}\"\n", path("far"))
    };
    std::fs::write(path("oncue.toml"), to("there", "orders", "first")).unwrap();
    let near = transport::open("memory:", Clock::system()).unwrap();
    let app = App::with_transport(near, Clock::system()).config(path("oncue.toml"));
    let bus = app.start().await.unwrap();
    let served = || bus.handlers().into_iter().map(|handler| handler.id).collect::<Vec<_>>();
    publish(&bus, 0..10).await;
    idle(&bus).await;
    bus.reload(config(&(to("there", "orders", "second") + &to("bills", "bills", "bills")))).await.unwrap();
    assert_eq!(served(), ["bills", "there"]);
    publish(&bus, 10..20).await;
    idle(&bus).await;
    // What cannot be served changes nothing.
    let refused = bus.reload(config("[bridges.there]\nfrom = \"orders\"\nto = \"ftp://me:very-secret@host\"\n")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("oncue.toml:3:6: bridges.there.to: `ftp://host`: no transport `ftp`"), "{refused}");
    assert!(bus.reload(config(&to("there", "bills", "second"))).await.unwrap_err().to_string().contains("on topic"));
    assert_eq!(served(), ["bills", "there"]);
    bus.reload(Config::default()).await.unwrap();
    assert_eq!(served(), [""; 0]);
    publish(&bus, 20..30).await;
    bus.shutdown().await.unwrap();
    let far = transport::open(&format!("file:{}", path("far")), Clock::system()).unwrap();
    let numbers = |topic: &str| {
        let mut numbers: Vec<_> = by_key(&*far, topic).into_values().flatten().collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers("first"), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers("second"), (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bridge_of_a_file_that_cannot_be_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("oncue.toml");
    let far = transport::open("memory:", Clock::system()).unwrap();
    let start = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let own = bridge::to(Arc::clone(&far)).topic("orders").named("own");
        let app = App::open("memory:").await.unwrap().on(own).config(&file);
        app.start().await.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let refused = start("[bridges.far]\nfrom = \"orders\"\nto = \"nats://me:very-secret@host\"\n").await;
    assert!(refused.contains("oncue.toml:3:6: bridges.far.to: `nats://host`: no transport `nats`"), "{refused}");
    let refused = start("[bridges.own]\nfrom = \"orders\"\nto = \"memory:\"\n").await;
    assert!(refused.contains("bridges.own: the program has a handler \"own\""), "{refused}");
}
