//! What a learner makes of streams whose law is known.

use oncue_learn::{
    Features, LearnError, Learner, Loss, Verdict,
    synthetic::{Person, Sea},
};
use proptest::prelude::*;

fn numbers(values: &[f64]) -> Features {
    let mut features = Features::default();
    for (number, value) in values.iter().enumerate() {
        features.number(&number.to_string(), *value);
    }
    features
}

fn person(person: &Person) -> Features {
    let Person { salary, commission, age, level, house, owned, loan, .. } = *person;
    numbers(&[salary, commission, age, f64::from(level), house, owned, loan])
}

fn label(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Mean log-loss of what is known (the law itself), over the same examples.
fn known(right: f64) -> f64 {
    -(right * right.ln() + (1.0 - right) * (1.0 - right).ln())
}

#[test]
fn a_line_between_two_classes_is_found() {
    // Function 7 of Agrawal is linear. Nothing is turned, so a line that is found says little but what is right.
    let mut random = fastrand::Rng::with_seed(3);
    let mut learner = Learner::new(Loss::Logistic);
    let mut wrong = 0;
    for number in 0..20_000 {
        let next = Person::next(&mut || random.f64());
        let said = learner.learn(&person(&next), label(next.is_group_a(7))).unwrap();
        wrong += u32::from(number >= 10_000 && (said > 0.5) != next.is_group_a(7));
    }
    assert!(wrong < 500, "{wrong} of 10,000");
    assert_eq!(learner.progress().verdict(), Verdict::Better);
    assert!(learner.progress().reliability.error() < 0.05, "{:?}", learner.progress().reliability);
}

#[test]
fn a_changing_world_is_followed_and_noise_is_not() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut learner = Learner::new(Loss::Logistic);
    for threshold in Sea::THRESHOLDS {
        let sea = Sea { threshold, noise: 0.1 };
        for _ in 0..12_500 {
            let (values, yes) = sea.next(&mut || random.f64());
            learner.learn(&numbers(&values), label(yes)).unwrap();
        }
    }
    let progress = learner.progress();
    let (learned, simple) = (progress.learned / progress.examples, progress.simple / progress.examples);
    // Nobody can know more than the law: 0.325. A line has no step, and the law changes three times.
    assert!((known(0.9)..0.40).contains(&learned) && simple > 0.64, "{learned} {simple}");
    assert!((1..=12).contains(&progress.drifts), "{}", progress.drifts);
    assert_eq!(progress.verdict(), Verdict::Better);
}

#[test]
fn where_there_is_nothing_to_learn_it_says_so() {
    for seed in 0..5 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut learner = Learner::new(Loss::Logistic);
        for _ in 0..5_000 {
            let values = [random.f64(), random.f64()];
            learner.learn(&numbers(&values), label(random.f64() < 0.2)).unwrap();
        }
        let progress = learner.progress();
        assert_ne!(progress.verdict(), Verdict::Better, "seed {seed}");
        // It costs little, too.
        assert!(progress.learned / progress.simple < 1.01, "seed {seed}: {progress:?}");
    }
}

#[test]
fn what_is_held_back_is_not_unlearned() {
    // Of three kinds one is always lost. What is likely to be is held back, all but a twentieth, and nothing is learned of it.
    for (threshold, least) in [(0.6, 0.92), (0.8, 0.92), (0.95, 0.89)] {
        let mut random = fastrand::Rng::with_seed(2);
        let mut learner = Learner::new(Loss::Logistic);
        let (mut held, mut lost) = (0.0, 0.0);
        for number in 0..6_000 {
            let bank = ["north", "south", "west"][random.usize(0..3)];
            let mut features = numbers(&[random.f64()]);
            [("type", "order.created"), ("source", "shop"), ("bank", bank)]
                .iter()
                .for_each(|(name, value)| features.category(name, value));
            let proven = learner.progress().verdict() == Verdict::Better;
            let holds = proven && learner.estimate(&features) >= threshold && random.f64() >= 0.05;
            if number >= 1_000 && bank == "north" {
                (held, lost) = (held + label(holds), lost + 1.0);
            }
            assert!(!holds || bank == "north");
            if !holds {
                learner.learn(&features, label(bank == "north")).unwrap();
            } else {
                learner.pass_by(&features);
            }
        }
        assert!(held / lost > least, "{} of {lost} at {threshold}", held / lost);
    }
}

