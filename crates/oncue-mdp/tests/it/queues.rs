//! Queues: whom to admit, whom to serve.

use oncue_mdp::{Discount, Model, ModelBuilder, Options, Sojourn, average_reward, solve};

use crate::{by_all_methods, close};

const ROOM: usize = 60;

/// M/M/1 where who is admitted pays `reward` at once and costs 1 per unit of time while there. Arrivals and departures share
/// one step: arrival + service = 1 (uniformised). Action 1 admits the next one, 0 turns him away.
fn admission(arrival: f64, reward: f64) -> Model {
    let service = 1.0 - arrival;
    let mut builder = ModelBuilder::new(ROOM + 1, Discount::PerStep(1.0));
    for there in 0..=ROOM {
        let (cost, left) = (there as f64, there.saturating_sub(1));
        builder.choice(there, 0, -cost, &[(there, arrival), (left, service)]).unwrap();
        if there < ROOM {
            builder.choice(there, 1, arrival * reward - cost, &[(there + 1, arrival), (left, service)]).unwrap();
        }
    }
    builder.build().unwrap()
}

/// Naor (1969): it is best to admit as long as fewer than n are there, for the largest n with
/// (n (1 − ρ) − ρ (1 − ρⁿ)) / (1 − ρ)² ≤ Rμ / C.
#[test]
fn admission_has_naors_threshold() {
    for (arrival, reward) in [(0.4, 20.0), (0.45, 55.0), (0.3, 7.0), (0.2, 40.0)] {
        let (service, load) = (1.0 - arrival, arrival / (1.0 - arrival));
        let side = |n: i32| (f64::from(n) * (1.0 - load) - load * (1.0 - load.powi(n))) / (1.0 - load).powi(2);
        let threshold = (1..ROOM as i32).take_while(|n| side(*n) <= reward * service).last().unwrap() as usize;
        let model = admission(arrival, reward);
        let average = average_reward(&model, &Options::default()).unwrap();
        let admits: Vec<_> = average.policy.iter().map(|choice| model.choice(*choice).action).collect();
        let found = admits.iter().position(|action| *action == 0).unwrap();
        assert_eq!(found, threshold, "arrival {arrival}, reward {reward}");
        // The gain is that of M/M/1/n: admitted customers pay, those that are there cost.
        let weights: Vec<f64> = (0..=threshold as i32).map(|n| load.powi(n)).collect();
        let all: f64 = weights.iter().sum();
        let there: f64 = weights.iter().enumerate().map(|(n, weight)| n as f64 * weight / all).sum();
        let admitted = arrival * (1.0 - weights[threshold] / all);
        close(&[average.gain], &[admitted * reward - there], 1e-8);
    }
}

/// The same in continuous time, discounted: exponential sojourns whose rate depends on the state give what the uniformised chain
/// gives (Puterman 11.5).
#[test]
fn sojourns_give_what_uniformising_gives() {
    let (arrival, service, rate, reward) = (0.4, 0.6, 0.05, 20.0);
    let all = arrival + service;
    let mut timed = ModelBuilder::new(ROOM + 1, Discount::PerTime(rate));
    let mut uniform = ModelBuilder::new(ROOM + 1, Discount::PerStep(all / (all + rate)));
    for there in 0..=ROOM {
        for admit in 0..if there < ROOM { 2 } else { 1 } {
            let (arrives, leaves) = (if admit == 1 { arrival } else { 0.0 }, if there > 0 { service } else { 0.0 });
            // What comes at the end of a sojourn, and what it costs while it lasts, is worth this at its beginning.
            let worth = |out: f64| (arrives * reward - there as f64) / (out + rate);
            let after = (there + 1).min(ROOM);
            let before = there.saturating_sub(1);
            let same = all - arrives - leaves;
            let next = [(after, arrives / all), (before, leaves / all), (there, same / all)];
            uniform.choice(there, admit, worth(all), &next).unwrap();
            let out = arrives + leaves;
            if out == 0.0 {
                // Nobody is there, and nobody is let in: nothing happens any more. Its value is 0.
                timed.timed_choice(there, admit, 0.0, &[(there, 1.0, Sojourn::Fixed(1.0))]).unwrap();
            } else {
                let sojourn = Sojourn::Exponential(1.0 / out);
                let next = [(after, arrives / out, sojourn), (before, leaves / out, sojourn)];
                timed.timed_choice(there, admit, worth(out), &next).unwrap();
            }
        }
    }
    let (timed, uniform) = (timed.build().unwrap(), uniform.build().unwrap());
    let (one, other) = (by_all_methods(&timed), by_all_methods(&uniform));
    close(&one.values, &other.values, 2e-9);
    assert_eq!(one.actions(&timed), other.actions(&uniform));
}

/// Two classes of customers, one server that may change over at any time, no arrivals: who has the larger cµ is served first.
#[test]
fn the_larger_c_mu_is_served_first() {
    const MOST: usize = 12;
    let state = |first: usize, second: usize| first * (MOST + 1) + second;
    for (costs, rates) in [([3.0, 1.0], [0.2, 0.5]), ([1.0, 1.0], [0.3, 0.4]), ([1.0, 5.0], [0.8, 0.1])] {
        let mut builder = ModelBuilder::new((MOST + 1).pow(2), Discount::PerStep(0.97));
        for (first, second) in (0..=MOST).flat_map(|first| (0..=MOST).map(move |second| (first, second))) {
            let cost = costs[0] * first as f64 + costs[1] * second as f64;
            let here = state(first, second);
            let served =
                [(first > 0).then(|| state(first - 1, second)), (second > 0).then(|| state(first, second - 1))];
            for (class, next) in served.into_iter().enumerate() {
                let Some(next) = next else { continue };
                builder.choice(here, class, -cost, &[(next, rates[class]), (here, 1.0 - rates[class])]).unwrap();
            }
            if here == 0 {
                builder.choice(here, 0, 0.0, &[(here, 1.0)]).unwrap();
            }
        }
        let model = builder.build().unwrap();
        let solution = by_all_methods(&model);
        let first = usize::from(costs[0] * rates[0] < costs[1] * rates[1]);
        for (one, two) in (1..=MOST).flat_map(|one| (1..=MOST).map(move |two| (one, two))) {
            assert_eq!(model.choice(solution.policy[state(one, two)]).action, first, "{one} and {two} wait");
        }
    }
}

/// A long chain that mixes slowly: sweeps alone would take as many as it has states squared.
#[test]
fn a_long_chain_is_solved_in_few_sweeps() {
    const STATES: usize = 2_000;
    let mut builder = ModelBuilder::new(STATES, Discount::PerStep(0.999_9));
    for state in 0..STATES {
        let (up, down) = ((state + 1).min(STATES - 1), state.saturating_sub(1));
        for (action, rise) in [0.3, 0.5, 0.6].into_iter().enumerate() {
            let reward = (state as f64 / 50.0).sin() - rise;
            builder.choice(state, action, reward, &[(up, rise), (down, 1.0 - rise)]).unwrap();
        }
    }
    let model = builder.build().unwrap();
    let solution = solve(&model, &Options { epsilon: 1e-6, ..Options::default() }).unwrap();
    assert!(solution.bound <= 1e-6 && solution.iterations + solution.evaluations < 1_000, "{}", solution.evaluations);
    let q = model.q(&solution.values);
    for (state, value) in solution.values.iter().enumerate() {
        let best = model.choices_of(state).map(|choice| q[choice]).fold(f64::NEG_INFINITY, f64::max);
        assert!((best - value).abs() < 2e-6, "state {state}");
    }
}
