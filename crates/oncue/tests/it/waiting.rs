//! What waits: dead letters that hold their key, edited ones, delayed events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oncue::{
    App, Bus, Envelope, ManualClock, Timestamp,
    handler::{
        HandlerExt, OnDeadLetter,
        extract::{Context, State},
    },
    policy,
    prelude::*,
    transport::{DeadLetter, LogTransport, LogUrl, Start},
};
use parking_lot::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// What was handled, by handler and name of the event, and whether handling works.
#[derive(Clone, Default)]
struct Seen {
    handled: Arc<Mutex<Vec<String>>>,
    works: Arc<AtomicBool>,
}

impl Seen {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.handled.lock())
    }
}

async fn work(event: Envelope, context: Context, State(seen): State<Seen>) -> Outcome {
    let name = String::from_utf8(event.data().to_vec()).unwrap();
    let edited = event.extension("edited").map(|by| format!(" edited by {by}")).unwrap_or_default();
    seen.handled.lock().push(format!("{} {name}{edited}", context.subscription()));
    if seen.works.load(Ordering::SeqCst) {
        return Outcome::Ack;
    }
    Outcome::Fail { class: policy::ErrorClass::Transient, error: "not now".to_owned() }
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000))
}

fn event(name: &str) -> oncue::event::EnvelopeBuilder {
    Envelope::builder("step").data(name.to_owned())
}

async fn go_on() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A key that two dead letters hold, the delayed event and the second, with a third event behind them; from now on
/// handling works.
async fn held_by_two() -> (Bus, Seen, Vec<DeadLetter>) {
    let (clock, seen) = (clock(), Seen::default());
    let transport = LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap();
    let held = work.named("held").types(["step"]).retry(policy::never()).on_dead_letter(OnDeadLetter::Hold);
    let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone());
    let bus = app.on(held).start().await.unwrap();
    bus.publish(event("delayed").key("k").delay(SECOND).build().unwrap()).await.unwrap();
    bus.publish(event("second").key("k").build().unwrap()).await.unwrap();
    go_on().await;
    // Where it is read anew, the delayed one comes to stand before the second.
    bus.pause("held").await.unwrap();
    clock.advance(SECOND);
    bus.resume("held").await.unwrap();
    bus.publish(event("third").key("k").build().unwrap()).await.unwrap();
    go_on().await;
    let dead = bus.dead_letters("held").list().unwrap();
    assert_eq!((dead.len(), seen.take()), (2, vec!["held second".to_owned(), "held delayed".to_owned()]));
    seen.works.store(true, Ordering::SeqCst);
    (bus, seen, dead)
}

/// The delayed event comes to stand before the one that holds the key already, and holds it too. What is behind both
/// waits for both.
#[tokio::test]
async fn a_key_that_two_dead_letters_hold_goes_on_when_both_are_resolved() {
    let (bus, seen, dead) = held_by_two().await;
    bus.dead_letters("held").redrive(dead[0].position).await.unwrap();
    go_on().await;
    assert_eq!(seen.take(), ["held delayed"], "the other one still holds the key");
    bus.dead_letters("held").redrive(dead[1].position).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.take(), ["held second", "held third"]);
}

/// The later one of two that hold the key is handled again: it waits for the first one, also where all is read anew
/// meanwhile.
#[tokio::test]
async fn a_redriven_event_waits_for_another_that_holds_its_key_before_it() {
    for anew in [false, true] {
        let (bus, seen, dead) = held_by_two().await;
        if anew {
            bus.pause("held").await.unwrap();
        }
        bus.dead_letters("held").redrive(dead[1].position).await.unwrap();
        if anew {
            bus.resume("held").await.unwrap();
        }
        go_on().await;
        assert!(seen.take().is_empty(), "the first one holds the key (anew: {anew})");
        bus.dead_letters("held").redrive(dead[0].position).await.unwrap();
        bus.idle().await.unwrap();
        assert_eq!(seen.take(), ["held delayed", "held second", "held third"]);
    }
}

