//! Sources of a program's own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use oncue::{
    Bus, Clock, Envelope, ManualClock, Timestamp,
    handler::HandlerError,
    policy,
    prelude::*,
    source::{Activity, Batch, Confirm, Confirmed, Source, SourceError},
    transport::{
        BoxFuture, Capabilities, Control, ControlError, EventRef, Inspect, InspectError, LogTransport, LogUrl, Publish,
        PublishError, Published, SettleError, Settled, SubscribeError, Subscribed, SubscriptionSpec, Tail,
        TopicControl, Transport,
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{advance_until, in_memory, info, is_retrying, new_year, payloads, until};

type Generated<'a> = BoxFuture<'a, Result<Option<Batch>, SourceError>>;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "sent", key = text)]
struct Sent {
    text: String,
}

fn sent(text: &str) -> Envelope {
    Envelope::of(&Sent { text: text.into() }).unwrap()
}

/// Without state: what comes through a channel.
struct Received {
    receiver: mpsc::Receiver<String>,
    confirms: Option<Confirm>,
    told: Arc<Mutex<Vec<Confirmed>>>,
    /// How often telling fails before it succeeds.
    deaf: u32,
}

impl Received {
    fn new() -> (mpsc::Sender<String>, Self) {
        let (sender, receiver) = mpsc::channel(8);
        (sender, Self { receiver, confirms: None, told: Arc::default(), deaf: 0 })
    }
}

impl Source for Received {
    fn id(&self) -> &str {
        "received"
    }

    fn generate<'a>(&'a mut self, place: Option<&'a str>, _: &'a Clock) -> Generated<'a> {
        assert_eq!(place, None);
        Box::pin(async {
            let Some(text) = self.receiver.recv().await else { return Ok(None) };
            Ok(Some(Batch::new(vec![sent(&text)])))
        })
    }

    fn confirms(&self) -> Option<Confirm> {
        self.confirms.clone()
    }

    fn confirm<'a>(&'a mut self, confirmed: &'a [Confirmed]) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async {
            if self.deaf > 0 {
                self.deaf -= 1;
                return Err(SourceError::transient("not now"));
            }
            self.told.lock().extend_from_slice(confirmed);
            Ok(())
        })
    }
}

#[handler(retry = policy::never())]
async fn keep(sent: Sent) -> Result<(), HandlerError> {
    if sent.text == "bad" { Err(HandlerError::reject("no")) } else { Ok(()) }
}

