//! The value of a policy where sweeps are slow: the stabilised method of biconjugate gradients (van der Vorst, 1992), on
//! rows divided by their diagonal.

use crate::backup::{Chain, Extent};

/// Most steps; each costs two sweeps.
const MOST_STEPS: usize = 2_000;
/// Given up after so many steps without a better residual.
const PATIENCE: usize = 200;

/// Brings the residual r + W x − x of `values` to a span of `target` at most, or as near as it comes. Gives how many sweeps that
/// took. What it finds is no worse than what it was given; how good it is, a backup tells.
pub(crate) fn solve(chain: &Chain, values: &mut [f64], target: f64) -> u64 {
    let size = chain.states();
    let scale = inverse_diagonal(chain);
    let mut residual = vec![0.0; size];
    let mut span = residual_of(chain, values, &mut residual).span();
    let shadow = residual.clone();
    let mut state = State {
        at: values.to_vec(),
        direction: residual.clone(),
        image: vec![0.0; size],
        scaled: vec![0.0; size],
        second: vec![0.0; size],
        rho: dot(&shadow, &residual),
        residual,
    };
    let (mut best, mut since_best, mut sweeps) = (span, 0, 1);
    for _ in 0..MOST_STEPS {
        if span <= target || since_best > PATIENCE || !state.step(chain, &scale, &shadow) {
            break;
        }
        sweeps += 2;
        span = Extent::of(&state.residual).span();
        since_best += 1;
        if span < best {
            (best, since_best) = (span, 0);
            values.copy_from_slice(&state.at);
        }
    }
    sweeps
}

struct State {
    at: Vec<f64>,
    residual: Vec<f64>,
    direction: Vec<f64>,
    image: Vec<f64>,
    scaled: Vec<f64>,
    second: Vec<f64>,
    rho: f64,
}

impl State {
    /// One step; false if it breaks down.
    fn step(&mut self, chain: &Chain, scale: &[f64], shadow: &[f64]) -> bool {
        scaled(scale, &self.direction, &mut self.scaled);
        image_of(chain, &self.scaled, &mut self.image);
        let alpha = self.rho / dot(shadow, &self.image);
        if !alpha.is_finite() {
            return false;
        }
        add(&mut self.at, alpha, &self.scaled);
        add(&mut self.residual, -alpha, &self.image);
        scaled(scale, &self.residual, &mut self.scaled);
        image_of(chain, &self.scaled, &mut self.second);
        let omega = dot(&self.second, &self.residual) / dot(&self.second, &self.second);
        if !omega.is_finite() {
            // The residual is 0.
            return false;
        }
        add(&mut self.at, omega, &self.scaled);
        add(&mut self.residual, -omega, &self.second);
        let rho = dot(shadow, &self.residual);
        let beta = rho / self.rho * alpha / omega;
        self.rho = rho;
        if !beta.is_finite() {
            return false;
        }
        for ((direction, residual), image) in self.direction.iter_mut().zip(&self.residual).zip(&self.image) {
            *direction = residual + beta * (*direction - omega * image);
        }
        true
    }
}

fn residual_of(chain: &Chain, values: &[f64], out: &mut [f64]) -> Extent {
    let rows = chain.rows();
    chain.parts.fill(out, |states, out| {
        let mut extent = Extent::EMPTY;
        for (state, out) in states.zip(out) {
            *out = rows.value(state, values) - values[state];
            extent = extent.with(*out);
        }
        extent
    })
}

/// (I − W) x.
fn image_of(chain: &Chain, x: &[f64], out: &mut [f64]) {
    let rows = chain.rows();
    chain.parts.fill(out, |states, out| {
        for (state, out) in states.zip(out) {
            *out = x[state] - rows.factor * rows.expected(state, x);
        }
        Extent::EMPTY
    });
}

fn inverse_diagonal(chain: &Chain) -> Vec<f64> {
    let rows = chain.rows();
    let diagonal = (0..chain.states()).map(|state| {
        let (next, weights) = rows.row(state);
        let stays = next.iter().zip(weights).filter(|(next, _)| **next as usize == state);
        1.0 / (1.0 - rows.factor * stays.map(|(_, weight)| weight).sum::<f64>())
    });
    diagonal.collect()
}

fn scaled(scale: &[f64], x: &[f64], out: &mut [f64]) {
    for ((out, scale), x) in out.iter_mut().zip(scale).zip(x) {
        *out = scale * x;
    }
}

fn add(to: &mut [f64], times: f64, x: &[f64]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += times * x;
    }
}

/// In eight sums, which the processor adds side by side.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (x, y) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in x.zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    rest + sums.iter().sum::<f64>()
}
