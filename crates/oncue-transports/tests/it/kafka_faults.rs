//! What goes wrong with a Kafka broker: one for all, as it takes seconds to start.

use std::sync::Arc;

use super::{
    broker_faults::{self, Server},
    kafka_server::Kafka,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_kafka_loses_nothing() {
    let Some(server) = Kafka::start().await else { return };
    let server = Arc::new(server);
    let server = || Arc::clone(&server) as Arc<dyn Server>;
    broker_faults::refused_credentials_are_an_error_without_them(server()).await;
    broker_faults::an_event_whose_confirmation_is_lost_stands_there_once(server()).await;
    broker_faults::an_app_whose_server_is_gone_shuts_down_and_another_goes_on(server()).await;
    broker_faults::nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut(server()).await;
}
