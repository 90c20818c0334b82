//! A filter that is changed while events wait.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use oncue::{
    App, Bus, Envelope, EventOutcome, ManualClock, Timestamp,
    config::HandlerConfig,
    filter::Filter,
    handler::{HandlerExt, extract::State},
    policy,
    prelude::*,
    transport::{InspectError, LogTransport, LogUrl, SubscriptionInfo},
};
use parking_lot::Mutex;

const HOUR: Duration = Duration::from_secs(3_600);

type Seen = Arc<Mutex<Vec<String>>>;

/// It cannot handle what is broken.
async fn work(event: Envelope, State(seen): State<Seen>) -> Outcome {
    seen.lock().push(event.id().to_owned());
    if event.extension("kind") == Some("broken") {
        return Outcome::Fail { class: policy::ErrorClass::Transient, error: "it is broken".to_owned() };
    }
    Outcome::Ack
}

fn event(id: &str, kind: &str) -> Envelope {
    Envelope::builder("step").id(id).key("k").extension("kind", kind).build().unwrap()
}

fn info(bus: &Bus) -> SubscriptionInfo {
    bus.inspect().subscriptions().remove(0)
}

async fn soon<T>(what: &str, comes: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), comes).await.unwrap_or_else(|_| panic!("{what} never comes"))
}

/// An event waits for its retry, another behind it, and then the filter leaves the first one out.
#[tokio::test]
async fn an_event_that_a_new_filter_leaves_out_waits_for_nothing_any_more() {
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let (transport, seen) = (LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap(), Seen::default());
    let worker = work.named("worker").types(["step"]).retry(policy::fixed(HOUR));
    let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone());
    let bus = app.on(worker).start().await.unwrap();
    let broken = bus.publish(event("broken", "broken")).await.unwrap();
    soon("the failure", async {
        while info(&bus).retrying == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let behind = bus.publish(event("behind", "whole")).await.unwrap();
    let (mut outcome, mut outcomes) = (pin!(broken.outcome_of("worker", HOUR)), pin!(broken.outcomes(HOUR)));
    assert!(outcome.as_mut().now_or_never().is_none() && outcomes.as_mut().now_or_never().is_none());

    let filter = Some(!Filter::exact("kind", "broken"));
    bus.configure("worker", HandlerConfig { filter, ..HandlerConfig::default() }).await.unwrap();
    let acked = soon("what waited behind it", behind.outcome_of("worker", HOUR)).await.unwrap();
    assert_eq!((acked, seen.lock().clone()), (EventOutcome::Acked, vec!["broken".to_owned(), "behind".to_owned()]));
    assert!(matches!(soon("its outcome", outcome).await, Err(InspectError::NotTaken { .. })));
    assert_eq!(soon("their outcomes", outcomes).await.unwrap(), Vec::new());
    let info = info(&bus);
    assert_eq!((info.lag, info.retrying, info.oldest), (0, 0, None));
}
