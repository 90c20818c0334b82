//! Whom to admit: a queue as a semi-Markov decision process, solved for the most worth per second in the long run.

use oncue_mdp::{Discount, Model, ModelBuilder, ModelError, Options, SolveError, solve};

/// Most states: where it pays to let more wait, several events are one step, ever more of them.
const MOST_STATES: usize = 512;
const LONGER: f64 = 4.0;
/// The discount per second, as a share of how fast things happen over the number of states. So small that the policy is the one
/// of the long run, and so large that rounding does not show.
const DISCOUNT: f64 = 1e-3;

/// A queue before several servers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queue {
    /// Classes of events: how many come per second, and what each is worth. Those that are worth most stand first.
    pub(crate) classes: Vec<(f64, f64)>,
    /// Events per second that one server is through with: µ.
    pub(crate) service: f64,
    /// c.
    pub(crate) servers: f64,
    /// C: what it costs that one event is there for a second.
    pub(crate) waiting: f64,
}

/// Δ: what one event more costs those that are there, by how many there are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prices {
    /// Δ(k) for k · `step` events.
    prices: Vec<f64>,
    step: f64,
}

/// Why a queue has no prices.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unpriced {
    /// The model was refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It was not solved.
    #[error(transparent)]
    Solve(#[from] SolveError),
}

impl Prices {
    /// What it costs to keep one more where `there` are, without it.
    pub(crate) fn of(&self, there: f64) -> f64 {
        let at = (there / self.step).max(0.0);
        let last = self.prices.len().saturating_sub(1);
        let below = at.floor().min(last as f64);
        let (one, share) = (below as usize, (at - below).min(1.0));
        let price = |at: usize| self.prices.get(at.min(last)).copied().unwrap_or(0.0);
        if at > last as f64 { f64::INFINITY } else { price(one) * (1.0 - share) + price(one + 1) * share }
    }

    /// The least number of events with which one that is worth so much is not kept.
    pub(crate) fn threshold(&self, value: f64) -> f64 {
        let first = self.prices.iter().position(|price| *price > value);
        first.unwrap_or(self.prices.len()) as f64 * self.step
    }
}

impl Queue {
    /// How many could be there before the next one, worth the most, costs itself more than that: R c µ / C. Nobody who is wise lets more in.
    fn most(&self) -> f64 {
        let value = self.classes.first().map_or(0.0, |(_, value)| *value);
        (value * self.servers * self.service / self.waiting).max(self.servers) + 1.0
    }

    /// How much happens per second at most.
    fn pace(&self) -> f64 {
        self.service * self.servers + self.classes.iter().map(|(rate, _)| rate).sum::<f64>()
    }

    /// The same queue with `step` events as one.
    fn lumped(&self, step: f64) -> Self {
        Self {
            classes: self.classes.iter().map(|(rate, value)| (rate / step, value * step)).collect(),
            service: self.service,
            servers: self.servers / step,
            waiting: self.waiting * step,
        }
    }

    /// S: how many are there. A: how many of the classes are let in, from the one that is worth most on. Arrivals and departures
    /// are made a chain with one pace (uniformised, Puterman 11.5): what is left of it, nothing happens in.
    fn model(&self, room: usize, rate: f64) -> Result<Model, ModelError> {
        let pace = self.pace();
        let mut builder = ModelBuilder::new(room + 1, Discount::PerStep(pace / (pace + rate)));
        for there in 0..=room {
            let leave = self.service * (there as f64).min(self.servers);
            let (mut come, mut earned) = (0.0, 0.0);
            for admitted in 0..=if there < room { self.classes.len() } else { 0 } {
                if let Some((rate, value)) = admitted.checked_sub(1).and_then(|class| self.classes.get(class)) {
                    (come, earned) = (come + rate, earned + rate * value);
                }
                let worth = (earned - self.waiting * there as f64) / (pace + rate);
                let (comes, leaves) = (come / pace, leave / pace);
                let stays = (1.0 - comes - leaves).max(0.0);
                let next = [((there + 1).min(room), comes), (there.saturating_sub(1), leaves), (there, stays)];
                builder.choice(there, admitted, worth, &next)?;
            }
        }
        builder.build()
    }

    /// Δ(n) = V(n) − V(n + 1).
    pub(crate) fn prices(&self) -> Result<Prices, Unpriced> {
        let best = self.classes.first().map_or(0.0, |(_, value)| *value);
        let mut step = 1.0;
        loop {
            let queue = self.lumped(step);
            let most = queue.most().ceil();
            let room = (most as usize).clamp(1, MOST_STATES);
            let prices = Prices { prices: queue.differences(room)?.map(|price| price / step).collect(), step };
            // Where nobody is let in any more before there is no room, more room would change nothing.
            if most <= room as f64 || prices.prices.last().is_some_and(|price| *price > best) {
                return Ok(prices);
            }
            step *= LONGER;
        }
    }

    fn differences(&self, room: usize) -> Result<impl Iterator<Item = f64> + use<>, Unpriced> {
        let rate = DISCOUNT * self.pace() / room as f64;
        // Values are as large as the discount is small; prices are their differences.
        let most = self.classes.iter().map(|(rate, value)| rate * value).sum::<f64>() + self.waiting * room as f64;
        let options = Options { epsilon: 2e-9 * most / rate, threads: 1, ..Options::default() };
        let values = solve(&self.model(room, rate)?, &options)?.values;
        Ok((1..values.len()).map(move |there| values[there - 1] - values[there]))
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
