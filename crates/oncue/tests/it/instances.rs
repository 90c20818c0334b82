//! Instances that share a subscription.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use oncue::{
    Clock, Envelope, Timestamp,
    transport::{
        Action, Attempt, Consumer, Delivered, EventRef, Limit, LogTransport, LogUrl, MemberSpec, Publish, Settled,
        Settlement, SubscriptionSpec, Transport,
    },
};

const ALL: Limit = Limit { events: 100, bytes: usize::MAX };

async fn instance(transport: &LogTransport) -> Box<dyn Consumer> {
    let members = vec![MemberSpec { id: "shared".to_owned(), ..MemberSpec::default() }];
    let spec = SubscriptionSpec { topic: "events".to_owned(), members, ..SubscriptionSpec::default() };
    transport.subscribe(spec).await.unwrap().consumer
}

fn acked(delivered: &Delivered) -> Settlement {
    let attempt = Attempt { number: 1, class: None, read: Timestamp::default(), ended: Timestamp::default() };
    Settlement { position: delivered.position, member: 0, action: Action::Ack, attempt, error: None, written: None }
}

/// Polls it once.
async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// It settled, and was gone before that was durable: the key goes on with those that stay, wherever they read.
#[tokio::test]
async fn what_an_instance_was_settling_when_it_left_goes_on_with_the_others() {
    for feed_from in [1, 8] {
        let url: LogUrl = format!("memory:?feed_from={feed_from}").parse().unwrap();
        let transport = LogTransport::open(&url, Clock::system()).unwrap();
        let (mut leaves, mut stays) = (instance(&transport).await, instance(&transport).await);
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        // It has caught up before anything is there: from then on both may be fed.
        while !is_pending(&mut leaves.next(ALL, &mut given)).await {}
        let events = ["first", "second"].map(|data| Envelope::builder("step").key("k").data(data).build().unwrap());
        let publish = Publish { topic: "events".into(), events: events.to_vec(), source: None };
        transport.publish(&publish).await.unwrap();
        leaves.next(ALL, &mut given).await.unwrap();
        assert_eq!(given.len(), 1, "one of the key at once");

        let waits = tokio::spawn(async move {
            stays.next(ALL, &mut taken).await.unwrap();
            taken
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waits.is_finished(), "the key is with the other one");
        drop(leaves.settle(vec![acked(&given[0])]));
        drop(leaves);
        let taken = tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it is told").unwrap();
        assert_eq!(taken[0].envelope.data(), "second", "feed_from={feed_from}");
    }
}

/// It settled, and was gone before anybody was told: who waits for the outcome is told, though nobody is left to go on.
#[tokio::test]
async fn what_the_last_instance_was_settling_when_it_left_is_told() {
    let transport = LogTransport::open(&LogUrl::memory(), Clock::system()).unwrap();
    let mut leaves = instance(&transport).await;
    let envelope = Envelope::builder("step").build().unwrap();
    let publish = Publish { topic: "events".into(), events: vec![envelope.clone()], source: None };
    let position = transport.publish(&publish).await.unwrap()[0].position;
    let mut given = Vec::new();
    leaves.next(ALL, &mut given).await.unwrap();
    let event = EventRef { topic: "events".into(), position, envelope };
    let mut outcome = transport.outcome(&event, "shared");
    assert!(is_pending(&mut outcome).await, "it is being handled");
    drop(leaves.settle(vec![acked(&given[0])]));
    drop(leaves);
    let settled = tokio::time::timeout(Duration::from_secs(60), outcome).await.expect("it is told").unwrap();
    assert_eq!(settled, Settled::Acked);
}
