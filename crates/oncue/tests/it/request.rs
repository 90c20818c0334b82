//! Requests and their replies.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join_all, poll_immediate};
use oncue::{
    App, Bus, Clock, Envelope, ManualClock, RequestError, Timestamp,
    event::REPLY_TOPIC,
    handler::{
        HandlerError, HandlerExt,
        extract::{Context, State},
    },
    policy,
    prelude::*,
    transport::{LogTransport, LogUrl, Settled, Transport},
};
use oncue_log::{Options, storage::MemoryStorage};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const WAIT: Duration = Duration::from_secs(20);

#[derive(Event, Serialize, Deserialize)]
#[event(type = "price.asked", key = article)]
struct PriceAsked {
    article: String,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(type = "price.quoted")]
struct PriceQuoted {
    cents: u64,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "stock.counted")]
struct StockCounted {
    pieces: u64,
}

fn ask(article: &str) -> PriceAsked {
    PriceAsked { article: article.into() }
}

fn quoted(cents: u64) -> PriceQuoted {
    PriceQuoted { cents }
}

/// A hundred cents per letter.
#[handler]
async fn quote(asked: PriceAsked, context: Context) -> Result<(), HandlerError> {
    Ok(context.reply(quoted(asked.article.len() as u64 * 100))?)
}

fn manual() -> (ManualClock, App) {
    let manual = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let app = on(&manual.clock());
    (manual, app)
}

fn on(clock: &Clock) -> App {
    App::with_transport(Arc::new(LogTransport::open(&LogUrl::memory(), clock.clone()).unwrap()), clock.clone())
}

fn in_memory() -> App {
    on(&Clock::system())
}

/// Until a request has been published and is waited for.
async fn asked(bus: &Bus, count: usize) {
    while bus.inspect().browse("events", 0, usize::MAX).map_or(0, |events| events.len()) < count {
        tokio::task::yield_now().await;
    }
}

fn ask_in_task<R: Event + std::fmt::Debug>(
    bus: &Bus,
    article: &str,
    timeout: Duration,
) -> tokio::task::JoinHandle<Result<R, RequestError>> {
    let (bus, event) = (bus.clone(), ask(article));
    tokio::spawn(async move { bus.request(event, timeout).await })
}

