//! Who may come to a node.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use oncue_transports::http::Access;
use reqwest::StatusCode;

use super::{
    USER,
    certificates::{self, AUTHORITY, BROKER},
    encryption,
    node::Running,
    refused,
};

fn users(folder: &Path) -> Access {
    let file = folder.join("users");
    fs::write(&file, format!("{}:{}\n", USER.0, USER.1)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Access::default().users(&file).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_encryption_both_ends_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    certificates::make(folder.path());
    let file = |name| folder.path().join(name);
    let access = users(folder.path()).encrypted(&file(BROKER.0), &file(BROKER.1), Some(&file(AUTHORITY))).unwrap();
    let node = Running::start_with("127.0.0.1:0", access, folder.path()).await;
    let url = node.server.url().replace("://", &format!("://{}:{}@", USER.0, USER.1));
    assert!(url.starts_with("https://"), "{url}");
    encryption::both_ends_are_checked(&url, "", folder.path()).await;
    // Who speaks in the clear gets no answer.
    refused(format!("http://{}", node.server.address())).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_no_name_or_another_password_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start_with("127.0.0.1:0", users(folder.path()), folder.path()).await;
    let url = |user: &str| node.server.url().replace("://", &format!("://{user}"));
    for user in ["", "oncue:wrong@", "nobody:very-secret@"] {
        let error = refused(url(user)).await;
        assert!(error.contains("refuses these credentials") && !error.contains("very-secret"), "{error}");
    }
    super::open(url("oncue:very-secret@")).await.close().await.unwrap();

    let client = reqwest::Client::new();
    let topic = format!("{}/topics/orders", node.server.url());
    let status = async |asked: reqwest::RequestBuilder| asked.send().await.unwrap().status();
    assert_eq!(status(client.get(&topic)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(client.get(&topic).basic_auth("oncue", Some("wrong"))).await, StatusCode::UNAUTHORIZED);
    let answer = client.get(&topic).basic_auth(USER.0, Some(USER.1)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND, "there is no such topic, which only who may come is told");
    node.stop().await;
}
