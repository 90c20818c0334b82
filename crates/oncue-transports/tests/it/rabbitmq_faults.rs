//! What goes wrong with a `RabbitMQ` server.

use super::{
    broker_faults::{self, USER},
    rabbitmq_server::RabbitMq,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut() {
    let Some(server) = RabbitMq::start(Some(USER)).await else { return };
    broker_faults::nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_an_error_without_them() {
    let Some(server) = RabbitMq::start(Some(USER)).await else { return };
    broker_faults::refused_credentials_are_an_error_without_them(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_confirmation_is_lost_stands_there_once() {
    let Some(server) = RabbitMq::start(None).await else { return };
    broker_faults::an_event_whose_confirmation_is_lost_stands_there_once(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_server_is_gone_shuts_down_and_another_goes_on() {
    let Some(server) = RabbitMq::start(None).await else { return };
    broker_faults::an_app_whose_server_is_gone_shuts_down_and_another_goes_on(server).await;
}
