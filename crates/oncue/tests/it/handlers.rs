//! Handlers from the outside: every form, called as the dispatcher calls them.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test; and handlers take events by value")]

mod derive;
mod effects;
mod errors;
mod forms;
mod registration;
mod ui;

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use oncue::{
    Clock,
    handler::{Call, Effects, IntoRegistration, Invocation, Outcome, Registration, StateMap},
    prelude::*,
    transport::Position,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.created", key = order_id)]
struct OrderCreated {
    order_id: String,
    cents: u64,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(type = "order.paid", key = order_id, topic = "payments")]
struct OrderPaid {
    order_id: String,
}

fn order(cents: u64) -> OrderCreated {
    OrderCreated { order_id: "o-1".to_owned(), cents }
}

fn paid() -> OrderPaid {
    OrderPaid { order_id: "o-1".to_owned() }
}

/// Calls a handler as the dispatcher does.
struct Caller {
    registration: Registration,
    states: StateMap,
    keyed: Option<Bytes>,
}

impl Caller {
    fn of<M>(handler: impl IntoRegistration<M>) -> Self {
        let registration = handler.into_registration();
        assert_eq!(registration.problems(), [""; 0]);
        Self { registration, states: StateMap::default(), keyed: None }
    }

    fn state<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    fn keyed(mut self, json: &'static str) -> Self {
        self.keyed = Some(Bytes::from_static(json.as_bytes()));
        self
    }

    fn call<E: Event>(self, event: &E) -> (Outcome, Effects) {
        self.call_envelope(Envelope::of(event).unwrap())
    }

    fn call_envelope(self, envelope: Envelope) -> (Outcome, Effects) {
        self.registration.check(&self.states).unwrap();
        let binding = Arc::new(self.registration.binding(&Arc::new(self.states), &Clock::system()));
        let invocation = Invocation::new(binding, envelope, Position::new(3, 7, 0), 2, self.keyed);
        let outcome = match self.registration.handler.call(&invocation) {
            Call::Done(outcome) => outcome,
            Call::Future(future) => future.now_or_never().expect("none of these waits"),
            Call::Blocking(call) => std::thread::spawn(call).join().unwrap(),
        };
        (outcome, invocation.take_effects())
    }
}

fn types(effects: &Effects) -> Vec<&str> {
    effects.emits.iter().map(|emitted| emitted.envelope.event_type()).collect()
}
