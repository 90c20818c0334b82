//! Several handlers that do the same, of which each event is given to one. Which one is learned.
//!
//! Two payment gateways, three model servers: any of them will do, one is better for some events and another for others, and
//! that changes. A route is one handler to everybody else: it has one subscription, one order, one retry policy.
//!
//! ```
//! use std::time::Duration;
//! use oncue::{prelude::*, route};
//!
//! async fn north(_order: Envelope) -> Result<(), HandlerError> { Ok(()) }
//! async fn south(_order: Envelope) -> Result<(), HandlerError> { Ok(()) }
//!
//! let breaker = middleware::circuit_breaker("north");
//! let charge = route::learned("charge").arm(north.layer(breaker)).arm(south).features(["bank", "total_cents"]);
//! let charge = charge.types(["order.created"]).timeout(Duration::from_secs(10));
//! assert!(charge.problems().is_empty());
//! ```
//!
//! **What is learned** is what a first attempt brings in which context: 1 if it worked, less what its time cost
//! ([`delay_per_s`](Route::delay_per_s)). A later attempt goes to the other handlers, in the order of what is believed of them, and
//! teaches nothing: it is one of those that failed before.
//!
//! **A share of events goes to any of them**, each as likely ([`explore`](Route::explore)), chosen by a hash of source and id. So all
//! of them stay known, and `oncue policy report SUBSCRIPTION --routes` can say whether learning is better than the best of them
//! alone.
//!
//! **A handler whose circuit breaker is open is not chosen**, unless all are open.
//!
//! **What was learned is in the log**, and the same after a restart. Where the transport does not learn (over `http://`, on
//! brokers), events go to any of them, each as likely.

use std::sync::Arc;

use super::{Call, ErasedHandler, HandlerOptions, IntoRegistration, Invocation, Location, Outcome, Registration};
use crate::{
    filter::Feedback,
    policy::{ErrorClass, LearnedRoute, MAX_ROUTE_ARMS},
};

/// A route that is learned, of which the handlers are to be said: [`arm`](Route::arm). See the [module](self).
#[track_caller]
pub fn learned(id: impl Into<String>) -> Route {
    Route { id: id.into(), arms: Vec::new(), rules: LearnedRoute::default(), location: Location::caller() }
}

/// A route that is being put together; as a handler it takes all options of one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Route {
    id: String,
    arms: Vec<Registration>,
    rules: LearnedRoute,
    location: Location,
}

impl Route {
    /// One more handler, by its own name. It takes the same events as the others. Layers around it are its own, what else is
    /// to be said is said of the route.
    #[track_caller]
    pub fn arm<M>(mut self, handler: impl IntoRegistration<M>) -> Self {
        self.arms.push(handler.into_registration());
        self
    }

    /// The parts of the data to look at, as paths: see [`LearnedRoute::features`].
    pub fn features<S: Into<String>>(self, paths: impl IntoIterator<Item = S>) -> Self {
        Self { rules: self.rules.features(paths), ..self }
    }

    /// The share of events that go to any of the handlers; without this, 0.05.
    pub fn explore(self, share: f64) -> Self {
        Self { rules: self.rules.explore(share), ..self }
    }

    /// What a second of an attempt costs, where a success brings 1; without this, 0.1. An attempt costs 1 at most.
    pub fn delay_per_s(self, cost: f64) -> Self {
        Self { rules: self.rules.delay_per_s(cost), ..self }
    }

    /// A later event tells whether what was handled was a success: see [`feedback`](crate::filter::feedback()).
    pub fn feedback(self, feedback: Feedback) -> Self {
        Self { rules: self.rules.feedback(feedback), ..self }
    }

    /// All events go to this handler, and nothing is learned meanwhile: what to do when the report says that one of them alone is
    /// as good. What was learned stays.
    pub fn fixed(self, arm: impl Into<String>) -> Self {
        Self { rules: self.rules.fixed(arm), ..self }
    }
}

