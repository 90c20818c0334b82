use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    handler::LimitReason,
    middleware::tests::{Calls, Polled, at_zero, transient},
};

fn pending(calls: &Calls, limit: &AdaptiveLimit, numbers: std::ops::Range<u32>) -> Vec<Polled> {
    let mut polled: Vec<Polled> = numbers.map(|number| calls.pending(&limit.clone(), number)).collect();
    assert!(polled.iter_mut().all(|call| call.poll().is_none()));
    polled
}

#[test]
fn as_many_calls_run_as_the_limit_says_and_a_dropped_one_leaves_its_place() {
    let (limit, calls) = (adaptive_limit("bank").initial(2), Calls::default());
    let mut polled = pending(&calls, &limit, 0..4);
    assert_eq!(calls.running(), [0, 1]);
    drop(polled.remove(3));
    drop(polled.remove(0));
    assert!(polled.iter_mut().all(|call| call.poll().is_none()));
    assert_eq!(calls.running(), [1, 2]);
    drop(polled);
    assert_eq!((limit.0.learned.lock().running, limit.0.places.available_permits()), (0, 2));
}

/// Calls one after the other, each as long as that.
fn one_by_one(calls: &Calls, limit: &AdaptiveLimit, manual: &crate::clock::ManualClock, times: u32, long: Duration) {
    for number in 0..times {
        let mut call = calls.pending(limit, number);
        assert_eq!(call.poll(), None);
        manual.advance(long);
        calls.finish(number);
        assert_eq!(call.poll(), Some(Outcome::Ack));
    }
}

#[test]
fn a_limit_that_shrinks_lets_no_call_pass_until_few_enough_run_and_one_that_grows_wakes_who_waits() {
    let manual = at_zero();
    let (limit, calls) = (adaptive_limit("bank").initial(4).max(5), Calls::by(&manual));
    let watch = limit.watch();
    one_by_one(&calls, &limit, &manual, 58, Duration::from_millis(10));
    assert_eq!((limit.state().limit, limit.state().no_load), (4, Some(Duration::from_millis(10))));
    assert!(watch.has_changed().unwrap());
    // Four at once, each ten times as long: they wait for each other.
    let mut polled: BTreeMap<u32, Polled> = (0..).zip(pending(&calls, &limit, 0..8)).collect();
    let mut most = 4;
    for number in 8..400 {
        manual.advance(Duration::from_millis(25));
        let first = calls.running()[0];
        calls.finish(first);
        assert_eq!(polled.remove(&first).unwrap().poll(), Some(Outcome::Ack));
        polled.insert(number, calls.pending(&limit, number));
        assert!(polled.values_mut().all(|call| call.poll().is_none()));
        assert!(calls.running().len() <= most, "{:?}", calls.running());
        most = most.min(limit.state().limit.max(calls.running().len()));
    }
    let state = limit.state();
    assert!(state.limit < 4 && state.latency > state.no_load, "{state:?}");
    assert_eq!(calls.running().len(), state.limit, "{:?}", calls.running());
    // What is left is quick again, and there is room for it.
    for _ in 0..800 {
        manual.advance(Duration::from_millis(1));
        let first = calls.running()[0];
        calls.finish(first);
        assert_eq!(polled.remove(&first).unwrap().poll(), Some(Outcome::Ack));
        let number = polled.keys().last().unwrap() + 1;
        polled.insert(number, calls.pending(&limit, number));
        assert!(polled.values_mut().all(|call| call.poll().is_none()));
        assert_eq!(calls.running().len(), limit.state().limit.min(polled.len()));
    }
    assert_eq!(limit.state().limit, 5, "{:?}", limit.state());
}

#[test]
fn what_fails_otherwise_teaches_nothing_and_what_is_throttled_does() {
    let (limit, calls) = (adaptive_limit("bank").initial(10), Calls::default());
    for _ in 0..200 {
        assert!(calls.ready(&limit, transient()).poll().is_some());
        assert!(calls.ready(&limit, Outcome::Defer(Duration::ZERO)).poll().is_some());
    }
    assert_eq!(limit.state().reason, LimitReason::Initial);
    let throttled = Outcome::Fail { class: ErrorClass::Throttled, error: "slower".to_owned() };
    for _ in 0..50 {
        assert!(calls.ready(&limit, throttled.clone()).poll().is_some());
    }
    assert_eq!((limit.state().limit, limit.state().reason), (8, LimitReason::Overload));
    assert_eq!(limit.0.places.available_permits(), 8);
}

#[test]
fn settings_that_cannot_work_are_told_and_clones_are_the_same_limit() {
    let wrong = |limit: AdaptiveLimit| limit.problems().join("; ");
    assert!(wrong(adaptive_limit("bank").min(0)).contains("`bank`: a minimum of 0"));
    assert!(wrong(adaptive_limit("bank").min(5).max(4)).contains("a maximum of 4: give 5 to"));
    assert!(wrong(adaptive_limit("bank").initial(500)).contains("it begins with 500: give 1 to 200"));
    assert!(wrong(adaptive_limit("bank").tolerance(0.5)).contains("a tolerance of 0.5"));
    assert!(wrong(adaptive_limit("bank").tolerance(f64::NAN)).contains("give 1 or more"));
    let limit = adaptive_limit("bank");
    assert!(limit.problems().is_empty() && limit.limits()[0].is_same(&limit.clone().handle()));
    assert!(!limit.handle().is_same(&adaptive_limit("bank").handle()));
}
