//! Policies that are computed: each subscription is given its own, and one task computes them again as attempts move.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::serve::Provided;
use crate::{
    clock::Clock,
    handler::Registration,
    policy::{Admission, AdmissionState, Attempts, Dependency, Intake, Learned, Optimal, Survival, Unsolved},
    transport::Transport,
};

/// Policies are computed no more often than that.
const BREATH: Duration = Duration::from_secs(1);

/// The policies of an app that are computed, and what their handlers call.
#[derive(Default)]
pub(crate) struct Learning {
    /// By name.
    dependencies: Mutex<HashMap<String, Arc<Dependency>>>,
    /// By subscription.
    policies: Mutex<HashMap<String, Arc<Learned>>>,
    /// By subscription.
    intakes: Mutex<HashMap<String, Arc<Intake>>>,
    moved: Arc<Notify>,
}

impl Learning {
    /// The policy of a subscription that is about to be served, computed of what its log says.
    pub(super) async fn bind(
        self: &Arc<Self>,
        rules: &Optimal,
        subscription: &str,
        provided: &Provided,
    ) -> Arc<Learned> {
        let name = rules.dependency_of(subscription);
        let dependency = {
            let mut dependencies = self.dependencies.lock();
            let known = dependencies.entry(name.to_owned());
            Arc::clone(known.or_insert_with(|| Arc::new(Dependency::new(name.to_owned()))))
        };
        let policy = Learned::new(subscription, rules.clone(), dependency, Arc::clone(&self.moved));
        let policy = Arc::new(policy);
        self.policies.lock().insert(subscription.to_owned(), Arc::clone(&policy));
        let attempts = self.compute(&policy, &provided.transport).await;
        let now = provided.clock.now();
        let down_for = attempts.down_since().map(|since| now.since(since));
        policy.dependency.begin(attempts.odds, down_for, provided.clock.monotonic());
        policy
    }

    /// The admission policy of a subscription that is about to be served: what it measured before counts, if it is still the same.
    pub(super) fn admit(&self, rules: &Admission, handler: &Registration) -> Arc<Intake> {
        let mut intakes = self.intakes.lock();
        let concurrency = handler.options.concurrency;
        if let Some(known) = intakes.get(&handler.id).filter(|known| known.is_for(rules, concurrency)) {
            return Arc::clone(known);
        }
        let intake = Arc::new(Intake::new(&handler.id, rules.clone(), concurrency));
        intakes.insert(handler.id.clone(), Arc::clone(&intake));
        intake
    }

    /// What admission policies know and have decided, by subscription.
    pub(super) fn admissions(&self) -> Vec<AdmissionState> {
        let mut states: Vec<_> = self.intakes.lock().values().map(|intake| intake.state()).collect();
        states.sort_by(|one, other| one.subscription.cmp(&other.subscription));
        states
    }

    /// Computes a policy beside all else, since that may take a while; gives the attempts that it is computed of.
    async fn compute(&self, policy: &Arc<Learned>, transport: &Arc<dyn Transport>) -> Attempts {
        let sharing: Vec<String> = {
            let policies = self.policies.lock();
            let shares = |other: &&Arc<Learned>| Arc::ptr_eq(&other.dependency, &policy.dependency);
            policies.values().filter(shares).map(|other| other.subscription.clone()).collect()
        };
        let (solved, transport) = (Arc::clone(policy), Arc::clone(transport));
        let work = tokio::task::spawn_blocking(move || {
            let inspect = transport.inspect();
            let attempts = inspect.attempts(&solved.subscription).unwrap_or_default();
            let mut outages = Survival::default();
            for of_another in sharing.iter().filter_map(|id| inspect.attempts(id)) {
                outages.merge(&of_another.outages);
            }
            let computed = solved.rules.compute(&attempts, &outages);
            (attempts, computed)
        });
        // It fails if the solver panicked, or when the runtime shuts down.
        let (attempts, computed) = work.await.unwrap_or_else(|_| (Attempts::default(), Err(Unsolved::Broke)));
        policy.take(computed);
        attempts
    }

    /// Computes policies again as their attempts move.
    pub(super) async fn run(self: Arc<Self>, transport: Arc<dyn Transport>, clock: Clock) {
        loop {
            self.moved.notified().await;
            let policies: Vec<_> = self.policies.lock().values().cloned().collect();
            for policy in policies.into_iter().filter(|policy| policy.take_stale()) {
                self.compute(&policy, &transport).await;
            }
            clock.sleep(BREATH).await;
        }
    }
}