#[diagnostic::do_not_recommend]
impl IntoRegistration<()> for Route {
    fn into_registration(self) -> Registration {
        let Self { id, arms, rules, location } = self;
        let handlers = arms.iter().map(|arm| Arc::clone(&arm.handler)).collect();
        let names = arms.iter().map(|arm| arm.id.clone()).collect();
        let mut route = Registration::new(id, Arc::new(Arms { handlers }), location);
        if let Some(first) = arms.iter().find(|arm| !arm.types.is_empty()) {
            route.types.clone_from(&first.types);
        }
        if let Some(first) = arms.first() {
            route.topic.clone_from(&first.topic);
        }
        for emitted in arms.iter().flat_map(|arm| &arm.emits) {
            if !route.emits.contains(emitted) {
                route.emits.push(emitted.clone());
            }
        }
        route.keyed = arms.iter().any(|arm| arm.keyed);
        route.options.route = Some(rules.with_arms(names));
        route.arms = arms;
        route
    }
}

/// The handlers behind the door: the one is called that was chosen.
struct Arms {
    handlers: Vec<Arc<dyn ErasedHandler>>,
}

impl ErasedHandler for Arms {
    fn call(&self, invocation: &Invocation) -> Call {
        let arm = invocation.arm();
        match self.handlers.get(arm) {
            Some(handler) => handler.call(invocation),
            None => {
                let error = format!("there is no handler {arm} in this route: it has {}", self.handlers.len());
                Call::Done(Outcome::Reject { class: ErrorClass::Permanent, error })
            }
        }
    }
}

/// What is wrong with a route, as text that goes on after the handler's name.
pub(super) fn problems(route: &Registration) -> Vec<String> {
    let arms = &route.arms;
    let Some(rules) = &route.options.route else { return Vec::new() };
    let mut wrong: Vec<String> = rules.problems().into_iter().map(|wrong| format!("its route: {wrong}")).collect();
    if arms.is_empty() {
        wrong.push("a route needs handlers: make one by `route::learned(\"…\").arm(…).arm(…)`".to_owned());
        return wrong;
    }
    if !(2..=MAX_ROUTE_ARMS).contains(&arms.len()) {
        let count = arms.len();
        wrong.push(format!("its route has {count} handlers: there are from 2 to {MAX_ROUTE_ARMS}; add `.arm(…)`"));
    }
    for (place, arm) in arms.iter().enumerate() {
        if arms[..place].iter().any(|other| other.id == arm.id) {
            wrong.push(format!("its route has two handlers `{}`: name one of them, `.named(\"…\")`", arm.id));
        }
        wrong.extend(arm.problems_as_arm(&arms[0]).into_iter().map(|wrong| format!("its route: {wrong}")));
    }
    if let Some(fixed) = rules.is_fixed().filter(|fixed| !arms.iter().any(|arm| arm.id == *fixed)) {
        let known: Vec<String> = arms.iter().map(|arm| format!("`{}`", arm.id)).collect();
        wrong.push(format!("its route is fixed to `{fixed}`, which is none of its handlers: {}", known.join(", ")));
    }
    if route.options.batch.is_some() {
        wrong.push("its route gives single events to one of several handlers: remove `batch`".to_owned());
    }
    wrong
}

/// Options that an arm has and that only a route can have.
pub(super) fn said_of_an_arm(options: &HandlerOptions) -> Vec<&'static str> {
    let unsaid = HandlerOptions::default();
    let said = [
        ("retry", options.retry.is_some()),
        ("concurrency", options.concurrency != unsaid.concurrency),
        ("timeout", options.timeout.is_some()),
        ("inline", options.inline),
        ("ordered", options.ordered != unsaid.ordered),
        ("pipelined", options.pipelined),
        ("filter", options.filter.is_some() || options.learned.is_some()),
        ("admission", options.admission.is_some()),
        ("order", options.order != unsaid.order),
        ("priority", options.priority.is_some()),
        ("on_dead_letter", options.on_dead_letter != unsaid.on_dead_letter),
        ("start", options.start != unsaid.start),
        ("batch", options.batch.is_some()),
        ("paused", options.paused),
        ("route", options.route.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name).collect()
}
