//! The handler's own state for the event's key.

use std::{
    any::type_name,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Extract, Rejection};
use crate::{
    event::Envelope,
    handler::{Invocation, StateChange},
    policy::ErrorClass,
};

/// The handler's own state for the event's key: loaded before the call, written with the settle, atomically, if the
/// handler succeeds. So a counter counts each event exactly once, without a database.
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.paid", key = customer)]
/// # struct OrderPaid { customer: String, cents: u64 }
///
/// #[handler]
/// async fn spent(order: OrderPaid, mut total: Keyed<u64>) {
///     *total += order.cents;
/// }
///
/// # futures_util::future::FutureExt::now_or_never(async {
/// let total = Keyed::for_test(40);
/// let after = total.probe();
/// spent(OrderPaid { customer: "c-1".into(), cents: 2 }, total).await;
/// assert_eq!(after.value(), Some(42));
/// # });
/// ```
///
/// Reading leaves it as it is; any access through `&mut` counts as a change. It begins as the type's default. The event
/// must have a key: one without is rejected. A handler takes at most one.
pub struct Keyed<T> {
    value: T,
    is_new: bool,
    change: Change,
    invocation: Invocation,
    /// Here and not a bound of the type, so that the type can be named where its state cannot be written.
    encode: fn(&T) -> serde_json::Result<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Set,
    Clear,
}

impl<T: Serialize> Keyed<T> {
    /// A state that no bus loaded: for tests that call a handler directly.
    #[must_use]
    pub fn for_test(value: T) -> Self {
        let invocation = Invocation::for_test(Envelope::blank());
        Self { value, is_new: false, change: Change::None, invocation, encode: serde_json::to_vec }
    }
}

impl<T> Keyed<T> {
    /// Sees what a handler makes of this state, in tests.
    #[must_use]
    pub fn probe(&self) -> KeyedProbe<T> {
        KeyedProbe { invocation: self.invocation.clone(), state: PhantomData }
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Replaces the value.
    pub fn set(&mut self, value: T) {
        **self = value;
    }

    /// Whether the key has had no state before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

impl<T: Default> Keyed<T> {
    /// Forgets the key's state; the next event of the key begins anew.
    pub fn clear(&mut self) {
        self.value = T::default();
        self.change = Change::Clear;
    }
}

impl<T> Deref for Keyed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Keyed<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.change = Change::Set;
        &mut self.value
    }
}

impl<T> Drop for Keyed<T> {
    fn drop(&mut self) {
        let change = match self.change {
            Change::None => return,
            Change::Clear => Ok(StateChange::Clear),
            Change::Set => (self.encode)(&self.value).map(|json| StateChange::Set(json.into())),
        };
        let mut effects = self.invocation.effects();
        match change {
            Ok(change) => effects.state = Some(change),
            Err(error) => {
                effects.error = Some(format!("the keyed state `{}` cannot be encoded: {error}", type_name::<T>()));
            }
        }
    }
}

/// What can be kept as a handler's state: whatever has a default and is written and read by serde.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the state of a handler",
    label = "cannot be kept",
    note = "state needs a beginning and is written and read by serde: `#[derive(Default, Serialize, Deserialize)]`"
)]
pub trait KeyedState: Default + Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Default + Serialize + DeserializeOwned + Send + 'static> KeyedState for T {}

impl<T: KeyedState> Extract for Keyed<T> {
    const KEYED: bool = true;

    fn extract(invocation: &Invocation) -> Result<Self, Rejection> {
        if invocation.envelope().key().is_none() {
            let event_type = invocation.envelope().event_type();
            return Err(Rejection::new(
                ErrorClass::Permanent,
                format!(
                    "handler `{}` keeps state by key (`Keyed<{}>`), and this `{event_type}` has no key: \
                     add `key = …` to its `#[event(…)]`, or publish it with a `subject` or `partitionkey`",
                    invocation.subscription(),
                    type_name::<T>(),
                ),
            ));
        }
        let value = match invocation.keyed() {
            None => T::default(),
            Some(stored) => serde_json::from_slice(stored).map_err(|error| {
                let type_name = type_name::<T>();
                Rejection::new(
                    ErrorClass::Permanent,
                    format!("the stored state of this key is no `{type_name}`: {error}"),
                )
            })?,
        };
        let is_new = invocation.keyed().is_none();
        let invocation = invocation.clone();
        Ok(Self { value, is_new, change: Change::None, invocation, encode: serde_json::to_vec })
    }
}

impl<T: fmt::Debug> fmt::Debug for Keyed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyed").field(&self.value).finish()
    }
}

/// Sees what a handler made of its [`Keyed`] state; made by [`Keyed::probe`].
pub struct KeyedProbe<T> {
    invocation: Invocation,
    state: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> KeyedProbe<T> {
    /// What would be written: nothing if the handler changed nothing, or cleared the state.
    #[must_use]
    pub fn value(&self) -> Option<T> {
        match &self.invocation.effects().state {
            Some(StateChange::Set(json)) => serde_json::from_slice(json).ok(),
            _ => None,
        }
    }

    /// Whether the handler cleared the state.
    #[must_use]
    pub fn is_cleared(&self) -> bool {
        self.invocation.effects().state == Some(StateChange::Clear)
    }
}

impl<T> fmt::Debug for KeyedProbe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedProbe").field(&self.invocation.effects().state).finish()
    }
}
