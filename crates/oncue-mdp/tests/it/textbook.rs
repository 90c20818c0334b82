//! Models whose answers are printed in books.

use oncue_mdp::{Discount, Model, ModelBuilder, Options, Transition, average_reward, backward_induction};
use oncue_mdp::{Run, Sojourn, simulate};

use crate::{by_all_methods, close};

/// Puterman, figure 3.1.1: in the first state, stay half of the time for 5, or leave for 10; the second costs 1 for ever.
#[test]
fn two_states_of_puterman() {
    let model = Model::from_json(
        br#"{"discount": 0.95, "states": ["s1", "s2"], "actions": ["a11", "a12", "a21"], "transitions": [
            ["s1", "a11", "s1", 0.5, 5], ["s1", "a11", "s2", 0.5, 5], ["s1", "a12", "s2", 1, 10], ["s2", "a21", "s2", 1, -1]]}"#,
    );
    let model = model.unwrap();
    let solution = by_all_methods(&model);
    close(&solution.values, &[-4.5 / 0.525, -20.0], 1e-9);
    assert_eq!(solution.actions(&model), [0, 2]);
    close(&model.q(&solution.values), &[-4.5 / 0.525, -9.0, -20.0], 1e-9);
    // Section 4.5's way to it: with one step to go, 10 are better than 5; with two, staying is.
    let plan = backward_induction(&model, 2, &Options::default()).unwrap();
    assert_eq!((plan.choice(1, 0), plan.choice(2, 0)), (Some(1), Some(0)));
    close(&plan.values, &[9.275, -1.95], 1e-12);
}

/// Howard, *Dynamic Programming and Markov Processes* (1960): the taxicab, with a discount of 0.9 and without.
#[test]
fn howards_taxicab() {
    let rows: [(usize, usize, [f64; 3], [f64; 3]); 8] = [
        (0, 0, [0.5, 0.25, 0.25], [10.0, 4.0, 8.0]),
        (0, 1, [0.0625, 0.75, 0.1875], [8.0, 2.0, 4.0]),
        (0, 2, [0.25, 0.125, 0.625], [4.0, 6.0, 4.0]),
        (1, 0, [0.5, 0.0, 0.5], [14.0, 0.0, 18.0]),
        (1, 1, [0.0625, 0.875, 0.0625], [8.0, 16.0, 8.0]),
        (2, 0, [0.25, 0.25, 0.5], [10.0, 2.0, 8.0]),
        (2, 1, [0.125, 0.75, 0.125], [6.0, 4.0, 2.0]),
        (2, 2, [0.75, 0.0625, 0.1875], [4.0, 0.0, 8.0]),
    ];
    let all = rows.iter().flat_map(|(state, action, probabilities, rewards)| {
        (0..3).map(|next| Transition {
            state: *state,
            action: *action,
            next,
            probability: probabilities[next],
            reward: rewards[next],
            sojourn: Sojourn::Fixed(1.0),
        })
    });
    let mut builder = ModelBuilder::new(3, Discount::PerStep(0.9));
    builder.transitions(all.rev().collect()).unwrap();
    let model = builder.build().unwrap();
    let solution = by_all_methods(&model);
    close(&solution.values, &[121.65, 135.31, 122.84], 0.005);
    assert_eq!(solution.actions(&model), [1, 1, 1]);
    let average = average_reward(&model, &Options::default()).unwrap();
    close(&[average.gain], &[13.3445], 0.00005);
    close(&average.bias, &[-1.18, 12.66, 0.0], 0.005);
    let actions: Vec<_> = average.policy.iter().map(|choice| model.choice(*choice).action).collect();
    assert_eq!(actions, [1, 1, 1]);
    // A policy that is executed returns what it is worth.
    let run = Run { start: 0, runs: 2_000, steps: 10_000, seed: 1 };
    let simulated = simulate(&model, &solution.policy, run);
    assert!((simulated.mean - solution.values[0]).abs() < simulated.half_width, "{simulated:?}");
    assert!(simulated.half_width < 1.0 && simulated.first[0] == (0, 1), "{simulated:?}");
}

/// The forest that the MDP toolbox has as its example: wait, or cut; a fire with probability 0.1.
#[test]
fn the_forest_of_the_mdp_toolbox() {
    let mut builder = ModelBuilder::new(3, Discount::PerStep(0.9));
    for (state, wait, cut) in [(0, 0.0, 0.0), (1, 0.0, 1.0), (2, 4.0, 2.0)] {
        builder.choice(state, 0, wait, &[(0, 0.1), ((state + 1).min(2), 0.9)]).unwrap();
        builder.choice(state, 1, cut, &[(0, 1.0)]).unwrap();
    }
    let model = builder.build().unwrap();
    let solution = by_all_methods(&model);
    close(&solution.values, &[26.244, 29.484, 33.484], 1e-9);
    assert_eq!(solution.actions(&model), [0, 0, 0]);
    let plan = backward_induction(&model, 3, &Options::default()).unwrap();
    close(&plan.values, &[2.6973, 5.9373, 9.9373], 1e-12);
    let action = |to_go, state| model.choice(plan.choice(to_go, state).unwrap()).action;
    assert_eq!([action(3, 1), action(2, 1), action(1, 1)], [0, 0, 1]);
    assert_eq!((plan.steps(), plan.choice(4, 0), plan.choice(0, 0), plan.choice(1, 3)), (3, None, None, None));
}

