//! Objects that handle.

use std::{marker::PhantomData, sync::Arc};

use super::{
    Call, ErasedHandler, Handler, Input, IntoOutcome, Invocation, Location, Registration,
    extract::{Context, Extract},
    returns::conclude,
    started::start,
};

/// An object that handles events of type `E`, for what has fields of its own:
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.created")]
/// # struct OrderCreated { order_id: String }
///
/// struct Mailer { from: String }
///
/// impl Handle<OrderCreated> for Mailer {
///     async fn handle(&self, order: OrderCreated, _: Context) {
///         println!("{}: thanks for {}", self.from, order.order_id);
///     }
/// }
///
/// let registration = Mailer { from: "shop@example.org".into() }.into_registration();
/// assert_eq!(registration.id, "Mailer");
/// ```
///
/// What it returns, if anything, is the second parameter: `impl Handle<OrderCreated, Result<OrderPaid, BankError>>`.
/// Its id is the type's name; two objects of one type need `.named("…")`. An object that handles several types is
/// registered once for each: `Registration::object::<OrderCreated, _>(mailer)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{E}`",
    label = "not a handler",
    note = "implement `Handle<{E}, {R}>` for it"
)]
pub trait Handle<E, R = ()>: Send + Sync + 'static {
    /// Handles one event.
    fn handle(&self, event: E, context: Context) -> impl Future<Output = R> + Send;
}

/// Marks objects; see [`Handler`].
#[doc(hidden)]
pub struct Object<E, R>(PhantomData<(E, R)>);

struct Erased<H, E, R> {
    object: Arc<H>,
    form: PhantomData<fn() -> (E, R)>,
}

impl<H: Handle<E, R>, E: Input, R: IntoOutcome + 'static> Handler<Object<E, R>> for H {
    fn register(self, location: Location) -> Registration {
        let id = super::registration::name_of::<H>();
        let erased = Erased { object: Arc::new(self), form: PhantomData::<fn() -> (E, R)> };
        Registration::new(id, Arc::new(erased), location)
            .types(E::TYPES.iter().copied())
            .topic(E::TOPIC)
            .returning(R::emits())
    }
}

impl<H: Handle<E, R>, E: Input, R: IntoOutcome + 'static> ErasedHandler for Erased<H, E, R> {
    fn call(&self, invocation: &Invocation) -> Call {
        let (event, context) = match (E::take(invocation), Context::extract(invocation)) {
            (Ok(event), Ok(context)) => (event, context),
            (Err(rejection), _) | (_, Err(rejection)) => return Call::Done(rejection.into()),
        };
        let object = self.object.clone();
        let ending = invocation.clone();
        start(async move {
            let returned = object.handle(event, context).await;
            conclude(&ending, false, returned)
        })
    }
}
