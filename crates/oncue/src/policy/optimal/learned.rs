//! The policy of one subscription, as its attempts have it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::{
    Optimal,
    attempts::{Attempts, CLASSES, table_of},
    dependency::Dependency,
    model::{self, MOST_STEPS, Move, Moves, SHORTEST_S, Solved, Terms, Unsolved, World},
    outlook::Outlook,
    survival::Survival,
};
use crate::policy::{Decision, Exponential, Failure, Policy, exponential};

/// Solved again after so many failures, at least.
const MOVED: u64 = 8;
/// For so many waiting calls it is computed when to try what is down.
const CROWDS: [u32; 4] = [1, 4, 16, 64];
/// Most tries that are looked ahead during an outage.
const MOST_TRIES: u32 = 256;

/// When to try what is down.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    /// By how many calls wait.
    crowds: Vec<(u32, u32, Moves)>,
    max_delay: Duration,
}

impl Probes {
    /// How long to wait before the next try, after `tried` failed.
    pub(crate) fn pause(&self, age: Duration, waiting: usize, tried: u32) -> Duration {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let fits = self.crowds.iter().rev().find(|(crowd, ..)| *crowd <= waiting.max(1));
        let chosen =
            fits.and_then(|(_, tries, moves)| moves.at(tries.saturating_sub(tried).max(1), 0, age.as_secs_f64()));
        match chosen {
            Some(Move::Retry(delay)) => Duration::from_secs_f64(delay).min(self.max_delay),
            Some(Move::GiveUp) | None => self.max_delay,
        }
    }
}

/// What is computed of a subscription's attempts and, for its dependency, of the outages that all who name it saw.
pub(crate) struct Computed {
    pub(crate) events: Solved,
    pub(crate) probes: Probes,
}

impl Optimal {
    /// The model of an event's attempts, solved.
    pub(crate) fn solve_events(&self, attempts: &Attempts) -> Result<Solved, Unsolved> {
        let world = World {
            outlooks: Outlook::by_class(attempts),
            follows: (0..CLASSES.len()).map(|class| attempts.next_class(class).to_vec()).collect(),
        };
        let costs = self.costs;
        let terms = Terms {
            success: costs.success,
            attempt: costs.attempt,
            delay_per_s: costs.delay_per_s,
            loss: costs.loss,
            attempts: self.max_attempts,
            steps: self.max_attempts.saturating_sub(1).min(MOST_STEPS),
            max_delay_s: self.max_delay.as_secs_f64(),
            deadline_s: self.deadline.map_or(f64::INFINITY, |age| age.as_secs_f64()),
            gives_up: true,
        };
        model::solve(world, terms)
    }

    /// When to try what is down: the same model, of outages. All who wait share the attempts that there are, and each pays
    /// for the delay.
    fn solve_probes(&self, outages: &Survival) -> Result<Probes, Unsolved> {
        let world = World { outlooks: vec![Outlook::of_passing(outages)], follows: vec![vec![1.0]] };
        let mut crowds = Vec::with_capacity(CROWDS.len());
        for crowd in CROWDS {
            let tries = self.max_attempts.saturating_sub(1).saturating_mul(crowd).clamp(1, MOST_TRIES);
            let terms = Terms {
                success: 0.0,
                attempt: self.costs.attempt,
                delay_per_s: self.costs.delay_per_s * f64::from(crowd),
                loss: self.costs.loss * f64::from(crowd),
                attempts: tries + 1,
                steps: tries,
                max_delay_s: self.max_delay.as_secs_f64(),
                deadline_s: f64::INFINITY,
                gives_up: false,
            };
            crowds.push((crowd, tries, model::solve(world.clone(), terms)?.moves));
        }
        Ok(Probes { crowds, max_delay: self.max_delay })
    }

    pub(crate) fn compute(&self, attempts: &Attempts, outages: &Survival) -> Result<Computed, Unsolved> {
        Ok(Computed { events: self.solve_events(attempts)?, probes: self.solve_probes(outages)? })
    }

