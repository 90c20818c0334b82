//! What a bandit makes of arms whose law is known.

use oncue_learn::{Bandit, BanditError, Choice, Features, Verdict};

fn context(kind: &str) -> Features {
    let mut features = Features::default();
    features.category("kind", kind);
    features
}

/// So many choices among arms that succeed with `law(kind, arm)`; kinds come at random.
fn played(seed: u64, rounds: u32, law: impl Fn(usize, usize) -> f64) -> (Bandit, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bandit = Bandit::new(2, 0.5, 0.02).unwrap();
    let mut late = 0.0;
    for round in 0..rounds {
        let kind = random.usize(0..2);
        let features = context(["card", "voucher"][kind]);
        let choice = bandit.choose(&features);
        let reward = f64::from(u8::from(random.f64() < law(kind, choice.arm)));
        bandit.learn(&features, choice, reward).unwrap();
        if round >= rounds / 2 {
            late += reward / f64::from(rounds - rounds / 2);
        }
    }
    (bandit, late)
}

#[test]
fn the_arm_that_suits_the_context_is_found() {
    for seed in 0..5 {
        // Each arm alone succeeds half of the time; the right one 0.9, of which exploring takes up to 0.04 · 0.4.
        let (bandit, late) = played(seed, 4_000, |kind, arm| if kind == arm { 0.9 } else { 0.1 });
        assert!(late > 0.85, "seed {seed}: {late}");
        assert_eq!(bandit.verdict(), Verdict::Better);
        assert!((bandit.best_fixed().1 - 0.5).abs() < 0.15, "{:?}", bandit.best_fixed());
    }
}

#[test]
fn where_one_arm_is_best_it_says_that_choosing_is_not_better() {
    for seed in 0..5 {
        let (bandit, late) = played(seed, 4_000, |_, arm| if arm == 1 { 0.8 } else { 0.4 });
        assert_eq!(bandit.best_fixed().0, 1);
        assert!(late > 0.75, "seed {seed}: {late}");
        assert_ne!(bandit.verdict(), Verdict::Better, "seed {seed}");
    }
}

#[test]
fn each_arm_has_its_floor() {
    let (bandit, _) = played(9, 5_000, |_, arm| if arm == 1 { 1.0 } else { 0.0 });
    for arm in bandit.arms() {
        assert!((99.0..=101.0).contains(&arm.explored.count()), "{:?}", arm.explored);
    }
}

#[test]
fn the_same_order_makes_the_same_choices_and_the_state_goes_on() {
    let law = |kind: usize, arm: usize| if kind == arm { 0.7 } else { 0.3 };
    let (one, _) = played(4, 1_000, law);
    let (two, _) = played(4, 1_000, law);
    assert_eq!(one.encode(), two.encode());
    let restored = Bandit::decode(&one.encode()).unwrap();
    assert_eq!(restored, one);
    assert_eq!(restored.choose(&context("card")), one.choose(&context("card")));
}

#[test]
fn settings_that_make_none_are_refused() {
    let wrong = |arms, alpha, floor| Bandit::new(arms, alpha, floor).unwrap_err().to_string();
    assert_eq!(wrong(1, 0.5, 0.1), "1 arms: there are from 2 to 64");
    assert_eq!(wrong(4, 0.5, 0.25), "a floor of 0.25: it is above 0 and, for 4 arms, below 0.25");
    assert_eq!(wrong(4, 0.5, f64::NAN), "a floor of NaN: it is above 0 and, for 4 arms, below 0.25");
    assert_eq!(wrong(4, -1.0, 0.1), "an alpha of -1: it is a finite number, 0 or more");
    let mut bandit = Bandit::new(2, 0.5, 0.1).unwrap();
    assert_eq!(bandit.verdict(), Verdict::TooFew);
    let beyond = Choice { arm: 2, explores: false };
    assert_eq!(bandit.learn(&context("card"), beyond, 1.0), Err(BanditError::UnknownArm { arm: 2, arms: 2 }));
    let first = Choice { arm: 0, explores: false };
    assert_eq!(bandit.learn(&context("card"), first, f64::NAN), Err(BanditError::Reward));
    assert_eq!(bandit, Bandit::new(2, 0.5, 0.1).unwrap());
}
