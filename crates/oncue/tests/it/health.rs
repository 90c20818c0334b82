//! How an app says that it is.

use std::{io, sync::Arc};

use oncue::{
    App, Clock, Envelope, Health, HealthCause, HealthStatus,
    alert::{AlertKind, Alerts},
    handler::{HandlerError, HandlerExt},
    policy,
    prelude::*,
    source::{Batch, Source, SourceError},
    transport::{BoxFuture, LogTransport, LogUrl, Transport},
};
use oncue_log::{
    Options,
    storage::{Call, FaultyStorage},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "charged", key = key)]
struct Charged {
    key: String,
}

#[handler(retry = policy::never())]
async fn charge(charged: Charged) -> Result<(), HandlerError> {
    if charged.key == "bad" { Err(HandlerError::reject("no such account")) } else { Ok(()) }
}

fn app(transport: &Arc<dyn Transport>) -> App {
    App::with_transport(Arc::clone(transport), Clock::system())
}

fn memory() -> Arc<dyn Transport> {
    Arc::new(LogTransport::open(&LogUrl::memory(), Clock::system()).unwrap())
}

fn causes(health: &Health) -> Vec<(HealthCause, &str)> {
    health.reasons.iter().map(|reason| (reason.cause, &*reason.subject)).collect()
}

#[tokio::test]
async fn a_pause_degrades_and_a_shutdown_fails() {
    let transport = memory();
    let bus = app(&transport).on(charge).start().await.unwrap();
    assert_eq!(bus.health(), Health { status: HealthStatus::Ok, reasons: Vec::new() });
    bus.pause("charge").await.unwrap();
    let health = bus.health();
    assert_eq!((health.status, causes(&health)), (HealthStatus::Degraded, vec![(HealthCause::Paused, "charge")]));
    bus.resume("charge").await.unwrap();
    assert_eq!(bus.health().status, HealthStatus::Ok);
    bus.shutdown().await.unwrap();
    let health = bus.health();
    assert_eq!((health.status, causes(&health)), (HealthStatus::Failed, vec![(HealthCause::Closed, "memory:")]));
}

#[tokio::test]
async fn events_that_nobody_serves_and_active_alerts_degrade() {
    let transport = memory();
    let first = app(&transport).on(charge.named("old")).start().await.unwrap();
    first.unsubscribe("old").await.unwrap();
    let bus = app(&transport).on(charge).alerts(Alerts::default()).start().await.unwrap();
    assert_eq!(bus.health().status, HealthStatus::Ok, "nothing waits for it");
    bus.publish(Charged { key: "bad".to_owned() }).await.unwrap();
    bus.idle().await.unwrap();
    bus.check_alerts().await;
    let health = bus.health();
    let expected =
        [(HealthCause::Alert(AlertKind::DeadLetter), "charge"), (HealthCause::Alert(AlertKind::Detached), "old")];
    assert_eq!((health.status, &causes(&health)[..]), (HealthStatus::Degraded, &expected[..]));
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!((&json["status"], &json["reasons"][0]["cause"]), (&"degraded".into(), &"dead_letter".into()));
    bus.remove("old").await.unwrap();
    bus.dead_letters("charge").discard_matching(&oncue::filter::Filter::exact("type", "charged")).await.unwrap();
    assert_eq!(causes(&bus.health()), [expected[0]], "an alert is active until it has recovered");
    bus.shutdown().await.unwrap();
}

/// A source that gives up at once.
struct Broken;

impl Source for Broken {
    fn id(&self) -> &str {
        "broken"
    }

    fn generate<'a>(
        &'a mut self,
        _: Option<&'a str>,
        _: &'a Clock,
    ) -> BoxFuture<'a, Result<Option<Batch>, SourceError>> {
        Box::pin(async { Err(SourceError::permanent("no such file")) })
    }
}

#[tokio::test]
async fn a_source_that_gave_up_degrades() {
    let bus = app(&memory()).source(Broken).start().await.unwrap();
    bus.exhausted().await.unwrap_err();
    let health = bus.health();
    assert_eq!((health.status, causes(&health)), (HealthStatus::Degraded, vec![(HealthCause::Source, "broken")]));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_is_a_failure_with_its_reason() {
    let storage = FaultyStorage::new(3);
    let url = LogUrl::memory();
    let transport = LogTransport::on_storage(url, Box::new(storage.clone()), Options::default(), Clock::system());
    let transport: Arc<dyn Transport> = Arc::new(transport.unwrap());
    let bus = app(&transport).on(charge).start().await.unwrap();
    storage.fail(Call::Sync, 0, io::ErrorKind::StorageFull);
    bus.publish_to("events", Envelope::builder("charged").build().unwrap()).await.unwrap_err();
    bus.idle().await.unwrap_err();
    let health = bus.health();
    let expected = [(HealthCause::Fenced, "memory:"), (HealthCause::Alert(AlertKind::HandlerStopped), "charge")];
    assert_eq!((health.status, &causes(&health)[..]), (HealthStatus::Failed, &expected[..]));
    assert!(health.reasons[0].text.contains("takes nothing more"), "{}", health.reasons[0].text);
    bus.shutdown().await.unwrap_err();
}
