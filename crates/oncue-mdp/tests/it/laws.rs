//! Laws that hold for every model, on random ones.

use oncue_mdp::{
    Discount, Method, Model, ModelBuilder, Options, Run, Sojourn, backward_induction, evaluate, simulate,
    simulate_plan, solve,
};
use proptest::prelude::*;

use crate::{by_all_methods, close};

/// A choice before its numbers are made to fit: reward, and (next, weight, time) for each transition.
type Row = (f64, Vec<(usize, f64, f64)>);

fn rows(states: usize) -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (-10.0..10.0, prop::collection::vec((0..states, 0.01..1.0, 0.1..5.0), 1..5));
    prop::collection::vec(prop::collection::vec(row, 1..4), states)
}

fn some_rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    (1..30_usize).prop_flat_map(rows)
}

fn model(rows: &[Vec<Row>], discount: Discount, more: f64) -> Model {
    let mut builder = ModelBuilder::new(rows.len(), discount);
    for (state, choices) in rows.iter().enumerate() {
        for (action, (reward, next)) in choices.iter().enumerate() {
            let sum: f64 = next.iter().map(|(_, weight, _)| weight).sum();
            let next = next.iter().map(|(next, weight, time)| (*next, weight / sum, Sojourn::Fixed(*time)));
            let next: Vec<_> = next.collect();
            match discount {
                Discount::PerTime(_) => builder.timed_choice(state, action, reward + more, &next),
                Discount::PerStep(_) => {
                    let next: Vec<_> = next.iter().map(|(next, p, _)| (*next, *p)).collect();
                    builder.choice(state, action, reward + more, &next)
                }
            }
            .unwrap();
        }
    }
    builder.build().unwrap()
}

