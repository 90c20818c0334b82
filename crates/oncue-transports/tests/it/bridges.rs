//! A bridge from a log to a node that goes and comes back, and from an app that is restarted meanwhile.

use std::{collections::BTreeMap, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope,
    handler::HandlerExt as _,
    transport::{self, Transport},
};

use crate::{
    node::{Carrier, Running},
    open,
    proxy::Proxy,
};

/// A machine that does other things too is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

fn events(numbers: std::ops::Range<u32>) -> Vec<Envelope> {
    let event = |number: u32| Envelope::builder("step").id(number.to_string()).source("/bridges");
    numbers.map(|number| event(number).key(format!("k-{}", number % 5)).build().unwrap()).collect()
}

/// An app on a log, with a bridge to a URL.
async fn start(near: &str, far: &str) -> Bus {
    let near = transport::open(near, Clock::system()).unwrap();
    let there = oncue_transports::bridge(far, Clock::system()).topic("orders").named("there");
    App::with_transport(near, Clock::system()).on(there).start().await.unwrap()
}

async fn stop(bus: Bus) {
    tokio::time::timeout(DEADLINE, bus.shutdown()).await.expect("it stops").unwrap();
}

async fn idle(bus: &Bus) {
    tokio::time::timeout(DEADLINE, bus.idle()).await.expect("all has arrived").unwrap();
}

/// Each event is there once, in the order of its key.
fn all_are_there(far: &dyn Transport, count: u32) {
    let mut keys: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (_, event) in far.inspect().browse("orders", 0, 10_000).unwrap() {
        keys.entry(event.key().unwrap().to_owned()).or_default().push(event.id().parse().unwrap());
    }
    let expected = (0..5).map(|key| (format!("k-{key}"), (0..count).filter(|number| number % 5 == key).collect()));
    assert_eq!(keys, expected.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_a_node_is_gone_arrives_when_it_is_back() {
    for carrier in Carrier::ALL {
        to_a_node_that_goes(carrier).await;
    }
}

async fn to_a_node_that_goes(carrier: Carrier) {
    let directory = tempfile::tempdir().unwrap();
    let near = format!("file:{}", directory.path().join("near").display());
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    let proxy = Proxy::start(node.address(carrier)).await;
    let far = carrier.url(proxy.address());
    let bus = start(&near, &far).await;
    proxy.lose(1);
    bus.publish_all("orders", events(0..100), None).await.unwrap();
    idle(&bus).await;
    node.stop().await;
    proxy.cut();
    bus.publish_all("orders", events(100..200), None).await.unwrap();
    // The app stops and starts while nobody is there.
    stop(bus).await;
    let bus = start(&near, &far).await;
    bus.publish_all("orders", events(200..300), None).await.unwrap();
    let node = Running::start("127.0.0.1:0", directory.path()).await;
    proxy.lead_to(node.address(carrier));
    idle(&bus).await;
    assert!(bus.inspect().dead_letters("there").unwrap().is_empty());
    stop(bus).await;
    let looking = open(far).await;
    all_are_there(&*looking, 300);
    looking.close().await.unwrap();
    node.stop().await;
}
