//! What the macros' code names. No part of the public API.

pub use std::{borrow::Cow, string::String};

pub use bytes::Bytes;
pub use serde_json;

use super::{
    Batch, Extract, Function, Handler, Input, IntoOutcome, IntoOutcomes, Location, RefFunction, Registration,
    batch::Batched,
    function::marker::{Async, ByRef, Plain},
};
pub use super::{Invocation, extract::Rejection};
use crate::event::{CodecError, Event};

/// What a codec says of the data within an event, said of the event.
///
/// # Errors
/// What the codec says.
pub fn within<E: Event, V>(result: Result<V, CodecError>) -> Result<V, CodecError> {
    result.map_err(|error| CodecError { type_name: std::any::type_name::<E>(), ..error })
}

/// The error of an event type that an enum has no variant for.
#[must_use]
pub fn unknown_type<E: Event>(event_type: &str) -> CodecError {
    CodecError::new::<E>(event_type, &format_args!("no variant has this type; known are {}", E::TYPES.join(", ")))
}

/// A key's text: borrowed if it is text already.
pub fn key<T: std::fmt::Display + ?Sized>(key: &T) -> Cow<'static, str> {
    Cow::Owned(key.to_string())
}

/// The type of an event that has only one: what a variant that names none takes over.
#[must_use]
pub const fn only_type<E: Event>() -> &'static str {
    assert!(E::TYPES.len() == 1, "an enum in an enum has several event types: wrap its events one by one");
    E::TYPES[0]
}

/// An annotated function, as the macro found it.
pub struct Source {
    /// Its id.
    pub id: &'static str,
    /// The file it is in.
    pub file: &'static str,
    /// The line it is at.
    pub line: u32,
}

impl Source {
    fn location(&self) -> Location {
        Location { file: self.file.into(), line: self.line }
    }
}

/// An annotated `async fn` that takes the event by value.
pub fn async_by_value<E: Input, R: IntoOutcome, A: Extract, F>(source: &Source, function: F) -> Registration
where
    F: Function<E, (A,), Output: Future<Output = R> + Send + 'static>,
{
    Handler::<Async<E, (A,)>>::register(function, source.location()).named(source.id)
}

/// An annotated `async fn` that takes the event by reference.
pub fn async_by_reference<E: Input, R: IntoOutcome + 'static, A: Extract, F>(
    source: &Source,
    function: F,
) -> Registration
where
    F: for<'e> RefFunction<'e, E, (A,), Output: Future<Output = R> + Send>,
{
    Handler::<ByRef<Async<E, (A,)>, R>>::register(function, source.location()).named(source.id)
}

/// An annotated plain `fn` that takes the event by value.
pub fn plain_by_value<E: Input, R: IntoOutcome, A: Extract, F>(source: &Source, function: F) -> Registration
where
    F: Function<E, (A,), Output = R>,
{
    Handler::<Plain<E, (A,)>>::register(function, source.location()).named(source.id)
}

/// An annotated plain `fn` that takes the event by reference.
pub fn plain_by_reference<E: Input, R: IntoOutcome + 'static, A: Extract, F>(
    source: &Source,
    function: F,
) -> Registration
where
    F: for<'e> RefFunction<'e, E, (A,), Output = R>,
{
    Handler::<ByRef<Plain<E, (A,)>, R>>::register(function, source.location()).named(source.id)
}

/// An annotated `async fn` that takes a batch of events.
pub fn batch<B: BatchArgument, R: IntoOutcomes, A: Extract, F>(source: &Source, function: F) -> Registration
where
    F: Function<Batch<B::Event>, (A,), Output: Future<Output = R> + Send + 'static>,
{
    Handler::<Batched<B::Event, (A,)>>::register(function, source.location()).named(source.id)
}

/// The first argument of a batch handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no batch of events: it cannot be the first argument of a batch handler",
    label = "not a `Batch`",
    note = "a handler with `batch = …` takes `Batch<T>` first, `T` a type that derives `Event`"
)]
pub trait BatchArgument {
    /// What it is a batch of.
    type Event: Event;
}

impl<E: Event> BatchArgument for Batch<E> {
    type Event = E;
}

/// What several arguments lack, together.
///
/// # Errors
/// If one of them lacks something.
pub fn all<const N: usize>(checks: [Result<(), String>; N]) -> Result<(), String> {
    let missing: Vec<String> = checks.into_iter().filter_map(Result::err).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}
