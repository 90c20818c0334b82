//! States that are none.

use oncue_learn::{Bandit, Features, Learner, Loss, StateError};
use proptest::prelude::*;

fn state() -> Vec<u8> {
    let mut learner = Learner::new(Loss::Logistic);
    for number in 0..100_u32 {
        let mut features = Features::default();
        features.number("number", f64::from(number));
        features.category("parity", if number % 2 == 0 { "even" } else { "odd" });
        learner.learn(&features, f64::from(number % 2)).unwrap();
    }
    learner.encode()
}

#[test]
fn another_version_is_named() {
    let mut other = state();
    other[0] = 9;
    let refused = Learner::decode(&other).unwrap_err();
    assert_eq!(refused, StateError::Version { found: 9 });
    assert!(refused.to_string().contains("has version 9") && refused.to_string().contains("learn anew"), "{refused}");
    assert_eq!(Bandit::decode(&other), Err(StateError::Version { found: 9 }));
    assert_eq!(Learner::decode(&[]), Err(StateError::Malformed("it is empty")));
}

#[test]
fn what_is_cut_or_longer_is_refused() {
    let state = state();
    for end in 0..state.len() {
        assert!(Learner::decode(&state[..end]).is_err(), "{end} of {}", state.len());
    }
    let longer = [state.as_slice(), &[0]].concat();
    assert_eq!(Learner::decode(&longer), Err(StateError::Malformed("something follows its end")));
}

#[test]
fn numbers_that_are_none_are_refused() {
    let mut state = state();
    state[2..10].copy_from_slice(&f64::NAN.to_le_bytes());
    assert_eq!(Learner::decode(&state), Err(StateError::Malformed("a number is not finite")));
}

proptest! {
    #[test]
    fn damage_never_panics(at in 1..4_000_usize, byte in any::<u8>(), noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut damaged = state();
        let at = at % damaged.len();
        damaged[at] = byte;
        if let Ok(mut learner) = Learner::decode(&damaged) {
            let mut features = Features::default();
            features.number("number", 3.0);
            prop_assert!(!learner.estimate(&features).is_nan());
            learner.learn(&features, 1.0).ok();
        }
        let noise = [&[1_u8][..], &noise].concat();
        prop_assert!(Learner::decode(&noise).is_err());
        prop_assert!(Bandit::decode(&noise).is_err());
    }
}

/// One that has chosen, from which damage starts.
fn bandit() -> Vec<u8> {
    let mut bandit = Bandit::new(2, 0.1).unwrap();
    for number in 0..50_u32 {
        let mut features = Features::default();
        features.number("number", f64::from(number));
        let choice = bandit.choose(&features, |_| true, u64::from(number) << 60).unwrap();
        bandit.learn(&features, choice, f64::from(number % 2)).unwrap();
    }
    bandit.encode()
}

#[test]
fn a_bandit_that_is_cut_or_longer_is_refused() {
    let state = bandit();
    assert!(Bandit::decode(&state).is_ok());
    for end in (0..state.len()).step_by(7) {
        assert!(Bandit::decode(&state[..end]).is_err(), "{end} of {}", state.len());
    }
    let longer = [state.as_slice(), &[0]].concat();
    assert_eq!(Bandit::decode(&longer), Err(StateError::Malformed("something follows its end")));
}

proptest! {
    #[test]
    fn damage_to_a_bandit_never_panics(at in 1..20_000_usize, byte in any::<u8>(), draw in any::<u64>()) {
        let mut damaged = bandit();
        let at = 1 + at % (damaged.len() - 1);
        damaged[at] = byte;
        if let Ok(mut bandit) = Bandit::decode(&damaged) {
            let mut features = Features::default();
            features.number("number", 3.0);
            let choice = bandit.choose(&features, |_| true, draw).unwrap();
            bandit.learn(&features, choice, 1.0).ok();
            prop_assert!(bandit.expected(&features).iter().all(|expected| !expected.is_nan()));
        }
    }
}
