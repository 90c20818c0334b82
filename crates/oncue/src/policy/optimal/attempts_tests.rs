//! What is counted of attempts.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: u64 = 24 * 60 * 60;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000).after(SECOND * u32::try_from(seconds).unwrap())
}

fn tried(number: u32, seconds: u64) -> Tried {
    Tried { number, read: at(seconds), ended: at(seconds) }
}

#[test]
fn an_outage_is_told_from_the_trouble_of_an_event() {
    let mut attempts = Attempts::default();
    let first = attempts.failed(tried(1, 0), ErrorClass::Transient, None).unwrap();
    assert!(!first.down, "one failure is no outage");
    attempts.failed(tried(1, 1), ErrorClass::Transient, None);
    let third = attempts.failed(tried(1, 2), ErrorClass::Timeout, None).unwrap();
    assert!(third.down && attempts.down_since() == Some(at(0)));
    let probe = attempts.failed(tried(2, 30), ErrorClass::Transient, Some(&third)).unwrap();
    assert_eq!(attempts.troubles, <[Survival; 4]>::default(), "that it lasts is not the event's trouble");
    assert!(attempts.outages.cells().iter().any(|cell| cell.reached > 0.0));
    attempts.worked(tried(3, 60), Some(&probe));
    assert_eq!(attempts.down_since(), None);
    assert!(attempts.outages.cells().iter().map(|cell| cell.over).sum::<f64>() > 0.99);
    let again = attempts.failed(tried(2, 61), ErrorClass::Transient, Some(&probe)).unwrap();
    assert_eq!(again.since, at(61), "its own trouble begins after the outage");
}

#[test]
fn failures_among_calls_that_work_are_no_outage_in_whatever_order_they_are_told() {
    let mut attempts = Attempts::default();
    for second in (0..1_000).step_by(10) {
        (0..8).for_each(|part| attempts.worked(tried(1, second + part), None));
        // These two ended before some of those.
        for part in 3..5 {
            attempts.failed(tried(1, second + part), ErrorClass::Transient, None);
        }
    }
    assert_eq!((attempts.down_since(), attempts.outages.cells().len()), (None, 0));
    assert!((0.17..0.22).contains(&attempts.odds.failing_share()), "{}", attempts.odds.failing_share());
}

#[test]
fn what_is_old_counts_less_and_clocks_may_jump() {
    let mut attempts = Attempts::default();
    let trouble = attempts.failed(tried(1, 100), ErrorClass::Transient, None).unwrap();
    attempts.worked(tried(2, 101), Some(&trouble));
    let reached = |attempts: &Attempts| attempts.troubles[0].cells().iter().map(|cell| cell.over).sum::<f64>();
    assert!((reached(&attempts) - 1.0).abs() < 1e-9);
    let panicked = attempts.failed(tried(1, 101 + DAY), ErrorClass::Panic, None).unwrap();
    attempts.worked(tried(2, 101 + DAY), Some(&panicked));
    assert!((reached(&attempts) - 0.5).abs() < 1e-9, "a day later, half");
    let back = attempts.failed(tried(1, 50), ErrorClass::Panic, None).unwrap();
    attempts.worked(tried(2, 20), Some(&back));
    assert!((reached(&attempts) - 0.5).abs() < 1e-9, "a clock that steps back changes nothing");
}

#[test]
fn an_event_that_is_wrong_says_that_the_other_side_answers() {
    let mut attempts = Attempts::default();
    for second in 0..20 {
        assert_eq!(attempts.failed(tried(1, second), ErrorClass::Permanent, None), None);
    }
    assert_eq!((attempts.down_since(), attempts.odds.worked), (None, 20));
}

proptest! {
    #[test]
    fn counts_go_there_and_back_and_go_on_the_same(
        story in proptest::collection::vec((0_usize..7, 1_u32..5, 0_u64..100, any::<bool>()), 0..80),
        cut in 0_usize..80,
    ) {
        let (mut live, mut now, mut trouble) = (Attempts::default(), 0, None);
        let mut restored: Option<Attempts> = None;
        for (number, (class, attempt, seconds, known)) in story.into_iter().enumerate() {
            now += seconds;
            let before: Option<Trouble> = trouble.filter(|_| known);
            let play = |attempts: &mut Attempts| match ErrorClass::ALL.get(class) {
                Some(class) => attempts.failed(tried(attempt, now), *class, before.as_ref()),
                None => { attempts.worked(tried(attempt, now), before.as_ref()); None }
            };
            let after = play(&mut live);
            if let Some(restored) = &mut restored { prop_assert_eq!(play(restored), after); }
            trouble = after;
            let mut out = Writer::default();
            Trouble::encode(trouble.as_ref(), &mut out);
            live.encode(&mut out);
            let bytes = out.into_bytes();
            let mut from = Reader::new(&bytes);
            prop_assert_eq!(Trouble::decode(&mut from), Ok(trouble));
            let decoded = Attempts::decode(&mut from);
            prop_assert_eq!(decoded.as_ref(), Ok(&live));
            if number == cut { restored = decoded.ok(); }
        }
        if let Some(restored) = restored { prop_assert_eq!(restored, live); }
    }
}

#[test]
fn what_a_filter_holds_back_says_nothing_of_what_is_called() {
    let mut attempts = Attempts::default();
    attempts.failed(tried(1, 0), ErrorClass::Transient, None);
    let before = attempts.clone();
    assert_eq!(attempts.failed(tried(1, 5), ErrorClass::Filtered, None), None);
    assert_eq!(attempts, before);
    // What is the event's own fault does: the other side answered.
    attempts.failed(tried(1, 6), ErrorClass::Permanent, None);
    assert_ne!(attempts, before);
}
