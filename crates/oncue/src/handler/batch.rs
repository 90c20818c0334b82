//! Handlers of several events at once.

use std::{error::Error, marker::PhantomData, ops::Deref, sync::Arc, time::Duration, vec};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    Call, Classify, Delivery, Emitted, ErasedHandler, Function, Handler, IntoOutcome, Invocation, Location, Outcome,
    Registration,
    extract::{Arguments, Rejection},
    registration::name_of,
    returns::failure,
};
use crate::event::Event;

/// Most events of a batch, unless the handler says otherwise.
pub const DEFAULT_BATCH_SIZE: usize = 100;
/// How long a batch waits for more events, unless the handler says otherwise.
pub const DEFAULT_BATCH_WAIT: Duration = Duration::from_millis(10);

/// How events are gathered into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most events of a batch.
    pub size: usize,
    /// How long the first event of a batch waits for more.
    pub wait: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { size: DEFAULT_BATCH_SIZE, wait: DEFAULT_BATCH_WAIT }
    }
}

/// Several events at once, for handlers that are cheaper by the dozen: one statement to a database, one request.
///
/// ```
/// use oncue::prelude::*;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(type = "order.created", key = order_id)]
/// # struct OrderCreated { order_id: String }
///
/// #[handler(batch = 200, batch_wait = "20ms")]
/// async fn store(orders: Batch<OrderCreated>) -> Vec<Result<(), HandlerError>> {
///     orders.iter().map(|order| match order.order_id.as_str() {
///         "" => Err(HandlerError::reject("an order without an id")),
///         _ => Ok(()),
///     }).collect()
/// }
/// assert_eq!(store.into_registration().options.batch.map(|limits| limits.size), Some(200));
/// ```
///
/// It returns one outcome per event, in their order: a `Vec` of what a handler of one event returns; or `()`, or an error
/// for all of them. Events of one key stand in their order. If one of them fails, those of its key behind it count as
/// not handled, whatever was returned for them, and are delivered again behind it; with relaxed order they stand as
/// returned. An event whose payload does not fit is a dead letter and not in the batch.
#[derive(Clone, Debug)]
pub struct Batch<E>(Vec<Delivery<E>>);

impl<E> Batch<E> {
    /// A batch: for tests that call a handler directly.
    #[must_use]
    pub fn for_test(events: Vec<Delivery<E>>) -> Self {
        Self(events)
    }
}

impl<E> Deref for Batch<E> {
    type Target = [Delivery<E>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<E> IntoIterator for Batch<E> {
    type Item = Delivery<E>;
    type IntoIter = vec::IntoIter<Delivery<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a batch handler may return: `()`, a `Vec` with one return value per event, or a `Result` of these.
#[diagnostic::on_unimplemented(
    message = "a batch handler cannot return `{Self}`",
    label = "not a return type of a batch handler",
    note = "it returns `()`, a `Vec` with what a handler of one event returns, one per event, or a `Result` of these"
)]
pub trait IntoOutcomes: Sized {
    /// The types of the events that can be in it.
    fn emits() -> Vec<&'static str>;

    /// One outcome per event of the batch, with what is to be published after it.
    ///
    /// # Errors
    /// How many outcomes were returned, if it is not one per event.
    fn into_outcomes(self, events: usize, classify: &Classify) -> Result<Vec<(Outcome, Vec<Emitted>)>, usize>;
}

#[diagnostic::do_not_recommend]
impl IntoOutcomes for () {
    fn emits() -> Vec<&'static str> {
        Vec::new()
    }

    fn into_outcomes(self, events: usize, _: &Classify) -> Result<Vec<(Outcome, Vec<Emitted>)>, usize> {
        Ok((0..events).map(|_| (Outcome::Ack, Vec::new())).collect())
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    fn emits() -> Vec<&'static str> {
        T::emits()
    }

    fn into_outcomes(self, events: usize, classify: &Classify) -> Result<Vec<(Outcome, Vec<Emitted>)>, usize> {
        if self.len() != events {
            return Err(self.len());
        }
        let outcome = |returned: T| {
            let mut emits = Vec::new();
            let outcome = returned.into_outcome(&mut emits, classify);
            (outcome, emits)
        };
        Ok(self.into_iter().map(outcome).collect())
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcomes, E: Into<Box<dyn Error + Send + Sync>> + 'static> IntoOutcomes for Result<T, E> {
    fn emits() -> Vec<&'static str> {
        T::emits()
    }

