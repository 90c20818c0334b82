//! Handlers that are stopped while calls of theirs wait in a layer, or have come through it.

use tokio::sync::{Notify, watch};

use super::*;

/// Lets calls pass while it is open.
#[derive(Clone)]
struct Door(watch::Sender<bool>);

impl Door {
    fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    fn open(&self) {
        self.0.send_replace(true);
    }

    fn layer(&self) -> impl Layer + use<> {
        let door = self.0.clone();
        move |invocation: Invocation, next: Next| {
            let mut open = door.subscribe();
            async move {
                open.wait_for(|open| *open).await.unwrap();
                next.run(invocation).await
            }
        }
    }
}

/// What must not wait for a door to be opened.
async fn at_once<T>(work: impl Future<Output = oncue::Result<T>>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it does not wait").unwrap()
}

fn all() -> Vec<(u32, u32)> {
    (0..3).map(|number| (number, 1)).collect()
}

#[tokio::test]
async fn pausing_does_not_wait_for_calls_that_wait_and_loses_none() {
    let (seen, came, door) = (Seen::default(), Arc::default(), Door::shut());
    let app = on(&LogUrl::memory(), &manual(), &seen).on(record.layer(count(&came)).layer(door.layer()));
    let bus = app.start().await.unwrap();
    for key in ["a", "b"] {
        publish(&bus, key, 0..3).await;
    }
    reached(&came, 2).await;
    at_once(bus.pause("record")).await;
    door.open();
    assert_eq!(seen.times(), [0; 0], "what waited did not begin");
    bus.resume("record").await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!((seen.of("a"), seen.of("b")), (all(), all()), "each once, in order, as a first attempt");
    assert_eq!(came.load(Ordering::SeqCst), 2 + 6);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_waits_in_a_layer_is_given_back_whole() {
    #[handler(batch = 3, batch_wait = "1s")]
    async fn store(steps: Batch<Step>, State(seen): State<Seen>) {
        seen.0.lock().extend(steps.iter().map(|step| (step.key.clone(), step.number, step.attempt, 0)));
    }
    let (seen, came, door) = (Seen::default(), Arc::default(), Door::shut());
    let app = on(&LogUrl::memory(), &manual(), &seen).on(store.layer(count(&came)).layer(door.layer()));
    let bus = app.start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    reached(&came, 1).await;
    at_once(bus.pause("store")).await;
    assert_eq!(seen.of("a"), []);
    door.open();
    bus.resume("store").await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.of("a"), all());
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_call_held_in_a_layer_is_free_when_its_handler_is_unsubscribed() {
    let (seen, came, door) = (Seen::default(), Arc::default(), Door::shut());
    let limit = middleware::concurrency_limit(1);
    let holds = record.named("holds").layer(limit.clone()).layer(count(&came)).layer(door.layer());
    let app = on(&LogUrl::memory(), &manual(), &seen).on(holds);
    let bus = app.start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    reached(&came, 1).await;
    bus.subscribe(record.layer(limit.clone())).await.unwrap();
    assert_eq!(limit.free(), 0);
    at_once(bus.unsubscribe("holds")).await;
    until(|| stats(&bus, "record").acked == 3).await;
    assert_eq!(seen.of("a"), all());
    bus.subscribe(record.named("holds")).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(stats(&bus, "holds").acked, 3, "it goes on where it stopped");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_calls_that_wait_and_the_next_start_handles_them() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let (manual, seen, came) = (manual(), Seen::default(), Arc::default());
    let door = Door::shut();
    let bus = on(&url, &manual, &seen).on(record.layer(count(&came)).layer(door.layer())).start().await.unwrap();
    publish(&bus, "a", 0..3).await;
    reached(&came, 1).await;
    // Time stands still: the grace time is never over.
    at_once(bus.shutdown_within(Duration::from_secs(3600))).await;
    assert_eq!(seen.of("a"), []);
    drop(bus);
    let bus = on(&url, &manual, &seen).on(record).start().await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.of("a"), all());
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_that_came_through_its_layers_is_finished_first() {
    #[handler]
    async fn slow(_step: Step, State((begun, gate)): State<(Arc<Notify>, Arc<Notify>)>) {
        begun.notify_one();
        gate.notified().await;
    }
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let app = on(&LogUrl::memory(), &manual(), &Seen::default()).state((Arc::clone(&begun), Arc::clone(&gate)));
    let bus = app.on(slow.layer(middleware::concurrency_limit(1))).start().await.unwrap();
    publish(&bus, "a", 0..1).await;
    begun.notified().await;
    let pausing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pause("slow").await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!pausing.is_finished());
    gate.notify_one();
    pausing.await.unwrap().unwrap();
    assert_eq!(stats(&bus, "slow").acked, 1);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_plain_function_that_a_layer_gave_up_on_keeps_its_key_until_it_returns() {
    let (seen, begun) = (Seen::default(), Arc::new(Notify::new()));
    let (gate, opened) = std::sync::mpsc::sync_channel::<()>(1);
    let opened = Arc::new(Mutex::new(opened));
    let blocking = {
        let (seen, begun) = (seen.clone(), Arc::clone(&begun));
        move |step: Step| {
            begun.notify_one();
            if step.number == 0 && step.key == "a" {
                opened.lock().recv().unwrap();
            }
            seen.0.lock().push((step.key, step.number, 1, 0));
        }
    };
    let gives_up = {
        let begun = Arc::clone(&begun);
        move |invocation: Invocation, next: Next| {
            let begun = Arc::clone(&begun);
            async move {
                tokio::select! {
                    biased;
                    outcome = next.run(invocation) => outcome,
                    () = begun.notified() => Outcome::Ack,
                }
            }
        }
    };
    let app = on(&LogUrl::memory(), &manual(), &seen);
    let bus = app.on(blocking.named("blocking").concurrency(4).layer(gives_up)).start().await.unwrap();
    publish(&bus, "a", 0..2).await;
    // Another key goes all the way meanwhile, through the same dispatcher.
    for number in 0..50 {
        let marker = bus.publish(Step { key: "b".into(), number }).await.unwrap();
        marker.outcome_of("blocking", Duration::from_secs(20)).await.unwrap();
    }
    assert_eq!((seen.of("a"), seen.of("b").len()), (vec![], 50));
    gate.send(()).unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.of("a"), [(0, 1), (1, 1)], "in order: the second began when the first had returned");
    bus.shutdown().await.unwrap();
}
