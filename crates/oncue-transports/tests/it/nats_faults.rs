//! What goes wrong with a NATS server.

use std::{path::Path, sync::Arc};

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{
    USER,
    broker_faults::{self, Server as _},
    encryption,
    nats_operator::Operator,
    nats_server::Nats,
};

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
async fn a_batch_that_is_cut_in_the_middle_stands_there_in_order() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::a_batch_that_is_cut_in_the_middle_stands_there_in_order(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_server_is_gone_shuts_down_and_another_goes_on() {
    let Some(server) = Nats::start().await else { return };
    broker_faults::an_app_whose_server_is_gone_shuts_down_and_another_goes_on(Arc::new(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_encryption_both_ends_are_checked() {
    let Some(server) = Nats::start_encrypted().await else { return };
    let (user, password) = USER;
    let url = format!("nats://{user}:{password}@{}", server.address());
    encryption::both_ends_are_checked(&url, "tls=true&", server.folder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_in_and_another_does_not() {
    let (_, token) = USER;
    let Some(server) = Nats::start_with(|_| format!("authorization {{ token: \"{token}\" }}\n")).await else { return };
    super::open(format!("nats://{token}@{}", server.address())).await.close().await.unwrap();
    let error = super::refused(format!("nats://very-wrong@{}", server.address())).await;
    assert!(error.contains("refuses these credentials") && !error.contains("very-wrong"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_credentials_lets_in_and_a_stranger_s_does_not() {
    let operator = Operator::new();
    let Some(server) = Nats::start_with(|_| operator.configuration()).await else { return };
    let url = |file: &Path| format!("nats://{}?credentials={}", server.address(), file.display());
    let own = operator.credentials(server.folder(), true);
    super::open(url(&own)).await.close().await.unwrap();
    let error = super::refused(url(&operator.credentials(server.folder(), false))).await;
    assert!(error.contains("refuses these credentials"), "{error}");
    std::fs::write(&own, "nothing of the kind").unwrap();
    let error = super::refused(url(&own)).await;
    assert!(error.contains("user.creds does not hold a user's credentials"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_an_error_that_says_which_is_needed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://me:secret@{}", listener.local_addr().unwrap());
    let opening = tokio::spawn(super::refused(url));
    let (mut stream, _) = listener.accept().await.unwrap();
    let info = r#"{"server_id":"1","version":"2.10.26","headers":true,"max_payload":1048576}"#;
    stream.write_all(format!("INFO {info}\r\nPONG\r\n").as_bytes()).await.unwrap();
    let error = opening.await.unwrap();
    assert!(error.contains("NATS 2.10.26: 2.11 or newer is needed") && !error.contains("secret"), "{error}");
}
