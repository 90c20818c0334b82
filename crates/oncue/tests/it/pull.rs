//! Events that a client pulls.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::{join_all, poll_immediate};
use oncue::{
    App, Bus, Clock, Envelope, LeaseError, ManualClock, Pulled, Puller, Timestamp,
    config::HandlerConfig,
    handler::HandlerExt,
    policy::{self, ErrorClass},
    prelude::*,
    transport::{Action, LogTransport, LogUrl, SubscriptionInfo},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "mail.wanted", key = to)]
struct MailWanted {
    to: String,
    number: u32,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "mail.sent", key = to)]
struct MailSent {
    to: String,
}

async fn start(url: &LogUrl) -> (ManualClock, Bus) {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let bus = app(url, &manual.clock()).start().await.unwrap();
    (manual, bus)
}

fn app(url: &LogUrl, clock: &Clock) -> App {
    App::with_transport(Arc::new(LogTransport::open(url, clock.clone()).unwrap()), clock.clone())
}

async fn in_memory() -> (ManualClock, Bus) {
    start(&LogUrl::memory()).await
}

/// A puller with a lease of ten seconds, whose retries come a second later.
async fn open(bus: &Bus) -> Puller {
    let retry = policy::fixed(SECOND).max_attempts(3);
    bus.pull("mailer").types(["mail.wanted"]).lease(10 * SECOND).retry(retry).open().await.unwrap()
}

async fn publish(bus: &Bus, to: &str, numbers: std::ops::Range<u32>) {
    let wanted = numbers.map(|number| Envelope::of(&MailWanted { to: to.to_owned(), number }).unwrap());
    bus.publish_all("events", wanted.collect(), None).await.unwrap();
}

fn number(pulled: &Pulled) -> u32 {
    pulled.envelope.decode::<MailWanted>().unwrap().number
}

/// What there is, without waiting.
async fn now(puller: &Puller, max: usize) -> Vec<Pulled> {
    settle_down().await;
    puller.next(max, Duration::ZERO).await
}

async fn one(puller: &Puller) -> Pulled {
    let mut pulled = puller.next(1, LONG).await;
    assert_eq!(pulled.len(), 1);
    pulled.remove(0)
}

async fn ack(puller: &Puller, pulled: &Pulled) {
    assert_eq!(puller.settle(&pulled.token, Outcome::Ack).await.unwrap(), Action::Ack);
}

/// Lets everything run that can.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn info(bus: &Bus) -> SubscriptionInfo {
    bus.inspect().subscriptions().into_iter().find(|known| known.id == "mailer").unwrap()
}

