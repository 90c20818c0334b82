use super::*;
use crate::{
    clock::Timestamp,
    middleware::tests::{Calls, Polled, at_zero, transient},
};

const OPEN_FOR: Duration = Duration::from_secs(30);

fn breaker() -> CircuitBreaker {
    circuit_breaker("bank").window(4).minimum(2).open_for(OPEN_FOR)
}

fn fail(calls: &Calls, breaker: &CircuitBreaker, times: usize) {
    for _ in 0..times {
        assert_eq!(calls.ready(breaker, transient()).poll(), Some(transient()), "a breaker changes no outcome");
    }
}

fn all_wait(calls: &mut [Polled]) -> bool {
    calls.iter_mut().all(|call| call.poll().is_none())
}

#[test]
fn while_it_is_open_calls_wait_then_one_tries_and_all_go_on_when_it_works() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker());
    let handle = breaker.handle();
    fail(&calls, &breaker, 2);
    assert_eq!(handle.state(), BreakerState::Open { until: Timestamp::from_micros(30_000_000) });
    let mut waiting: Vec<Polled> = (0..3).map(|number| calls.pending(&breaker.clone(), number)).collect();
    assert!(all_wait(&mut waiting));
    manual.advance(OPEN_FOR - Duration::from_micros(1));
    assert!(all_wait(&mut waiting));
    assert_eq!(calls.running(), [0; 0]);
    manual.advance(Duration::from_micros(1));
    assert!(all_wait(&mut waiting));
    assert_eq!((calls.running(), handle.state()), (vec![0], BreakerState::HalfOpen));
    calls.finish(0);
    assert_eq!(waiting.remove(0).poll(), Some(Outcome::Ack));
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(all_wait(&mut waiting));
    assert_eq!(calls.running(), [1, 2]);
}

#[test]
fn a_call_that_tries_and_fails_opens_it_anew_and_one_that_is_dropped_lets_another_try() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker());
    fail(&calls, &breaker, 2);
    let mut waiting: Vec<Polled> = (0..3).map(|number| calls.pending(&breaker, number)).collect();
    assert!(all_wait(&mut waiting));
    manual.advance(OPEN_FOR);
    assert!(all_wait(&mut waiting));
    assert_eq!(calls.running(), [0]);
    drop(waiting.remove(0));
    assert!(all_wait(&mut waiting));
    assert_eq!((calls.running(), breaker.state()), (vec![1], BreakerState::HalfOpen));
    calls.end(1, transient());
    assert_eq!(waiting.remove(0).poll(), Some(transient()));
    assert_eq!(breaker.state(), BreakerState::Open { until: Timestamp::from_micros(60_000_000) });
    assert!(all_wait(&mut waiting));
    assert_eq!(calls.running(), [0; 0]);
    manual.advance(OPEN_FOR);
    assert!(all_wait(&mut waiting));
    assert_eq!(calls.running(), [2]);
}

#[tokio::test]
async fn calls_that_wait_for_one_that_tries_are_woken_by_what_becomes_of_it() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker());
    fail(&calls, &breaker, 2);
    manual.advance(OPEN_FOR);
    let tries = calls.pending(&breaker, 0).spawn();
    let waits = calls.ready(&breaker, Outcome::Ack).spawn();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(calls.running() == [0] && !waits.is_finished());
    calls.finish(0);
    assert_eq!(tries.await.unwrap(), Outcome::Ack);
    let woken = tokio::time::timeout(Duration::from_secs(20), waits).await;
    assert_eq!(woken.expect("it is woken").unwrap(), Outcome::Ack);
}

