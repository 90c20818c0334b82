//! What a bandit makes of arms whose law is known.

use oncue_learn::{Bandit, BanditError, Choice, Features, Verdict};
use proptest::prelude::*;

const KINDS: [&str; 4] = ["card", "voucher", "transfer", "cash"];

fn context(kind: usize) -> Features {
    let mut features = Features::default();
    features.category("kind", KINDS[kind]);
    features
}

/// A game among arms that succeed with `law(kind, arm)`; kinds come at random.
struct Game {
    random: fastrand::Rng,
    bandit: Bandit,
    arms: usize,
    law: fn(usize, usize) -> f64,
    /// What the best arms would have brought on average, less what those that were chosen would; without what explores.
    regret: f64,
    brought: f64,
}

impl Game {
    fn new(seed: u64, arms: usize, law: fn(usize, usize) -> f64) -> Self {
        let (random, bandit) = (fastrand::Rng::with_seed(seed), Bandit::new(arms, 0.05).unwrap());
        Self { random, bandit, arms, law, regret: 0.0, brought: 0.0 }
    }

    fn play(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let kind = self.random.usize(0..KINDS.len());
            let choice = self.bandit.choose(&context(kind), |_| true, self.random.u64(..)).unwrap();
            let likely = (self.law)(kind, choice.arm);
            let reward = f64::from(u8::from(self.random.f64() < likely));
            self.brought += reward;
            if !choice.explores {
                let best = (0..self.arms).map(|arm| (self.law)(kind, arm)).fold(0.0, f64::max);
                self.regret += best - likely;
            }
            self.bandit.learn(&context(kind), choice, reward).unwrap();
        }
    }
}

/// Of three arms one suits cards and vouchers, one transfers, one cash; each alone succeeds 0.6, 0.45 and 0.45 of the time.
fn suits(kind: usize, arm: usize) -> f64 {
    if [0, 0, 1, 2][kind] == arm { 0.9 } else { 0.3 }
}

#[test]
fn regret_grows_more_slowly_than_time_and_no_arm_alone_is_as_good() {
    for seed in 0..5 {
        let mut game = Game::new(seed, 3, suits);
        game.play(2_000);
        let first = game.regret;
        game.play(14_000);
        // Eight times as long; linear regret would be eight times as much.
        assert!(game.regret < 3.0 * first, "seed {seed}: {first}, then {}", game.regret);
        // 0.95 · 0.9 + 0.05 · (0.9 + 0.3 + 0.3) / 3 is all that can be had.
        let mean = game.brought / 16_000.0;
        assert!(mean > 0.85, "seed {seed}: {mean}");
        let told = game.bandit.comparison();
        assert_eq!((told.best, told.verdict), (0, Verdict::Better), "seed {seed}: {told:?}");
        for ((alone, width), law) in told.alone.iter().zip([0.6, 0.45, 0.45]) {
            assert!((alone - law).abs() < 1.7 * width, "seed {seed}: {alone} ± {width}, and it is {law}");
        }
        assert!((told.any.0 - 0.5).abs() < 1.7 * told.any.1, "seed {seed}: {:?}", told.any);
    }
}

#[test]
fn where_one_arm_is_best_it_says_that_choosing_is_not_better() {
    for seed in 0..5 {
        let mut game = Game::new(seed, 2, |_, arm| if arm == 1 { 0.8 } else { 0.4 });
        game.play(4_000);
        let told = game.bandit.comparison();
        assert_eq!(told.best, 1);
        assert!(told.reward.0 > 0.75, "seed {seed}: {told:?}");
        assert_ne!(told.verdict, Verdict::Better, "seed {seed}: {told:?}");
    }
}

#[test]
fn each_arm_has_its_share_of_what_explores() {
    let mut game = Game::new(9, 2, |_, arm| f64::from(u8::from(arm == 1)));
    game.play(8_000);
    for arm in game.bandit.arms() {
        // 200 and three standard deviations of √195.
        assert!((158..242).contains(&arm.explored), "{}", arm.explored);
    }
}

