//! The laws of the retry policies.

use proptest::prelude::*;

use super::*;

fn failure(attempt: u32, class: ErrorClass) -> Failure<'static> {
    Failure { attempt, class, error: "no", age: Duration::ZERO, failing_for: Duration::ZERO, random: 0.0 }
}

fn delay(policy: &dyn Policy, attempt: u32) -> Option<Duration> {
    match policy.decide(&failure(attempt, ErrorClass::Transient)) {
        Decision::Retry(delay) => Some(delay),
        Decision::DeadLetter => None,
    }
}

#[test]
fn exponential_doubles_up_to_its_cap_and_gives_up_at_its_last_attempt() {
    let policy = exponential().max_delay(Duration::from_millis(500)).max_attempts(6);
    let millis: Vec<_> = (1..=6).map(|attempt| delay(&policy, attempt).map(|delay| delay.as_millis())).collect();
    assert_eq!(millis, [Some(100), Some(200), Some(400), Some(500), Some(500), None]);
}

#[test]
fn a_list_is_followed_and_its_last_delay_repeats_if_more_attempts_are_asked_for() {
    let delays = [1, 5].map(Duration::from_secs);
    let seconds = |policy: &List| -> Vec<_> {
        (1..=4).map(|attempt| delay(policy, attempt).map(|delay| delay.as_secs())).collect()
    };
    assert_eq!(seconds(&list(delays)), [Some(1), Some(5), None, None]);
    assert_eq!(seconds(&list(delays).max_attempts(4)), [Some(1), Some(5), Some(5), None]);
    assert_eq!(seconds(&list([])), [None; 4]);
    assert_eq!(seconds(&list([]).max_attempts(9)), [None; 4]);
}

#[test]
fn never_never_retries() {
    assert_eq!(delay(&never(), 1), None);
}

#[test]
fn a_throttled_attempt_waits_twice_as_long() {
    let throttled = |policy: &dyn Policy, attempt| policy.decide(&failure(attempt, ErrorClass::Throttled));
    let policy = exponential();
    assert_eq!(throttled(&policy, 1), Decision::Retry(Duration::from_millis(200)));
    assert_eq!(throttled(&fixed(Duration::from_secs(3)), 2), Decision::Retry(Duration::from_secs(6)));
    let capped = exponential().max_attempts(u32::MAX);
    assert_eq!(throttled(&capped, 1_000), Decision::Retry(DEFAULT_MAX_DELAY), "the cap holds for it too");
}

#[test]
fn full_jitter_reaches_from_zero_to_the_whole_delay() {
    let policy = fixed(Duration::from_secs(10)).jitter(1.0);
    let at = |random| policy.decide(&Failure { random, ..failure(1, ErrorClass::Transient) });
    assert_eq!(at(0.0), Decision::Retry(Duration::from_secs(10)));
    assert_eq!(at(0.75), Decision::Retry(Duration::from_millis(2_500)));
    assert_eq!(at(f64::NAN), Decision::Retry(Duration::from_secs(10)));
    assert_eq!(at(f64::INFINITY), Decision::Retry(Duration::ZERO));
}

#[test]
fn no_attempt_is_planned_past_the_deadline() {
    let policy = fixed(Duration::from_secs(2)).deadline(Duration::from_secs(10));
    let at = |age| policy.decide(&Failure { age: Duration::from_secs(age), ..failure(1, ErrorClass::Transient) });
    assert_eq!(at(8), Decision::Retry(Duration::from_secs(2)));
    assert_eq!(at(9), Decision::DeadLetter);
}

#[test]
fn absurd_settings_neither_panic_nor_overflow() {
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, f64::MAX, f64::MIN_POSITIVE] {
        for initial in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for attempt in [0, 1, 2, u32::MAX - 1] {
                let policy = exponential().initial(initial).factor(factor).jitter(f64::NAN).max_attempts(u32::MAX);
                assert!(delay(&policy, attempt).is_some_and(|delay| delay <= DEFAULT_MAX_DELAY));
                let uncapped = policy.max_delay(Duration::MAX).jitter(-3.0).deadline(Duration::MAX);
                assert!(delay(&uncapped, attempt).is_some_and(|delay| delay >= initial));
            }
        }
    }
    assert_eq!(
        fixed(Duration::MAX).decide(&failure(1, ErrorClass::Throttled)),
        Decision::Retry(Duration::MAX),
        "doubling stops at the longest duration there is"
    );
}

fn any_class() -> impl Strategy<Value = ErrorClass> {
    proptest::sample::select(ErrorClass::ALL.to_vec())
}

proptest! {
    #[test]
    fn a_delay_is_within_the_cap_and_the_deadline_and_attempts_are_bounded(
        initial in 0_u64..1 << 60,
        factor in any::<f64>(),
        max_delay in 0_u64..1 << 60,
        max_attempts in any::<u32>(),
        deadline in proptest::option::of(0_u64..1 << 60),
        jitter in any::<f64>(),
        (attempt, class, age, random) in (any::<u32>(), any_class(), 0_u64..1 << 60, 0.0..1.0_f64),
    ) {
        let max_delay = Duration::from_micros(max_delay);
        let mut policy = exponential().initial(Duration::from_micros(initial)).factor(factor).max_delay(max_delay)
            .max_attempts(max_attempts).jitter(jitter);
        let deadline = deadline.map(Duration::from_micros);
        if let Some(deadline) = deadline { policy = policy.deadline(deadline); }
        let age = Duration::from_micros(age);
        if let Decision::Retry(delay) = policy.decide(&Failure { attempt, class, error: "", age, failing_for: age, random }) {
            prop_assert!(delay <= max_delay);
            prop_assert!(attempt < max_attempts);
            prop_assert!(class.is_retryable());
            prop_assert!(deadline.is_none_or(|deadline| age + delay <= deadline));
        }
    }

    #[test]
    fn without_jitter_delays_never_shrink(
        initial in 0_u64..1 << 50,
        factor in 1.0..8.0_f64,
        max_delay in 0_u64..1 << 50,
    ) {
        let policy = exponential().initial(Duration::from_micros(initial)).factor(factor).jitter(0.0)
            .max_delay(Duration::from_micros(max_delay)).max_attempts(u32::MAX);
        let delays: Vec<_> = (1..80).map(|attempt| delay(&policy, attempt)).collect();
        prop_assert!(delays.is_sorted() && delays.iter().all(Option::is_some));
    }

    #[test]
    fn jitter_takes_at_most_its_share(share in 0.0..=1.0_f64, random in 0.0..1.0_f64, delay in 0_u64..1 << 40) {
        let delay = Duration::from_micros(delay);
        let least = delay.mul_f64(1.0 - share).saturating_sub(Duration::from_micros(1));
        let policy = fixed(delay).jitter(share);
        let Decision::Retry(jittered) = policy.decide(&Failure { random, ..failure(1, ErrorClass::Panic) }) else {
            panic!("attempt 1 of 10 is followed by another");
        };
        prop_assert!((least..=delay).contains(&jittered));
    }
}

#[test]
fn a_delay_alone_is_as_that_of_a_decision() {
    let policy = exponential().initial(Duration::from_millis(50)).max_delay(Duration::from_secs(5));
    for attempt in 1..DEFAULT_MAX_ATTEMPTS {
        for random in [0.0, 0.5, 0.99] {
            let decision = policy.decide(&Failure { random, ..failure(attempt, ErrorClass::Transient) });
            assert_eq!(decision, Decision::Retry(policy.delay(attempt, random)));
        }
    }
    assert_eq!(policy.delay(u32::MAX, 0.0), Duration::from_secs(5));
}
