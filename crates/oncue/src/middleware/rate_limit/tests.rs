use proptest::prelude::*;

use super::*;
use crate::middleware::tests::{Calls, Polled, at_zero};

const SECOND: Duration = Duration::from_secs(1);

/// Polls a call until time lets it pass: when that was, since the clock began.
fn passes(call: &mut Polled, manual: &crate::ManualClock) -> Duration {
    while call.poll().is_none() {
        manual.advance(manual.until_next().expect("it waits for a time"));
    }
    manual.clock().monotonic()
}

#[test]
fn calls_are_spaced_evenly_after_a_burst() {
    let manual = at_zero();
    let (calls, limit) = (Calls::by(&manual), rate_limit(4, SECOND).burst(2));
    let times: Vec<u128> =
        (0..5).map(|_| passes(&mut calls.ready(&limit.clone(), Outcome::Ack), &manual).as_millis()).collect();
    assert_eq!(times, [0, 0, 250, 500, 750]);
    manual.advance(SECOND * 100);
    let after_a_rest: Vec<u128> =
        (0..3).map(|_| passes(&mut calls.ready(&limit, Outcome::Ack), &manual).as_millis() - 100_750).collect();
    assert_eq!(after_a_rest, [0, 0, 250], "a rest saves up no more than the burst");
}

#[test]
fn who_waits_is_served_in_order_and_who_goes_has_taken_nothing() {
    let manual = at_zero();
    let (calls, limit) = (Calls::by(&manual), rate_limit(1, SECOND));
    let mut polled: Vec<Polled> = (0..5).map(|name| calls.pending(&limit, name)).collect();
    assert!(polled.iter_mut().all(|call| call.poll().is_none()));
    assert_eq!(calls.running(), [0]);
    drop(polled.remove(3));
    drop(polled.remove(1));
    // What is left: 0 runs, 2 and 4 wait. Those that went would have passed at 1 s and at 3 s.
    manual.advance(SECOND);
    assert_eq!(polled[2].poll(), None);
    assert_eq!(calls.running(), [0], "4 looks first, and waits for its turn all the same");
    assert!(polled.iter_mut().all(|call| call.poll().is_none()));
    assert_eq!(calls.running(), [0, 2]);
    manual.advance(SECOND);
    assert!(polled.iter_mut().all(|call| call.poll().is_none()));
    assert_eq!(calls.running(), [0, 2, 4]);
}

#[test]
fn each_key_has_its_own_limit_and_events_without_one_share_theirs() {
    let manual = at_zero();
    let (calls, limit) = (Calls::by(&manual), rate_limit(1, SECOND).by_key());
    for key in ["a", "b", "c"] {
        assert_eq!(calls.of_key(&limit, key).poll(), Some(Outcome::Ack), "{key}");
        assert_eq!(calls.of_key(&limit, key).poll(), None, "{key}");
    }
    assert_eq!(calls.ready(&limit, Outcome::Ack).poll(), Some(Outcome::Ack));
    assert_eq!(calls.ready(&limit, Outcome::Ack).poll(), None);
    let together = rate_limit(1, SECOND);
    assert_eq!(calls.of_key(&together, "a").poll(), Some(Outcome::Ack));
    assert_eq!(calls.of_key(&together, "b").poll(), None, "not by key");
}

#[test]
fn the_number_of_keys_is_bounded_and_a_key_at_rest_is_forgotten() {
    let mut buckets = Buckets::new(Rate { calls: 1, per: SECOND, burst: 1 }, 2);
    let at = Duration::from_millis;
    for key in 0..2 {
        let _turn = buckets.turn(key, at(key * 100)).unwrap();
        buckets.take(key, at(key * 100)).unwrap();
    }
    assert_eq!(buckets.turn(7, at(400)).unwrap_err(), at(600), "until key 0 is at rest");
    assert_eq!(buckets.turn(1, at(400)).map(drop), Ok(()), "a key that counts already goes on");
    let waits = buckets.turn(0, at(1000)).unwrap();
    assert_eq!(buckets.turn(7, at(1000)).unwrap_err(), at(100), "key 0 is waited for, so it stays");
    drop(waits);
    assert!(buckets.turn(7, at(1000)).is_ok());
    assert_eq!(buckets.take(1, at(1000)), Err(at(100)), "key 1 is not forgotten");
    assert!(buckets.turn(8, at(9000)).is_ok());
    assert_eq!(buckets.len(), 1, "all at rest");
}

