//! What goes wrong with a NATS server.

use std::sync::Arc;

use super::{broker_faults, nats_server::Nats};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::nothing_is_lost_when_the_server_is_killed_or_the_connection_is_cut(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_an_error_without_them() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::refused_credentials_are_an_error_without_them(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_confirmation_is_lost_stands_there_once() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::an_event_whose_confirmation_is_lost_stands_there_once(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_server_is_gone_shuts_down_and_another_goes_on() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::an_app_whose_server_is_gone_shuts_down_and_another_goes_on(Arc::new(server)).await;
}