/// What fails once, by handler and name of the event.
#[derive(Clone, Default)]
struct Fails(Arc<Mutex<Vec<&'static str>>>);

async fn once(event: Envelope, context: Context, State(seen): State<Seen>, State(fails): State<Fails>) -> Outcome {
    let handled = format!("{} {}", context.subscription(), String::from_utf8_lossy(event.data()));
    let mut fails = fails.0.lock();
    let works = fails.iter().position(|fails| *fails == handled).map(|index| fails.remove(index)).is_none();
    seen.handled.lock().push(handled);
    if works { Outcome::Ack } else { Outcome::Fail { class: policy::ErrorClass::Transient, error: "once".to_owned() } }
}

/// Two handlers are served as one, and the second begins anew: the first has yet to try an event again that stands behind
/// those, one of which fails now. Be its time there or not, they come first.
#[tokio::test]
async fn what_failed_before_does_not_pass_what_stands_before_it_in_its_key() {
    for is_due in [false, true] {
        let (clock, seen, fails) = (clock(), Seen::default(), Fails::default());
        let transport = LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap();
        let first = once.named("first").types(["step"]).retry(policy::fixed(SECOND));
        let second = once.named("second").types(["step"]).retry(policy::fixed(Duration::ZERO)).after_id("first");
        let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone()).state(fails.clone());
        let bus = app.on(first).on(second).start().await.unwrap();
        fails.0.lock().push("first c");
        for name in ["a", "b", "c"] {
            bus.publish(event(name).key("k").build().unwrap()).await.unwrap();
        }
        go_on().await;
        assert_eq!(seen.take().len(), 5, "and c is to be tried again by the first");
        bus.pause("first").await.unwrap();
        fails.0.lock().push("second a");
        clock.advance(if is_due { SECOND } else { Duration::ZERO });
        bus.reset("second", Start::Earliest).await.unwrap();
        bus.resume("first").await.unwrap();
        go_on().await;
        clock.advance(SECOND);
        bus.idle().await.unwrap();
        assert_eq!(seen.take(), ["second a", "second a", "second b", "first c", "second c"], "is due: {is_due}");
    }
}

/// All is read anew while the delayed event has come to stand before the dead letter: whatever of the key is read behind
/// them, the key stays held.
#[tokio::test]
async fn a_key_stays_held_when_it_is_read_anew_behind_an_event_whose_time_has_come() {
    let (clock, seen, fails) = (clock(), Seen::default(), Fails::default());
    let transport = LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap();
    let held = once.named("held").types(["step"]).retry(policy::never()).on_dead_letter(OnDeadLetter::Hold);
    let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone()).state(fails.clone());
    let bus = app.on(held).start().await.unwrap();
    fails.0.lock().push("held second");
    bus.publish(event("delayed").key("k").delay(SECOND).build().unwrap()).await.unwrap();
    bus.publish(event("second").key("k").build().unwrap()).await.unwrap();
    go_on().await;
    bus.pause("held").await.unwrap();
    bus.publish(Envelope::builder("other").key("k").build().unwrap()).await.unwrap();
    bus.publish(event("third").key("k").build().unwrap()).await.unwrap();
    clock.advance(SECOND);
    bus.resume("held").await.unwrap();
    go_on().await;
    assert_eq!(seen.take(), ["held second", "held delayed"], "and the third waits");
    let position = bus.dead_letters("held").list().unwrap()[0].position;
    bus.dead_letters("held").redrive(position).await.unwrap();
    bus.idle().await.unwrap();
    assert_eq!(seen.take(), ["held second", "held third"]);
}

#[tokio::test]
async fn an_edited_dead_letter_is_seen_edited_by_the_handler_that_gave_up_and_by_none_after_it() {
    let (clock, seen) = (clock(), Seen::default());
    let transport = LogTransport::open(&LogUrl::memory(), clock.clock()).unwrap();
    let handler = |id: &str| work.named(id).types(["step"]).retry(policy::never()).on_dead_letter(OnDeadLetter::Hold);
    let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone());
    let app = app.on(handler("first")).on(handler("second").after_id("first"));
    let bus: Bus = app.start().await.unwrap();
    bus.publish(event("it").key("k").build().unwrap()).await.unwrap();
    go_on().await;
    let edit = async |id: &str| {
        let letters = bus.dead_letters(id);
        let position = letters.list().unwrap()[0].position;
        letters.edit(position, |event| event.extension("edited", id)).await.unwrap();
        go_on().await;
    };
    edit("first").await;
    assert_eq!(seen.take(), ["first it", "first it edited by first"], "and fails again");
    seen.works.store(true, Ordering::SeqCst);
    edit("first").await;
    bus.idle().await.unwrap();
    assert_eq!(seen.take(), ["first it edited by first", "second it"], "the event itself, as it was published");
}

