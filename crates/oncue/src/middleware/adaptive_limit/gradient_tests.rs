//! Against a simulated server whose law is known: c places, service times that are exponential, a queue before them
//! (M/M/c), and more to do than it can.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// How calls get on: the server works on `servers` of them at once, each takes `mean` seconds on average.
#[derive(Clone, Copy)]
struct Server {
    servers: usize,
    mean: f64,
}

/// Calls as many as the limit lets run, all the time.
struct Simulation {
    random: fastrand::Rng,
    now: f64,
    /// When calls began and in which term: those that are worked on, with their ends, and those that wait.
    worked: Vec<(f64, f64, u64)>,
    waiting: VecDeque<(f64, u64)>,
}

/// What it came to.
#[derive(Debug)]
struct Came {
    limit: f64,
    latency: f64,
    per_second: f64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), now: 0.0, worked: Vec::new(), waiting: VecDeque::new() }
    }

    /// Runs until so many calls ended; means over them.
    fn run(&mut self, server: Server, calls: u32, limit: impl Fn(&Gradient) -> usize, learns: &mut Gradient) -> Came {
        let (began, mut limits, mut latencies) = (self.now, 0.0, 0.0);
        for _ in 0..calls {
            while self.worked.len() + self.waiting.len() < limit(learns) {
                self.waiting.push_back((self.now, learns.term()));
            }
            while self.worked.len() < server.servers
                && let Some((began, term)) = self.waiting.pop_front()
            {
                let takes = -server.mean * (1.0 - self.random.f64()).ln();
                self.worked.push((self.now + takes, began, term));
            }
            let running = self.worked.len() + self.waiting.len();
            let first = (0..self.worked.len()).min_by(|a, b| self.worked[*a].0.total_cmp(&self.worked[*b].0)).unwrap();
            let (ended, began, term) = self.worked.swap_remove(first);
            self.now = ended;
            learns.ended(term, Told::Latency(ended - began), running);
            (limits, latencies) = (limits + learns.limit, latencies + ended - began);
        }
        let calls = f64::from(calls);
        Came { limit: limits / calls, latency: latencies / calls, per_second: calls / (self.now - began) }
    }
}

const BOUNDS: Bounds = Bounds { initial: 4, min: 1, max: 500, tolerance: 1.25 };

/// L = τ·K + √L.
fn rests_at(knee: f64) -> f64 {
    let root = f64::midpoint(1.0, (1.0 + 4.0 * BOUNDS.tolerance * knee).sqrt());
    root * root
}

fn adaptive(gradient: &Gradient) -> usize {
    gradient.limit()
}

#[test]
fn it_rests_above_the_knee_where_all_is_used_and_few_wait() {
    for (seed, servers) in [(1, 4), (2, 10), (3, 32), (4, 100)] {
        let (server, mut learns) = (Server { servers, mean: 0.02 }, Gradient::new(BOUNDS));
        let mut simulation = Simulation::new(seed);
        simulation.run(server, 20_000, adaptive, &mut learns);
        let came = simulation.run(server, 60_000, adaptive, &mut learns);
        let (knee, expected) = (servers as f64, rests_at(servers as f64));
        assert!((0.75..1.25).contains(&(came.limit / expected)), "knee {knee}: {came:?}, expected {expected}");
        let most = knee / server.mean;
        assert!(came.per_second > 0.95 * most, "knee {knee}: {came:?} of {most}");

        let fixed = Simulation::new(seed).run(server, 60_000, |_| 500, &mut Gradient::new(BOUNDS));
        assert!(fixed.per_second < 1.05 * came.per_second, "more at once does no more: {fixed:?}");
        assert!(came.latency < 2.5 * server.mean.max(server.mean * expected / knee), "knee {knee}: {came:?}");
        assert!(fixed.latency > 2.0 * came.latency, "and all wait: {fixed:?} against {came:?}");
    }
}

#[test]
fn it_follows_a_server_that_becomes_slower_faster_smaller_and_larger() {
    let mut learns = Gradient::new(BOUNDS);
    let mut simulation = Simulation::new(7);
    let changes = [(16, 0.02), (16, 0.1), (16, 0.01), (4, 0.01), (40, 0.01), (16, 0.02)];
    for (servers, mean) in changes {
        let server = Server { servers, mean };
        simulation.run(server, 25_000, adaptive, &mut learns);
        let came = simulation.run(server, 25_000, adaptive, &mut learns);
        let expected = rests_at(servers as f64);
        assert!((0.7..1.35).contains(&(came.limit / expected)), "{servers} × {mean}: {came:?}, expected {expected}");
        assert!(came.per_second > 0.93 * servers as f64 / mean, "{servers} × {mean}: {came:?}");
    }
}

#[test]
fn what_is_not_used_does_not_grow_and_what_is_throttled_shrinks() {
    let mut learns = Gradient::new(Bounds { initial: 20, ..BOUNDS });
    for _ in 0..1_000 {
        learns.ended(learns.term(), Told::Latency(0.01), 5);
    }
    assert_eq!((learns.limit(), learns.reason), (20, LimitReason::Unused));
    for _ in 0..60 {
        learns.ended(learns.term(), Told::Overload, 20);
    }
    assert_eq!((learns.limit(), learns.reason), (16, LimitReason::Overload));
    let decided = learns.state();
    for _ in 0..1_000 {
        assert!(!learns.ended(learns.term(), Told::Nothing, 20));
    }
    assert_eq!(learns.state(), decided, "other failures say nothing");
}

#[test]
fn a_probe_counts_none_of_the_calls_that_began_before_it() {
    let mut learns = Gradient::new(Bounds { initial: 40, ..BOUNDS });
    let before = learns.term();
    while learns.reason != LimitReason::Probing {
        learns.ended(learns.term(), Told::Latency(0.01), 500);
    }
    for _ in 0..1_000 {
        assert!(!learns.ended(before, Told::Latency(9.0), 500), "they began under load");
    }
    // The first ones are the short ones of those that began in it.
    let short = 2 * learns.limit();
    for number in 0..WINDOW as usize + short {
        let seconds = if number < short { 0.001 } else { 0.03 };
        learns.ended(learns.term(), Told::Latency(seconds), 20);
    }
    assert_eq!(learns.state().no_load, Some(std::time::Duration::from_millis(30)));
}

#[test]
fn the_same_calls_give_the_same_limits() {
    let run = || {
        let mut learns = Gradient::new(BOUNDS);
        let came = Simulation::new(3).run(Server { servers: 8, mean: 0.05 }, 10_000, adaptive, &mut learns);
        (came.limit.to_bits(), learns.state())
    };
    assert_eq!(run(), run());
}

proptest! {
    #[test]
    fn whatever_calls_tell_it_stays_within_its_bounds(
        calls in proptest::collection::vec((0_u8..4, 0.0_f64..10.0, 1_usize..300), 1..1_000),
        (min, more) in (1_usize..20, 0_usize..100),
    ) {
        let mut learns = Gradient::new(Bounds { initial: 10, min, max: min + more, tolerance: 1.0 });
        for (told, seconds, running) in calls {
            let told = match told { 0 => Told::Overload, 1 => Told::Nothing, 2 => Told::Latency(0.0), _ => Told::Latency(seconds) };
            learns.ended(learns.term(), told, running);
            prop_assert!((min..=min + more).contains(&learns.limit()));
            prop_assert!(learns.limit.is_finite());
        }
    }
}
