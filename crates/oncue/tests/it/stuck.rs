//! Handlers that do not end hold up nobody who changes handlers or stops the app.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use oncue::{
    App, Bus, DEFAULT_GRACE, ManualClock, Timestamp,
    handler::Registration,
    prelude::*,
    testing::{self, TestApp},
    transport::{
        BoxFuture, Capabilities, ConsumeError, Consumer, Control, ControlError, Delivered, EventRef, Inspect,
        InspectError, Limit, LogTransport, LogUrl, Publish, PublishError, Published, SettleError, Settled, Settlement,
        SubscribeError, Subscribed, SubscriptionSpec, Tail, TopicControl, Transport,
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "job", key = key)]
struct Job {
    key: String,
}

const SECOND: Duration = Duration::from_secs(1);

fn job() -> Job {
    Job { key: "k".into() }
}

/// Attempts that began, and were cancelled, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<&'static str>>>);

/// Tells that a call was cancelled, or ended.
struct Ends(Seen);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.0.lock().push("ended");
    }
}

/// Its first call never ends by itself.
#[handler]
async fn hangs(_job: Job, State(seen): State<Seen>) {
    let first = seen.0.lock().is_empty();
    seen.0.lock().push("begun");
    let _ends = Ends(seen.clone());
    if first {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cancelled_by_a_pause_and_delivered_again() -> testing::Result {
    let seen = Seen::default();
    let test = TestApp::start(|app| app.state(seen.clone()).on(hangs)).await?;
    test.publish(job()).await?;
    test.advance(SECOND).await?;
    let begun = test.now();
    test.bus().pause("hangs").await?;
    assert_eq!(test.now().since(begun), DEFAULT_GRACE);
    assert_eq!(*seen.0.lock(), ["begun", "ended"]);
    test.bus().resume("hangs").await?;
    test.run_until_idle().await?;
    assert_eq!(*seen.0.lock(), ["begun", "ended", "begun", "ended"]);
    test.assert_attempts("hangs", 2);
    test.assert_acked("hangs", 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_change_of_another_handler_does_not_wait_for_one_that_hangs() -> testing::Result {
    let other = (|_: Job| async {}).named("other");
    let test = TestApp::start(|app| app.state(Seen::default()).on(hangs).on(other)).await?;
    test.publish(job()).await?;
    test.advance(SECOND).await?;
    let begun = test.now();
    test.bus().pause("other").await?;
    assert_eq!(test.now(), begun);
    Ok(())
}

/// A running app with a plain function that waits for the gate; the time does not move by itself.
async fn blocked() -> (ManualClock, Bus, mpsc::SyncSender<()>) {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let (started, gate) = (Arc::new(Notify::new()), mpsc::sync_channel::<()>(1));
    let (starting, opened) = (Arc::clone(&started), Arc::new(Mutex::new(gate.1)));
    let blocks = move |_: Job| {
        starting.notify_one();
        opened.lock().recv().unwrap();
    };
    let blocks: Registration = blocks.named("blocks");
    let transport = Arc::new(LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap());
    let bus = App::with_transport(transport, manual.clock()).on(blocks).start().await.unwrap();
    bus.publish(job()).await.unwrap();
    started.notified().await;
    (manual, bus, gate.0)
}

/// Lets everything run that can.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_plain_function_cannot_be_cancelled_so_a_pause_waits_for_it() {
    let (clock, bus, gate) = blocked().await;
    let pausing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pause("blocks").await }
    });
    settle_down().await;
    clock.advance(DEFAULT_GRACE + SECOND);
    settle_down().await;
    assert!(!pausing.is_finished(), "its key is held until it returns");
    gate.send(()).unwrap();
    pausing.await.unwrap().unwrap();
    let known = &bus.inspect().subscriptions()[0].stats;
    assert_eq!((known.acked, known.retried), (1, 0), "what it did counts");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_pause_that_waits() {
    let (clock, bus, gate) = blocked().await;
    let pausing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pause("blocks").await }
    });
    settle_down().await;
    let stopping = tokio::spawn({
        let bus = bus.clone();
        async move { bus.shutdown_within(SECOND).await }
    });
    settle_down().await;
    clock.advance(SECOND);
    stopping.await.unwrap().unwrap();
    pausing.abort();
    gate.send(()).unwrap();
}

