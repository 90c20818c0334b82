//! A value of the app.

use std::{
    any::type_name,
    ops::{Deref, DerefMut},
};

use super::{Extract, Rejection};
use crate::{
    handler::{Invocation, StateMap},
    policy::ErrorClass,
};

/// A value of the app, one per type: a clone of what `App::state` was given. Put what is not cheap to clone into an
/// [`Arc`](std::sync::Arc).
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.created")]
/// # struct OrderCreated { total_cents: u64 }
///
/// #[derive(Clone)]
/// struct Bank;
/// impl Bank {
///     async fn charge(&self, _cents: u64) {}
/// }
///
/// #[handler]
/// async fn charge(order: OrderCreated, State(bank): State<Bank>) {
///     bank.charge(order.total_cents).await;
/// }
/// ```
///
/// A value that the app does not have is an error at start, not at the first event.
#[derive(Clone, Copy, Debug, Default)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> Extract for State<T> {
    const PER_EVENT: bool = false;

    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        match invocation.binding().states.get::<T>() {
            Some(value) => Ok(Self(value.clone())),
            None => Err(Rejection::new(ErrorClass::Transient, missing::<T>())),
        }
    }

    fn check(states: &StateMap) -> Result<(), String> {
        states.get::<T>().map(|_| ()).ok_or_else(missing::<T>)
    }
}

fn missing<T>() -> String {
    let name = type_name::<T>();
    format!("it takes `State<{name}>`, and the app has no such value: add `.state(…)` with a `{name}`")
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for State<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