#[test]
fn a_new_key_waits_until_one_is_at_rest() {
    let manual = at_zero();
    let calls = Calls::by(&manual);
    let mut limit = rate_limit(1, SECOND).by_key();
    limit.buckets = Arc::new(Mutex::new(Buckets::new(limit.rate, 2)));
    for key in ["a", "b"] {
        assert_eq!(calls.of_key(&limit, key).poll(), Some(Outcome::Ack));
    }
    assert_eq!(passes(&mut calls.of_key(&limit, "c"), &manual), SECOND);
    assert_eq!(limit.buckets.lock().len(), 1);
}

#[test]
fn fast_rates_have_a_burst_of_ten_milliseconds_and_slow_ones_none() {
    let burst = |calls, per| rate_limit(calls, per).rate.burst;
    assert_eq!([burst(1, SECOND), burst(199, SECOND), burst(200, SECOND), burst(5_000, SECOND)], [1, 1, 2, 50]);
    assert_eq!([burst(3, Duration::from_millis(1)), burst(3, Duration::ZERO), burst(0, SECOND)], [3, 3, 1]);
}

#[test]
fn what_cannot_be_divided_is_rounded_to_the_slower_side() {
    assert_eq!(buckets::interval(3, SECOND), Duration::from_nanos(333_333_334));
    assert_eq!(buckets::interval(4, SECOND), Duration::from_millis(250));
    assert_eq!(buckets::interval(u32::MAX, SECOND), Duration::from_nanos(1));
}

#[test]
fn rates_that_let_nothing_pass_are_problems() {
    for wrong in [rate_limit(0, SECOND), rate_limit(1, Duration::ZERO), rate_limit(1, SECOND).burst(0)] {
        assert_eq!(wrong.problems().len(), 1, "{wrong:?}");
    }
    assert!(rate_limit(u32::MAX, Duration::MAX).burst(u32::MAX).by_key().problems().is_empty());
    // The longest times there are do no harm.
    let (calls, never) = (Calls::default(), rate_limit(0, Duration::MAX).burst(u32::MAX));
    assert_eq!(calls.ready(&never, Outcome::Ack).poll(), Some(Outcome::Ack));
}

/// What happens to a limit: time passes, a call comes, a call that waits goes.
#[derive(Clone, Debug)]
enum Happens {
    Time(u64),
    Comes,
    Goes(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0_u64..400_000).prop_map(Happens::Time),
        5 => Just(Happens::Comes),
        1 => (0_usize..8).prop_map(Happens::Goes),
    ]
}

proptest! {
    #[test]
    fn in_any_window_no_more_calls_pass_than_promised_and_no_time_is_given_away(
        (calls, per, burst) in (1_u32..20, 1_u64..2_000_000, 1_u32..8),
        story in proptest::collection::vec(happens(), 1..150),
    ) {
        let manual = at_zero();
        let (inside, per) = (Calls::by(&manual), Duration::from_micros(per));
        let limit = rate_limit(calls, per).burst(burst);
        let (mut waiting, mut passed): (Vec<Polled>, Vec<Duration>) = (Vec::new(), Vec::new());
        for event in story {
            match event {
                Happens::Time(micros) => manual.advance(Duration::from_micros(micros)),
                Happens::Comes => waiting.push(inside.ready(&limit, Outcome::Ack)),
                Happens::Goes(which) if which < waiting.len() => drop(waiting.remove(which)),
                Happens::Goes(_) => {}
            }
            let before = waiting.len();
            waiting.retain_mut(|call| call.poll().is_none());
            passed.extend(std::iter::repeat_n(manual.clock().monotonic(), before - waiting.len()));
        }
        let promised = (calls + burst - 1) as usize;
        for (first, start) in passed.iter().enumerate() {
            let in_window = passed[first..].iter().take_while(|time| **time < *start + per).count();
            prop_assert!(in_window <= promised, "{in_window} from {start:?}, {promised} are promised");
        }
        // Who waits now waits no longer than one interval for each before it.
        let interval = buckets::interval(calls, per);
        for (place, call) in waiting.iter_mut().enumerate() {
            let begun = manual.clock().monotonic();
            let took = passes(call, &manual) - begun;
            prop_assert!(took <= interval, "number {place} took {took:?}");
        }
    }
}