/// Sutton and Barto, example 4.3: a gambler stakes on heads, of probability 0.4, until he has 100 or nothing. Bold play is best
/// (Dubins and Savage): below half of the goal all is staked, above it what is missing.
#[test]
fn the_gambler_plays_boldly() {
    fn bold(capital: u64, goal: u64) -> f64 {
        match 2 * capital {
            _ if capital == 0 => 0.0,
            _ if capital == goal => 1.0,
            double if double <= goal => 0.4 * bold(double, goal),
            double => 0.4 + 0.6 * bold(double - goal, goal),
        }
    }
    // Of 128 and not of 100, so that bold play ends after 7 stakes at most.
    const GOAL: usize = 128;
    let mut builder = ModelBuilder::new(GOAL + 1, Discount::PerStep(1.0));
    for capital in 0..=GOAL {
        if capital == 0 || capital == GOAL {
            builder.choice(capital, 0, 0.0, &[(capital, 1.0)]).unwrap();
        }
        for stake in 1..=capital.min(GOAL - capital) {
            let wins = if capital + stake == GOAL { 0.4 } else { 0.0 };
            builder.choice(capital, stake, wins, &[(capital + stake, 0.4), (capital - stake, 0.6)]).unwrap();
        }
    }
    let model = builder.build().unwrap();
    let plan = backward_induction(&model, 500, &Options::default()).unwrap();
    let expected: Vec<_> = (0..GOAL as u64).map(|capital| bold(capital, GOAL as u64)).collect();
    close(&plan.values[..GOAL], &expected, 1e-12);
    let half = model.choice(plan.choice(500, GOAL / 2).unwrap());
    assert_eq!(half.action, GOAL / 2, "at half of the goal, all is staked");
}

/// Sutton and Barto, example 4.2: Jack rents cars at two places and moves up to five over night.
#[test]
fn jacks_car_rental() {
    const MOST: usize = 20;
    // P(n) of a Poisson law, and all that is beyond in the last.
    let poisson = |mean: f64, last: usize| {
        let mut all: Vec<f64> = (0..last).map(|n| (1..=n).fold((-mean).exp(), |p, k| p * mean / k as f64)).collect();
        all.push(1.0 - all.iter().sum::<f64>());
        all
    };
    // For one place: where it ends and what it earns, from each number of cars in the morning.
    let place = |requests: f64, returns: f64| {
        let day = |cars: usize| {
            let (mut ends, mut earned) = (vec![0.0; MOST + 1], 0.0);
            for (rented, p) in poisson(requests, cars).into_iter().enumerate() {
                earned += 10.0 * p * rented as f64;
                for (returned, q) in poisson(returns, MOST - (cars - rented)).into_iter().enumerate() {
                    ends[cars - rented + returned] += p * q;
                }
            }
            (ends, earned)
        };
        (0..=MOST).map(day).collect::<Vec<_>>()
    };
    let (one, two) = (place(3.0, 3.0), place(4.0, 2.0));
    let state = |first: usize, second: usize| first * (MOST + 1) + second;
    let mut builder = ModelBuilder::new((MOST + 1).pow(2), Discount::PerStep(0.9));
    for (first, second) in (0..=MOST).flat_map(|first| (0..=MOST).map(move |second| (first, second))) {
        for action in 0..11_usize {
            // 5 − action cars from the second place to the first; the other way beyond 5.
            let (from_first, from_second) = (action.saturating_sub(5), 5_usize.saturating_sub(action));
            if from_first > first || from_second > second {
                continue;
            }
            let morning = |cars: usize, out: usize, new: usize| (cars - out + new).min(MOST);
            let (new_first, new_second) =
                (morning(first, from_first, from_second), morning(second, from_second, from_first));
            let ((ends_one, earned_one), (ends_two, earned_two)) = (&one[new_first], &two[new_second]);
            let pairs = ends_one.iter().enumerate();
            let pairs = pairs.flat_map(|(i, p)| ends_two.iter().enumerate().map(move |(j, q)| (state(i, j), p * q)));
            let reward = earned_one + earned_two - 2.0 * (from_first + from_second) as f64;
            builder.choice(state(first, second), action, reward, &pairs.collect::<Vec<_>>()).unwrap();
        }
    }
    let model = builder.build().unwrap();
    let solution = by_all_methods(&model);
    let actions = solution.actions(&model);
    // The figure's last policy: cars moved from the first place to the second.
    let moved = |first, second| actions[state(first, second)] as i64 - 5;
    assert_eq!([moved(20, 0), moved(0, 20), moved(10, 10), moved(0, 0)], [5, -4, 0, 0]);
    let (least, most) = (solution.values[state(0, 0)], solution.values[state(20, 20)]);
    println!("{least} {most}");
}
