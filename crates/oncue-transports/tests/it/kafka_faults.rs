//! What goes wrong with a Kafka broker: one for all, as it takes seconds to start.

use std::sync::Arc;

use super::{broker_faults, kafka_server::Kafka};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_kafka_loses_nothing() {
    let Some(server) = Kafka::start().await else { return };
    broker_faults::whatever_goes_wrong_loses_nothing(Arc::new(server)).await;
}

#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_encryption_both_ends_are_checked() {
    use super::{USER, broker_faults::Server as _};

    let Some(server) = Kafka::start_encrypted().await else { return };
    let (user, password) = USER;
    let url = format!("kafka://{user}:{password}@{}", server.address());
    super::encryption::both_ends_are_checked(&url, "tls=true&sasl=scram-sha-512&", server.folder()).await;
}
