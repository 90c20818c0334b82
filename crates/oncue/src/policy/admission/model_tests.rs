//! Against optima that are known: Naor's threshold of M/M/1, and for several servers and classes the best of all threshold policies
//! by the closed form of their stationary distribution.

use proptest::prelude::*;

use super::*;

/// M/M/1, one class.
fn single(arrivals: f64, value: f64) -> Queue {
    Queue { classes: vec![(arrivals, value)], service: 1.0, servers: 1.0, waiting: 1.0 }
}

/// What a policy earns per second: class k is let in while fewer than `thresholds[k]` are there.
fn gain(queue: &Queue, thresholds: &[usize]) -> f64 {
    let most = thresholds.iter().copied().max().unwrap();
    let let_in = |there: usize| queue.classes.iter().zip(thresholds).filter(move |(_, most)| there < **most);
    let mut weights = vec![1.0];
    for there in 0..most {
        let come: f64 = let_in(there).map(|((rate, _), _)| rate).sum();
        let leave = queue.service * (there as f64 + 1.0).min(queue.servers);
        weights.push(weights[there] * come / leave);
    }
    let all: f64 = weights.iter().sum();
    let earned = |there: usize| let_in(there).map(|((rate, value), _)| rate * value).sum::<f64>();
    let worth = |there: usize| earned(there) - queue.waiting * there as f64;
    weights.iter().enumerate().map(|(there, weight)| weight / all * worth(there)).sum()
}

fn threshold(queue: &Queue, class: usize) -> usize {
    queue.prices().unwrap().threshold(queue.classes[class].1) as usize
}

/// Naor (1969): the largest n with (n (1 − ρ) − ρ (1 − ρⁿ)) / (1 − ρ)² ≤ R µ / C.
fn naor(load: f64, value: f64) -> usize {
    let side = |n: i32| (f64::from(n) * (1.0 - load) - load * (1.0 - load.powi(n))) / (1.0 - load).powi(2);
    (1..100_000).take_while(|n| side(*n) <= value).last().unwrap() as usize
}

#[test]
fn one_server_has_naors_threshold_below_and_above_its_capacity() {
    for (load, value) in [(0.5, 8.5), (0.8, 20.3), (0.95, 60.7), (1.2, 20.3), (1.5, 100.3), (3.0, 30.7), (0.1, 3.3)] {
        assert_eq!(threshold(&single(load, value), 0), naor(load, value), "load {load}, value {value}");
    }
}

#[test]
fn several_servers_have_the_threshold_that_earns_most() {
    for (arrivals, servers, value) in
        [(3.0, 4.0, 6.3), (4.5, 4.0, 12.1), (8.0, 4.0, 20.7), (15.0, 16.0, 3.9), (24.0, 16.0, 5.3), (2.0, 2.0, 1.7)]
    {
        let queue = Queue { servers, ..single(arrivals, value) };
        let earns = |most: usize| gain(&queue, &[most]);
        let best = (1..400).max_by(|one, other| earns(*one).total_cmp(&earns(*other))).unwrap();
        let found = threshold(&queue, 0);
        assert_eq!(found, best, "{arrivals} per second, {servers} servers, value {value}");
        assert!(earns(found) > earns(399) && earns(found) > earns(servers as usize / 2));
    }
}

#[test]
fn of_two_classes_the_one_that_is_worth_less_is_turned_away_first() {
    for (rates, values, servers) in
        [([1.0, 2.0], [20.3, 4.1], 2.0), ([0.4, 0.8], [15.7, 6.3], 1.0), ([4.0, 4.0], [9.1, 2.3], 5.0)]
    {
        let classes = vec![(rates[0], values[0]), (rates[1], values[1])];
        let queue = Queue { classes, servers, ..single(1.0, 1.0) };
        let pairs = (1..80_usize).flat_map(|high| (0..=high).map(move |low| [high, low]));
        let best = pairs.max_by(|one, other| gain(&queue, one).total_cmp(&gain(&queue, other))).unwrap();
        let found = [threshold(&queue, 0), threshold(&queue, 1)];
        assert_eq!(found, best, "{rates:?} {values:?} {servers}");
        assert!(found[1] < found[0]);
    }
}

#[test]
fn a_queue_that_may_be_long_is_solved_in_steps_of_several_and_close_to_naors() {
    for (load, value) in [(0.9, 20_000.0), (0.99, 3_000.0), (1.3, 20_000.0), (2.0, 5_000.0)] {
        let (found, exact) = (threshold(&single(load, value), 0) as f64, naor(load, value) as f64);
        let queue = single(load, value);
        let loses = 1.0 - gain(&queue, &[found as usize]) / gain(&queue, &[exact as usize]);
        assert!(loses < 0.01, "load {load}: {found} for {exact} loses {loses}");
    }
}

#[test]
fn without_arrivals_it_costs_what_the_event_itself_waits() {
    let prices = single(1e-9, 30.5).prices().unwrap();
    for there in 0..25 {
        let own = there as f64 + 1.0;
        assert!((prices.of(there as f64) / own - 1.0).abs() < 0.002, "{there}: {}", prices.of(there as f64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_the_queue_prices_are_positive_and_grow_with_it(
        arrivals in 1e-6_f64..1e4, value in 1e-3_f64..1e5, service in 1e-3_f64..1e4, servers in 1_u32..300,
    ) {
        let servers = f64::from(servers);
        let queue = Queue { classes: vec![(arrivals, value), (arrivals, value / 3.0)], service, servers, waiting: 1.0 };
        let prices = queue.prices().unwrap();
        prop_assert!(prices.prices.iter().all(|price| price.is_finite() && *price > -1e-9 * value), "{prices:?}");
        let grow = prices.prices.windows(2).all(|pair| pair[1] >= pair[0] - 1e-6 * value);
        prop_assert!(grow, "{queue:?}: {prices:?}");
        prop_assert!(prices.threshold(value) >= prices.threshold(value / 3.0));
    }
}