/// Whose keyed states come when the gate is opened, and hold up whoever asks for them meanwhile.
struct Late {
    log: LogTransport,
    asked: Arc<Notify>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

struct LateConsumer {
    consumer: Box<dyn Consumer>,
    asked: Arc<Notify>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Transport for Late {
    fn url(&self) -> String {
        self.log.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        self.log.publish(batch)
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        Box::pin(async move {
            let Subscribed { consumer, created } = self.log.subscribe(spec).await?;
            let (asked, gate) = (Arc::clone(&self.asked), Arc::clone(&self.gate));
            Ok(Subscribed { consumer: Box::new(LateConsumer { consumer, asked, gate }), created })
        })
    }

    fn control(&self, subscription: &str, control: Control) -> BoxFuture<'_, Result<(), ControlError>> {
        self.log.control(subscription, control)
    }

    fn topics(&self, control: TopicControl) -> BoxFuture<'_, Result<(), ControlError>> {
        self.log.topics(control)
    }

    fn upkeep(&self) -> BoxFuture<'_, ()> {
        self.log.upkeep()
    }

    fn tail(&self, topic: &str) -> BoxFuture<'_, Result<Box<dyn Tail>, SubscribeError>> {
        self.log.tail(topic)
    }

    fn outcome(&self, event: &EventRef, subscription: &str) -> BoxFuture<'_, Result<Settled, InspectError>> {
        self.log.outcome(event, subscription)
    }

    fn progress(&self) -> BoxFuture<'_, ()> {
        self.log.progress()
    }

    fn inspect(&self) -> &dyn Inspect {
        self.log.inspect()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        self.log.close()
    }
}

impl Consumer for LateConsumer {
    fn next<'a>(&'a mut self, limit: Limit, out: &'a mut Vec<Delivered>) -> BoxFuture<'a, Result<(), ConsumeError>> {
        self.consumer.next(limit, out)
    }

    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'static, Result<(), SettleError>> {
        self.consumer.settle(batch)
    }

    fn state(
        &self,
        member: usize,
        partition: u16,
        key: &str,
    ) -> BoxFuture<'static, Result<Option<Bytes>, ConsumeError>> {
        let (state, asked, gate) =
            (self.consumer.state(member, partition, key), Arc::clone(&self.asked), Arc::clone(&self.gate));
        Box::pin(async move {
            tokio::task::yield_now().await;
            asked.notify_one();
            gate.lock().recv().unwrap();
            state.await
        })
    }
}

/// A keyed plain function, whose state comes as it is cancelled: it is waited for, so that its event does not meet itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_function_that_starts_as_it_is_cancelled_holds_up_the_change() {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let (asked, states) = (Arc::new(Notify::new()), mpsc::sync_channel::<()>(2));
    let (started, gate) = (Arc::new(Notify::new()), mpsc::sync_channel::<()>(2));
    let (starting, opened) = (Arc::clone(&started), Arc::new(Mutex::new(gate.1)));
    let counts = move |_: Job, _: Keyed<u32>| {
        starting.notify_one();
        opened.lock().recv().unwrap();
    };
    let log = LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap();
    let transport = Late { log, asked: Arc::clone(&asked), gate: Arc::new(Mutex::new(states.1)) };
    let counts: Registration = counts.named("counts");
    let bus = App::with_transport(Arc::new(transport), manual.clock()).on(counts).start().await.unwrap();
    bus.publish(job()).await.unwrap();
    asked.notified().await;
    let pausing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pause("counts").await }
    });
    // Its grace time is over when it has waited for that, and nothing else is left to wait for.
    for _ in 0..1_000 {
        manual.advance(DEFAULT_GRACE);
        tokio::task::yield_now().await;
    }
    states.0.send(()).unwrap();
    started.notified().await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!pausing.is_finished(), "the function runs");
    gate.0.send(()).unwrap();
    pausing.await.unwrap().unwrap();
    states.0.send(()).unwrap();
    gate.0.send(()).unwrap();
    bus.resume("counts").await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(bus.inspect().subscriptions()[0].stats.acked, 1);
    bus.shutdown().await.unwrap();
}
