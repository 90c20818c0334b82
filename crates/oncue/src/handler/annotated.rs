//! What a function annotated with `#[handler]` returns: its future or value, with the annotation in the type.

use std::{
    fmt,
    future::{IntoFuture, Ready, ready},
    marker::PhantomData,
};

use super::Registration;

/// What `#[handler]` knows of a function.
pub trait Meta {
    /// The function as a handler, with the options of its annotation.
    fn register() -> Registration;
}

/// What an annotated `async fn` returns: await it, as any future.
///
/// Not a [`Future`] itself but [`IntoFuture`], by which a [`Handler`](super::Handler) can tell it from a future without
/// annotation.
#[must_use = "a handler does nothing until it is awaited"]
pub struct Annotated<M, F> {
    future: F,
    meta: PhantomData<fn() -> M>,
}

impl<M, F> Annotated<M, F> {
    /// Made by `#[handler]`; `meta` is there for its type.
    #[doc(hidden)]
    pub fn new(_meta: M, future: F) -> Self {
        Self { future, meta: PhantomData }
    }

    /// The future, for what wants one: `tokio::spawn(charge(order).into_inner())`.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<M, F: Future> IntoFuture for Annotated<M, F> {
    type Output = F::Output;
    type IntoFuture = F;

    fn into_future(self) -> F {
        self.future
    }
}

impl<M, F> fmt::Debug for Annotated<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Annotated").finish_non_exhaustive()
    }
}

/// What an annotated plain `fn` returns: [`into_inner`](Self::into_inner) gives its value; awaiting does too.
pub struct AnnotatedValue<M, R> {
    value: R,
    meta: PhantomData<fn() -> M>,
}

impl<M, R> AnnotatedValue<M, R> {
    /// Made by `#[handler]`; `meta` is there for its type.
    #[doc(hidden)]
    pub fn new(_meta: M, value: R) -> Self {
        Self { value, meta: PhantomData }
    }

    /// What the function returned.
    pub fn into_inner(self) -> R {
        self.value
    }
}

impl<M, R> IntoFuture for AnnotatedValue<M, R> {
    type Output = R;
    type IntoFuture = Ready<R>;

    fn into_future(self) -> Ready<R> {
        ready(self.value)
    }
}

impl<M, R: fmt::Debug> fmt::Debug for AnnotatedValue<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnnotatedValue").field(&self.value).finish()
    }
}