#[test]
fn a_quantity_is_estimated_in_any_unit() {
    for unit in [1e-3, 1.0, 1e6] {
        let mut random = fastrand::Rng::with_seed(11);
        let mut learner = Learner::new(Loss::Squared);
        for _ in 0..5_000 {
            let (a, b) = (random.f64(), random.f64());
            let noise = random.f64() - 0.5;
            learner.learn(&numbers(&[a, b]), unit * (30.0 + 20.0 * a - 10.0 * b + noise)).unwrap();
        }
        let estimate = learner.estimate(&numbers(&[0.9, 0.1])) / unit;
        assert!((estimate - 47.0).abs() < 0.5, "{unit}: {estimate}");
        assert!(learner.progress().learned < 0.05 * learner.progress().simple);
        assert_eq!(learner.progress().verdict(), Verdict::Better);
    }
}

#[test]
fn before_anything_is_known_it_says_what_is_simple() {
    let mut learner = Learner::new(Loss::Logistic);
    assert_eq!(learner.estimate(&numbers(&[1.0])), 0.5);
    assert_eq!(learner.progress().verdict(), Verdict::TooFew);
    // One class alone: the simple estimate, and it says that there is nothing to learn.
    for number in 0..200_u32 {
        learner.learn(&numbers(&[f64::from(number)]), 0.0).unwrap();
    }
    assert!(learner.estimate(&numbers(&[1.0])) < 0.01);
    assert_eq!(learner.progress().verdict(), Verdict::OneOutcome);
    assert_eq!(Learner::new(Loss::Squared).estimate(&numbers(&[1.0])), 0.0);
}

#[test]
fn what_is_no_label_is_refused_and_changes_nothing() {
    let mut learner = Learner::new(Loss::Logistic);
    learner.learn(&numbers(&[1.0]), 1.0).unwrap();
    let before = learner.clone();
    for label in [0.5, -1.0, f64::NAN, f64::INFINITY] {
        let refused = learner.learn(&numbers(&[1.0]), label).unwrap_err();
        assert!(matches!(refused, LearnError::Label { loss: Loss::Logistic, .. }));
        assert!(refused.to_string().ends_with("is no label of a yes or no: it is 0 or 1"), "{refused}");
    }
    assert_eq!(learner, before);
    let refused = Learner::new(Loss::Squared).learn(&numbers(&[1.0]), f64::NAN).unwrap_err();
    assert_eq!(refused.to_string(), "NaN is no label of a quantity: it is a number from -1e50 to 1e50");
}

proptest! {
    #[test]
    fn whatever_comes_estimates_are_numbers_and_the_state_goes_there_and_back(
        examples in proptest::collection::vec((proptest::collection::vec(any::<f64>(), 0..4), any::<bool>()), 0..80),
        quantity in any::<bool>(),
    ) {
        let mut learner = Learner::new(if quantity { Loss::Squared } else { Loss::Logistic });
        let half = examples.len() / 2;
        let mut other = None;
        for (number, (values, yes)) in examples.iter().enumerate() {
            if number == half {
                other = Some(Learner::decode(&learner.encode()).unwrap());
            }
            let given = if quantity { values.first().copied().unwrap_or(1.0) } else { label(*yes) };
            let told = learner.learn(&numbers(values), given);
            if let Some(other) = &mut other {
                prop_assert_eq!(&told.ok(), &other.learn(&numbers(values), given).ok());
            }
            let estimate = learner.estimate(&numbers(values));
            prop_assert!(!estimate.is_nan());
            prop_assert!(quantity || (0.0..=1.0).contains(&estimate));
        }
        if let Some(other) = other {
            prop_assert_eq!(learner.encode(), other.encode());
        }
    }
}
