//! One life of the dependency under one policy: the real dispatcher, in virtual time.

use std::{io, sync::Arc, time::Duration};

use oncue::{
    App, Clock, PausedClock,
    clock::NotPaused,
    handler::{HandlerExt as _, extract::Attempt},
    policy::{Costs, ErrorClass, Policy},
    prelude::*,
    testing::TIME_OF_START,
    transport::{LogTransport, LogUrl},
};
use parking_lot::Mutex;
use thiserror::Error;

use super::world::Dependency;

/// Why there is nothing to compare.
#[derive(Debug, Error)]
pub(in crate::cli) enum LifeError {
    /// The runtime could not be made.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Time would not stand still.
    #[error(transparent)]
    NotPaused(NotPaused),
    /// The app failed.
    #[error("the simulated app failed: {0}")]
    App(#[from] oncue::Error),
}

/// What became of all events.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// What an event cost, on average.
    pub(super) cost: f64,
    /// Share of events that were handled.
    pub(super) handled: f64,
    /// Calls per event.
    pub(super) calls: f64,
    /// From publishing until an event was handled or given up, in seconds, ascending.
    pub(super) ages: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    published: f64,
    calls: u32,
    last: f64,
    handled: bool,
}

/// What the handler is given.
#[derive(Clone)]
struct Called {
    dependency: Arc<dyn Dependency>,
    fates: Arc<Mutex<Vec<Fate>>>,
}

/// How a call failed.
#[derive(Debug, Error)]
#[error("{0}")]
struct Refusal(ErrorClass);

async fn call(
    envelope: Envelope,
    State(called): State<Called>,
    State(clock): State<Clock>,
    Attempt(attempt): Attempt,
) -> Result<(), Refusal> {
    let event: usize = envelope.key().and_then(|key| key.parse().ok()).unwrap_or_default();
    let answer = called.dependency.call(event, attempt, seconds(&clock));
    clock.sleep(called.dependency.call_takes()).await;
    if let Some(fate) = called.fates.lock().get_mut(event) {
        fate.calls += 1;
        fate.last = seconds(&clock);
        fate.handled |= answer.is_ok();
    }
    answer.map_err(Refusal)
}

fn seconds(clock: &Clock) -> f64 {
    clock.now().since(TIME_OF_START).as_secs_f64()
}

/// Lives it.
pub(super) fn live(
    dependency: Arc<dyn Dependency>,
    seed: u64,
    policy: Arc<dyn Policy>,
    costs: &Costs,
) -> Result<Life, LifeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(LifeError::Runtime)?;
    // The dispatcher draws its jitter on this thread.
    fastrand::seed(seed);
    let fates = runtime.block_on(async {
        let time = PausedClock::new(TIME_OF_START).map_err(LifeError::NotPaused)?;
        Ok::<_, LifeError>(run(dependency, policy, time.clock()).await?)
    })?;
    Ok(measured(&fates, costs))
}

async fn run(dependency: Arc<dyn Dependency>, policy: Arc<dyn Policy>, clock: Clock) -> oncue::Result<Vec<Fate>> {
    let transport = Arc::new(LogTransport::open(&"memory:".parse::<LogUrl>()?, clock.clone())?);
    let arrivals = dependency.arrivals();
    let fates = arrivals.iter().map(|at| Fate { published: *at, ..Fate::default() }).collect();
    let called = Called { dependency, fates: Arc::new(Mutex::new(fates)) };
    let handler = call.named("call").types(["called"]).retry(policy).classify(|refusal: &Refusal| refusal.0);
    let bus = App::with_transport(transport, clock.clone()).state(called.clone()).on(handler).start().await?;
    for (number, at) in arrivals.into_iter().enumerate() {
        clock.sleep(Duration::from_secs_f64((at - seconds(&clock)).max(0.0))).await;
        bus.publish(Envelope::builder("called").key(number.to_string()).build()?).await?;
    }
    bus.idle().await?;
    bus.shutdown().await?;
    let fates = called.fates.lock().clone();
    Ok(fates)
}

#[expect(clippy::cast_precision_loss, reason = "some thousand events")]
fn measured(fates: &[Fate], costs: &Costs) -> Life {
    let events = fates.len().max(1) as f64;
    let mut life = Life::default();
    for fate in fates {
        let age = (fate.last - fate.published).max(0.0);
        let end = if fate.handled { -costs.success } else { costs.loss };
        life.cost += (end + f64::from(fate.calls) * costs.attempt + age * costs.delay_per_s) / events;
        life.handled += f64::from(u8::from(fate.handled)) / events;
        life.calls += f64::from(fate.calls) / events;
        life.ages.push(age);
    }
    life.ages.sort_by(f64::total_cmp);
    life
}

#[cfg(test)]
mod tests {
    use oncue::policy::fixed;

    use super::*;
    use crate::cli::policy::simulate::world::{Scenario, World};

    #[test]
    fn a_life_is_the_same_each_time_and_its_numbers_are_what_happened() {
        let under = |costs: &Costs| {
            let policy = Arc::new(fixed(Duration::from_secs(1)).max_attempts(3));
            live(Arc::new(World::new(Scenario::Poison, 3)), 3, policy, costs).unwrap()
        };
        let once = || under(&Costs::default());
        let life = once();
        assert_eq!((life.cost.to_bits(), &life.ages), (once().cost.to_bits(), &once().ages));
        // Two retries a second apart, where three of a hundred never work and every twentieth call fails.
        assert!((0.95..0.985).contains(&life.handled), "{life:?}");
        assert!((1.08..1.14).contains(&life.calls), "{}", life.calls);
        let costs = Costs { loss: 0.0, attempt: 1.0, delay_per_s: 1e-9, ..Costs::default() };
        let calls = under(&costs);
        assert!((calls.cost - calls.calls).abs() < 1e-6);
    }
}