    /// The policy of exponential delays with the same bounds: what counts where nothing is computed.
    pub(crate) fn fallback(&self) -> Exponential {
        let policy = exponential().max_attempts(self.max_attempts).max_delay(self.max_delay).jitter(self.jitter);
        match self.deadline {
            Some(deadline) => policy.deadline(deadline),
            None => policy,
        }
    }

    /// What follows a failure by what is computed; bounds hold whatever that says.
    pub(crate) fn follow(&self, moves: Option<&Moves>, failure: &Failure<'_>) -> Decision {
        let Some(moves) = moves else { return self.fallback().decide(failure) };
        let left = self.max_attempts.saturating_sub(failure.attempt);
        let chosen = table_of(failure.class).and_then(|table| moves.at(left, table, failure.failing_for.as_secs_f64()));
        match chosen {
            Some(Move::Retry(delay)) => self.bounded(Duration::from_secs_f64(delay), failure),
            Some(Move::GiveUp) | None => Decision::DeadLetter,
        }
    }

    /// A delay within all bounds.
    fn bounded(&self, delay: Duration, failure: &Failure<'_>) -> Decision {
        if !failure.class.is_retryable() || failure.attempt >= self.max_attempts {
            return Decision::DeadLetter;
        }
        let random = if failure.random.is_finite() { failure.random.clamp(0.0, 1.0) } else { 0.0 };
        let delay = delay.min(self.max_delay).mul_f64(1.0 - self.jitter * random);
        match self.deadline {
            Some(deadline) if failure.age.saturating_add(delay) > deadline => Decision::DeadLetter,
            _ => Decision::Retry(delay),
        }
    }
}

/// The policy of one subscription: what is computed of its attempts, exchanged as they move; and its dependency.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) subscription: String,
    pub(crate) rules: Optimal,
    pub(crate) dependency: Arc<Dependency>,
    moves: RwLock<Option<Arc<Moves>>>,
    failures: AtomicU64,
    /// Told when there is something to be computed again.
    moved: Arc<Notify>,
    stale: AtomicBool,
    failed: AtomicBool,
}

impl Learned {
    pub(crate) fn new(subscription: &str, rules: Optimal, dependency: Arc<Dependency>, moved: Arc<Notify>) -> Self {
        Self {
            subscription: subscription.to_owned(),
            rules,
            dependency,
            moves: RwLock::default(),
            failures: AtomicU64::new(0),
            moved,
            stale: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Whether attempts have moved since this was asked last.
    pub(crate) fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    /// What was computed counts from now on. What was not: exponential delays until it is.
    pub(crate) fn take(&self, computed: Result<Computed, Unsolved>) {
        match computed {
            Ok(Computed { events, probes }) => {
                *self.moves.write() = Some(Arc::new(events.moves));
                self.dependency.set_probes(Arc::new(probes));
            }
            Err(error) => {
                *self.moves.write() = None;
                if !self.failed.swap(true, Ordering::AcqRel) {
                    tracing::error!(subscription = %self.subscription, %error,
                        "its retry policy could not be computed: exponential delays count instead");
                }
            }
        }
    }
}

impl Policy for Learned {
    fn decide(&self, failure: &Failure<'_>) -> Decision {
        if self.failures.fetch_add(1, Ordering::Relaxed) % MOVED == MOVED - 1 {
            self.stale.store(true, Ordering::Release);
            self.moved.notify_one();
        }
        if let Some(rest) = self.dependency.rest() {
            // Parked. Behind those that wait already, so that they take turns in trying.
            let behind = (rest / 64).max(Duration::from_secs_f64(SHORTEST_S));
            return self.rules.bounded(rest.saturating_add(behind), &Failure { random: 0.0, ..failure.clone() });
        }
        let moves = self.moves.read().clone();
        self.rules.follow(moves.as_deref(), failure)
    }
}
