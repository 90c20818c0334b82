//! Average rewards: periodic chains, times, and chains that have none.

use oncue_mdp::{Discount, ModelBuilder, Options, Run, Sojourn, SolveError, average_reward, simulate_average};

use crate::close;

#[test]
fn a_periodic_chain_has_an_average() {
    let mut builder = ModelBuilder::new(3, Discount::PerStep(1.0));
    for state in 0..3 {
        builder.choice(state, 0, state as f64, &[((state + 1) % 3, 1.0)]).unwrap();
    }
    let average = average_reward(&builder.build().unwrap(), &Options::default()).unwrap();
    close(&[average.gain], &[1.0], 1e-9);
    // h(s) = r(s) − g + h(next).
    close(&average.bias, &[0.0 - 1.0, 0.0 - 1.0 + 1.0, 0.0].map(|bias: f64| bias - 0.0), 1e-8);
}

/// By the renewal theorem: the reward of a cycle over its time.
#[test]
fn where_sojourns_take_time_it_is_the_reward_per_time() {
    let mut builder = ModelBuilder::new(2, Discount::PerStep(1.0));
    // Ready: a quick job for 3 that takes 1, or a long one for 10 that takes 4. Then a break of 0.5.
    builder.timed_choice(0, 0, 3.0, &[(1, 1.0, Sojourn::Fixed(1.0))]).unwrap();
    builder.timed_choice(0, 1, 10.0, &[(1, 0.5, Sojourn::Fixed(2.0)), (1, 0.5, Sojourn::Exponential(6.0))]).unwrap();
    builder.timed_choice(1, 0, 0.0, &[(0, 1.0, Sojourn::Fixed(0.5))]).unwrap();
    let model = builder.build().unwrap();
    let average = average_reward(&model, &Options::default()).unwrap();
    close(&[average.gain], &[10.0 / 4.5], 1e-9);
    assert_eq!(average.policy, [1, 2]);
    // h(1) = 0, and h(0) is what the job brings beyond its time's share.
    close(&average.bias, &[10.0 - 4.0 * 10.0 / 4.5, 0.0], 1e-8);
}

/// A quick job is followed by another half of the time: runs differ, and their mean is the gain.
#[test]
fn runs_bring_the_gain() {
    let mut builder = ModelBuilder::new(2, Discount::PerStep(1.0));
    let fixed = Sojourn::Fixed;
    builder.timed_choice(0, 0, 3.0, &[(0, 0.5, fixed(1.0)), (1, 0.5, fixed(1.0))]).unwrap();
    builder.timed_choice(1, 0, 1.0, &[(0, 1.0, Sojourn::Exponential(4.0))]).unwrap();
    let model = builder.build().unwrap();
    let average = average_reward(&model, &Options::default()).unwrap();
    // Two quick jobs in the mean, then a long one.
    close(&[average.gain], &[7.0 / 6.0], 1e-9);
    let run = Run { start: 1, runs: 400, steps: 2_000, seed: 3 };
    let one = simulate_average(&model, &average, run);
    assert!((one.mean - average.gain).abs() <= one.half_width && one.half_width < 0.01, "{one:?}");
    assert_eq!((one.steps, one.first[0]), (800_000, (1, 1)));
    // What it is measured by counts little: of a wrong gain, the runs say so.
    let wrong = simulate_average(&model, &oncue_mdp::Average { gain: 1.0, ..average.clone() }, run);
    assert!((wrong.mean - average.gain).abs() <= wrong.half_width, "{wrong:?}");
    assert!((wrong.mean - 1.0).abs() > wrong.half_width, "{wrong:?}");
}

#[test]
fn parts_that_do_not_reach_each_other_have_no_common_average() {
    let mut builder = ModelBuilder::new(2, Discount::PerStep(1.0));
    builder.choice(0, 0, 1.0, &[(0, 1.0)]).unwrap();
    builder.choice(1, 0, 2.0, &[(1, 1.0)]).unwrap();
    let options = Options { iterations: 100, ..Options::default() };
    let error = average_reward(&builder.build().unwrap(), &options).unwrap_err();
    assert_eq!(error, SolveError::Gain { iterations: 100, least: 1.0, greatest: 2.0 });
    assert!(error.to_string().contains("between 1 and 2 after 100"), "{error}");
}