    fn into_outcomes(self, events: usize, classify: &Classify) -> Result<Vec<(Outcome, Vec<Emitted>)>, usize> {
        match self {
            Ok(returned) => returned.into_outcomes(events, classify),
            Err(error) => {
                let outcome = failure(error, classify);
                Ok((0..events).map(|_| (outcome.clone(), Vec::new())).collect())
            }
        }
    }
}

/// Marks batch handlers; see [`Handler`].
#[doc(hidden)]
pub struct Batched<E, Args>(PhantomData<(E, Args)>);

struct Erased<F, E, Args> {
    function: F,
    form: PhantomData<fn() -> (E, Args)>,
}

impl<F, E, Args> Handler<Batched<E, Args>> for F
where
    F: Function<Batch<E>, Args>,
    F::Output: Future<Output: IntoOutcomes> + Send + 'static,
    E: Event,
    Args: Arguments,
{
    fn register(self, location: Location) -> Registration {
        let erased = Erased { function: self, form: PhantomData::<fn() -> (E, Args)> };
        let mut registration = Registration::new(name_of::<F>(), Arc::new(erased), location)
            .types(E::TYPES.iter().copied())
            .topic(E::TOPIC)
            .with_arguments(Args::KEYED, Args::check)
            .returning(<F::Output as Future>::Output::emits());
        registration.options.batch = Some(BatchLimits::default());
        if Args::PER_EVENT {
            registration.refuse(
                "it takes a batch, and an argument that is of one event: of the extractors it may take `State<T>`; the \
                 envelope, the position and the attempt are in each item of the batch",
            );
        }
        registration
    }
}

impl<F, E, Args> ErasedHandler for Erased<F, E, Args>
where
    F: Function<Batch<E>, Args>,
    F::Output: Future<Output: IntoOutcomes> + Send + 'static,
    E: Event,
    Args: Arguments,
{
    /// A batch of one.
    fn call(&self, invocation: &Invocation) -> Call {
        let outcomes = self.run(vec![invocation.clone()]);
        Call::Future(outcomes.map(|mut outcomes| outcomes.pop().unwrap_or(Outcome::Ack)).boxed())
    }

    fn call_batch(&self, batch: Vec<Invocation>) -> Option<BoxFuture<'static, Vec<Outcome>>> {
        Some(self.run(batch))
    }
}

impl<F, E, Args> Erased<F, E, Args>
where
    F: Function<Batch<E>, Args>,
    F::Output: Future<Output: IntoOutcomes> + Send + 'static,
    E: Event,
    Args: Arguments,
{
    fn run(&self, batch: Vec<Invocation>) -> BoxFuture<'static, Vec<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(batch.len());
        let mut events = Vec::with_capacity(batch.len());
        for invocation in &batch {
            match <Delivery<E> as super::Input>::take(invocation) {
                Ok(event) => {
                    events.push(event);
                    outcomes.push(None);
                }
                Err(rejection) => outcomes.push(Some(rejection.into())),
            }
        }
        let arguments = match batch.first().map(Args::extract) {
            Some(Ok(arguments)) if !events.is_empty() => arguments,
            Some(Err(rejection)) => return all_rejected(outcomes, &rejection),
            _ => return std::future::ready(outcomes.into_iter().flatten().collect()).boxed(),
        };
        let count = events.len();
        let called = self.function.invoke(Batch(events), arguments);
        async move {
            let returned = called.await;
            let classify = &batch[0].binding().classify;
            let given = match returned.into_outcomes(count, classify) {
                Ok(given) => given,
                Err(returned) => (0..count).map(|_| (miscounted(count, returned), Vec::new())).collect(),
            };
            let mut given = given.into_iter();
            for (invocation, outcome) in batch.iter().zip(&mut outcomes) {
                if outcome.is_none()
                    && let Some((of_this, mut emits)) = given.next()
                {
                    if of_this == Outcome::Ack && !emits.is_empty() {
                        invocation.effects().emits.append(&mut emits);
                    }
                    *outcome = Some(of_this);
                }
            }
            outcomes.into_iter().flatten().collect()
        }
        .boxed()
    }
}

fn all_rejected(outcomes: Vec<Option<Outcome>>, rejection: &Rejection) -> BoxFuture<'static, Vec<Outcome>> {
    let rejected = outcomes.into_iter().map(|known| known.unwrap_or_else(|| rejection.clone().into()));
    std::future::ready(rejected.collect()).boxed()
}

fn miscounted(events: usize, returned: usize) -> Outcome {
    Outcome::Reject {
        class: crate::policy::ErrorClass::Permanent,
        error: format!("returned {returned} outcomes for a batch of {events} events: return one per event, in order"),
    }
}