#[tokio::test]
async fn a_client_gets_what_there_is_and_waits_only_for_the_first() {
    let (clock, bus) = in_memory().await;
    let puller = Arc::new(open(&bus).await);
    let waiting = tokio::spawn({
        let puller = Arc::clone(&puller);
        async move { puller.next(10, 5 * SECOND).await.len() }
    });
    settle_down().await;
    clock.advance(5 * SECOND - Duration::from_millis(1));
    settle_down().await;
    assert!(!waiting.is_finished());
    clock.advance(Duration::from_millis(1));
    assert_eq!(waiting.await.unwrap(), 0, "none after the wait");
    for to in ["a", "b", "c"] {
        publish(&bus, to, 0..1).await;
    }
    settle_down().await;
    assert!(puller.next(0, LONG).await.is_empty());
    let two = puller.next(2, LONG).await;
    assert_eq!((two.len(), two[0].attempt), (2, 1));
    let third = puller.next(10, LONG).await;
    assert_eq!(third.len(), 1, "as soon as there is one");
    assert!(now(&puller, 10).await.is_empty(), "what one client holds no other gets");
    for pulled in two.iter().chain(&third) {
        ack(&puller, pulled).await;
    }
    bus.idle().await.unwrap();
    assert_eq!(info(&bus).stats.acked, 3);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_next_event_of_a_key_comes_when_the_one_before_is_settled() {
    let (clock, bus) = in_memory().await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..3).await;
    publish(&bus, "b", 7..8).await;
    let first = now(&puller, 10).await;
    assert_eq!(first.iter().map(number).collect::<Vec<_>>(), [0, 7]);
    assert!(now(&puller, 10).await.is_empty());
    ack(&puller, &first[0]).await;
    let second = one(&puller).await;
    assert_eq!(number(&second), 1);
    // A failed one is retried before the key goes on.
    let outcome = Outcome::Fail { class: ErrorClass::Transient, error: "busy".into() };
    let due = bus.clock().now().after(SECOND);
    assert_eq!(puller.settle(&second.token, outcome).await.unwrap(), Action::Retry(due));
    assert!(now(&puller, 10).await.is_empty());
    clock.advance(SECOND);
    let again = one(&puller).await;
    assert_eq!((number(&again), again.attempt, again.position), (1, 2, second.position));
    ack(&puller, &again).await;
    assert_eq!(number(&one(&puller).await), 2);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_over_is_a_failed_attempt_and_its_token_is_worth_nothing() {
    let (clock, bus) = in_memory().await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..1).await;
    // While nobody has taken it, nothing runs out.
    settle_down().await;
    clock.advance(LONG);
    settle_down().await;
    let first = one(&puller).await;
    assert_eq!(first.attempt, 1);
    clock.advance(10 * SECOND - Duration::from_millis(1));
    settle_down().await;
    assert_eq!(info(&bus).stats.retried, 0);
    clock.advance(Duration::from_millis(1));
    // Late is late, whether or not somebody has noticed yet.
    let late = puller.settle(&first.token, Outcome::Ack).await.unwrap_err();
    assert_eq!(late, LeaseError::Over);
    assert!(late.to_string().contains("is delivered again"), "{late}");
    settle_down().await;
    assert_eq!(puller.settle(&first.token, Outcome::Ack).await.unwrap_err(), LeaseError::Over);
    assert_eq!(puller.extend(&first.token, SECOND).unwrap_err(), LeaseError::Over);
    assert_eq!(puller.settle("unheard-of", Outcome::Ack).await.unwrap_err(), LeaseError::Over);
    clock.advance(SECOND);
    let second = one(&puller).await;
    assert_eq!((second.attempt, second.position), (2, first.position));
    assert_ne!(second.token, first.token);
    ack(&puller, &second).await;
    assert_eq!(puller.settle(&second.token, Outcome::Ack).await.unwrap_err(), LeaseError::Over, "once");
    assert_eq!((info(&bus).stats.acked, info(&bus).stats.retried), (1, 1));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_extended_lease_lasts_as_long_as_was_asked_for() {
    let (clock, bus) = in_memory().await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..1).await;
    let pulled = one(&puller).await;
    for _ in 0..5 {
        clock.advance(9 * SECOND);
        settle_down().await;
        puller.extend(&pulled.token, 10 * SECOND).unwrap();
    }
    puller.extend(&pulled.token, SECOND).unwrap();
    clock.advance(9 * SECOND);
    settle_down().await;
    assert_eq!(info(&bus).stats.retried, 0, "a shorter extension takes nothing away");
    clock.advance(SECOND);
    settle_down().await;
    assert_eq!(info(&bus).stats.retried, 1);
    clock.advance(SECOND);
    let error = bus_error(&bus, &puller, &clock).await;
    assert!(error.contains("lease of 10s is over"), "{error}");
    bus.shutdown().await.unwrap();
}

/// Lets the second and third lease be over; the error of the dead letter.
async fn bus_error(bus: &Bus, puller: &Puller, clock: &ManualClock) -> String {
    for attempt in 2..=3 {
        assert_eq!(one(puller).await.attempt, attempt);
        clock.advance(10 * SECOND);
        settle_down().await;
        clock.advance(SECOND);
    }
    let letters = bus.dead_letters("mailer").list().unwrap();
    let last = letters[0].history.last().unwrap();
    assert_eq!((letters[0].history.len(), last.class), (3, ErrorClass::Timeout));
    last.error.clone()
}

