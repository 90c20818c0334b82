//! Events of a key that a subscription does not want lie between those that it wants, and change nothing of their order.

mod at_random;

use std::{future::poll_fn, task::Poll, time::Duration};

use oncue::{
    Clock, Envelope, Timestamp,
    policy::ErrorClass,
    transport::{
        Action, Attempt, Consumer, Delivered, Limit, LogTransport, LogUrl, MemberSpec, Publish, Settlement,
        SubscriptionSpec, Transport,
    },
};
use oncue_log::{Options, Writer, storage::MemoryStorage};

const ALL: Limit = Limit { events: 100, bytes: usize::MAX };

fn settled(delivered: &Delivered, action: Action) -> Settlement {
    let class = matches!(action, Action::Retry(_)).then_some(ErrorClass::Transient);
    let attempt = Attempt { number: 1, class, read: Timestamp::default(), ended: Timestamp::default() };
    Settlement { position: delivered.position, member: 0, action, attempt, error: None, written: None }
}

/// Somebody who wants the steps among the events.
async fn served(feed_from: usize) -> (LogTransport, Box<dyn Consumer>) {
    let url: LogUrl = format!("memory:?feed_from={feed_from}").parse().unwrap();
    let (storage, options) = (MemoryStorage::new(), Options { writer: Writer::Inline, ..Options::default() });
    let transport = LogTransport::on_storage(url, Box::new(storage), options, Clock::system()).unwrap();
    let members = vec![MemberSpec { id: "steps".to_owned(), types: vec!["step".to_owned()], ..MemberSpec::default() }];
    let spec = SubscriptionSpec { topic: "events".to_owned(), members, ..SubscriptionSpec::default() };
    let consumer = transport.subscribe(spec).await.unwrap().consumer;
    (transport, consumer)
}

async fn publish(transport: &LogTransport, events: &[(&str, &'static str)]) {
    let event = |(kind, data): &(&str, &'static str)| Envelope::builder(*kind).key("k").data(*data).build().unwrap();
    let events = events.iter().map(event).collect();
    transport.publish(&Publish { topic: "events".into(), events, source: None }).await.unwrap();
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Vec<Delivered> {
    let mut given = Vec::new();
    let next = consumer.next(ALL, &mut given);
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("something is handed out").unwrap();
    given
}

fn data(given: &[Delivered]) -> Vec<&[u8]> {
    given.iter().map(|delivered| &delivered.envelope.data()[..]).collect()
}

/// The first one failed while the second one was out, and went alone once that was back: the others still waited when an
/// event of their key came that is not for them, and behind it one that is.
#[tokio::test]
async fn an_event_that_is_not_wanted_lets_none_pass_those_that_wait() {
    for feed_from in [1, 8] {
        let (transport, mut consumer) = served(feed_from).await;
        publish(&transport, &[("step", "0"), ("step", "1")]).await;
        let first = next(&mut consumer).await;
        assert_eq!(data(&first), [b"0", b"1"]);
        consumer.settle(vec![settled(&first[0], Action::Retry(Timestamp::default()))]).await.unwrap();
        publish(&transport, &[("step", "2"), ("step", "3")]).await;
        let waits = poll_fn(|cx| Poll::Ready(consumer.next(ALL, &mut Vec::new()).as_mut().poll(cx).is_pending()));
        assert!(waits.await, "the second one is out");
        consumer.settle(vec![settled(&first[1], Action::Release)]).await.unwrap();
        let again = next(&mut consumer).await;
        assert_eq!(data(&again), [b"0"]);
        consumer.settle(vec![settled(&again[0], Action::Ack)]).await.unwrap();

        let mut order = next(&mut consumer).await;
        publish(&transport, &[("other", "-"), ("step", "4")]).await;
        // What is handed out beside those that are out, if anything is.
        drop(poll_fn(|cx| Poll::Ready(consumer.next(ALL, &mut order).as_mut().poll(cx))).await);
        let mut open = order.clone();
        while order.len() < 4 {
            let acks = open.iter().map(|delivered| settled(delivered, Action::Ack)).collect();
            consumer.settle(acks).await.unwrap();
            open = next(&mut consumer).await;
            order.extend(open.clone());
        }
        assert_eq!(data(&order), [b"1", b"2", b"3", b"4"], "feed_from={feed_from}");
    }
}
