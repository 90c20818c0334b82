//! What is written once for all brokers, on one in memory: the contract, and what goes wrong.

use std::{collections::HashMap, sync::Arc, time::Duration};

use oncue::{
    Clock,
    testing::MemoryBroker,
    transport::broker::{Broker, BrokerTransport},
};
use oncue_conformance::{Filter, Suite, Tier};
use parking_lot::Mutex;

use super::assert_holds;

/// What syncs nothing takes seconds only where the machine does other things too.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_partitions_keeps_the_contract() {
    let brokers: Arc<Mutex<HashMap<String, MemoryBroker>>> = Arc::default();
    let open = move |place: String, clock: Clock| {
        let mut brokers = brokers.lock();
        let broker = brokers.entry(place).or_insert_with(|| MemoryBroker::new(clock.clone()).unwrap());
        let connection: Arc<dyn Broker> = broker.connect();
        let transport = BrokerTransport::new(connection, clock);
        async move { Ok(Arc::new(transport) as Arc<dyn oncue::transport::Transport>) }
    };
    let suite = Suite::new("memory-broker:", open).instances(true).deadline(DEADLINE);
    assert_holds(&suite.run(&Filter::all(), Tier::Fast).await);
}