#[tokio::test]
async fn a_client_rejects_and_defers_as_a_handler_does() {
    let (clock, bus) = in_memory().await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..2).await;
    let pulled = one(&puller).await;
    let due = bus.clock().now().after(2 * SECOND);
    assert_eq!(puller.settle(&pulled.token, Outcome::Defer(2 * SECOND)).await.unwrap(), Action::Retry(due));
    clock.advance(2 * SECOND);
    let pulled = one(&puller).await;
    assert_eq!((number(&pulled), pulled.attempt), (0, 1), "a deferral is no attempt");
    let reject = Outcome::Reject { class: ErrorClass::Permanent, error: "no such address".into() };
    assert_eq!(puller.settle(&pulled.token, reject).await.unwrap(), Action::DeadLetter);
    let letters = bus.dead_letters("mailer").list().unwrap();
    assert_eq!(letters[0].history[0].error, "no such address", "durable when settling is through");
    assert_eq!(number(&one(&puller).await), 1);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_can_publish_and_what_may_not_be_published_leaves_the_lease() {
    let (_, bus) = in_memory().await;
    let puller = bus.pull("mailer").types(["mail.wanted"]).emits(["mail.sent"]).open().await.unwrap();
    let asking = tokio::spawn({
        let bus = bus.clone();
        async move { bus.request::<MailSent>(MailWanted { to: "ada".into(), number: 1 }, LONG).await }
    });
    let pulled = one(&puller).await;
    let sent = || MailSent { to: "ada".into() };
    let undeclared = |context: &Context| {
        context.emit(sent())?;
        context.emit(MailWanted { to: "x".into(), number: 1 })
    };
    let error = puller.ack_with(&pulled.token, undeclared).await.unwrap_err();
    assert!(matches!(error, LeaseError::Emit(_)) && error.to_string().contains("`mail.wanted`"), "{error}");
    let answer = |context: &Context| {
        assert_eq!(context.subscription(), "mailer");
        context.emit(sent())?;
        context.reply(sent())
    };
    assert_eq!(puller.ack_with(&pulled.token, answer).await.unwrap(), Action::Ack);
    assert_eq!(asking.await.unwrap().unwrap(), sent());
    let events = bus.inspect().browse("events", 0, usize::MAX).unwrap();
    let types: Vec<_> = events.iter().map(|(_, event)| event.event_type().to_owned()).collect();
    assert_eq!(types, ["mail.wanted", "mail.sent"], "what was refused with the rest is not there");
    assert_eq!(events[1].1.causation_id(), Some(pulled.envelope.id()));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dropped_puller_gives_back_what_it_offered_and_what_was_held() {
    for close in [false, true] {
        let (clock, bus) = in_memory().await;
        let puller = open(&bus).await;
        publish(&bus, "a", 0..2).await;
        publish(&bus, "b", 7..9).await;
        let held = one(&puller).await;
        assert_eq!(number(&held), 0);
        if close {
            puller.close().await.unwrap();
        } else {
            drop(puller);
            while bus.handlers().iter().any(|handler| handler.id == "mailer") {
                tokio::task::yield_now().await;
            }
            settle_down().await;
        }
        assert_eq!(bus.detached().len(), 1, "its subscription stays");
        clock.advance(LONG);
        let puller = open(&bus).await;
        settle_down().await;
        let mut order = Vec::new();
        while let Some(pulled) = now(&puller, 1).await.pop() {
            assert_eq!(pulled.attempt, 1, "no attempt was counted");
            order.push(number(&pulled));
            ack(&puller, &pulled).await;
        }
        let of_key = |key: [u32; 2]| order.iter().copied().filter(|number| key.contains(number)).collect::<Vec<_>>();
        assert_eq!((of_key([0, 1]), of_key([7, 8])), (vec![0, 1], vec![7, 8]), "{order:?}");
        assert_eq!(info(&bus).stats.acked, 4);
        bus.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn who_stops_waiting_loses_nothing_and_many_may_wait() {
    let (_, bus) = in_memory().await;
    let puller = Arc::new(open(&bus).await);
    // Dropped after each possible number of polls.
    for polls in 0..3 {
        let mut next = Box::pin(puller.next(1, LONG));
        for _ in 0..polls {
            assert!(poll_immediate(&mut next).await.is_none());
        }
        publish(&bus, "a", polls..polls + 1).await;
        settle_down().await;
        drop(next);
        let pulled = one(&puller).await;
        assert_eq!(number(&pulled), polls);
        ack(&puller, &pulled).await;
    }
    let clients = (0..20).map(|_| {
        let puller = Arc::clone(&puller);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 10 {
                let pulled = one(&puller).await;
                seen.push(number(&pulled));
                ack(&puller, &pulled).await;
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    for number in 100..300 {
        publish(&bus, &format!("k{}", number % 40), number..number + 1).await;
    }
    let seen: Vec<u32> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(seen.len(), 200);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (100..300).collect(), "each once");
    bus.shutdown().await.unwrap();
}

/// More clients than events that may be unsettled, on several threads: a wake must not be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_many_threads_get_each_event_once() {
    let bus = app(&LogUrl::memory(), &Clock::system()).start().await.unwrap();
    let puller = bus.pull("mailer").types(["mail.wanted"]).max_unsettled(8).open().await.unwrap();
    let (puller, seen) = (Arc::new(puller), Arc::new(Mutex::new(Vec::new())));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..16 {
        let (puller, seen) = (Arc::clone(&puller), Arc::clone(&seen));
        clients.spawn(async move {
            loop {
                for pulled in puller.next(1 + client % 3, LONG).await {
                    seen.lock().push(number(&pulled));
                    ack(&puller, &pulled).await;
                }
            }
        });
    }
    for number in 0..2_000 {
        publish(&bus, &format!("k{}", number % 50), number..number + 1).await;
    }
    bus.idle().await.unwrap();
    clients.shutdown().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(seen.len(), 2_000);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 2_000, "each once");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_more_is_offered_than_may_be_unsettled() {
    let (_, bus) = in_memory().await;
    let puller = bus.pull("mailer").types(["mail.wanted"]).max_unsettled(3).open().await.unwrap();
    for to in 0..10 {
        publish(&bus, &to.to_string(), to..to + 1).await;
    }
    let held = now(&puller, 10).await;
    assert_eq!(held.len(), 3);
    assert!(now(&puller, 10).await.is_empty());
    ack(&puller, &held[1]).await;
    assert_eq!(now(&puller, 10).await.len(), 1);
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_is_held_may_be_settled_while_the_app_shuts_down_and_what_is_not_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let url = LogUrl::file(directory.path());
    let (clock, bus) = start(&url).await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..1).await;
    publish(&bus, "b", 1..2).await;
    publish(&bus, "c", 2..3).await;
    let (settled, kept) = (one(&puller).await, one(&puller).await);
    let closing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.shutdown().await }
    });
    settle_down().await;
    assert!(!closing.is_finished(), "within its grace time it waits for what is held");
    assert!(puller.next(1, Duration::ZERO).await.is_empty(), "nothing is offered any more");
    ack(&puller, &settled).await;
    clock.advance(10 * SECOND);
    closing.await.unwrap().unwrap();
    assert_eq!(puller.settle(&kept.token, Outcome::Ack).await.unwrap_err(), LeaseError::Over);
    drop((puller, bus));
    let (clock, bus) = start(&url).await;
    clock.advance(LONG);
    let puller = open(&bus).await;
    let mut again: Vec<_> = Vec::new();
    while again.len() < 2 {
        again.extend(puller.next(10, LONG).await.iter().map(|pulled| (number(pulled), pulled.attempt)));
    }
    again.sort_unstable();
    assert_eq!(again, [(1, 2), (2, 1)], "a lease that was over is an attempt, what was only offered is none");
    bus.shutdown_within(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_puller_is_paused_and_configured_as_a_handler_is() {
    let (clock, bus) = in_memory().await;
    let puller = open(&bus).await;
    publish(&bus, "a", 0..1).await;
    settle_down().await;
    // Offered, and taken by nobody: it does not hold anything up.
    bus.pause("mailer").await.unwrap();
    assert!(now(&puller, 1).await.is_empty());
    bus.resume("mailer").await.unwrap();
    let lease = HandlerConfig { timeout: Some(60 * SECOND), ..HandlerConfig::default() };
    bus.configure("mailer", lease).await.unwrap();
    clock.advance(Duration::from_millis(1));
    let pulled = one(&puller).await;
    assert_eq!(pulled.attempt, 1);
    clock.advance(59 * SECOND);
    settle_down().await;
    ack(&puller, &pulled).await;
    let error = bus.pull("mailer").types(["mail.wanted"]).open().await.unwrap_err().to_string();
    assert!(error.contains("mailer"), "{error}");
    let error = bus.pull("other").open().await.unwrap_err().to_string();
    assert!(error.contains("no event types"), "{error}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_is_given_to_a_puller_and_to_a_handler() {
    let (_, bus) = in_memory().await;
    let puller = open(&bus).await;
    bus.subscribe((|_: MailWanted| async {}).named("record")).await.unwrap();
    let receipt = bus.publish(MailWanted { to: "ada".into(), number: 1 }).await.unwrap();
    ack(&puller, &one(&puller).await).await;
    let outcomes = receipt.outcomes(LONG).await.unwrap();
    assert_eq!(outcomes, [("mailer".into(), EventOutcome::Acked), ("record".into(), EventOutcome::Acked)]);
    bus.shutdown().await.unwrap();
}