#[handler]
async fn stall(sent: Sent) {
    if sent.text == "slow" {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_source_that_asked_is_told_what_became_of_each_event() {
    let manual = ManualClock::new(new_year());
    let (sender, mut source) = Received::new();
    source.confirms = Some(Confirm { wait: Duration::from_secs(60), handlers: Vec::new() });
    source.deaf = 2;
    let told = Arc::clone(&source.told);
    let app = in_memory(&manual.clock()).on(keep).on(keep.named("second").after(keep)).on(stall).source(source);
    let bus = app.start().await.unwrap();
    for text in ["good", "bad", "slow"] {
        sender.send(text.to_owned()).await.unwrap();
    }
    drop(sender);
    until("the first failure to tell it", || is_retrying(&bus, 1)).await;
    manual.advance(Duration::from_millis(100));
    until("the second", || is_retrying(&bus, 2)).await;
    manual.advance(Duration::from_millis(200));
    until("what is settled is told", || told.lock().len() == 2).await;
    assert_eq!(info(&bus).activity, Activity::Running, "one is waited for");
    manual.advance(Duration::from_secs(60));
    bus.exhausted().await.unwrap();
    let told = told.lock().clone();
    let outcome_of = |text: &str, handler: &str| {
        let told = told.iter().find(|told| told.event.envelope.decode::<Sent>().unwrap().text == text).unwrap();
        assert!(!told.duplicate);
        told.outcomes.iter().find(|(id, _)| id == handler).unwrap().1.clone()
    };
    assert_eq!(outcome_of("good", "keep"), Some(Settled::Acked));
    assert_eq!(outcome_of("good", "stall"), Some(Settled::Acked));
    assert_eq!(outcome_of("bad", "keep"), Some(Settled::DeadLettered { error: "no".into() }));
    assert_eq!(outcome_of("bad", "second"), Some(Settled::Skipped), "skipped behind the dead letter");
    assert_eq!((outcome_of("slow", "keep"), outcome_of("slow", "stall")), (Some(Settled::Acked), None));
    assert_eq!(told.iter().filter(|told| told.is_acked()).count(), 1);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_source_that_asked_about_one_handler_does_not_wait_for_the_others() {
    let clock = ManualClock::new(new_year()).clock();
    let (sender, mut source) = Received::new();
    let handlers = vec!["keep".to_owned(), "nobody".to_owned()];
    source.confirms = Some(Confirm { wait: Duration::from_secs(60), handlers });
    let told = Arc::clone(&source.told);
    let bus = in_memory(&clock).on(keep).on(stall).source(source).start().await.unwrap();
    sender.send("slow".to_owned()).await.unwrap();
    until("it is told", || told.lock().len() == 1).await;
    assert_eq!(told.lock()[0].outcomes, [("keep".to_owned(), Some(Settled::Acked))]);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_a_source_that_waits_and_keeps_what_it_generated() {
    let (sender, source) = Received::new();
    let bus = in_memory(&Clock::system()).on(keep).source(source).start().await.unwrap();
    sender.send("last".to_owned()).await.unwrap();
    until("it is published", || info(&bus).published == 1).await;
    assert_eq!(info(&bus).activity, Activity::Running);
    bus.shutdown().await.unwrap();
    assert_eq!(info(&bus).activity, Activity::Stopped);
    assert!(sender.is_closed(), "the source is gone");
    bus.exhausted().await.unwrap();
}

/// With state: counts to 5; what it does at each attempt is listed.
struct Script {
    attempts: Arc<AtomicU32>,
    act: fn(u32) -> Result<(), SourceError>,
    topic: &'static str,
}

impl Script {
    fn new(act: fn(u32) -> Result<(), SourceError>) -> Self {
        Self { attempts: Arc::default(), act, topic: "events" }
    }
}

impl Source for Script {
    fn id(&self) -> &str {
        "script"
    }

    fn generate<'a>(&'a mut self, place: Option<&'a str>, _: &'a Clock) -> Generated<'a> {
        Box::pin(async move {
            (self.act)(self.attempts.fetch_add(1, Ordering::SeqCst) + 1)?;
            let next = place.map_or(Ok(1), |place| place.parse::<u32>().map(|last| last + 1))?;
            let event = Envelope::builder("counted").data(next.to_string()).build()?;
            Ok((next <= 5).then(|| Batch::new(vec![event]).to(self.topic).at(next.to_string())))
        })
    }
}

async fn run(script: Script) -> (ManualClock, Bus) {
    let manual = ManualClock::new(new_year());
    let bus = in_memory(&manual.clock()).source(script).start().await.unwrap();
    (manual, bus)
}

#[tokio::test]
async fn a_source_that_fails_is_tried_again_where_it_was() {
    let (manual, bus) = run(Script::new(|attempt| match attempt {
        3 => Err(SourceError::transient("the line is cut")),
        4 => panic!("and the cable too"),
        _ => Ok(()),
    }))
    .await;
    until("the first failure", || is_retrying(&bus, 1)).await;
    assert_eq!(payloads(&bus, "events"), ["1", "2"]);
    assert!(matches!(info(&bus).activity, Activity::Retrying { error, .. } if error == "the line is cut"));
    manual.advance(Duration::from_millis(100));
    until("the second failure", || is_retrying(&bus, 2)).await;
    assert!(matches!(info(&bus).activity, Activity::Retrying { error, .. } if error == "panicked: and the cable too"));
    manual.advance(Duration::from_millis(200));
    bus.exhausted().await.unwrap();
    assert_eq!(payloads(&bus, "events"), ["1", "2", "3", "4", "5"]);
    assert_eq!(info(&bus).activity, Activity::Exhausted);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_waits_after_failures_grow_to_a_minute_and_not_beyond() {
    let (manual, bus) = run(Script::new(|attempt| match attempt {
        1..=40 => Err(SourceError::transient("down")),
        _ => Ok(()),
    }))
    .await;
    let waited = advance_until(&manual, "it is up again", || info(&bus).activity == Activity::Exhausted).await;
    // Half of each wait is random.
    assert!(waited >= Duration::from_secs(30 * 30) && waited <= Duration::from_secs(31 * 61), "{waited:?}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_source_that_cannot_go_on_is_given_up_and_the_app_goes_on() {
    let (_, bus) = run(Script::new(|attempt| match attempt {
        2 => Err(SourceError::permanent("the account is closed")),
        _ => Ok(()),
    }))
    .await;
    let error = bus.exhausted().await.unwrap_err().to_string();
    assert_eq!(error, "source `script` stopped: the account is closed");
    assert_eq!(payloads(&bus, "events"), ["1"]);
    bus.publish(sent("x")).await.unwrap();
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn events_that_cannot_be_published_stop_their_source_with_the_reason() {
    let mut script = Script::new(|_| Ok(()));
    script.topic = "no topic";
    let (_, bus) = run(script).await;
    let error = bus.exhausted().await.unwrap_err().to_string();
    assert!(error.contains("source `script`") && error.contains("topic `no topic`"), "{error}");
    assert_eq!(bus.inspect().source("script").place, "");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn ids_that_meet_or_cannot_be_kept_are_refused_at_start() {
    struct Named(&'static str);
    impl Source for Named {
        fn id(&self) -> &str {
            self.0
        }

        fn generate<'a>(&'a mut self, _: Option<&'a str>, _: &'a Clock) -> Generated<'a> {
            Box::pin(async { Ok(None) })
        }
    }
    let app = in_memory(&Clock::system()).source(Named("a")).source(Named("")).source(Named("a"));
    let error = app.start().await.unwrap_err().to_string();
    assert!(error.contains("two sources have the id `a`") && error.contains("source \"\""), "{error}");
}

/// It can be moved into an app, whatever it borrows from the clock.
#[tokio::test]
async fn a_source_waits_by_the_clock_it_is_given() {
    struct Alarm;
    impl Source for Alarm {
        fn id(&self) -> &str {
            "alarm"
        }

        fn generate<'a>(&'a mut self, place: Option<&'a str>, clock: &'a Clock) -> Generated<'a> {
            Box::pin(async move {
                if place.is_some() {
                    return Ok(None);
                }
                clock.sleep(Duration::from_secs(3_600)).await;
                Ok(Some(Batch::new(vec![sent(&clock.now().to_string())]).at("rung")))
            })
        }
    }
    let manual = ManualClock::new(new_year());
    let bus = in_memory(&manual.clock()).source(Alarm).start().await.unwrap();
    until("it waits", || manual.until_next() == Some(Duration::from_secs(3_600))).await;
    manual.advance(Duration::from_secs(3_600));
    bus.exhausted().await.unwrap();
    assert_eq!(payloads(&bus, "events"), [r#"{"text":"2026-01-01T01:00:00Z"}"#]);
    assert_eq!(new_year(), Timestamp::from_micros(1_767_225_600_000_000));
    bus.shutdown().await.unwrap();
}

/// A transport whose log is full for the first attempts to publish.
struct Full {
    log: LogTransport,
    refusals: AtomicU32,
}

impl Transport for Full {
    fn url(&self) -> String {
        self.log.url()
    }

    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }

    fn publish<'a>(&'a self, batch: &'a Publish) -> BoxFuture<'a, Result<Vec<Published>, PublishError>> {
        let left = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Box::pin(async { Err(PublishError::Full { limit: 1 }) }),
            Err(_) => self.log.publish(batch),
        }
    }

    fn subscribe(&self, spec: SubscriptionSpec) -> BoxFuture<'_, Result<Subscribed, SubscribeError>> {
        self.log.subscribe(spec)
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

#[tokio::test]
async fn a_full_log_holds_a_source_up_and_loses_nothing_of_it() {
    let manual = ManualClock::new(new_year());
    let log = LogTransport::open(&LogUrl::memory(), manual.clock()).unwrap();
    let (sender, source) = Received::new();
    let transport = Arc::new(Full { log, refusals: AtomicU32::new(2) });
    let bus = App::with_transport(transport, manual.clock()).source(source).start().await.unwrap();
    for text in ["1", "2"] {
        sender.send(text.to_owned()).await.unwrap();
    }
    drop(sender);
    until("it is refused", || is_retrying(&bus, 1)).await;
    assert!(matches!(info(&bus).activity, Activity::Retrying { error, .. } if error.contains("max_bytes")));
    manual.advance(Duration::from_millis(100));
    until("it is refused again", || is_retrying(&bus, 2)).await;
    manual.advance(Duration::from_millis(200));
    bus.exhausted().await.unwrap();
    assert_eq!(payloads(&bus, "events"), [r#"{"text":"1"}"#, r#"{"text":"2"}"#]);
    bus.shutdown().await.unwrap();
}
