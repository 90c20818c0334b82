//! What goes wrong with a `RabbitMQ` server: one for all, as it takes seconds to start.

use std::sync::Arc;

use super::{USER, broker_faults, encryption, rabbitmq_server::RabbitMq};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_rabbitmq_loses_nothing() {
    let Some(server) = RabbitMq::start().await else { return };
    broker_faults::whatever_goes_wrong_loses_nothing(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_encryption_both_ends_are_checked() {
    let Some(server) = RabbitMq::start_encrypted().await else { return };
    let (user, password) = USER;
    let url = format!("amqps://{user}:{password}@{}", server.encrypted());
    encryption::both_ends_are_checked(&url, "", server.folder()).await;
}
