//! A breaker around a handler whose other side is down, and then is not.

use std::sync::atomic::AtomicBool;

use oncue::{handler::BreakerState, middleware::CircuitBreaker};

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(30);

/// The other side: counts its calls, and whether it works.
#[derive(Clone, Default)]
struct Bank(Arc<(AtomicU32, AtomicBool)>);

impl Bank {
    fn calls(&self) -> u32 {
        self.0.0.load(Ordering::SeqCst)
    }

    fn works(&self) {
        self.0.1.store(true, Ordering::SeqCst);
    }
}

#[handler(concurrency = 4, retry = policy::fixed(Duration::ZERO).max_attempts(2))]
async fn charge(step: Delivery<Step>, State(bank): State<Bank>, State(seen): State<Seen>) -> Result<(), HandlerError> {
    bank.0.0.fetch_add(1, Ordering::SeqCst);
    if !bank.0.1.load(Ordering::SeqCst) {
        return Err(HandlerError::transient("the bank is down"));
    }
    seen.0.lock().push((step.key.clone(), step.number, step.attempt, 0));
    Ok(())
}

fn breaker() -> CircuitBreaker {
    middleware::circuit_breaker("bank").window(3).minimum(3).failure_share(1.0).open_for(OPEN_FOR)
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An app whose breaker is open, after three calls, with four that wait in it.
async fn opened(breaker: &CircuitBreaker, manual: &ManualClock, seen: &Seen) -> (Bus, Bank, Arc<AtomicU32>) {
    let (bank, came) = (Bank::default(), Arc::default());
    let app = on(&LogUrl::memory(), manual, seen).state(bank.clone());
    let bus = app.on(charge.layer(count(&came)).layer(breaker.clone())).start().await.unwrap();
    for key in KEYS {
        publish(&bus, key, 0..20).await;
    }
    let _ = breaker.watch().wait_for(|state| *state != BreakerState::Closed).await;
    (bus, bank, came)
}

#[tokio::test]
async fn while_it_is_open_no_call_gets_through_and_afterwards_all_are_handled_in_order() {
    let (manual, seen, breaker) = (manual(), Seen::default(), breaker());
    let (bus, bank, came) = opened(&breaker, &manual, &seen).await;
    reached(&came, 3 + 4).await;
    assert_eq!(bank.calls(), 3, "the others wait: as many as the handler may have at once");
    let opened = breaker.watch();
    manual.advance(OPEN_FOR);
    let mut reopened = opened.clone();
    let again = |state: &BreakerState| matches!(state, BreakerState::Open { until } if *until == manual.clock().now().after(OPEN_FOR));
    reopened.wait_for(again).await.unwrap();
    reached(&came, 3 + 4 + 1).await;
    assert_eq!(bank.calls(), 4, "one tried");
    bank.works();
    manual.advance(OPEN_FOR);
    bus.idle().await.unwrap();
    assert_eq!(breaker.state(), BreakerState::Closed);
    let mut second_attempts = 0;
    for key in KEYS {
        let handled = seen.of(key);
        assert!(handled.iter().map(|(number, _)| *number).eq(0..20), "{key}: {handled:?}");
        second_attempts += handled.iter().filter(|(_, attempt)| *attempt == 2).count();
    }
    let stats = stats(&bus, "charge");
    assert_eq!((stats.acked, stats.retried, stats.deferred, stats.dead), (100, 4, 0, 0));
    assert_eq!((bank.calls(), second_attempts), (104, 4), "only calls that reached the bank were attempts");
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn waiting_in_a_layer_is_waiting_and_not_handling() {
    let (manual, seen, breaker) = (manual(), Seen::default(), breaker());
    let (bus, bank, came) = opened(&breaker, &manual, &seen).await;
    reached(&came, 3 + 4).await;
    bank.works();
    manual.advance(OPEN_FOR);
    bus.idle().await.unwrap();
    let stats = stats(&bus, "charge");
    assert_eq!((stats.system_us, stats.handling_us), (100 * OPEN_FOR.as_micros(), 0));
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_that_defers_gives_the_events_back_and_leaves_their_places_free() {
    let (manual, seen, breaker) = (manual(), Seen::default(), breaker().defer());
    let (bus, bank, _) = opened(&breaker, &manual, &seen).await;
    until(|| stats(&bus, "charge").deferred == 5).await;
    assert_eq!(bank.calls(), 3);
    bank.works();
    manual.advance(OPEN_FOR);
    bus.idle().await.unwrap();
    let stats = stats(&bus, "charge");
    assert_eq!((stats.acked, stats.retried, stats.deferred, stats.dead), (100, 3, 5, 0));
    for key in KEYS {
        assert!(seen.of(key).iter().map(|(number, _)| *number).eq(0..20));
    }
    bus.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_app_lists_each_breaker_once() {
    let (bank, mail) = (breaker(), middleware::circuit_breaker("mail"));
    let app = on(&LogUrl::memory(), &manual(), &Seen::default());
    let app = app.on(record.layer(bank.clone())).on(record.named("second").layer(mail).layer(bank.clone()));
    let bus = app.start().await.unwrap();
    let breakers = bus.breakers();
    assert_eq!(breakers.iter().map(|breaker| breaker.name()).collect::<Vec<_>>(), ["bank", "mail"]);
    assert!(breakers[0].is_same(&bank.handle()));
    bus.shutdown().await.unwrap();
}