#[test]
fn an_arm_that_gets_worse_is_left_and_one_that_gets_better_is_found_again() {
    let mut game = Game::new(3, 2, |_, arm| if arm == 0 { 0.9 } else { 0.6 });
    game.play(3_000);
    for law in [|_, arm| if arm == 0 { 0.1 } else { 0.6 }, |_, arm| if arm == 0 { 0.95 } else { 0.1 }] {
        game.law = law;
        game.play(2_000);
        game.regret = 0.0;
        game.play(1_000);
        assert!(game.regret < 50.0, "{}", game.regret);
    }
    assert!(game.bandit.arms()[0].drifts > 0);
}

#[test]
fn an_arm_that_is_not_there_is_not_chosen() {
    let mut game = Game::new(3, 3, suits);
    game.play(500);
    for draw in (0..2_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let choice = game.bandit.choose(&context(0), |arm| arm != 0, draw).unwrap();
        assert!(choice.arm != 0 && choice.best != 0 && choice.among == 2);
    }
    assert_eq!(game.bandit.choose(&context(0), |_| false, 1), None);
    let before = game.bandit.comparison().choices;
    let choice = game.bandit.choose(&context(0), |arm| arm != 0, 1).unwrap();
    game.bandit.learn(&context(0), choice, 1.0).unwrap();
    assert_eq!(game.bandit.comparison().choices, before, "it is learned from, and not compared");
}

#[test]
fn arms_come_and_go_and_those_that_stay_know_what_they_knew() {
    let mut game = Game::new(3, 3, suits);
    game.play(2_000);
    let fewer = game.bandit.with_arms(&[Some(2), Some(0)]).unwrap();
    assert_eq!(fewer.arms()[1], game.bandit.arms()[0]);
    assert_eq!(fewer.ranked(&context(0), &[0, 1]), [1, 0]);
    assert_eq!(fewer.comparison().choices, 0.0);
    let more = fewer.with_arms(&[Some(0), Some(1), None]).unwrap();
    assert_eq!(more.arms()[2].rewards.count(), 0.0);
    assert_eq!(more.ranked(&context(2), &[0, 1, 2])[0], 2, "of what nothing is known more may come than of what fails");
    assert_eq!(fewer.with_arms(&[Some(0), Some(7)]), Err(BanditError::UnknownArm { arm: 7, arms: 2 }));
}

#[test]
fn settings_that_make_none_are_refused() {
    let wrong = |arms, floor| Bandit::new(arms, floor).unwrap_err().to_string();
    assert_eq!(wrong(1, 0.1), "1 arms: there are from 2 to 16");
    assert_eq!(wrong(17, 0.1), "17 arms: there are from 2 to 16");
    assert_eq!(wrong(4, 0.0), "a floor of 0: it is above 0, and 1 at most");
    assert_eq!(wrong(4, f64::NAN), "a floor of NaN: it is above 0, and 1 at most");
    let mut bandit = Bandit::new(2, 0.1).unwrap();
    assert_eq!(bandit.comparison().verdict, Verdict::TooFew);
    let first = Choice { arm: 0, best: 0, explores: false, among: 2 };
    for beyond in [Choice { arm: 2, ..first }, Choice { best: 2, ..first }] {
        assert_eq!(bandit.learn(&context(0), beyond, 1.0), Err(BanditError::UnknownArm { arm: 2, arms: 2 }));
    }
    for reward in [f64::NAN, 1.1, -1.1] {
        assert_eq!(bandit.learn(&context(0), first, reward), Err(BanditError::Reward));
    }
    assert_eq!(bandit, Bandit::new(2, 0.1).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_same_in_the_same_order_is_the_same_bytes_and_goes_on_from_them(
        rounds in proptest::collection::vec((0..4_usize, any::<u64>(), -1.0..1.0_f64, -1e9..1e9_f64), 0..200),
        stop in 0..200_usize,
    ) {
        let (mut one, mut other) = (Bandit::new(3, 0.2).unwrap(), Bandit::new(3, 0.2).unwrap());
        for (place, (kind, draw, reward, number)) in rounds.into_iter().enumerate() {
            if place == stop {
                other = Bandit::decode(&other.encode()).unwrap();
            }
            let mut features = context(kind);
            features.number("number", number);
            let choice = one.choose(&features, |_| true, draw).unwrap();
            prop_assert_eq!(other.choose(&features, |_| true, draw), Some(choice));
            one.learn(&features, choice, reward).unwrap();
            other.learn(&features, choice, reward).unwrap();
        }
        prop_assert_eq!(one.encode(), other.encode());
        prop_assert_eq!(one, other);
    }
}
