//! Replacing a machine: running costs grow with its age, a new one costs a price. Replacing at some age is best, and what each age
//! costs can be written down.

use oncue_mdp::{Discount, Method, Model, ModelBuilder, Options, average_reward, solve};

use crate::{by_all_methods, close};

const AGES: usize = 60;

/// At age n a period costs `wear` · n; replacing costs `price` and begins a period with a new machine at once.
fn machine(wear: f64, price: f64, discount: f64) -> Model {
    let mut builder = ModelBuilder::new(AGES, Discount::PerStep(discount));
    for age in 0..AGES {
        builder.choice(age, 0, -wear * age as f64, &[((age + 1).min(AGES - 1), 1.0)]).unwrap();
        builder.choice(age, 1, -price, &[(1, 1.0)]).unwrap();
    }
    builder.build().unwrap()
}

/// What one life of so many periods costs from the replacement on: the price (which is the first period), then wear.
fn life(wear: f64, price: f64, discount: f64, periods: i32) -> f64 {
    price + (1..periods).map(|age| discount.powi(age) * wear * f64::from(age)).sum::<f64>()
}

#[test]
fn it_is_replaced_at_the_age_that_costs_least_in_the_long_run() {
    for (wear, price) in [(1.0, 10.0), (1.0, 50.5), (0.3, 70.0)] {
        let model = machine(wear, price, 1.0);
        let average = average_reward(&model, &Options::default()).unwrap();
        let cost = |periods| life(wear, price, 1.0, periods) / f64::from(periods);
        let best = (1..AGES as i32).min_by(|one, other| cost(*one).total_cmp(&cost(*other))).unwrap();
        close(&[average.gain], &[-cost(best)], 1e-9);
        let age = average.policy.iter().position(|choice| model.choice(*choice).action == 1).unwrap();
        assert_eq!(age, best as usize);
    }
}

#[test]
fn and_with_a_discount() {
    for discount in [0.8, 0.95, 0.99] {
        let (wear, price) = (1.0, 30.0);
        let model = machine(wear, price, discount);
        let solution = by_all_methods(&model);
        // From a replacement on, for ever: one life and the next, discounted by its periods.
        let cost = |periods: i32| life(wear, price, discount, periods) / (1.0 - discount.powi(periods));
        let least = (1..AGES as i32).map(cost).fold(f64::INFINITY, f64::min);
        let at = solution.actions(&model).iter().position(|action| *action == 1).unwrap();
        close(&[solution.values[at]], &[-least], 1e-9);
        assert!((cost(at as i32) - least).abs() < 1e-9, "replaced at {at}");
    }
}

/// A discount so near to 1 that plain sweeps would take millions.
#[test]
fn a_discount_near_one_takes_few_iterations() {
    let model = machine(1.0, 30.0, 0.999_999);
    for method in [Method::ModifiedPolicyIteration, Method::PolicyIteration] {
        let solution = solve(&model, &Options { method, epsilon: 0.01, ..Options::default() }).unwrap();
        assert!(solution.bound <= 0.01 && solution.iterations < 50, "{method:?}: {}", solution.iterations);
    }
}