fn discounts() -> impl Strategy<Value = Discount> {
    prop_oneof![(0.0..0.995).prop_map(Discount::PerStep), (0.05..2.0).prop_map(Discount::PerTime)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_value_is_a_fixed_point_and_all_methods_find_it(rows in some_rows(), discount in discounts()) {
        let model = model(&rows, discount, 0.0);
        let solution = by_all_methods(&model);
        let q = model.q(&solution.values);
        for state in 0..model.states() {
            let best = model.choices_of(state).map(|choice| q[choice]).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((best - solution.values[state]).abs() <= 2.0 * solution.bound, "residual of {state}");
            prop_assert!(q[solution.policy[state]] >= best - 4.0 * solution.bound, "policy of {state}");
        }
    }

    #[test]
    fn bounds_hold_and_the_policy_loses_no_more_than_twice(rows in some_rows(), discount in discounts(), method in 0..3_usize) {
        let model = model(&rows, discount, 0.0);
        let exact = by_all_methods(&model);
        let coarse = Options { method: Method::ALL[method], epsilon: 1.0, ..Options::default() };
        let solution = solve(&model, &coarse).unwrap();
        prop_assert!(solution.bound <= 1.0);
        close(&solution.values, &exact.values, solution.bound + exact.bound);
        let followed = evaluate(&model, &solution.policy, &Options::default()).unwrap();
        for (followed, best) in followed.values.iter().zip(&exact.values) {
            prop_assert!(*followed <= best + 2e-9, "better than the best");
            prop_assert!(best - followed <= 2.0 * solution.bound + 2e-9, "{best} − {followed} > 2 · {}", solution.bound);
        }
    }

    #[test]
    fn a_backup_is_monotone_and_contracts(rows in some_rows(), factor in 0.0..0.99, seed: u64) {
        let model = model(&rows, Discount::PerStep(factor), 0.0);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut some = || (0..model.states()).map(|_| 20.0 * random.f64() - 10.0).collect::<Vec<_>>();
        let (low, rise) = (some(), some());
        let high: Vec<_> = low.iter().zip(&rise).map(|(low, rise)| low + rise.abs()).collect();
        let backup = |values: Vec<f64>| {
            backward_induction(&model, 1, &Options { guess: Some(values), ..Options::default() }).unwrap().values
        };
        let distance = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
        let before = distance(&low, &high);
        let (low, high) = (backup(low), backup(high));
        prop_assert!(low.iter().zip(&high).all(|(low, high)| *low <= high + 1e-12));
        prop_assert!(distance(&low, &high) <= factor * before + 1e-12);
    }

    #[test]
    fn a_reward_more_in_every_step_is_worth_its_sum(rows in some_rows(), factor in 0.0..0.99, more in -5.0..5.0) {
        let plain = by_all_methods(&model(&rows, Discount::PerStep(factor), 0.0));
        let raised = by_all_methods(&model(&rows, Discount::PerStep(factor), more));
        let expected: Vec<_> = plain.values.iter().map(|value| value + more / (1.0 - factor)).collect();
        close(&raised.values, &expected, 1e-9 + plain.bound + raised.bound);
    }

    #[test]
    fn many_steps_come_near_the_value_of_all(rows in some_rows(), factor in 0.0..0.9) {
        let model = model(&rows, Discount::PerStep(factor), 0.0);
        let all = by_all_methods(&model);
        let plan = backward_induction(&model, 40, &Options::default()).unwrap();
        close(&plan.values, &all.values, factor.powi(40) * 10.0 / (1.0 - factor) + 1e-8);
    }

    #[test]
    fn a_good_guess_is_quick_and_a_bad_one_does_no_harm(rows in some_rows(), discount in discounts(), wrong in -1e6..1e6) {
        let model = model(&rows, discount, 0.0);
        let best = by_all_methods(&model);
        for method in Method::ALL {
            let options = Options { method, ..Options::default() };
            let bad = Options { guess: Some(vec![wrong; model.states()]), ..options.clone() };
            let found = solve(&model, &bad).unwrap();
            close(&found.values, &best.values, found.bound + best.bound);
            let good = Options { guess: Some(best.values.clone()), ..options };
            prop_assert!(solve(&model, &good).unwrap().iterations <= 3);
        }
    }
}

/// Runs of the same seed are the same, and their mean is the value, for times too.
#[test]
fn runs_return_what_is_computed() {
    let rows: Vec<Vec<Row>> = (0..12)
        .map(|state| {
            let next = |step: usize| vec![((state + step) % 12, 1.0, 0.5), ((state * 5 + step) % 12, 0.7, 2.0)];
            vec![((state % 5) as f64, next(1)), (2.5, next(3))]
        })
        .collect();
    for discount in [Discount::PerStep(0.9), Discount::PerTime(0.1)] {
        let model = model(&rows, discount, 0.0);
        let solution = by_all_methods(&model);
        let run = Run { start: 3, runs: 4_000, steps: 1_000_000, seed: 7 };
        let one = simulate(&model, &solution.policy, run);
        assert!((one.mean - solution.values[3]).abs() <= one.half_width, "{one:?}, {}", solution.values[3]);
        assert_eq!(one, simulate(&model, &solution.policy, run));
        assert_ne!(one.mean, simulate(&model, &solution.policy, Run { seed: 8, ..run }).mean);
        let plan = backward_induction(&model, 6, &Options::default()).unwrap();
        let one = simulate_plan(&model, &plan, run);
        assert!((one.mean - plan.values[3]).abs() <= one.half_width, "{one:?}, {}", plan.values[3]);
        let first: Vec<_> = (0..6).map(|step| plan.choice(6 - step, one.first[step].0)).collect();
        assert_eq!(first, one.first.iter().map(|(_, choice)| Some(*choice)).collect::<Vec<_>>());
    }
}

/// Large enough for several threads: their number makes no difference, to the last bit.
#[test]
fn the_number_of_threads_makes_no_difference() {
    const STATES: usize = 20_000;
    let mut random = fastrand::Rng::with_seed(5);
    let mut builder = ModelBuilder::new(STATES, Discount::PerStep(0.95));
    for state in 0..STATES {
        for action in 0..3 {
            let next: Vec<_> = (0..5).map(|_| (random.usize(..STATES), 0.2)).collect();
            builder.choice(state, action, random.f64(), &next).unwrap();
        }
    }
    let model = builder.build().unwrap();
    for method in Method::ALL {
        let [one, three] =
            [1, 3].map(|threads| solve(&model, &Options { method, threads, ..Options::default() }).unwrap());
        assert_eq!(one, three, "{method:?}");
    }
}
