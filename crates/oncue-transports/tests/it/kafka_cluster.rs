//! Three brokers of Kafka, each of which dies once: what is confirmed then has copies on the others, and who led a partition
//! is another one.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use oncue::{
    App, Bus, Clock, Envelope,
    handler::HandlerExt as _,
    transport::{Publish, Transport},
};
use tokio::{process::Child, sync::watch};

use super::{
    cutting::free,
    kafka_server::{CLUSTER_ID, config, java, run},
    open,
};

const KEYS: usize = 8;
/// What is published before a broker dies, and while it is dead.
const EVENTS: usize = 400;
/// Longer than a cluster without one of its brokers takes, on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(120);

struct Node {
    folder: tempfile::TempDir,
    address: SocketAddr,
    running: Child,
}

impl Node {
    async fn start(id: usize, address: SocketAddr, controllers: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let voters: Vec<_> = (1..).zip(controllers).map(|(id, address)| format!("{id}@{address}")).collect();
        let text = format!(
            "process.roles=broker,controller
node.id={}
controller.quorum.voters={}
listeners=PLAINTEXT://{address},CONTROLLER://{}
controller.listener.names=CONTROLLER
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
auto.create.topics.enable=false
log.cleaner.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=500
replica.lag.time.max.ms=3000
",
            id + 1,
            voters.join(","),
            controllers[id],
            folder.path().join("log").display()
        );
        std::fs::write(config(folder.path()), text).unwrap();
        let mut format = java();
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(config(folder.path()));
        let formatted = format.output().await.unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let running = run(folder.path(), address).await;
        Self { folder, address, running }
    }

    async fn restart(&mut self) {
        self.running = run(self.folder.path(), self.address).await;
    }
}

/// Three brokers; nothing where none is installed.
async fn start() -> Option<Vec<Node>> {
    super::broker("kafka")?;
    let (addresses, controllers) = (free::<3>(), free::<3>());
    // The first one answers when there is a majority.
    Some(join_all((0..3).map(|id| Node::start(id, addresses[id], &controllers))).await)
}

type ByKey = BTreeMap<String, Vec<usize>>;

fn all(count: usize) -> ByKey {
    let mut all = ByKey::new();
    (0..count).for_each(|number| all.entry((number % KEYS).to_string()).or_default().push(number));
    all
}

/// What was handled: of each key, one event may be handled again before the next, by who takes a lease over.
fn once(seen: &ByKey) -> ByKey {
    let mut once = seen.clone();
    once.values_mut().for_each(Vec::dedup);
    once
}

async fn instance(url: &str, noting: watch::Sender<ByKey>) -> Bus {
    let notes = move |event: Envelope| {
        noting.send_modify(|seen| {
            seen.entry(event.key().unwrap().to_owned()).or_default().push(event.id().parse().unwrap());
        });
        std::future::ready(())
    };
    let app = App::with_transport(open(url.to_owned()).await, Clock::system());
    app.on(notes.named("notes").types(["step"]).topic("orders")).start().await.unwrap()
}

async fn publish(transport: &dyn Transport, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let event = Envelope::builder("step").id(number.to_string()).source("/s").key((number % KEYS).to_string());
        let batch = Publish { topic: "orders".into(), events: vec![event.build().unwrap()], source: None };
        transport.publish(&batch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_three_brokers_dies_and_nothing_is_lost() {
    let Some(mut nodes) = start().await else { return };
    let servers: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    let url = format!("kafka://{}?prefix=cluster&replicas=3", servers.join(","));
    let (noting, mut seen) = watch::channel(ByKey::new());
    let processes = [instance(&url, noting.clone()).await, instance(&url, noting).await];
    let publisher = open(url).await;
    let mut count = 0;
    for node in &mut nodes {
        publish(&*publisher, count..count + EVENTS).await;
        node.running.kill().await.unwrap();
        let publishing = publish(&*publisher, count + EVENTS..count + 2 * EVENTS);
        tokio::time::timeout(DEADLINE, publishing).await.expect("two brokers take what is published");
        count += 2 * EVENTS;
        let handled = seen.wait_for(|seen| once(seen) == all(count));
        let handled = tokio::time::timeout(DEADLINE, handled).await.is_ok();
        assert!(handled, "two brokers are enough to handle {count} events: {:?}", seen.borrow());
        node.restart().await;
    }
    for process in processes {
        tokio::time::timeout(DEADLINE, process.idle()).await.expect("all is settled").unwrap();
        process.shutdown().await.unwrap();
    }
}
