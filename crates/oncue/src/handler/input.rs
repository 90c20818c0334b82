//! The first argument of a handler: the event, typed or as it travelled.

use std::{borrow::Borrow, ops::Deref};

use super::{Invocation, extract::Rejection};
use crate::{
    event::{DEFAULT_TOPIC, Envelope, Event},
    policy::ErrorClass,
    transport::Position,
};

/// What the first argument of a handler may be, by value or by reference: an [`Event`], a [`Delivery`] of one, or an
/// [`Envelope`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event: it cannot be the first argument of a handler",
    label = "not an event",
    note = "a handler takes the event first: a type that derives `Event`, `Delivery<T>` of one, or `Envelope`"
)]
pub trait Input: Sized + Send + Sync + 'static {
    /// What a handler that takes it by reference borrows from.
    type Borrowed<'i>: Borrow<Self>;

    /// The event types; none if only the registration can tell.
    const TYPES: &'static [&'static str];

    /// The topic that such events are published to.
    const TOPIC: &'static str;

    /// The argument by value.
    ///
    /// # Errors
    /// The payload does not fit.
    fn take(invocation: &Invocation) -> Result<Self, Rejection>;

    /// The argument by reference.
    ///
    /// # Errors
    /// The payload does not fit.
    fn borrow(invocation: &Invocation) -> Result<Self::Borrowed<'_>, Rejection>;
}

#[diagnostic::do_not_recommend]
impl<E: Event> Input for E {
    type Borrowed<'i> = E;

    const TYPES: &'static [&'static str] = E::TYPES;
    const TOPIC: &'static str = E::TOPIC;

    fn take(invocation: &Invocation) -> Result<Self, Rejection> {
        invocation.envelope().decode().map_err(|error| Rejection::new(ErrorClass::Malformed, error.to_string()))
    }

    fn borrow(invocation: &Invocation) -> Result<Self, Rejection> {
        Self::take(invocation)
    }
}

#[diagnostic::do_not_recommend]
impl Input for Envelope {
    type Borrowed<'i> = &'i Envelope;

    const TYPES: &'static [&'static str] = &[];
    const TOPIC: &'static str = DEFAULT_TOPIC;

    fn take(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(invocation.envelope().clone())
    }

    #[inline]
    fn borrow(invocation: &Invocation) -> Result<&Envelope, Rejection> {
        Ok(invocation.envelope())
    }
}

/// An event with what is known of its delivery; derefs to the event.
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "order.created")]
/// struct OrderCreated { order_id: String }
///
/// #[handler]
/// async fn charge(order: Delivery<OrderCreated>) {
///     println!("{} at {}, attempt {}", order.order_id, order.position, order.attempt);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Delivery<E> {
    /// The event.
    pub event: E,
    /// The event as it travelled.
    pub envelope: Envelope,
    /// Where it stands in its topic.
    pub position: Position,
    /// Which attempt this is: 1 is the first.
    pub attempt: u32,
}

impl<E> Deref for Delivery<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

#[diagnostic::do_not_recommend]
impl<E: Event> Input for Delivery<E> {
    type Borrowed<'i> = Self;

    const TYPES: &'static [&'static str] = E::TYPES;
    const TOPIC: &'static str = E::TOPIC;

    fn take(invocation: &Invocation) -> Result<Self, Rejection> {
        Ok(Self {
            event: E::take(invocation)?,
            envelope: invocation.envelope().clone(),
            position: invocation.position(),
            attempt: invocation.attempt(),
        })
    }

    fn borrow(invocation: &Invocation) -> Result<Self, Rejection> {
        Self::take(invocation)
    }
}