/// Two handlers give up on one event, and each is given an edition of its own: at once, and also after a restart.
#[tokio::test]
async fn two_edits_of_one_event_are_seen_each_by_its_handler_also_after_a_restart() {
    for restarts in [false, true] {
        let (clock, seen, directory) = (clock(), Seen::default(), tempfile::tempdir().unwrap());
        let start = async || {
            let transport = LogTransport::open(&LogUrl::file(directory.path()), clock.clock()).unwrap();
            let handler =
                |id: &str| work.named(id).types(["step"]).retry(policy::never()).on_dead_letter(OnDeadLetter::Hold);
            let first = (|_: Envelope| async {}).named("first").types(["step"]);
            let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone()).on(first);
            app.on(handler("left").after_id("first")).on(handler("right").after_id("first")).start().await.unwrap()
        };
        let mut bus = start().await;
        for name in ["it", "next"] {
            bus.publish(event(name).key("k").build().unwrap()).await.unwrap();
        }
        bus.idle().await.unwrap();
        assert_eq!(seen.take().len(), 2, "both give up on the first event, and the second waits");
        bus.pause("first").await.unwrap();
        for id in ["left", "right"] {
            let letters = bus.dead_letters(id);
            let position = letters.list().unwrap()[0].position;
            letters.edit(position, |event| event.extension("edited", id)).await.unwrap();
        }
        if restarts {
            bus.shutdown().await.unwrap();
            drop(bus);
            bus = start().await;
        }
        seen.works.store(true, Ordering::SeqCst);
        bus.resume("first").await.unwrap();
        bus.idle().await.unwrap();
        let mut handled = seen.take();
        handled[..2].sort();
        handled[2..].sort();
        let expected = ["left it edited by left", "right it edited by right", "left next", "right next"];
        assert_eq!(handled, expected, "restarts: {restarts}");
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn delayed_events_that_are_not_held_in_memory_come_at_their_time_and_stop_nothing() {
    let (clock, seen) = (clock(), Seen::default());
    seen.works.store(true, Ordering::SeqCst);
    let url: LogUrl = "memory:?delayed_held=8".parse().unwrap();
    let transport = LogTransport::open(&url, clock.clock()).unwrap();
    let app = App::with_transport(Arc::new(transport), clock.clock()).state(seen.clone());
    let bus = app.on(work.named("later").types(["step"])).start().await.unwrap();
    let seconds = |number: u32| u64::from(number * 7919 % 300 + 1);
    for number in 0..300 {
        let delay = Duration::from_secs(seconds(number));
        bus.publish(event(&seconds(number).to_string()).delay(delay).build().unwrap()).await.unwrap();
    }
    bus.publish(event("now").build().unwrap()).await.unwrap();
    go_on().await;
    assert_eq!(seen.take(), ["later now"]);
    for second in 1..=300 {
        clock.advance(SECOND);
        for _ in 0..10 {
            go_on().await;
        }
        assert_eq!(seen.take(), [format!("later {second}")]);
    }
    bus.idle().await.unwrap();
}

/// Publishes an event with an id on a log, and closes it; whether the id was known.
async fn publish(url: &LogUrl, clock: &ManualClock, id: &str) -> bool {
    let transport = LogTransport::open(url, clock.clock()).unwrap();
    let bus = App::with_transport(Arc::new(transport), clock.clock()).start().await.unwrap();
    let receipt = bus.publish(event("it").source("/s").id(id).build().unwrap()).await.unwrap();
    bus.shutdown().await.unwrap();
    receipt.is_duplicate()
}

/// A tool that resolves a dead letter, or a service that was given another URL, knows nothing of the app's window.
#[tokio::test]
async fn a_log_keeps_the_window_for_duplicates_until_it_is_told_another_one() {
    let (clock, directory) = (clock(), tempfile::tempdir().unwrap());
    let told = LogUrl::file(directory.path()).dedup_window(3_600 * SECOND, 1_000);
    let silent = LogUrl::file(directory.path());
    assert!(!publish(&told, &clock, "1").await);
    clock.advance(1_800 * SECOND);
    assert!(!publish(&silent, &clock, "2").await);
    assert!(publish(&silent, &clock, "1").await, "it is half an hour old");
    let shorter = silent.clone().dedup_window(60 * SECOND, 1_000);
    assert!(publish(&shorter, &clock, "2").await);
    assert!(!publish(&silent, &clock, "1").await, "it was told to forget what is older than a minute");
}
