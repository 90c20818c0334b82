//! What goes wrong with a `RabbitMQ` server: one for all, as it takes seconds to start.

use std::sync::Arc;

use super::{broker_faults, rabbitmq_server::RabbitMq};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_rabbitmq_loses_nothing() {
    let Some(server) = RabbitMq::start().await else { return };
    broker_faults::whatever_goes_wrong_loses_nothing(Arc::new(server)).await;
}
