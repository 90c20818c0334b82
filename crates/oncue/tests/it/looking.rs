//! Looking at a log beside the process that writes it.

use std::{fs, path::Path, time::Duration};

use oncue::{
    App, Bus, Clock, Envelope,
    handler::{HandlerError, HandlerExt as _, extract::Context},
    policy,
    prelude::*,
    transport::{self, EventHandling, Inspect, InspectError, OpenError, Position, Stage, SubscriptionInfo},
};

/// Fails as the data of the event says.
#[handler(retry = policy::list([Duration::ZERO, Duration::from_secs(3_600)]), on = "order")]
fn charge(event: &Envelope, context: Context) -> Result<(), HandlerError> {
    match (event.data().as_ref(), context.attempt()) {
        (b"reject", _) => Err(HandlerError::reject("no such card")),
        (b"wait", _) => Err(HandlerError::transient("the bank is closed")),
        (b"again", 1) => Err(HandlerError::transient("busy")),
        _ => Ok(()),
    }
}

fn event(event_type: &str, id: &str, data: &str) -> Envelope {
    Envelope::builder(event_type).id(id).subject(id).data(data.to_owned()).build().unwrap()
}

async fn start(url: &str) -> Bus {
    let audit = (|_: &Envelope| {}).named("audit").types(["order", "other"]);
    let ship = (|_: &Envelope| {}).named("ship").types(["order"]).after(charge);
    App::open(url).await.unwrap().on(audit).on(charge).on(ship).start().await.unwrap()
}

async fn publish(bus: &Bus, events: Vec<Envelope>) {
    bus.publish_all("events", events, None).await.unwrap();
}

/// Waits until every event but the one that is retried is settled.
async fn settled(bus: &Bus) {
    let waits = |bus: &Bus| {
        let as_expected = |known: SubscriptionInfo| {
            known.lag == u64::from(known.id != "audit")
                && known.stats.retried == if known.id == "charge" { 3 } else { 0 }
        };
        bus.inspect().subscriptions().into_iter().all(as_expected)
    };
    while !waits(bus) {
        tokio::task::yield_now().await;
    }
    // The process knows it before the disk does. What is published now is durable after all that.
    bus.publish_to("later", event("other", "6", "")).await.unwrap();
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// What both tell of the subscriptions; whether they are attached and how many keys wait, only the process itself knows.
fn told(log: &dyn Inspect) -> Vec<String> {
    let known_to_both = |mut known: SubscriptionInfo| {
        // What only the process that serves it knows.
        (known.attached, known.parked_keys, known.in_flight, known.oldest) = (false, 0, 0, None);
        serde_json::to_string(&known).unwrap()
    };
    log.subscriptions().into_iter().map(known_to_both).collect()
}

fn of<'a>(handlings: &'a [EventHandling], id: &str) -> &'a EventHandling {
    handlings.iter().find(|handling| handling.subscription == id).unwrap_or_else(|| panic!("{id}: {handlings:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_beside_a_process_tells_the_same_and_disturbs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = start(&url).await;
    let events = ["ok", "reject", "wait", "again"].map(|data| event("order", data, data));
    publish(&bus, events.into()).await;
    publish(&bus, vec![event("other", "5", "")]).await;
    settled(&bus).await;

    let view = transport::inspect(&url, &Clock::system()).unwrap();
    assert_eq!(told(&*view), told(bus.inspect()));
    assert!(view.subscriptions().iter().all(|known| !known.attached));
    assert_eq!(view.topics(), bus.inspect().topics());
    assert_eq!((view.topics()[0].events(), view.topics()[0].partitions), (5, 16));
    for id in ["audit", "charge", "ship"] {
        let oldest = |log: &dyn Inspect| log.oldest_unsettled(id).unwrap().map(|(_, event)| event.id().to_owned());
        assert_eq!(oldest(&*view), oldest(bus.inspect()));
        assert_eq!(oldest(&*view).as_deref(), (id != "audit").then_some("wait"), "{id}");
    }
    for (position, event) in view.browse("events", 0, 10).unwrap() {
        let handlings = view.handling("events", position).unwrap();
        assert_eq!(handlings, bus.inspect().handling("events", position).unwrap());
        assert_eq!(handlings.len(), if event.event_type() == "order" { 3 } else { 1 });
        tells(&event, &handlings);
    }
    drop(view);
    bus.shutdown().await.unwrap();
    // A live log prepares the blocks ahead of its end whenever it likes: what a view leaves alone is seen on a closed one.
    drop(bus);
    let before = files(directory.path());
    assert_eq!(transport::inspect(&url, &Clock::system()).unwrap().topics()[0].events(), 5);
    assert_eq!(files(directory.path()), before);
}

fn tells(event: &Envelope, handlings: &[EventHandling]) {
    assert_eq!((of(handlings, "audit").stage, of(handlings, "audit").attempts), (Stage::Settled, 1));
    if event.event_type() == "other" {
        return;
    }
    let (charge, ship) = (of(handlings, "charge"), of(handlings, "ship"));
    let expected = match event.id() {
        "ok" => (Stage::Settled, 1, 0, Stage::Settled),
        "reject" => (Stage::Dead, 1, 1, Stage::Skipped),
        "wait" => (Stage::Retrying, 2, 2, Stage::Pending),
        _ => (Stage::Settled, 2, 1, Stage::Settled),
    };
    assert_eq!((charge.stage, charge.attempts, charge.failed.len(), ship.stage), expected, "{}", event.id());
    assert!(charge.read.unwrap() >= event.published() && charge.ended >= charge.read);
    assert_eq!(charge.due.is_some(), event.id() == "wait");
    assert_eq!(ship.read.is_some(), ship.stage == Stage::Settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_keeps_to_what_it_saw() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let bus = start(&url).await;
    publish(&bus, vec![event("order", "1", "")]).await;
    let view = transport::inspect(&url, &Clock::system()).unwrap();
    publish(&bus, vec![event("order", "2", "")]).await;
    assert_eq!(view.browse("events", 0, 10).unwrap().len(), 1);
    let later = transport::inspect(&url, &Clock::system()).unwrap();
    assert_eq!(later.browse("events", 0, 10).unwrap().len(), 2);
    bus.shutdown().await.unwrap();
    drop(bus);
    // Closed, it can be looked at as well.
    assert_eq!(transport::inspect(&url, &Clock::system()).unwrap().subscriptions().len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let refused = |url: &str| transport::inspect(url, &Clock::system()).err().unwrap();
    assert!(matches!(refused("memory:"), OpenError::Url { .. }), "{}", refused("memory:"));
    assert!(matches!(refused("kafka://x"), OpenError::UnknownScheme { .. }));
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    assert!(refused(&url).to_string().contains("holds no log"), "{}", refused(&url));
    assert!(refused(&format!("{url}/missing")).to_string().contains("missing"));
    assert!(!directory.path().join("missing").exists());

    let bus = start(&url).await;
    publish(&bus, vec![event("order", "1", "")]).await;
    let view = transport::inspect(&url, &Clock::system()).unwrap();
    let at = |offset| Position::new(view.browse("events", 0, 1).unwrap()[0].0.partition(), offset, 0);
    assert!(matches!(view.handling("other", at(0)), Err(InspectError::UnknownTopic(_))));
    assert!(matches!(view.handling("events", at(7)), Err(InspectError::UnknownEvent { .. })));
    assert!(matches!(view.oldest_unsettled("nobody"), Err(InspectError::UnknownSubscription(_))));
    bus.shutdown().await.unwrap();
}
