//! What stands before the handlers of a route, of which one is given an event.

use std::sync::{Arc, Once};

use futures_util::future::BoxFuture;

use crate::{
    clock::Timestamp,
    handler::{BreakerHandle, BreakerState, Invocation, Layer, Layers, Next, Outcome, Registration},
    policy::{LearnedRoute, RouteAsked},
    transport::{RouteChoice, Transport},
};

/// Stands inside of all other layers of the route, and outside of those of its handlers: it is chosen when the call goes on.
pub(crate) struct Fork {
    rules: LearnedRoute,
    arms: Vec<Arm>,
    transport: Arc<dyn Transport>,
    warned: Once,
}

/// One of the handlers.
struct Arm {
    layers: Layers,
    breakers: Vec<BreakerHandle>,
}

impl Arm {
    fn new(arm: &Registration) -> Self {
        let layers: Layers = arm.layers.iter().cloned().collect();
        let breakers = layers.iter().flat_map(|layer| layer.breakers()).collect();
        Self { layers, breakers }
    }

    /// Whether calls would wait. When an open breaker may be tried again, somebody has to try.
    fn is_open(&self, now: Timestamp) -> bool {
        let open = |breaker: &BreakerHandle| matches!(breaker.state(), BreakerState::Open { until } if until > now);
        self.breakers.iter().any(open)
    }
}

impl Fork {
    /// Before a route; nothing before any other handler.
    pub(crate) fn of(route: &Registration, transport: &Arc<dyn Transport>) -> Option<Self> {
        let (rules, arms) = (route.options.route.clone()?, route.arms.iter().map(Arm::new).collect());
        Some(Self { rules, arms, transport: Arc::clone(transport), warned: Once::new() })
    }

    /// The handler for this attempt, and how it was chosen; of none, where that is not learned from.
    fn choose(&self, invocation: &Invocation) -> RouteChoice {
        if let Some(fixed) = self.rules.is_fixed() {
            return unlearned(self.rules.arms().iter().position(|arm| arm == fixed).unwrap_or(0));
        }
        let (event, now) = (invocation.envelope(), invocation.binding().clock.now());
        let mut there: Vec<bool> = self.arms.iter().map(|arm| !arm.is_open(now)).collect();
        if !there.contains(&true) {
            // It waits at the one that is chosen.
            there.fill(true);
        }
        let features = self.rules.features_of(event);
        // The event's own, so that whoever asks again gets the same.
        let draw = oncue_learn::hash(&[b"route", event.source().as_bytes(), event.id().as_bytes()]);
        let asked = RouteAsked { attempt: invocation.attempt(), features: &features, draw, there: &there };
        if let Some(choice) = self.transport.inspect().route(invocation.subscription(), &asked) {
            return choice;
        }
        self.warned.call_once(|| {
            let subscription = invocation.subscription();
            tracing::warn!(
                subscription,
                "its transport does not learn: its route gives events to any handler, each as likely"
            );
        });
        unlearned(any(draw, invocation.attempt(), &there))
    }
}

/// A choice that nothing is learned from.
fn unlearned(arm: usize) -> RouteChoice {
    // There are sixteen at most.
    let arm = u8::try_from(arm).unwrap_or(u8::MAX);
    RouteChoice { arm, best: arm, explores: false, among: 0 }
}

/// Any of those that are there, and for a later attempt the next one.
fn any(draw: u64, attempt: u32, there: &[bool]) -> usize {
    let there: Vec<usize> = (0..there.len()).filter(|arm| there[*arm]).collect();
    let count = there.len().max(1) as u64;
    let place = (draw % count + u64::from(attempt.saturating_sub(1))) % count;
    usize::try_from(place).ok().and_then(|place| there.get(place).copied()).unwrap_or(0)
}

impl Layer for Fork {
    fn call(&self, invocation: Invocation, next: Next) -> BoxFuture<'static, Outcome> {
        let choice = self.choose(&invocation);
        invocation.route_to(choice);
        let arm = self.arms.get(usize::from(choice.arm));
        let layers = arm.map(|arm| Arc::clone(&arm.layers)).unwrap_or_default();
        next.through(layers).run(invocation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_learning_each_that_is_there_is_as_likely_and_later_attempts_go_to_the_next() {
        let mut counts = [0; 3];
        for number in 0..3_000_u32 {
            let draw = oncue_learn::hash(&[&number.to_le_bytes()]);
            let first = any(draw, 1, &[true; 3]);
            counts[first] += 1;
            assert_eq!(any(draw, 2, &[true; 3]), (first + 1) % 3);
            assert_ne!(any(draw, 1, &[true, false, true]), 1);
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
        assert_eq!(any(5, 1, &[false, false]), 0);
    }
}
