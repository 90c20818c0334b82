//! The test kit: what it sees, what it makes fail, and how time goes.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use oncue::{
    Clock, EventOutcome,
    handler::{HandlerError, Outcome, extract::Keyed},
    policy::{self, ErrorClass},
    prelude::*,
    testing::{DEFAULT_LIMIT, Result, TIME_OF_START, TestApp, TestError},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.paid", key = order_id)]
struct OrderPaid {
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.shipped", key = order_id, topic = "shipping")]
struct OrderShipped {
    order_id: String,
}

fn created(order_id: &str) -> OrderCreated {
    OrderCreated { order_id: order_id.into() }
}

#[handler(retry = policy::fixed(MINUTE).max_attempts(4))]
async fn charge(order: OrderCreated) -> OrderPaid {
    OrderPaid { order_id: order.order_id }
}

/// A plain function: it runs on the blocking pool.
#[handler]
fn ship(order: OrderPaid) -> OrderShipped {
    OrderShipped { order_id: order.order_id }
}

#[handler]
async fn count(_order: OrderShipped, mut shipped: Keyed<u32>) {
    *shipped += 1;
}

fn shop(app: App) -> App {
    app.on(charge).on(ship).on(count)
}

/// What an assertion says when it fails.
fn message(assertion: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(assertion)).expect_err("it is to fail");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

fn minutes_of(attempts: &[oncue::testing::Attempt]) -> Vec<u64> {
    attempts.iter().map(|attempt| attempt.started.since(TIME_OF_START).as_secs() / 60).collect()
}

#[tokio::test(start_paused = true)]
async fn the_whole_app_runs_until_nothing_is_left_to_do() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 2, HandlerError::transient("the bank is busy"));
    for order_id in ["o-1", "o-2"] {
        test.publish(created(order_id)).await?;
    }
    assert!(test.attempts("charge").is_empty(), "nothing runs before the test waits");
    test.run_until_idle().await?;
    test.assert_idle();
    test.assert_published(&[created("o-1"), created("o-2")]);
    assert_eq!(test.published::<OrderShipped>().len(), 2, "also of another topic");
    test.assert_attempts("charge", 6);
    test.assert_acked("ship", 2);
    assert_eq!((test.keyed::<u32>("count", "o-1"), test.keyed::<u32>("count", "o-3")), (Some(1), None));
    assert_eq!(test.now().since(TIME_OF_START), 2 * MINUTE, "two retries, and no moment more");
    let settled = test.settled("ship");
    assert!(settled.iter().all(|settled| settled.outcome == EventOutcome::Acked && settled.event.hops() == 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn attempts_tell_what_was_made_to_fail_and_when() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 2, HandlerError::transient("later"));
    test.fail_with("charge", |call| (call.envelope().key() == Some("o-2")).then(|| HandlerError::reject("stolen")));
    test.publish(created("o-1")).await?;
    test.publish(created("o-2")).await?;
    test.run_until_idle().await?;
    let (first, second): (Vec<_>, Vec<_>) =
        test.attempts("charge").into_iter().partition(|attempt| attempt.event.key() == Some("o-1"));
    assert_eq!(minutes_of(&first), [0, 1, 2]);
    assert_eq!(
        first.iter().map(|attempt| (attempt.number, attempt.injected)).collect::<Vec<_>>(),
        [(1, true), (2, true), (3, false)]
    );
    let later = Outcome::Fail { class: ErrorClass::Transient, error: "later".into() };
    assert_eq!((&first[1].outcome, &first[2].outcome), (&Some(later), &Some(Outcome::Ack)));
    assert_eq!(second.len(), 1, "the latest is asked first, and a rejected event is not tried again");
    let dead = test.dead("charge");
    assert_eq!((dead[0].envelope.key(), &*dead[0].history[0].error), (Some("o-2"), "stolen"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handler_recovers_and_a_dead_letter_is_handled_again() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", u32::MAX, HandlerError::transient("the bank is down"));
    test.publish(created("o-1")).await?;
    test.run_until_idle().await?;
    test.assert_dead("charge", 1);
    test.assert_published::<OrderPaid>(&[]);
    test.recover("charge");
    test.bus().dead_letters("charge").redrive_all().await?;
    test.run_until_idle().await?;
    test.assert_dead("charge", 0);
    test.assert_acked("count", 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn time_goes_no_further_than_it_is_told_and_takes_all_with_it_that_is_due() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 3, HandlerError::transient("busy"));
    test.publish(created("o-1")).await?;
    test.advance(Duration::ZERO).await?;
    test.assert_attempts("charge", 1);
    test.advance(MINUTE - Duration::from_millis(1)).await?;
    test.assert_attempts("charge", 1);
    test.advance(Duration::from_millis(1)).await?;
    test.assert_attempts("charge", 2);
    test.advance(60 * MINUTE).await?;
    assert_eq!(minutes_of(&test.attempts("charge")), [0, 1, 2, 3]);
    assert_eq!(test.now().since(TIME_OF_START), 61 * MINUTE);
    test.assert_idle();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn delays_and_times_to_live_are_kept() -> Result {
    let test = TestApp::start(shop).await?;
    let order = |order_id: &str| Envelope::builder_of(&created(order_id)).unwrap();
    test.publish(order("late").delay(2 * MINUTE).build().unwrap()).await?;
    test.publish(order("gone").delay(3 * MINUTE).time_to_live(MINUTE).build().unwrap()).await?;
    test.publish(order("now").build().unwrap()).await?;
    test.run_until_idle().await?;
    assert_eq!(minutes_of(&test.attempts("charge")), [0, 2]);
    let outcomes: Vec<_> = test.settled("charge").into_iter().map(|settled| settled.outcome).collect();
    assert_eq!(outcomes, [EventOutcome::Acked, EventOutcome::Expired, EventOutcome::Acked]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whatever_a_handler_waits_for_takes_no_time() -> Result {
    #[handler(timeout = "5s", retry = policy::never())]
    async fn hang(_order: OrderCreated) {
        std::future::pending::<()>().await;
    }
    /// By the app's clock, by tokio's, on the blocking pool, in a task of its own.
    #[handler(timeout = "1h")]
    async fn wait(_order: OrderCreated, State(clock): State<Clock>) {
        clock.sleep(MINUTE).await;
        tokio::time::sleep(MINUTE).await;
        let task = tokio::spawn(async move { clock.sleep(MINUTE).await });
        tokio::task::spawn_blocking(std::thread::yield_now).await.expect("no panic");
        task.await.expect("no panic");
    }
    let test = TestApp::start(|app| app.on(hang).on(wait)).await?;
    test.publish(created("o-1")).await?;
    test.run_until_idle().await?;
    test.assert_acked("wait", 1);
    test.assert_dead("hang", 1);
    let (hang, wait) = (test.attempts("hang"), test.attempts("wait"));
    let took = |attempt: &oncue::testing::Attempt| attempt.ended.unwrap().since(attempt.started);
    assert_eq!((took(&hang[0]), took(&wait[0])), (Duration::from_secs(5), 3 * MINUTE));
    assert!(matches!(&hang[0].outcome, Some(Outcome::Fail { class: ErrorClass::Timeout, .. })));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn blocking_functions_are_waited_for_however_long_they_take() -> Result {
    type Gate = Arc<Mutex<Option<std::sync::mpsc::Receiver<()>>>>;
    #[handler(retry = policy::never())]
    fn block(_order: OrderCreated, State(gate): State<Gate>) {
        gate.lock().take().expect("one event").recv().expect("the other thread lets it go");
    }
    let (open, wait) = std::sync::mpsc::sync_channel(0);
    let gate: Gate = Arc::new(Mutex::new(Some(wait)));
    let test = TestApp::start(|app| app.state(gate).on(block)).await?;
    test.publish(created("o-1")).await?;
    let other = std::thread::spawn(move || {
        std::thread::yield_now();
        open.send(()).unwrap();
    });
    test.run_until_idle().await?;
    test.assert_acked("block", 1);
    assert_eq!(test.now(), TIME_OF_START);
    other.join().unwrap();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn batches_fail_event_by_event() -> Result {
    #[handler(batch = 10, batch_wait = "1s", retry = policy::fixed(MINUTE))]
    async fn store(orders: Batch<OrderCreated>) -> Vec<OrderPaid> {
        orders.iter().map(|order| OrderPaid { order_id: order.order_id.clone() }).collect()
    }
    let test = TestApp::start(|app| app.on(store)).await?;
    test.fail_with("store", |call| {
        (call.envelope().key() == Some("o-2") && call.attempt() == 1).then(|| HandlerError::transient("not this one"))
    });
    for order_id in ["o-1", "o-2", "o-3"] {
        test.publish(created(order_id)).await?;
    }
    test.run_until_idle().await?;
    let paid: Vec<String> = test.published::<OrderPaid>().into_iter().map(|paid| paid.order_id).collect();
    assert_eq!(paid, ["o-1", "o-3", "o-2"]);
    assert_eq!(test.attempts("store").iter().filter(|attempt| attempt.outcome == Some(Outcome::Ack)).count(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_attempt_that_failed() -> Result {
    #[handler(retry = policy::never())]
    async fn fragile(_order: OrderCreated) {
        tokio::task::yield_now().await;
        panic!("boom");
    }
    #[handler(retry = policy::never())]
    fn fragile_too(_order: OrderCreated) {
        panic!("boom");
    }
    let test = TestApp::start(|app| app.on(fragile).on(fragile_too)).await?;
    test.publish(created("o-1")).await?;
    test.run_until_idle().await?;
    for handler in ["fragile", "fragile_too"] {
        let attempts = test.attempts(handler);
        assert!(
            matches!(&attempts[..], [only] if matches!(only.outcome, Some(Outcome::Fail { class: ErrorClass::Panic, .. })))
        );
        assert!(test.dead(handler)[0].history[0].error.contains("boom"));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_endless_retry_names_its_handler_and_its_event() -> Result {
    for every in [Duration::ZERO, Duration::from_millis(50)] {
        let test = TestApp::start(|app| app.on(charge.retry(policy::fixed(every).max_attempts(u32::MAX)))).await?;
        test.fail("charge", u32::MAX, HandlerError::transient("the bank is down"));
        test.publish(created("o-1")).await?;
        let error = test.run_until_idle().await.unwrap_err();
        assert!(matches!(error, TestError::Endless { .. }));
        let text = format!("{error:?}");
        for part in ["`charge`", "order.created of `o-1`", "the bank is down"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(test.advance(MINUTE).await.is_err());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_named() -> Result {
    #[handler]
    async fn hang(_order: OrderCreated) {
        std::future::pending::<()>().await;
    }
    let test = TestApp::start(|app| app.on(hang)).await?;
    test.publish(created("o-1")).await?;
    let error = test.run_until_idle().await.unwrap_err().to_string();
    assert!(error.contains("not idle after 2592000s"), "{error}");
    assert!(error.contains("handler `hang` and order.created of `o-1`"), "{error}");
    assert!(error.contains("attempt 1 still runs"), "{error}");
    assert_eq!(test.now().since(TIME_OF_START), DEFAULT_LIMIT);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_has_its_limit() -> Result {
    let test = TestApp::start(shop).await?;
    let order = Envelope::builder_of(&created("o-1")).unwrap().delay(40 * 24 * 60 * MINUTE).build().unwrap();
    test.publish(order).await?;
    let error = test.run_until_idle().await.unwrap_err().to_string();
    assert!(error.contains("handler `charge`") && error.contains("not handled yet"), "{error}");
    test.run_until_idle_within(DEFAULT_LIMIT).await?;
    test.assert_acked("charge", 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_handlers_spawn_is_waited_for() -> Result {
    #[handler]
    async fn spawn(order: OrderCreated, State(bus): State<Arc<Mutex<Option<Bus>>>>) {
        let bus = bus.lock().clone().expect("the test sets it");
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            bus.publish(OrderPaid { order_id: order.order_id }).await.expect("published");
        });
    }
    let bus: Arc<Mutex<Option<Bus>>> = Arc::default();
    let test = TestApp::start(|app| app.state(Arc::clone(&bus)).on(spawn).on(ship)).await?;
    *bus.lock() = Some(test.bus().clone());
    test.publish(created("o-1")).await?;
    test.run_until_idle().await?;
    test.assert_acked("ship", 1);
    bus.lock().take();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn receipts_pauses_and_new_handlers_work_as_ever() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 3, HandlerError::transient("busy"));
    let receipt = test.publish(created("o-1")).await?;
    let outcome = receipt.outcome_of("charge", 10 * MINUTE).await.unwrap();
    assert_eq!((outcome, test.now().since(TIME_OF_START)), (EventOutcome::Acked, 3 * MINUTE));
    test.bus().pause("charge").await?;
    test.publish(created("o-2")).await?;
    test.run_until_idle().await?;
    test.assert_acked("charge", 1);
    test.bus().resume("charge").await?;
    test.bus().subscribe(charge.named("late")).await?;
    test.run_until_idle().await?;
    test.assert_acked("charge", 2);
    test.assert_acked("late", 2);
    test.bus().shutdown().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn failed_assertions_say_what_was_seen_and_blame_the_test() -> Result {
    let test = TestApp::start(shop).await?;
    test.fail("charge", 1, HandlerError::transient("the bank is busy"));
    test.publish(created("o-1")).await?;
    test.run_until_idle().await?;
    let text = message(|| test.assert_acked("charge", 2));
    let expected = "handler `charge`: 1 acked, expected 2\n\
                    seen until 60s:\n  \
                      2 events in topic `events`\n    \
                        order.created of `o-1` {\"order_id\":\"o-1\"} at 0s\n    \
                        order.paid of `o-1` {\"order_id\":\"o-1\"} at 60s, emitted\n  \
                      1 event in topic `shipping`\n    \
                        order.shipped of `o-1` {\"order_id\":\"o-1\"} at 60s, emitted\n  \
                      handler `charge`\n    \
                        order.created of `o-1` {\"order_id\":\"o-1\"}: acked\n      \
                          attempt 1 at 0s failed, transient: the bank is busy (the test said so)\n      \
                          attempt 2 at 60s acked\n";
    assert!(text.starts_with(expected), "{text}");
    for (part, text) in [
        ("0 dead letters, expected 1", message(|| test.assert_dead("charge", 1))),
        ("2 attempts, expected 9", message(|| test.assert_attempts("charge", 9))),
        ("order_id: \"o-7\"", message(|| test.assert_published(&[created("o-7")]))),
        (
            "there is no handler `chrage`: the app has `charge`, `ship`, `count`",
            message(|| test.assert_dead("chrage", 1)),
        ),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (place, here) = (Arc::new(Mutex::new(None)), std::thread::current().id());
    let told = Arc::clone(&place);
    let before = Arc::new(std::panic::take_hook());
    let others = Arc::clone(&before);
    std::panic::set_hook(Box::new(move |info| match std::thread::current().id() == here {
        true => *told.lock() = info.location().map(|place| place.file().to_owned()),
        false => others(info),
    }));
    let _ = message(|| test.assert_acked("charge", 2));
    std::panic::set_hook(Box::new(move |info| before(info)));
    assert_eq!(place.lock().as_deref(), Some(file!()));
    Ok(())
}

#[tokio::test]
async fn time_that_is_not_paused_is_an_error_that_says_how_to_pause_it() {
    let error = TestApp::start(shop).now_or_never().expect("at once").unwrap_err();
    assert!(error.to_string().contains("#[tokio::test(start_paused = true)]"), "{error}");
}