#[test]
fn a_call_that_puts_its_event_off_while_it_tries_lets_another_try() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker());
    fail(&calls, &breaker, 2);
    manual.advance(OPEN_FOR);
    let defer = Outcome::Defer(OPEN_FOR);
    assert_eq!(calls.ready(&breaker, defer.clone()).poll(), Some(defer));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(calls.ready(&breaker, Outcome::Ack).poll(), Some(Outcome::Ack));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn one_that_defers_gives_back_what_is_left_and_waits_only_for_those_that_try() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker().defer());
    fail(&calls, &breaker, 2);
    manual.advance(Duration::from_secs(10));
    let left = Outcome::Defer(Duration::from_secs(20));
    assert_eq!(calls.ready(&breaker, Outcome::Ack).poll(), Some(left));
    manual.advance(Duration::from_secs(20));
    let (mut tries, mut waits) = (calls.pending(&breaker, 0), calls.ready(&breaker, Outcome::Ack));
    assert_eq!((tries.poll(), waits.poll()), (None, None));
    calls.end(0, transient());
    assert_eq!(tries.poll(), Some(transient()));
    assert_eq!(waits.poll(), Some(Outcome::Defer(OPEN_FOR)));
}

#[test]
fn what_is_the_events_own_fault_opens_nothing_and_what_counts_can_be_said() {
    let calls = Calls::default();
    let error = String::new;
    let fails = |class| Outcome::Fail { class, error: error() };
    let opens = |breaker: &CircuitBreaker, outcome: Outcome| {
        let breaker = breaker.clone().with(|_| {});
        for _ in 0..4 {
            let _ = calls.ready(&breaker, outcome.clone()).poll();
        }
        breaker.state() != BreakerState::Closed
    };
    for class in ErrorClass::ALL {
        assert_eq!(opens(&breaker(), fails(class)), class.is_retryable(), "{class}");
        assert!(!opens(&breaker(), Outcome::Reject { class, error: error() }), "{class}");
        assert_eq!(opens(&breaker().counts([ErrorClass::Malformed]), fails(class)), class == ErrorClass::Malformed);
    }
    assert!(!opens(&breaker(), Outcome::Defer(OPEN_FOR)));
}

#[test]
fn who_watches_is_told_each_change_in_its_order() {
    let manual = at_zero();
    let (calls, breaker) = (Calls::by(&manual), breaker());
    let mut watch = breaker.watch();
    let mut told = || watch.has_changed().unwrap().then(|| *watch.borrow_and_update());
    assert_eq!(told(), None);
    fail(&calls, &breaker, 2);
    assert_eq!(told(), Some(BreakerState::Open { until: Timestamp::from_micros(30_000_000) }));
    manual.advance(OPEN_FOR);
    let mut tries = calls.pending(&breaker, 0);
    assert_eq!((tries.poll(), told()), (None, Some(BreakerState::HalfOpen)));
    calls.finish(0);
    assert_eq!((tries.poll(), told()), (Some(Outcome::Ack), Some(BreakerState::Closed)));
    assert_eq!(told(), None);
}

#[test]
fn clones_are_one_breaker_and_a_setter_makes_another() {
    let breaker = breaker();
    assert!(breaker.breakers()[0].is_same(&breaker.clone().handle()));
    assert!(!breaker.handle().is_same(&breaker.clone().probes(2).handle()));
    assert_eq!(breaker.probes(2).handle().name(), "bank");
}

#[test]
fn settings_that_cannot_work_are_problems_that_name_the_breaker() {
    let wrong = [
        breaker().window(0),
        breaker().window(MAX_WINDOW + 1),
        breaker().minimum(0),
        breaker().minimum(5),
        breaker().failure_share(0.0),
        breaker().failure_share(f64::NAN),
        breaker().failure_share(1.1),
        breaker().open_for(Duration::ZERO),
        breaker().probes(0),
        breaker().counts([]),
    ];
    for wrong in wrong {
        let problems = wrong.problems();
        assert!(!problems.is_empty() && problems[0].contains("`bank`"), "{wrong:?}: {problems:?}");
    }
    assert_eq!(breaker().problems(), [""; 0]);
    assert_eq!(circuit_breaker("any").problems(), [""; 0]);
}