#[tokio::test]
async fn a_request_is_answered_and_the_reply_tells_what_it_answers() {
    let bus = in_memory().on(quote).start().await.unwrap();
    assert_eq!(bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap(), quoted(400));
    let request = Envelope::builder_of(&ask("fig")).unwrap().correlation_id("c-1").build().unwrap();
    let id = request.id().to_owned();
    let reply = bus.request_to("events", request, WAIT).await.unwrap();
    assert_eq!((reply.in_reply_to(), reply.causation_id()), (Some(id.as_str()), Some(id.as_str())));
    assert_eq!((reply.correlation_id(), reply.key(), reply.hops()), (Some("c-1"), Some("fig"), 1));
    let replies = bus.inspect().browse(REPLY_TOPIC, 0, usize::MAX).unwrap();
    assert_eq!(replies.len(), 2, "replies go to their own topic");
    assert!(quote.into_registration().emits.is_empty(), "and need not be declared");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_at_once_get_each_its_own_reply() {
    let bus = in_memory().on(quote).start().await.unwrap();
    let asked = (1..=300).map(|letters: usize| bus.request::<PriceQuoted>(ask(&"x".repeat(letters)), WAIT));
    let replies: Vec<u64> = join_all(asked).await.into_iter().map(|reply| reply.unwrap().cents).collect();
    assert_eq!(replies, (1..=300).map(|letters| letters * 100).collect::<Vec<_>>());
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_timeout_says_how_it_stands_and_a_late_reply_is_dropped() {
    let (clock, app) = manual();
    let gate = Arc::new(Notify::new());
    let slow = |asked: PriceAsked, context: Context, State(gate): State<Arc<Notify>>| async move {
        gate.notified().await;
        context.reply(quoted(asked.article.len() as u64))
    };
    let audit = |_: PriceAsked| async {};
    let app = app.state(Arc::clone(&gate)).on(slow.named("slow")).on(audit.named("audit"));
    let bus = app.start().await.unwrap();
    let five = Duration::from_secs(5);
    let late = ask_in_task::<PriceQuoted>(&bus, "late", five);
    asked(&bus, 1).await;
    while bus.inspect().subscriptions().iter().any(|known| known.id == "audit" && known.lag > 0) {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_millis(4_999));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!late.is_finished(), "not before its time");
    clock.advance(Duration::from_millis(1));
    let error = late.await.unwrap().unwrap_err();
    let text = error.to_string();
    let RequestError::Timeout { waited, handlers, .. } = error else { panic!("{error}") };
    let stands = [("slow".to_owned(), None), ("audit".to_owned(), Some(Settled::Acked))];
    assert_eq!((waited, handlers.unwrap().as_slice()), (five, stands.as_slice()));
    assert!(text.contains("`price.asked` within 5s") && text.contains("`slow` is not through"), "{text}");
    // The late reply is of nobody; the next one is that of the next request.
    gate.notify_one();
    bus.idle().await.unwrap();
    let next = ask_in_task::<PriceQuoted>(&bus, "next one", five);
    asked(&bus, 2).await;
    gate.notify_one();
    assert_eq!(next.await.unwrap().unwrap(), quoted(8));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_request_that_nobody_here_takes_times_out_and_says_so() {
    let (clock, app) = manual();
    let bus = app.start().await.unwrap();
    let waiting = ask_in_task::<PriceQuoted>(&bus, "pear", Duration::from_secs(1));
    asked(&bus, 1).await;
    clock.advance(Duration::from_secs(1));
    let error = waiting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no handler of this app takes it") && error.contains("another process"), "{error}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_gives_up_is_an_answer_at_once() {
    // The clock stands still: no timeout can end this.
    let (_, app) = manual();
    let refuse = |_: PriceAsked| async { Err::<(), _>(HandlerError::reject("no such article")) };
    let app = app.on(refuse.named("refuse")).on((|_: PriceAsked| async {}).named("after").after_id("refuse"));
    let bus = app.start().await.unwrap();
    let error = bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap_err();
    assert_eq!(error.to_string(), "handler `refuse` gave up on the request: no such article");
    assert!(
        matches!(error, RequestError::Failed { handler, error } if handler == "refuse" && error == "no such article")
    );
    assert_eq!(bus.dead_letters("refuse").list().unwrap().len(), 1, "it is kept as any other");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_gives_up_does_not_speak_for_one_that_replies() {
    let (_, app) = manual();
    let gate = Arc::new(Notify::new());
    let refuse = |_: PriceAsked| async { Err::<(), _>(HandlerError::reject("no such article")) };
    let slow = |_: PriceAsked, context: Context, State(gate): State<Arc<Notify>>| async move {
        gate.notified().await;
        context.reply(quoted(7))
    };
    let bus = app.state(Arc::clone(&gate)).on(refuse.named("refuse")).on(slow.named("slow")).start().await.unwrap();
    let waiting = ask_in_task::<PriceQuoted>(&bus, "pear", WAIT);
    while bus.inspect().dead_letters("refuse").unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    gate.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap(), quoted(7));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_retry_may_still_reply_and_what_a_failed_attempt_replied_is_dropped() {
    let (clock, app) = manual();
    let flaky = |_: PriceAsked, context: Context| async move {
        context.reply(quoted(u64::from(context.attempt())))?;
        if context.attempt() < 3 { Err(HandlerError::transient("not yet")) } else { Ok(()) }
    };
    let app = app.on(flaky.named("flaky").retry(policy::fixed(Duration::from_secs(1))));
    let bus = app.start().await.unwrap();
    let waiting = ask_in_task::<PriceQuoted>(&bus, "pear", Duration::from_secs(60));
    for attempt in 1..3 {
        while bus.inspect().subscriptions()[0].stats.retried < attempt {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(waiting.await.unwrap().unwrap(), quoted(3));
    assert_eq!(bus.inspect().browse(REPLY_TOPIC, 0, usize::MAX).unwrap().len(), 1);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_two_replies_the_first_counts() {
    let twice = |asked: PriceAsked, context: Context| async move {
        context.reply(quoted(asked.article.len() as u64))?;
        context.reply(quoted(0))
    };
    let bus = in_memory().on(twice.named("twice")).start().await.unwrap();
    for letters in 1..20 {
        let reply: PriceQuoted = bus.request(ask(&"x".repeat(letters)), WAIT).await.unwrap();
        assert_eq!(reply, quoted(letters as u64));
    }
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn replying_to_a_plain_event_is_an_error_that_says_so() {
    let bus = in_memory().on(quote.retry(policy::never())).start().await.unwrap();
    let receipt = bus.publish(ask("pear")).await.unwrap();
    let outcome = receipt.outcome_of("quote", WAIT).await.unwrap();
    let EventOutcome::DeadLettered { error } = outcome else { panic!("{outcome:?}") };
    for part in ["`quote`", "`price.asked`", "no request", "bus.request", "context.emit"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reply_of_another_type_and_a_request_published_before_are_errors() {
    let bus = in_memory().on(quote).start().await.unwrap();
    let error = bus.request::<StockCounted>(ask("pear"), WAIT).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RequestError::Decode(_)), "{text}");
    assert!(text.contains("`price.quoted`") && text.contains("stock.counted"), "{text}");
    let named = || Envelope::builder_of(&ask("fig")).unwrap().id("r-1").source("/shop").build().unwrap();
    assert_eq!(bus.request::<PriceQuoted>(named(), WAIT).await.unwrap(), quoted(300));
    let error = bus.request::<PriceQuoted>(named(), WAIT).await.unwrap_err();
    assert!(matches!(&error, RequestError::Duplicate { id } if id == "r-1"), "{error}");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn too_many_requests_are_refused_and_one_that_gives_up_makes_room() {
    let (_, app) = manual();
    let bus = app.start().await.unwrap();
    let mut waiting: Vec<_> =
        (0..oncue::MAX_PENDING_REQUESTS).map(|_| Box::pin(bus.request::<PriceQuoted>(ask("pear"), WAIT))).collect();
    for request in &mut waiting {
        assert!(poll_immediate(request).await.is_none());
    }
    let error = bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap_err();
    assert!(matches!(error, RequestError::TooMany { limit } if limit == oncue::MAX_PENDING_REQUESTS));
    assert!(error.to_string().contains("MAX_PENDING_REQUESTS"), "{error}");
    waiting.pop();
    assert!(poll_immediate(Box::pin(bus.request::<PriceQuoted>(ask("pear"), WAIT))).await.is_none());
    drop(waiting);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_the_waiting() {
    let (_, app) = manual();
    let bus = app.start().await.unwrap();
    let waiting = ask_in_task::<PriceQuoted>(&bus, "pear", WAIT);
    asked(&bus, 1).await;
    bus.shutdown().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(RequestError::Closed)));
    let error = bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap_err();
    assert!(matches!(error, RequestError::Closed), "{error}");
}

/// Segments of 16 KiB: what is not wanted goes at once.
fn small_log(url: &str) -> (Arc<LogTransport>, App) {
    let options = Options { segment_bytes: 16 << 10, checkpoint_bytes: 8 << 10, ..Options::default() };
    let url: LogUrl = url.parse().unwrap();
    let transport = LogTransport::on_storage(url, Box::new(MemoryStorage::new()), options, Clock::system());
    let transport = Arc::new(transport.unwrap());
    (Arc::clone(&transport), App::with_transport(transport, Clock::system()))
}

#[tokio::test]
async fn replies_do_not_pile_up_and_none_is_lost_while_they_go() {
    let (log, app) = small_log("memory:?retention=settled");
    let bus = app.on(quote).start().await.unwrap();
    for _ in 0..100 {
        let asked = (0..20).map(|_| bus.request::<PriceQuoted>(ask("pear"), WAIT));
        for reply in join_all(asked).await {
            assert_eq!(reply.unwrap(), quoted(400));
        }
    }
    // What goes by itself goes a little later on a machine that does other things too.
    bus.retain().await.unwrap();
    let kept = log.log().stats().segments;
    assert!(kept < 12, "2,000 requests and replies went through, and {kept} segments of 16 KiB are left");
    assert!(log.log().stats().bytes > 40 * (16 << 10), "else this shows nothing");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn replies_are_kept_for_who_has_yet_to_read_them_and_go_then() {
    let (log, app) = small_log("memory:?retention=settled");
    let bus = app.on(quote).start().await.unwrap();
    let mut slow = log.tail(REPLY_TOPIC).await.unwrap();
    let ask_much = || async {
        for _ in 0..500 {
            bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap();
        }
        log.log().stats().segments
    };
    let kept = ask_much().await;
    let (mut seen, mut read) = (Vec::new(), Vec::new());
    while let Some(next) = poll_immediate(slow.next(100, &mut read)).await {
        next.unwrap();
        seen.extend(read.drain(..).map(|(position, _)| position.offset()));
    }
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    drop(slow);
    assert!(ask_much().await < kept, "what was kept for it is gone");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn replies_stay_where_everything_stays() {
    let (log, app) = small_log("memory:?retention=forever");
    let bus = app.on(quote).start().await.unwrap();
    for _ in 0..200 {
        bus.request::<PriceQuoted>(ask("pear"), WAIT).await.unwrap();
    }
    assert_eq!(log.inspect().browse(REPLY_TOPIC, 0, usize::MAX).unwrap().len(), 200);
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_watches_and_falls_behind_goes_on_with_what_is_left() {
    let (log, app) = small_log("memory:?retention=settled");
    let bus = app.on((|_: PriceAsked| async {}).named("sink")).start().await.unwrap();
    let mut tail = log.tail("events").await.unwrap();
    for number in 0..2_000 {
        bus.publish(ask(&number.to_string())).await.unwrap();
    }
    bus.idle().await.unwrap();
    bus.retain().await.unwrap();
    let first = log.inspect().browse("events", 1_000, 1);
    assert!(first.unwrap().iter().all(|(position, _)| position.offset() > 1_000), "else nothing went");
    // All of them may have gone: one more comes in any case.
    bus.publish(ask("last")).await.unwrap();
    let (mut seen, mut read) = (Vec::new(), Vec::new());
    while seen.last() != Some(&2_000) {
        tail.next(100, &mut read).await.unwrap();
        seen.extend(read.drain(..).map(|(position, _)| position.offset()));
    }
    // While it reads, more may go.
    assert!(seen[0] > 1_000 && seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    bus.shutdown().await.unwrap();
}
