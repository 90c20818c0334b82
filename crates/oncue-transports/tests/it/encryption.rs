//! Brokers that are reached by TLS alone, and want to know who comes.

use std::path::Path;

use oncue::{
    Envelope,
    transport::{Position, Publish},
};

use super::certificates::{AUTHORITY, CLIENT, STRANGER};

/// `url` has the name and password, and no options; `with` are those that ask for encryption, beside the certificates.
pub(super) async fn both_ends_are_checked(url: &str, with: &str, folder: &Path) {
    let file = |name: &str| folder.join(name).display().to_string();
    let ca = |name| format!("ca={}", file(name));
    let client = format!("cert={}&key={}", file(CLIENT.0), file(CLIENT.1));
    let refused = async |options: String| {
        let error = super::refused(format!("{url}?{with}{options}")).await;
        assert!(!error.contains(super::USER.1), "{error}");
        error
    };
    let error = refused(client.clone()).await;
    assert!(error.contains("`ca=FILE`"), "nobody said whom to trust: {error}");
    let error = refused(format!("{}&{client}", ca(STRANGER))).await;
    assert!(error.contains("`ca=FILE`"), "somebody else is trusted: {error}");
    let error = refused(ca(AUTHORITY)).await;
    assert!(error.contains("`cert=FILE&key=FILE`"), "it does not say who it is: {error}");

    let transport = super::open(format!("{url}?{with}{}&{client}", ca(AUTHORITY))).await;
    let event = Envelope::builder("order.paid").id("1").source("/s").data("42").build().unwrap();
    let mut tail = transport.tail("orders").await.unwrap();
    let batch = Publish { topic: "orders".into(), events: vec![event], source: None };
    let published = transport.publish(&batch).await.unwrap();
    let mut read: Vec<(Position, Envelope)> = Vec::new();
    tail.next(1, &mut read).await.unwrap();
    assert_eq!((read[0].0, &read[0].1.data()[..]), (published[0].position, &b"42"[..]));
    transport.close().await.unwrap();
}
